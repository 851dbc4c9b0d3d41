"""Rasters of any format that GDAL reads: the header, the pixels by windows, and small GeoTIFFs written."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..errors import DataError, LazyModule
from .sources import forget, gdal_env, is_remote, opened_as, public_name, refusal, source_files, waits_s
from .virtual import expanded, has_colour_table, in_pixels

_PURPOSE = "reading and writing GeoTIFF"
rasterio = LazyModule("rasterio", None, _PURPOSE)
_gdal = LazyModule("rasterio._err", None, _PURPOSE)
# once and for all: filters of a moment are not safe in threads, and images without georeference are normal here
warnings.filterwarnings("ignore", message="Dataset has no geotransform")

Window = tuple[int, int, int, int]
Transform = tuple[float, float, float, float, float, float]
# rows and columns of the largest block, bands, bytes of a pixel, and whether each band is one compressed strip
_Layout = tuple[int, int, int, int, bool]
MOST_ROOM = 2**30
_CACHE = "GDAL_CACHEMAX"
_BLOCK_HEADER = 256
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RasterInfo:
    """What the header of a raster says.

    Attributes:
        path: the file, or the `public_name` of a raster elsewhere.
        height: rows.
        width: columns.
        bands: bands, alpha not counted.
        dtype: NumPy name of the values' type.
        has_alpha: whether an alpha band or a mask tells which pixels are valid.
        alpha_band: number of the band that is marked as alpha, None without one.
        nodata: value of pixels without data, None without one.
        crs: coordinate reference system as an authority code or WKT, None without one.
        transform: first six coefficients of the `affine.Affine` from (column, row) of a pixel's upper left corner to
            map (x, y), rotated and south-up ones too; None without georeference.
        scale: factor of the values of the first band.
        offset: added to them after that.
        unit: of the values of the first band then; None where the file does not say.
    """

    path: str
    height: int
    width: int
    bands: int
    dtype: str
    has_alpha: bool = False
    nodata: float | None = None
    crs: str | None = None
    transform: Transform | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str | None = None
    alpha_band: int | None = None

    @property
    def kind(self) -> str:
        """Type of the values, and how they become real numbers where they are not."""
        real = (self.scale, self.offset) == (1, 0)
        return self.dtype if real else f"{self.dtype} of scale {self.scale:g} and offset {self.offset:g}"

    def bands_for(self, wanted: Sequence[int] | None) -> int:
        """Return how many bands there are to choose from; alpha is one only where it is among the ``wanted`` ones."""
        return self.bands + (wanted is not None and self.alpha_band in wanted)

    @property
    def may_have_holes(self) -> bool:
        """Whether some pixels may be without data."""
        return self.has_alpha or self.nodata is not None

    @property
    def holds_reals(self) -> bool:
        """Whether the values are real numbers, as probabilities are: floats, or integers with a scale or an offset."""
        return self.dtype.startswith("float") or (self.scale, self.offset) != (1, 0)

    def as_reals(self, stored: np.ndarray) -> np.ndarray:
        """Return the values that ``stored`` floats of the first band stand for, by its scale and offset."""
        with np.errstate(over="ignore", invalid="ignore"):  # of nodata
            return stored * self.scale + self.offset


@dataclass(frozen=True)
class Georeference:
    """Where a raster lies.

    Attributes:
        crs: coordinate reference system of ``transform`` as an authority code or WKT, None without one.
        transform: as in `RasterInfo`; None without one.
        gcps: ground control points, `rasterio.control.GroundControlPoint`.
        gcps_crs: coordinate reference system of ``gcps``.
    """

    crs: str | None = None
    transform: Transform | None = None
    gcps: tuple[Any, ...] = ()
    gcps_crs: str | None = None


class RasterSource:
    """A raster of any format that GDAL reads, which stays open to be read window by window; a context manager.

    With ``colours`` a colour table is looked up, as for pictures; without, the values are as stored, as for classes.
    Any thread may read it, but only one at a time; a forked process must open a source of its own. GDAL caches
    decoded blocks of all rasters, up to 5 % of the machine's memory unless ``GDAL_CACHEMAX`` or `make_room` say
    otherwise.

    Attributes:
        info: what its header says.
        georeference: where it lies.
        compression: as GDAL names it, None without.
        block_px: pixels that are decoded together.

    Raises:
        DataError: missing or unreadable.
    """

    def __init__(self, path: str, colours: bool = False) -> None:
        path = public_name(path)
        with _open(path) as header:
            self.info = _info(header, path, colours)
            self.compression = header.compression.value if header.compression else None
            self.block_px = max(height * width for height, width in header.block_shapes)
            self._layouts = [_layout(header), *_layouts_of_sources(header, path)]
            points, crs = header.gcps
            self.georeference = Georeference(self.info.crs, self.info.transform, tuple(points), _crs_name(crs))
        # Overviews may be of any quality: what is shrunk while reading is shrunk from the pixels themselves. The
        # header is read without the option, for with it rasterio gives random numbers for a transform that is missing.
        with _exact(path), ExitStack() as files:
            self._raster = files.enter_context(_open(path, OVERVIEW_LEVEL="NONE"))
            if colours and has_colour_table(self._raster):
                self._raster = in_pixels(expanded(self._raster, path, files), files)
            self._files = files.pop_all()
        self._read_whole = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._files.close()

    def room_for(self, height: int, width: int) -> int:
        """Return the bytes of the blocks that windows of one size, side by side across the raster, touch.

        It is 0 where no block is longer or wider than a window: reading those twice is no harm.
        """
        rows, columns, bands, pixel = np.max([layout[:4] for layout in self._layouts], axis=0).tolist()
        if rows <= height and columns <= width:
            return 0
        down = min(-(-height // rows) + 1, -(-self.info.height // rows))
        return down * -(-self.info.width // columns) * (rows * columns * pixel + bands * _BLOCK_HEADER)

    @property
    def is_decoded_by_bands(self) -> bool:
        """Whether each band is one compressed strip, of which nothing can be decoded without all that is above it."""
        return any(by_bands for *_, by_bands in self._layouts)

    def make_room(self, height: int, width: int) -> int:
        """Let GDAL keep what windows of one size, read row by row, need again, and decode all bands at a time.

        Without it each window would decode again blocks that do not fit GDAL's cache. Nothing is done where they are
        small, or need more than `MOST_ROOM`. Closing the raster ends it.

        Returns:
            the bytes by which the cache has grown.
        """
        room = self.room_for(height, width)
        self._read_whole = room > 0
        before, wanted = int(rasterio.env.get_gdal_config(_CACHE)), room + room // 8
        if not before < wanted <= MOST_ROOM + MOST_ROOM // 8:
            return 0
        rasterio.env.set_gdal_config(_CACHE, wanted)
        self._files.callback(rasterio.env.set_gdal_config, _CACHE, before)
        return wanted - before

    def read(
        self,
        row: int,
        column: int,
        height: int,
        width: int,
        bands: Sequence[int] | None = None,
        out_shape: tuple[int, int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values and the valid pixels of a window.

        ``bands`` count from 1, in the order wanted; None reads all but alpha. A band that is marked as alpha but named
        among them is data: programs mark the fourth of four bands so, even if it is near infrared. Resampled to
        ``out_shape`` (h, w), values are bilinear where it has more pixels than the window, else the average of the
        valid ones, and ``valid`` is that of the nearest pixel.

        Returns:
            values (h, w, B) in the file's type, and valid (h, w) bool, None where every pixel is valid. A pixel is
            invalid where alpha or the mask is 0, where every band read is nodata, or where one is NaN or Inf.

        Raises:
            DataError: the file is truncated or damaged there, or has no such band.
            ValueError: the window is not inside the raster.
        """
        with _exact(self.info.path):
            return _read(self._raster, self.info.path, (row, column, height, width), bands, out_shape, self._read_whole)


