"""Image files of any kind: their headers and their pixels."""

from __future__ import annotations

import contextlib
import os

import cv2
import numpy as np
from PIL import Image

from ..errors import DataError, MissingExtraError
from ..geo import RasterInfo, raster_info, read_raster
from ..geo.raster import Window

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MASK_SUFFIXES = (".png", ".tif", ".tiff")
_RASTERS = (".tif", ".tiff")
_WORLD_FILES = (".pgw", ".pngw", ".jgw", ".jpgw", ".wld")
_PNG_DEPTH_BYTE = 24
_DTYPES = {"I": "int32", "F": "float32"}
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_PLAIN = ("1", "L", "RGB", "RGBA", "LA")
_TAIL = 64
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


def _is_raster(path: str) -> bool:
    return path.lower().endswith(_RASTERS)


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
        DataError: missing or no image.
        MissingExtraError: a TIFF, and rasterio is not installed.
    """
    stem = os.path.splitext(path)[0]
    if _is_raster(path):
        return raster_info(path)
    if any(os.path.isfile(stem + end) for end in _WORLD_FILES):
        with contextlib.suppress(MissingExtraError):
            return raster_info(path)
    try:
        with Image.open(path) as image:
            grey = image.mode.startswith(("1", "L", "I", "F"))
            deep = image.mode.startswith("I;16") or _is_16_bit_png(path, image)
            return RasterInfo(
                path=path,
                height=image.height,
                width=image.width,
                bands=1 if grey else 3,
                dtype="uint16" if deep else _DTYPES.get(image.mode, "uint8"),
                has_alpha=image.mode in _ALPHA or "transparency" in image.info,
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None


def _split_alpha(values: np.ndarray, has_alpha: bool) -> tuple[np.ndarray, np.ndarray | None]:
    values = values[:, :, None] if values.ndim == 2 else values
    if not has_alpha:
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


def read_pixels(path: str, window: Window | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the values and the valid pixels of the image at ``path``.

    Args:
        path: png, jpg, tif or whatever Pillow reads; grey, colour, palette, any depth, any number of bands in a TIFF.
        window: (row, column, height, width) of the part to read, in pixels; all of it when None. Only TIFFs are
            read in part.

    Returns:
        values (H, W, B) in the file's type and band order (RGB), alpha left out, and valid (H, W) bool, None where
        every pixel is valid. A pixel is invalid where alpha is 0 or every band is nodata.

    Raises:
        DataError: missing, truncated or no image.
        MissingExtraError: a TIFF, and rasterio is not installed.
    """
    if _is_raster(path):
        return read_raster(path, window)
    try:
        with Image.open(path) as image:
            transparent = "transparency" in image.info
            if _is_16_bit_png(path, image):
                image.load()
                raw = cv2.imread(path, cv2.IMREAD_UNCHANGED)
                if raw is None:
                    raise OSError("damaged PNG")
                colour = raw.ndim == 3
                values, valid = _split_alpha(raw[:, :, [2, 1, 0, *range(3, raw.shape[2])]] if colour else raw, False)
                if colour and values.shape[2] == 4:
                    values, valid = _split_alpha(values, True)
            elif (fast := _read_fast(path, image)) is not None:
                values, valid = fast, None
            elif image.mode.startswith(("I", "F")):
                values, valid = np.array(image)[:, :, None], None
            elif transparent or image.mode not in _PLAIN:
                mode = "RGBA" if transparent or image.mode in _ALPHA else "RGB"
                values, valid = _split_alpha(np.array(image.convert(mode)), mode == "RGBA")
            else:
                grey = image.convert("L") if image.mode == "1" else image
                values, valid = _split_alpha(np.array(grey), image.mode in _ALPHA)
    except (OSError, SyntaxError, ValueError, cv2.error, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None
    if window is not None:
        row, column, height, width = window
        part = (slice(row, row + height), slice(column, column + width))
        values, valid = values[part], None if valid is None else valid[part]
    return values, valid
