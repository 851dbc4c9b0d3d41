"""Raw data before conversion: which image and mask belong together, and which labels a mask of any kind means."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import visible
from ..geo import raster_info, read_raster
from ..geo.raster import Window
from .reading import is_tiff, open_image, part_of, read_pixels
from .voc import IGNORE, IMAGE_SUFFIXES, IMAGES, MASKS, RAW_MASK_SUFFIXES, Pair, list_files

IMAGE_ROLES = ("_sat", "_image", "_img", "_rgb", "_ortho")
MASK_ROLES = ("_mask", "_label", "_labels", "_gt", "_groundtruth", "_road", "_roads", "_seg")
_IMAGE_FOLDERS = ("images", "image", "img", "imgs", "img_dir", "sat", "rgb", "tiles", IMAGES.lower())
_MASK_FOLDERS = (
    "masks",
    "mask",
    "labels",
    "label",
    "gt",
    "groundtruth",
    "ground_truth",
    "annotations",
    "ann_dir",
    "roads",
    MASKS.lower(),
)

# In grey masks almost every pixel is near black or near white; a larger share between the two is not a road mask.
_MAX_BETWEEN = 0.1
_BETWEEN = (64, 191)
_MAX_CHANNEL_DIFFERENCE = 24
_PHOTOGRAPH_COLOURS = 64
_MAX_CLASSES = 16

_Clash = tuple[str, str, str]
_Values = tuple[np.ndarray, np.ndarray | None]
_Stored = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]


@dataclass(frozen=True)
class Matching:
    """What the names in a folder of images and a folder of masks say.

    Attributes:
        pairs: sorted by stem.
        lone_images: paths of images without a mask.
        clashes: (stem, path, further path) of files of one folder that stand for one stem; the first is taken.
    """

    pairs: list[Pair]
    lone_images: list[str]
    clashes: list[_Clash]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def without_role(stem: str, roles: tuple[str, ...]) -> str:
    """Return ``stem`` without the one of ``roles`` at its end."""
    return next((stem[: -len(role)] for role in roles if stem.casefold().endswith(role)), stem)


def _by_stem(folder: str, names: Sequence[str], roles: tuple[str, ...]) -> tuple[dict[str, str], list[_Clash]]:
    """Return the first path of every stem, and where a further one has the same."""
    found: dict[str, str] = {}
    clashes = []
    for name in names:
        stem, path = without_role(_stem(name), roles), os.path.join(folder, name)
        if found.setdefault(stem, path) != path:
            clashes.append((stem, found[stem], path))
    return found, clashes


def match_files(images_dir: str, masks_dir: str) -> Matching:
    """Return what pairs and what does not.

    Names pair when they are equal without a known role at their end (``_sat``, ``_mask``, ...). Both folders may be
    one, as in DeepGlobe; the roles then tell images from masks.

    Raises:
        DataError: a folder is missing, or has no images or no masks.
    """
    images, masks = list_files(images_dir, IMAGE_SUFFIXES), list_files(masks_dir, RAW_MASK_SUFFIXES)
    if os.path.realpath(images_dir) == os.path.realpath(masks_dir):
        masks = [name for name in masks if _stem(name).casefold().endswith(MASK_ROLES)]
        images = sorted(set(images) - set(masks))
    for folder, names, what in ((images_dir, images, "images"), (masks_dir, masks, "masks")):
        if not names:
            raise DataError(f"{folder}: " + (f"holds no {what}" if os.path.isdir(folder) else "no such folder"))
    image_of, image_clashes = _by_stem(images_dir, images, IMAGE_ROLES)
    mask_of, mask_clashes = _by_stem(masks_dir, masks, MASK_ROLES)
    return Matching(
        pairs=[Pair(stem, image_of[stem], mask_of[stem]) for stem in sorted(image_of) if stem in mask_of],
        lone_images=[path for stem, path in image_of.items() if stem not in mask_of],
        clashes=[*image_clashes, *mask_clashes],
    )


def pair_files(images_dir: str, masks_dir: str) -> list[Pair]:
    """Return every pair, sorted by stem; masks without an image are left out.

    Raises:
        DataError: a folder is missing or empty, an image has no mask, or two files stand for one name.
    """
    matching = match_files(images_dir, masks_dir)
    for stem, path, other in matching.clashes:
        folder, name = os.path.split(path)
        raise DataError(f"{folder}: {name} and {os.path.basename(other)} both stand for '{stem}'; keep one of them")
    for path in matching.lone_images:
        raise DataError(f"{path}: no mask named like it in {masks_dir}; add it or move the image away")
    return matching.pairs


def find_folders(source: str) -> tuple[str, str]:
    """Return the folder of images and the folder of masks in ``source``; they are one where names tell the roles.

    Raises:
        DataError: no such folder, or its content leaves open which is which.
    """
    if not os.path.isdir(source):
        raise DataError(f"{source}: no such folder")
    names = visible(source)
    folders = [name for name in names if os.path.isdir(os.path.join(source, name))]
    images = [name for name in folders if name.casefold() in _IMAGE_FOLDERS]
    masks = [name for name in folders if name.casefold() in _MASK_FOLDERS]
    if len(images) == len(masks) == 1:
        return os.path.join(source, images[0]), os.path.join(source, masks[0])
    for found, what in ((images, "images"), (masks, "masks")):
        if len(found) > 1:
            raise DataError(f"{source}: {', '.join(found)} may each hold the {what}; keep one of them there")
    files = list_files(source, RAW_MASK_SUFFIXES)
    with_role = [name for name in files if _stem(name).casefold().endswith(MASK_ROLES)]
    if with_role and len(with_role) < len(files):
        return source, source
    raise DataError(
        f"{source}: holds no folder of images beside a folder of masks; name them images and masks, "
        "or the files x_sat and x_mask"
    )


def _is_indexed(image: Image.Image) -> bool:
    """Return whether the values of an image, not their colours, are the mask: indices of a palette from black."""
    return image.mode == "P" and (image.getpalette() or [0])[:3] == [0, 0, 0]


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as a mask ({error}); replace it or take it out of the split")


def _zeroed(values: np.ndarray, valid: np.ndarray | None) -> _Values:
    """Return ``values`` (H, W, B), 0 where they are not ``valid`` (H, W), and that; None where all are."""
    if valid is None or valid.all():
        return values, None
    return np.where(valid[:, :, None], values, 0).astype(values.dtype), valid


def _read_pillow(path: str, is_wanted: Callable[[Image.Image], bool]) -> _Stored | None:
    """Return what `read_stored` does of an image of one channel that is wanted; None for other files."""
    if is_tiff(path):
        return None
    try:
        with open_image(path) as image:
            if not is_wanted(image):
                return None
            values, palette = np.array(image, dtype=np.uint8), image.getpalette() if image.mode == "P" else None
            clear = image.info.get("transparency", ())
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a mask ({error}); replace it or take it out of the split") from None
    nodata = [clear] if isinstance(clear, int) else [i for i, alpha in enumerate(clear) if not alpha]
    nodata = [value for value in nodata if value]  # nodata 0 is background
    values, valid = _zeroed(values[:, :, None], ~np.isin(values, nodata) if nodata else None)
    return values, None if palette is None else np.reshape(palette, (-1, 3)), valid


def _read_values(path: str, window: Window | None = None) -> _Values:
    """Return values (H, W, B) of any file, 0 where they are not valid, and valid pixels (H, W), None for all."""
    try:
        values, valid = read_raster(path, window) if is_tiff(path) else read_pixels(path, window)
    except DataError as error:
        raise DataError(str(error).replace("cannot be read as an image", "cannot be read as a mask")) from None
    if valid is not None and is_tiff(path) and raster_info(path).nodata == 0:
        valid = valid | (values == 0).all(axis=2)
    return _zeroed(values, valid)


def _one_channel(values: np.ndarray, path: str) -> np.ndarray:
    """Return a deep one-band mask as uint8: class indices as they are, grey values by their share of white."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "f" and (broken := values != np.rint(values)).any():
        raise DataError(f"{path}: floating-point pixels such as {values[broken][0]:g}; export whole numbers")
    if values.size and values.min() < 0:
        raise DataError(f"{path}: values such as {values.min():g}; declare them as nodata, or export the mask as 8-bit")
    deep = values.clip(0, np.iinfo(np.int32).max).astype(np.int64)
    if deep.max(initial=0) <= IGNORE:
        return deep.astype(np.uint8)
    levels = np.unique(deep)
    if len(levels) > 1 and 0 < levels[-2] < _MAX_CLASSES:
        raise DataError(
            f"{path}: values {first_values(levels)}; declare {levels[-1]} as nodata, or export other labels"
        )
    return (deep * 255 // 65535).clip(0, 255).astype(np.uint8)


def read_grey(path: str, window: Window | None = None) -> _Values:
    """Return a mask of any kind in one channel: grey values, or the indices of a palette from black.

    ``window`` is (row, column, height, width) of the part to read; all of it when None.

    Returns:
        grey uint8 (H, W), 0 where nothing is known, and valid (H, W) bool, None where all is known. Nothing is known
        where the file says nodata, NaN, alpha 0 or masked; nodata 0 is background.

    Raises:
        DataError: unreadable, or colours that are not black and one other.
    """
    one_channel = _read_pillow(path, lambda image: image.mode == "L" or _is_indexed(image))
    if one_channel is None:
        values, valid = _read_values(path, window)
    else:
        values, _, valid = one_channel
        values, valid = part_of(values, window), None if valid is None else part_of(valid, window)
    if values.shape[2] == 1:
        return _one_channel(values[:, :, 0], path), valid
    if values.shape[2] != 3:
        raise DataError(f"{path}: {values.shape[2]} bands; export the mask with one band, roads white on black")
    if values.dtype != np.uint8:
        raise DataError(f"{path}: three bands of {values.dtype}; export the mask with one 8-bit band")
    if np.ptp(values.astype(np.int16), axis=2).max() <= _MAX_CHANNEL_DIFFERENCE:
        return values.max(axis=2), valid
    unique = np.unique(values.reshape(-1, 3), axis=0)
    if len(unique) == 2 and not unique[0].any():
        return np.where(values.any(axis=2), 255, 0).astype(np.uint8), valid
    hint = "are the two folders exchanged?" if len(unique) > _PHOTOGRAPH_COLOURS else "export roads white on black"
    raise DataError(f"{path}: {len(unique)} colours, not black and one other; {hint}")


def is_chromatic(path: str) -> bool:
    """Return whether the mask at ``path`` shows roads in a colour on black, so that its values are not labels."""
    if is_tiff(path):
        coloured = raster_info(path).bands == 3
    else:
        with open_image(path) as image:
            coloured = not image.mode.startswith(("1", "L", "I", "F")) and not _is_indexed(image)
    if not coloured or read_grey(path)[0].max() != IGNORE:
        return False
    values, _ = _read_values(path)
    return values.shape[2] == 3 and bool(np.ptp(values.astype(np.int16), axis=2).max() > 0)


def read_stored(path: str) -> _Stored:
    """Return what the mask file at ``path`` holds, whatever its kind.

    Returns:
        values (H, W, B) as stored, alpha left out, 0 where nothing is known: indices of a palette image, 0 and 1 of a
        1-bit image; the palette's RGB colours (K, 3), None without one; and valid pixels as `read_grey` returns them.

    Raises:
        DataError: missing, truncated or not an image.
        MissingExtraError: a TIFF, and rasterio is not installed.
    """
    found = _read_pillow(path, lambda image: image.mode in ("1", "L", "P"))
    if found is not None:
        return found
    values, valid = _read_values(path)
    return values, None, valid


def shows_scene(values: np.ndarray) -> bool:
    """Return whether ``values`` (H, W, B) look like a scene, not labels: many colours, or grey of many levels."""
    if values.shape[2] >= 3:
        spread = np.ptp(values[:, :, :3].astype(np.int64), axis=2)
        if spread.max() > _MAX_CHANNEL_DIFFERENCE:
            return len(np.unique(values[:, :, :3].reshape(-1, 3), axis=0)) > _PHOTOGRAPH_COLOURS
    grey = values[:, :, 0].astype(np.float64)
    low, high = grey.min(), grey.max()
    if high == low or len(np.unique(grey)) <= _PHOTOGRAPH_COLOURS:
        return False
    share = (grey - low) / (high - low)
    return bool(((share >= 0.25) & (share <= 0.75)).mean() > _MAX_BETWEEN)


def first_values(values: np.ndarray) -> str:
    """Return the first of ``values`` to show in a message."""
    return ", ".join(str(int(value)) for value in values[:8]) + (", ..." if len(values) > 8 else "")


def is_black_and_white(counts: np.ndarray) -> bool:
    """Return whether grey values of these counts (256,) are a road mask, soft edges included."""
    between = counts[_BETWEEN[0] : _BETWEEN[1] + 1].sum() / counts.sum()
    return bool(between <= _MAX_BETWEEN and not 0 < np.flatnonzero(counts).max() < 128)


def holds_indices(values: np.ndarray, num_classes: int) -> bool:
    """Return whether all ``values`` are class indices or 255, and at least one class above 0 occurs."""
    return bool(np.isin(values, [*range(num_classes), IGNORE]).all() and np.isin(values, range(1, num_classes)).any())


def labels_of(grey: np.ndarray, indices: bool, num_classes: int, path: str) -> np.ndarray:
    """Return class labels of a one-channel mask, uint8 (H, W); a DataError names ``path`` where they are unclear.

    With ``indices`` the data set's masks hold class indices; otherwise grey values, road from half of white up.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    values = np.flatnonzero(counts)
    if indices:
        if not np.isin(values, [*range(num_classes), IGNORE]).all():
            raise DataError(
                f"{path}: values {first_values(values)}, but class indices of {num_classes} classes are 0 to "
                f"{num_classes - 1} and 255"
            )
        return grey
    if not is_black_and_white(counts):
        raise DataError(
            f"{path}: values {first_values(values)} are neither 0/1 labels nor a road mask in black and white; "
            "say --num-classes where they are class indices"
        )
    return (grey >= 128).astype(np.uint8)


def repaired_labels(path: str, num_classes: int = 2, road_is_ignore: bool = False) -> np.ndarray:
    """Return the labels (H, W) that a single mask means which stands in a data set of labels but may be none.

    Labels stay as they are, unless the palette says the opposite; black and one other colour, as palette, colour or
    grey of any depth, are background and road. With ``road_is_ignore``, 255 beside 0 means road, not ignore. Where
    nothing is known, labels are 255.

    Raises:
        DataError: unreadable, or there is more than one answer.
    """
    stored, palette, valid = read_stored(path)
    labels = _meaning(stored, palette, num_classes, road_is_ignore, path)
    return labels if valid is None else np.where(valid, labels, IGNORE).astype(np.uint8)


def _meaning(
    stored: np.ndarray, palette: np.ndarray | None, num_classes: int, road_is_ignore: bool, path: str
) -> np.ndarray:
    """Return the labels (H, W) that values as `read_stored` returns them mean."""
    if palette is not None and int(stored.max()) < len(palette):
        shown = np.unique(palette[np.unique(stored)], axis=0)
        misled = palette[0].any() or not np.isin(stored, [*range(num_classes), IGNORE]).all()
        if misled and len(shown) <= 2 and not shown[0].any():
            return palette[stored[:, :, 0]].any(axis=2).astype(np.uint8)
    grey = stored[:, :, 0] if stored.shape[2] == 1 and stored.dtype == np.uint8 else read_grey(path)[0]
    own = stored.shape[2] == 1 and bool(np.isin(stored, [*range(num_classes), IGNORE]).all())
    if own and not (road_is_ignore and num_classes == 2 and not (grey == 1).any()):
        return grey
    return labels_of(grey, False, num_classes, path)
