"""Image files of any kind, and how those of a data set become the 8-bit bands that a network sees."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from PIL import ExifTags, Image

from ..errors import DataError, MissingExtraError
from ..geo import RasterInfo, raster_info, read_raster
from ..geo.raster import Window
from .voc import METADATA_FILE, read_metadata

_WORLD_FILES = (".pgw", ".pngw", ".jgw", ".jpgw", ".wld")
_PNG_DEPTH_BYTE = 24
_DTYPES = {"I": "int32", "F": "float32"}
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_PLAIN = ("1", "L", "RGB", "RGBA", "LA")
_TAIL = 64
_MAX_PX = 2**30  # OpenCV's limit
_LIMIT = threading.Lock()
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


def is_tiff(path: str) -> bool:
    """Return whether ``path`` is a TIFF, which is read by GDAL, in parts if need be."""
    return path.lower().endswith((".tif", ".tiff"))


@contextlib.contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """Open an image with Pillow, whose limit of 0.18 gigapixels is less than an orthomosaic or its mask may have.

    Raises:
        DataError: it is too large to be decoded at once.
        OSError, SyntaxError, ValueError: not an image.
    """
    with _LIMIT:  # it is the whole process's
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        if image.width * image.height > _MAX_PX:
            raise DataError(
                f"{path}: {image.width} x {image.height} px are too many to decode at once; make it a tiled GeoTIFF, "
                "which is read in parts: gdal_translate -co TILED=YES"
            )
        yield image


def orientation(path: str) -> int:
    """Return how viewers turn or mirror the image at ``path`` (EXIF, 1 to 8); 1, as it is, where nothing says it.

    No reader here does so: pixels are where the file has them, as in GDAL and GIS programs.
    """
    try:
        with open_image(path) as image:
            if image.format == "PNG" and "exif" not in image.info:
                return 1  # Pillow would decode all of it to look behind the pixels
            found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (DataError, OSError, SyntaxError, ValueError):
        return 1
    return found if found in range(1, 9) else 1


def part_of(array: np.ndarray, window: Window | None) -> np.ndarray:
    """Return the part of ``array`` (H, W, ...) in a window (row, column, height, width), all of it when None."""
    if window is None:
        return array
    row, column, height, width = window
    return array[row : row + height, column : column + width]


def rgb_of(image: np.ndarray) -> np.ndarray:
    """Return the first three bands of ``image`` (H, W, B) to look at, one band three times."""
    return np.ascontiguousarray(image[:, :, [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]])


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as an image ({error}); replace it or take it out of the split")


def _is_16_bit_png(path: str, image: Image.Image) -> bool:
    """Return whether Pillow would cut a PNG of 16 bits a band down to 8."""
    if image.format != "PNG":
        return False
    with open(path, "rb") as file:
        return file.read(_PNG_DEPTH_BYTE + 1)[_PNG_DEPTH_BYTE:] == b"\x10"


def _is_complete(path: str, kind: str) -> bool:
    """Return whether the file ends as its kind ends; fast decoders take a truncated file for a whole one."""
    with open(path, "rb") as file:
        file.seek(max(os.path.getsize(path) - _TAIL, 0))
        return _ENDS[kind] in file.read()


def image_info(path: str) -> RasterInfo:
    """Return what the header of the image at ``path`` says; a world file beside a PNG or JPEG counts.

    Raises:
        DataError: missing, or not an image.
        MissingExtraError: a TIFF, and rasterio is not installed.
    """
    if is_tiff(path):
        return raster_info(path, colours=True)
    stem = os.path.splitext(path)[0]
    if any(os.path.isfile(stem + end) for end in _WORLD_FILES):
        with contextlib.suppress(MissingExtraError):
            return raster_info(path, colours=True)
    try:
        with open_image(path) as image:
            grey = image.mode.startswith(("1", "L", "I", "F"))
            deep = image.mode.startswith("I;16") or _is_16_bit_png(path, image)
            return RasterInfo(
                path=path,
                height=image.height,
                width=image.width,
                bands=1 if grey else 3,
                dtype="uint16" if deep else _DTYPES.get(image.mode, "uint8"),
                has_alpha=image.mode in _ALPHA or "transparency" in image.info,
                alpha_band=(2 if grey else 4) if image.mode in _ALPHA else None,
            )
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path, error) from None


def _split_alpha(
    values: np.ndarray, has_alpha: bool, wanted: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray | None]:
    values = values[:, :, None] if values.ndim == 2 else values
    if not has_alpha or values.shape[2] in (wanted or ()):
        return values, None
    valid = values[:, :, -1] > 0
    return values[:, :, :-1], None if valid.all() else valid


def _read_fast(path: str, image: Image.Image) -> np.ndarray | None:
    """Return the pixels of a plain 8-bit RGB file from the fastest decoder that is exact, None where none is."""
    if image.mode != "RGB" or image.format not in _ENDS or not _is_complete(path, image.format):
        return None
    if image.format == "JPEG":
        read = cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        return None if read is None else read[:, :, ::-1]
    if "transparency" in image.info:
        return None
    try:
        return read_raster(path)[0]
    except (DataError, MissingExtraError, ValueError):  # GDAL takes no file name that is not UTF-8
        return None


def read_pixels(
    path: str, window: Window | None = None, bands: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values and the valid pixels of the image at ``path``, any file that Pillow or GDAL reads.

    A TIFF may have any number of bands; a colour table becomes its colours. ``window`` is (row, column, height, width)
    of the part to return, in pixels; all of it when None. All bands are returned, but alpha only where it is among the
    ``bands`` that are wanted: it is data then.

    Returns:
        values (H, W, B) in the file's type and band order (RGB), alpha left out, and valid (H, W) bool, None where
        every pixel is valid. A pixel is invalid where alpha is 0 or every band is nodata.

    Raises:
        DataError: missing, truncated or not an image.
        MissingExtraError: a TIFF, and rasterio is not installed.
    """
    if is_tiff(path):
        return read_raster(path, window, colours=True, wanted=bands)
    try:
        with open_image(path) as image:
            transparent = "transparency" in image.info
            if _is_16_bit_png(path, image):
                image.load()
                raw = cv2.imread(path, cv2.IMREAD_UNCHANGED)
                if raw is None:
                    raise OSError("damaged PNG")
                rgb = raw[:, :, [2, 1, 0, *range(3, raw.shape[2])]] if raw.ndim == 3 else raw
                values, valid = _split_alpha(rgb, rgb.shape[2:] == (4,), bands)
            elif (fast := _read_fast(path, image)) is not None:
                values, valid = fast, None
            elif image.mode.startswith(("I", "F")):
                values, valid = np.array(image)[:, :, None], None
            elif transparent or image.mode not in _PLAIN:
                mode = "RGBA" if transparent or image.mode in _ALPHA else "RGB"
                values, valid = _split_alpha(np.array(image.convert(mode)), mode == "RGBA", bands)
            else:
                grey = image.convert("L") if image.mode == "1" else image
                values, valid = _split_alpha(np.array(grey), image.mode in _ALPHA, bands)
    except (OSError, SyntaxError, ValueError, cv2.error) as error:
        raise _unreadable(path, error) from None
    return part_of(values, window), None if valid is None else part_of(valid, window)


