"""What is said of an image before the work: pixels that speak against its header, pieces too large to decode twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from .raster import MOST_ROOM, RasterSource

_STRIPS = 5
_STRIP_PX = 16
_LARGEST_BLOCK_PX = 2**24  # a strip of which is as dear as all of it
_ALPHA_LEVELS = 16
_ALPHA_SHARE = 0.9
_WINDOW_PX = 1024  # as tiles are, more or less
_MANY_PX = 2**26  # fewer are decoded in a second
_NEAR = 8  # what JPEG adds to nodata, at most
_NEAR_PX = 16  # and how far from it: a block
_COLLAR_SHARE = 0.05
logger = logging.getLogger(__name__)


def glimpses(source: RasterSource, bands: Sequence[int] | None) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield values and valid pixels, as `RasterSource.read` does, of a few strips from the top to the bottom."""
    info = source.info
    if source.block_px > _LARGEST_BLOCK_PX:
        return
    height = min(_STRIP_PX, info.height)
    for row in sorted({round((info.height - height) * step / (_STRIPS - 1)) for step in range(_STRIPS)}):
        yield source.read(row, 0, height, info.width, bands)


def log_doubts(path: str, bands: Sequence[int] | None) -> bool:
    """Warn of what makes holes, or ground, of the image at ``path``, or takes long; return whether anything was said.

    ``bands`` are those that are read, None for all.

    Raises:
        DataError: it cannot be read.
    """
    found = []
    with RasterSource(path, colours=True) as source:
        info, path = source.info, source.info.path
        if info.alpha_band is not None and info.alpha_band not in (bands or ()):
            values = [part.ravel() for part, _ in glimpses(source, [info.alpha_band])] or [np.zeros(1)]
            counts = np.sort(np.unique(np.concatenate(values), return_counts=True)[1])
            if len(counts) > _ALPHA_LEVELS and counts[-2:].sum() < _ALPHA_SHARE * counts.sum():
                every = ",".join(map(str, range(1, info.bands + 2)))
                found.append(
                    f"band {info.alpha_band} is marked as alpha but looks like a picture; where it is 0 the image "
                    f"counts as nodata. If it is near infrared, read it with --bands {every}, or unmark it with: "
                    f"gdal_edit.py -colorinterp_{info.alpha_band} undefined {path}"
                )
        strips = list(glimpses(source, bands))
        if source.compression == "JPEG" and (nodata := info.nodata) is not None:
            if any(_has_rim(values, nodata) for values, _ in strips):
                white = " -white" if nodata > _NEAR else ""
                found.append(
                    f"JPEG left values near its nodata {nodata:g} along the border of the image, which count as "
                    f"ground; mark them with: nearblack{white} -setalpha -of GTiff -o CLEAN.tif {path}"
                )
        for colour in _extremes(info.dtype):
            parts = [_from_the_sides(values, valid, colour) for values, valid in strips]
            share = np.concatenate(parts).mean() if parts else 0
            if colour != info.nodata and share > _COLLAR_SHARE:
                found.append(
                    f"about {share:.0%} of it, from its sides inwards, have the value {colour} in every band and count "
                    f"as ground; if that is no picture, mark it: gdal_translate -a_nodata {colour} {path} MARKED.tif"
                )
        by_bands = source.is_decoded_by_bands and info.height * info.width > _MANY_PX
        if by_bands or source.room_for(_WINDOW_PX, _WINDOW_PX) > MOST_ROOM:
            found.append(
                "is stored in pieces so large that they are decoded again and again, which takes long; make it tiled "
                f"first: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE -co BIGTIFF=IF_SAFER {path} TILED.tif"
            )
    for words in found:
        logger.warning("%s: %s", path, words)
    return bool(found)


def _extremes(dtype: str) -> tuple[int, ...]:
    """Return the least and the greatest value of whole unsigned numbers, which collars have; none for other types."""
    return (0, int(np.iinfo(dtype).max)) if np.dtype(dtype).kind == "u" else ()


def _from_the_sides(values: np.ndarray, valid: np.ndarray | None, colour: int) -> np.ndarray:
    """Return the valid pixels (h, w) of ``values`` (h, w, B) that are ``colour``, as all to their left or right are."""
    alike = (values == colour).all(axis=2)
    if valid is not None:
        alike &= valid
    return np.minimum.accumulate(alike, axis=1) | np.minimum.accumulate(alike[:, ::-1], axis=1)[:, ::-1]


def _has_rim(values: np.ndarray, nodata: float) -> bool:
    """Return whether pixels (h, w, B) beside nodata are nearly it."""
    apart = np.abs(values.astype(float) - nodata).max(axis=2)
    holes = np.pad((apart == 0).any(axis=0), _NEAR_PX)
    beside = np.lib.stride_tricks.sliding_window_view(holes, 2 * _NEAR_PX + 1).any(axis=1)
    return bool(((apart > 0) & (apart <= _NEAR) & beside).any())