def raster_info(path: str, colours: bool = False) -> RasterInfo:
    """Return what the header of the raster at ``path`` says; ``colours`` are as in `RasterSource`.

    Raises:
        DataError: missing or unreadable.
    """
    path = public_name(path)
    with _open(path) as raster:
        return _info(raster, path, colours)


def read_raster(
    path: str, window: Window | None = None, colours: bool = False, wanted: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values and the valid pixels of a raster, or of its ``window``, as `RasterSource` reads them.

    All bands are read; one that is marked as alpha is among them where its number is among the ``wanted`` ones.

    Raises:
        DataError: missing, truncated or unreadable.
        ValueError: the window is not inside the raster.
    """
    path = public_name(path)
    with ExitStack() as files:  # without the georeference: naming an unusual one takes longer than reading an image
        raster = files.enter_context(_open(path))
        if colours and has_colour_table(raster):
            raster = expanded(raster, path, files)
        every = range(1, raster.count + 1)
        bands = every if wanted and (set(wanted) & set(every)) - set(_colour_bands(raster)) else None
        return _read(raster, path, window or (0, 0, raster.height, raster.width), bands)


def _open(path: str, **options: str) -> Any:
    unreadable = rasterio.errors.RasterioError
    if not (is_remote(path) or os.path.isfile(path)):
        raise DataError(f"{path}: no such file")
    if not is_remote(path):
        try:
            return rasterio.open(path, **options)
        except unreadable as error:
            raise DataError(f"{path}: cannot be read as a raster ({error}); replace it or take it out") from None
    for wait_s in waits_s(path)[:3]:  # more would be long for what is no raster
        try:
            with gdal_env(path):
                return rasterio.open(opened_as(path), **options)
        except unreadable as error:
            if refused := refusal(path, str(error)):
                raise refused from None
        time.sleep(wait_s)
        forget(path)
    raise DataError(f"{path}: cannot be read as a raster; check that the address is that of the file itself")


def _exact(path: str) -> Any:
    """Return a context without GDAL's fast way to read a whole PNG, which gives garbage for a truncated one.

    It must be there both when the file is opened and when it is read.
    """
    return gdal_env(path, GDAL_PNG_WHOLE_IMAGE_OPTIM="NO")


def _crs_name(crs: Any) -> str | None:
    return crs.to_string() if crs else None


def _info(raster: Any, path: str, colours: bool = False) -> RasterInfo:
    if colours and has_colour_table(raster):
        stored = _info(raster, path)
        with ExitStack() as files:
            pixels = _info(expanded(raster, path, files), path)
        return replace(pixels, crs=stored.crs, transform=stored.transform)
    if raster.driver == "VRT":
        source_files(path)  # all must be there
    colour = _colour_bands(raster)
    return RasterInfo(
        path=path,
        height=raster.height,
        width=raster.width,
        bands=len(colour),
        dtype=raster.dtypes[0],
        has_alpha=len(colour) < raster.count or _has_mask(raster),
        nodata=raster.nodata,
        crs=_crs_name(raster.crs),
        transform=None if raster.transform == rasterio.Affine.identity() else tuple(raster.transform)[:6],
        scale=raster.scales[0],
        offset=raster.offsets[0],
        unit=raster.units[0] or None,
        alpha_band=min(set(range(1, raster.count + 1)) - set(colour), default=None),
    )


def _colour_bands(raster: Any) -> list[int]:
    """Return the numbers, from 1, of the bands that are no alpha."""
    return [i for i, role in enumerate(raster.colorinterp, 1) if role != rasterio.enums.ColorInterp.alpha]


def _has_mask(raster: Any) -> bool:
    """Return whether one mask, in the file or beside it, tells the valid pixels of all bands."""
    return rasterio.enums.MaskFlags.per_dataset in raster.mask_flag_enums[0]


def _layout(raster: Any) -> _Layout:
    """Return how a raster is stored."""
    rows, columns = np.max(raster.block_shapes, axis=0).tolist()
    masked = _has_mask(raster) and len(_colour_bands(raster)) == raster.count
    pixel = sum(np.dtype(dtype).itemsize for dtype in raster.dtypes) + masked
    by_bands = raster.count > 1 and raster.interleaving == rasterio.enums.Interleaving.band and raster.compression
    if by_bands and raster.driver == "GTiff" and rows == 1 < raster.height:
        # GDAL shows one strip as blocks of one row, of which the second is nowhere in the file
        first, second = (raster.get_tag_item(f"BLOCK_OFFSET_0_{row}", "TIFF", bidx=1) for row in (0, 1))
        return rows, columns, raster.count, pixel, first is not None and second is None
    return rows, columns, raster.count, pixel, False


def _layouts_of_sources(raster: Any, path: str) -> list[_Layout]:
    """Return the layouts of the files that a virtual raster names."""
    layouts = []
    for file in source_files(path)[1:] if raster.driver == "VRT" else []:
        with suppress(rasterio.errors.RasterioError), rasterio.open(file) as source:
            layouts.append(_layout(source))
    return layouts


def _read(raster: Any, path: str, window: Window, *how: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what `_read_once` does, in several tries where the raster is elsewhere; a DataError if none succeeds."""
    for wait_s in (*waits_s(path), None):
        try:
            return _read_once(raster, path, window, *how)
        except (rasterio.errors.RasterioError, _gdal.CPLE_BaseError):
            if wait_s is None:
                break
        logger.info("%s: the connection broke; trying again in %g s", path, wait_s)
        time.sleep(wait_s)
        forget(path)  # what was decoded stays, so each try goes on where the last one ended
    what = "it is truncated or damaged; replace it or take it out"
    if is_remote(path):
        what = "the connection broke or the file is damaged; re-run the command to resume"
    raise DataError(f"{path}: cannot be read in rows {window[0]} to {window[0] + window[2] - 1}, {what}")


def _read_once(
    raster: Any,
    path: str,
    window: Window,
    bands: Sequence[int] | None = None,
    out_shape: tuple[int, int] | None = None,
    whole_first: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    methods = rasterio.enums.Resampling
    row, column, height, width = window
    if not (0 <= row < row + height <= raster.height and 0 <= column < column + width <= raster.width):
        raise ValueError(f"window {window} is not inside {raster.height} x {raster.width} pixels")
    bands = _colour_bands(raster) if bands is None else list(bands)
    if not bands or min(bands) < 1 or max(bands) > raster.count:
        raise DataError(f"{path}: has bands 1 to {raster.count}, asked for {bands}; choose among them")
    shape = (height, width) if out_shape is None else out_shape
    where: dict[str, Any] = {"window": rasterio.windows.Window(column, row, width, height), "out_shape": shape}

    def pixels(method: Any) -> np.ndarray:
        return np.ascontiguousarray(raster.read(bands, resampling=method, **where).transpose(1, 2, 0))

    if whole_first and (shape != (height, width) or len(bands) < raster.count):
        raster.read(window=where["window"])  # into GDAL's cache: else each band and each way would decode anew
    values = pixels(methods.nearest)
    valid = _valid(raster, values, bands, where)
    if tuple(shape) != (height, width):
        values = pixels(methods.bilinear if shape[0] * shape[1] > height * width else methods.average)
        if values.dtype.kind == "f" and not (finite := np.isfinite(values).all(axis=2)).all():
            valid = finite if valid is None else valid & finite
    return values, valid


def _valid(raster: Any, values: np.ndarray, bands: Sequence[int], where: dict[str, Any]) -> np.ndarray | None:
    """Return the valid pixels (h, w) of ``values`` (h, w, B), the ``bands`` read ``where``; None where all are."""
    parts = []
    alphas = sorted(set(range(1, raster.count + 1)) - set(_colour_bands(raster)))
    if alphas:
        if alphas[0] not in bands:
            parts.append(raster.read(alphas[0], **where) > 0)
    elif _has_mask(raster):
        parts.append(raster.read_masks(1, **where) > 0)
    nodata = [raster.nodatavals[band - 1] for band in bands]
    if all(value is not None for value in nodata):
        parts.append(np.logical_or.reduce([_differs(values[:, :, i], value) for i, value in enumerate(nodata)]))
    if values.dtype.kind == "f":
        parts.append(np.isfinite(values).all(axis=2))
    valid = np.logical_and.reduce(parts) if parts else None
    return None if valid is None or valid.all() else valid


def _differs(values: np.ndarray, nodata: float) -> np.ndarray:
    exact = values.dtype.kind in "iu" and nodata.is_integer()  # integers compare without a copy as floats
    return values != (int(nodata) if exact else nodata)


def write_geotiff(
    path: str,
    values: np.ndarray,
    crs: str | None = None,
    transform: Transform | None = None,
    valid: np.ndarray | None = None,
    nodata: float | None = None,
) -> None:
    """Write ``values``, (H, W) or (H, W, B), as a tiled, losslessly compressed GeoTIFF.

    ``valid``, bool (H, W), is written as an alpha band; the georeference is as in `RasterInfo`.
    """
    layers = values[:, :, None] if values.ndim == 2 else values
    colours = layers.shape[2]
    whole = np.issubdtype(layers.dtype, np.integer)
    if valid is not None:
        full = np.iinfo(layers.dtype).max if whole else 255
        layers = np.concatenate([layers, np.where(valid, full, 0).astype(layers.dtype)[:, :, None]], axis=2)
    height, width, count = layers.shape
    profile: dict[str, Any] = dict(
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype=layers.dtype.name,
        compress="deflate",
        predictor=2 if whole else 1,
        photometric="RGB" if colours == 3 else "MINISBLACK",
        nodata=nodata,
        crs=crs,
    )
    if min(height, width) >= 256:
        profile.update(tiled=True, blockxsize=256, blockysize=256)
    if transform is not None:
        profile["transform"] = rasterio.Affine(*transform)
    with rasterio.open(path, "w", **profile) as raster:
        if valid is not None:  # GDAL's option would take the first band beyond the colours
            raster.colorinterp = [*raster.colorinterp[:-1], rasterio.enums.ColorInterp.alpha]
        raster.write(layers.transpose(2, 0, 1))


def transform_at(transform: Transform, row: float, column: float) -> Transform:
    """Return the transform of the raster that begins at ``row`` and ``column`` of the one with this ``transform``."""
    return tuple(rasterio.Affine(*transform) @ rasterio.Affine.translation(column, row))[:6]