@lru_cache(maxsize=64)
def _table(low: float, high: float, size: int) -> np.ndarray:
    """Return the 8-bit value of each of ``size`` raw values: ``low`` and below is 0, ``high`` and above 255."""
    scaled = (np.arange(size, dtype=np.float64) - low) * (255 / max(high - low, 1e-12))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class ImageReading:
    """Which bands are read and how they are scaled; one for a whole data set, never for one image.

    Attributes:
        bands: numbers from 1 of the bands to read, in the order red, green, blue for a picture; None takes the
            bands of a grey or three-band image.
        low: raw value of each read band that becomes 0; None leaves 8-bit values as they are.
        high: raw value of each read band that becomes 255.
        gsd_m: ground sampling distance in metres per pixel, None where it is not known.
    """

    bands: tuple[int, ...] | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    gsd_m: float | None = None

    def with_settings(self, **settings: object) -> ImageReading:
        """Return a copy in which every setting that is not None replaces this one's."""
        given = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in settings.items() if v is not None}
        return replace(self, **given)  # type: ignore[arg-type]

    def select(self, values: np.ndarray, path: str) -> np.ndarray:
        """Return the bands to read of ``values`` (H, W, B); a grey image becomes three equal bands.

        Raises:
            DataError: the file has not these bands, or too many to guess.
        """
        have = values.shape[2]
        if self.bands is not None:
            if max(self.bands) > have or min(self.bands) < 1:
                raise DataError(
                    f"{path}: has {have} bands, but bands {', '.join(map(str, self.bands))} are to be read (numbers "
                    f"from 1); fix --bands, 'bands' of {METADATA_FILE} or of LoadRoadImage"
                )
            return values if self.bands == tuple(range(1, have + 1)) else values[:, :, [b - 1 for b in self.bands]]
        if have == 1:
            return np.repeat(values, 3, axis=2)
        if have != 3:
            raise DataError(
                f"{path}: has {have} bands; say which are to be read, red first, or all: --bands 3,2,1 in converting, "
                "step_args=dict(LoadRoadImage=dict(bands=(3, 2, 1))) in a config"
            )
        return values

    def check_depth(self, dtype: str, path: str) -> None:
        """Refuse, by a DataError, values of a type that cannot be those that the scaling was made for."""
        if self.low is None or self.high is None:
            return
        kind, top = np.dtype(dtype), max(self.high)
        if (kind == np.uint8 and top > 255) or (kind.kind in "iu" and top <= 1):
            raise DataError(
                f"{path}: {dtype} pixels, but images are scaled from {min(self.low):g} (black) to {top:g} (white); "
                "give the image in the depth and unit of the training images"
            )

    def scale(self, values: np.ndarray, path: str) -> np.ndarray:
        """Return ``values`` (H, W, B), bands already selected, as uint8.

        Raises:
            DataError: more than 8 bits, and no scaling is known; or the scaling is for another depth.
        """
        self.check_depth(values.dtype.name, path)
        if self.low is None or self.high is None:
            if values.dtype == np.uint8:
                return values
            raise DataError(
                f"{path}: {values.dtype} pixels, and no scaling to 8 bits is known; convert the data set with "
                f"tools/convert_dataset.py, which measures one for all images, or give low and high to LoadRoadImage"
            )
        bands = values.shape[2]
        low, high = (tuple(v) * bands if len(v) == 1 else tuple(v) for v in (self.low, self.high))
        if len(low) != bands or len(high) != bands:
            raise DataError(f"{path}: {bands} bands are read but the scaling has {len(low)} low and {len(high)} high")
        scaled = np.empty(values.shape, np.uint8)
        for band in range(bands):
            raw = values[:, :, band]
            if raw.dtype in (np.uint8, np.uint16):
                np.take(_table(low[band], high[band], np.iinfo(raw.dtype).max + 1), raw, out=scaled[:, :, band])
            else:
                wide = (raw.astype(np.float64) - low[band]) * (255 / max(high[band] - low[band], 1e-12))
                scaled[:, :, band] = np.clip(np.rint(np.nan_to_num(wide)), 0, 255)
        return scaled

    def as_read(self, values: np.ndarray, valid: np.ndarray | None, path: str) -> np.ndarray:
        """Return raw ``values`` (H, W, B) as the uint8 bands that a network sees; holes take the mean."""
        image = self.scale(self.select(values, path), path)
        if valid is not None:
            mean = image[valid].mean(axis=0) if valid.any() else np.zeros(image.shape[2])
            image = np.where(valid[:, :, None], image, np.rint(mean).astype(np.uint8))
        return image

    def read(self, path: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the image at ``path`` as uint8 (H, W, B), RGB first, and its valid pixels (H, W) or None for all.

        Raises:
            DataError: unreadable, or the bands or the depth do not fit.
        """
        values, valid = read_pixels(path, bands=self.bands)
        return self.as_read(values, valid, path), valid

    def as_dict(self) -> dict:
        """Return the settings as plain values, for JSON and checkpoints."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def reading_of(root: str | None) -> ImageReading:
    """Return how the images of the data set in ``root`` are read.

    Raises:
        DataError: its ``dataset.json`` cannot be understood.
    """
    metadata = {} if root is None else read_metadata(root)
    path = os.path.join(root or "", METADATA_FILE)

    def numbers(key: str) -> tuple | None:
        value = metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, Sequence) or not all(isinstance(v, (int, float)) for v in value) or not value:
            raise DataError(f"{path}: {key} is {value!r}, not a list of numbers; fix it")
        return tuple(value)

    gsd_m = metadata.get("gsd_m")
    if gsd_m is not None and (not isinstance(gsd_m, (int, float)) or gsd_m <= 0):
        raise DataError(f"{path}: gsd_m is {gsd_m!r}, not a number of metres; fix it")
    return ImageReading(numbers("bands"), numbers("low"), numbers("high"), gsd_m)


def check_same_size(mask_shape: Sequence[int], image_shape: Sequence[int], mask_path: str, image_path: str) -> None:
    """Refuse a mask (H, W, ...) whose rows and columns are not its image's, by a DataError."""
    if tuple(mask_shape[:2]) != tuple(image_shape[:2]):
        turned = (
            "" if (exif := orientation(image_path)) == 1 else f" with EXIF orientation {exif}, which is not applied"
        )
        raise DataError(
            f"{mask_path}: the mask is {mask_shape[1]}x{mask_shape[0]} px but its image {image_path} is "
            f"{image_shape[1]}x{image_shape[0]} px{turned}; export both at the same size"
        )
