"""Cloud-Optimized GeoTIFFs written strip by strip."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import LazyModule
from ..files import complete_file
from .raster import Georeference, rasterio

_PURPOSE = "writing GeoTIFF"
_rasterio_shutil = LazyModule("rasterio.shutil", None, _PURPOSE)
_gdal = LazyModule("rasterio._err", None, _PURPOSE)

RGB = tuple[int, int, int]
Strip = tuple[int, np.ndarray]
BLOCK_PX = 512
_PLAIN = dict(
    driver="GTiff",
    photometric="MINISBLACK",
    interleave="pixel",
    tiled=True,
    blockxsize=BLOCK_PX,
    blockysize=BLOCK_PX,
    compress="deflate",
    zlevel=1,
    bigtiff="IF_SAFER",
    num_threads="ALL_CPUS",
)
_FINAL = dict(
    driver="COG",
    COMPRESS="DEFLATE",
    PREDICTOR="YES",
    BLOCKSIZE=BLOCK_PX,
    OVERVIEWS="IGNORE_EXISTING",
    STATISTICS="YES",
    BIGTIFF="IF_SAFER",
    NUM_THREADS="ALL_CPUS",
)


def disk_needed(height: int, width: int, itemsize: int) -> int:
    """Return an upper estimate of the bytes that `write_cog` takes at its peak, as if nothing could be compressed.

    ``itemsize`` is bytes per pixel, of all bands together.
    """
    # the strips, their overviews (a third), and the final file, which has both
    return height * width * itemsize * 8 // 3 * 101 // 100 + 2**20


def write_cog(
    path: str,
    strips: Iterable[Strip],
    height: int,
    width: int,
    dtype: str,
    georeference: Georeference,
    *,
    nodata: float | None = None,
    colours: Mapping[int, RGB] | None = None,
    scale: float | None = None,
    tags: Mapping[str, str] | None = None,
    band_names: Sequence[str] = (),
    overview_resampling: str = "average",
) -> None:
    """Write strips of rows as one Cloud-Optimized GeoTIFF: blocks of 512 pixels, deflate, overviews, statistics.

    Memory holds one strip and one row of blocks. The strips go to a plain GeoTIFF in the scratch folder of
    `complete_file` first; a raster appears at ``path`` only when it is whole. GDAL does not tell of a disk that is full
    while it closes a file, so what was written is read again and compared.

    A GeoTIFF has no room for the names of ground control points (they are numbered), nor for ground control points
    beside a transform (the transform is kept).

    The ``strips`` are (row, values) from the first row to the last without a gap, any number of rows each, values
    (h, W) or (h, W, B) of the NumPy type ``dtype``. Pixels of the value ``nodata`` count neither in the statistics nor
    in overviews; ``colours`` are of the values of one band of uint8 or uint16; value * ``scale`` is the real number;
    the tag ``TIFFTAG_IMAGEDESCRIPTION`` describes the raster to every TIFF reader; ``overview_resampling`` is
    "average", or "mode" for classes. One process at a time may write to ``path``.

    Raises:
        ConfigError: it cannot be written there, or the disk is full.
        ValueError: the strips are not what was promised.
    """
    strips = iter(strips)
    first = list(itertools.islice(strips, 1))
    bands = first[0][1].shape[2] if first and first[0][1].ndim == 3 else 1
    if colours is not None and bands > 1:
        raise ValueError(f"a colour table is for one band, not {bands}")
    profile = _PLAIN | dict(height=height, width=width, count=bands, dtype=dtype, nodata=nodata)
    if bands == 3 and dtype == "uint8":
        profile["photometric"] = "RGB"
    checksums: list[int] = []
    with complete_file(path, "free space on its disk, or choose another place") as final:
        plain = f"{final}.strips.tif"
        with _gdal_errors(path):
            raster = rasterio.open(plain, "w", **profile)
        with raster:
            with _gdal_errors(path):
                _place(raster, georeference)
                raster.update_tags(**(tags or {}))
                for band, name in enumerate(band_names, 1):
                    raster.set_band_description(band, name)
                if colours is not None:
                    raster.write_colormap(1, {value: tuple(rgb) for value, rgb in colours.items()})
                if scale is not None:
                    raster.scales = (scale,) * bands
            for block in _block_rows(itertools.chain(first, strips), height, width, bands, np.dtype(dtype)):
                with _gdal_errors(path):
                    raster.write(block, window=_block_window(len(checksums), raster))
                checksums.append(zlib.crc32(np.ascontiguousarray(block).data))
        with _gdal_errors(path):
            _rasterio_shutil.copy(plain, final, OVERVIEW_RESAMPLING=overview_resampling.upper(), **_FINAL)
            with rasterio.open(final) as raster:
                for number, checksum in enumerate(checksums):
                    if zlib.crc32(raster.read(window=_block_window(number, raster))) != checksum:
                        raise OSError("what was written is not what can be read")


@contextlib.contextmanager
def _gdal_errors(path: str) -> Iterator[None]:
    """Turn what the disk or GDAL says against writing ``path`` into an OSError, which `complete_file` reports."""
    try:
        yield
    except (OSError, rasterio.errors.RasterioError, _gdal.CPLE_BaseError) as error:
        if getattr(error, "strerror", None):
            raise
        # what GDAL says of a full disk is seldom that
        free = shutil.disk_usage(os.path.dirname(path) or ".").free // 2**20
        said = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"{free} MB are free there; GDAL: {said}") from None


def _place(raster: Any, georeference: Georeference) -> None:
    """Write the georeference; a GeoTIFF has a transform or ground control points, not both."""
    if georeference.transform is None and georeference.gcps:
        crs = rasterio.crs.CRS
        raster.gcps = (
            list(georeference.gcps),
            crs.from_user_input(georeference.gcps_crs) if georeference.gcps_crs else crs(),
        )
        return
    if georeference.crs is not None:
        raster.crs = georeference.crs
    if georeference.transform is not None:
        raster.transform = rasterio.Affine(*georeference.transform)


def _block_rows(strips: Iterable[Strip], height: int, width: int, bands: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield (B, rows, W) for each row of blocks, whatever the height of the strips; it is overwritten by the next."""
    buffer = np.empty((bands, BLOCK_PX, width), dtype)
    done = filled = 0
    for row, values in strips:
        layers = values[:, :, None] if values.ndim == 2 else values
        if row != done + filled or row + len(layers) > height:
            raise ValueError(f"a strip of {len(layers)} rows at {row}, after {done + filled} of {height} rows")
        if layers.shape[1:] != (width, bands) or layers.dtype != dtype:
            raise ValueError(f"a strip is {layers.dtype} of shape {layers.shape}, not {dtype} {width} x {bands} bands")
        start = 0
        while start < len(layers):
            take = min(BLOCK_PX - filled, len(layers) - start)
            buffer[:, filled : filled + take] = layers[start : start + take].transpose(2, 0, 1)
            start, filled = start + take, filled + take
            if filled == BLOCK_PX or done + filled == height:
                yield buffer[:, :filled]
                done, filled = done + filled, 0
    if done != height:
        raise ValueError(f"the strips have {done + filled} rows, not {height}")


def _block_window(number: int, raster: Any) -> Any:
    """Return the window of a row of blocks of a raster, counted from 0."""
    row = number * BLOCK_PX
    return rasterio.windows.Window(0, row, raster.width, min(BLOCK_PX, raster.height - row))
