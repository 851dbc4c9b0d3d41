"""A folder of images and a folder of masks, as real data brings them, into the VOC layout."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..datasets.pipelines import check_same_size, read_image
from ..datasets.road_dataset import IMAGE_SUFFIXES
from ..errors import DataError
from .voc_writer import VocWriter

IMAGE_ROLES = ("_sat", "_image", "_img", "_rgb", "_ortho")
MASK_ROLES = ("_mask", "_label", "_labels", "_gt", "_groundtruth", "_road", "_roads", "_seg")
MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".bmp")
IGNORE = 255

# In grey masks almost every pixel is near black or near white; more than this share between the two is no road mask.
_MAX_BETWEEN = 0.1
_BETWEEN = (64, 191)
_MAX_CHANNEL_DIFFERENCE = 24
_PHOTOGRAPH_COLOURS = 64


@dataclass(frozen=True)
class Conversion:
    """What a conversion made.

    Attributes:
        counts: number of images of each split.
        mean: mean RGB of the training images, 0 to 255.
        std: standard deviation of RGB of the training images.
        road_share: share of road pixels in all masks, 0 to 1.
    """

    counts: dict[str, int]
    mean: list[float]
    std: list[float]
    road_share: float


def _without_role(stem: str, roles: tuple[str, ...]) -> str:
    for role in roles:
        if stem.casefold().endswith(role):
            return stem[: -len(role)]
    return stem


def _list_files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder")
    return sorted(name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in suffixes)


def _by_stem(folder: str, names: list[str], roles: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        stem = _without_role(os.path.splitext(name)[0], roles)
        if stem in found:
            raise DataError(f"{folder}: {found[stem]} and {name} both stand for '{stem}'; keep one of them")
        found[stem] = name
    return found


def pair_files(images_dir: str, masks_dir: str) -> list[tuple[str, str, str]]:
    """Return (stem, image path, mask path) of every pair, sorted by stem.

    Names pair when they are equal without a known role at their end (``_sat``, ``_mask``, ...). Both folders may be
    one, as in DeepGlobe; the roles then tell images from masks.

    Raises:
        DataError: a folder is missing or empty, an image has no mask, or two files stand for one name.
    """
    images, masks = _list_files(images_dir, IMAGE_SUFFIXES), _list_files(masks_dir, MASK_SUFFIXES)
    if os.path.realpath(images_dir) == os.path.realpath(masks_dir):
        masks = [n for n in masks if os.path.splitext(n)[0].casefold().endswith(MASK_ROLES)]
        images = [n for n in images if n not in masks]
    for folder, names in ((images_dir, images), (masks_dir, masks)):
        if not names:
            raise DataError(f"{folder}: holds no {'masks' if names is masks else 'images'} that could be used")
    image_of, mask_of = _by_stem(images_dir, images, IMAGE_ROLES), _by_stem(masks_dir, masks, MASK_ROLES)
    for stem, name in image_of.items():
        if stem not in mask_of:
            raise DataError(
                f"{os.path.join(images_dir, name)}: no mask named like it in {masks_dir}; add it or move the image away"
            )
    return [
        (stem, os.path.join(images_dir, image_of[stem]), os.path.join(masks_dir, mask_of[stem]))
        for stem in sorted(image_of)
    ]


def read_grey(path: str) -> np.ndarray:
    """Return the mask at ``path`` in one channel, uint8 (H, W): grey values, or the indices of a palette from black.

    Raises:
        DataError: unreadable, or colours that are not black and one other.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode == "P" and (image.getpalette() or [])[:3] == [0, 0, 0]:
                return np.array(image, dtype=np.uint8)
            if image.mode == "1":
                return np.array(image, dtype=np.uint8) * 255
            if image.mode.startswith("I"):
                deep = np.array(image, dtype=np.int64)
                return (deep if deep.max() <= IGNORE else deep * 255 // 65535).clip(0, 255).astype(np.uint8)
            if image.mode == "F":
                raise DataError(f"{path}: floating-point pixels; export the mask as 8-bit")
            if image.mode in ("L", "LA"):
                return np.array(image.getchannel("L"))
            colours = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a mask ({error})") from None
    if np.ptp(colours.astype(np.int16), axis=2).max() <= _MAX_CHANNEL_DIFFERENCE:
        return colours.max(axis=2)
    unique = np.unique(colours.reshape(-1, 3), axis=0)
    if len(unique) == 2 and not unique[0].any():
        return np.where(colours.any(axis=2), 255, 0).astype(np.uint8)
    hint = "are the two folders exchanged?" if len(unique) > _PHOTOGRAPH_COLOURS else "export roads white on black"
    raise DataError(f"{path}: {len(unique)} colours, not black and one other; {hint}")


def holds_indices(values: np.ndarray, num_classes: int) -> bool:
    """Return whether all ``values`` are class indices or 255, and at least one class above 0 occurs."""
    return bool(np.isin(values, [*range(num_classes), IGNORE]).all() and np.isin(values, range(1, num_classes)).any())


def labels_of(grey: np.ndarray, indices: bool, num_classes: int, path: str) -> np.ndarray:
    """Return class labels of a one-channel mask.

    Args:
        grey: uint8 (H, W).
        indices: the data set's masks hold class indices; otherwise grey values, road from half of white up.
        num_classes: number of classes.
        path: named in errors.

    Raises:
        DataError: values that are neither.
    """
    values, counts = np.unique(grey, return_counts=True)
    shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    if indices:
        if not np.isin(values, [*range(num_classes), IGNORE]).all():
            raise DataError(
                f"{path}: values {shown}, but class indices of {num_classes} classes are 0 to {num_classes - 1} and 255"
            )
        return grey
    between = counts[(values >= _BETWEEN[0]) & (values <= _BETWEEN[1])].sum() / counts.sum()
    if between > _MAX_BETWEEN or (values.max() > 0 and values.max() < 128):
        raise DataError(
            f"{path}: values {shown} are neither 0/1 labels nor a road mask in black and white; "
            "say --num-classes where they are class indices"
        )
    return (grey >= 128).astype(np.uint8)


def _assign_splits(stems: list[str], val: float, test: float, seed: int, by_name: bool) -> dict[str, str]:
    """Return the split of every stem; ``val`` and ``test`` are shares below 1 or numbers of images."""
    sizes = [round(part * len(stems)) if part < 1 else int(part) for part in (val, test)]
    if sizes[0] < 1 or sum(sizes) >= len(stems):
        raise DataError(
            f"{len(stems)} images cannot give {sizes[0]} for validation and {sizes[1]} for test and leave some for "
            "training; change --val or --test"
        )
    order = sorted(stems)
    if not by_name:
        random.Random(seed).shuffle(order)
    names = ["train"] * (len(order) - sum(sizes)) + ["val"] * sizes[0] + ["test"] * sizes[1]
    return dict(zip(order, names, strict=True))


def convert_folder_pair(
    images_dir: str,
    masks_dir: str,
    dest: str,
    val: float = 0.2,
    test: float = 0.0,
    seed: int = 0,
    by_name: bool = False,
    num_classes: int = 2,
    overwrite: bool = False,
) -> Conversion:
    """Convert a folder of images and a folder of masks; the sources are not changed.

    Accepts masks of 0/1 (and 255 for ignore), 0/255, anti-aliased grey, 3-channel, one colour on black, palette and
    1-bit; images of 8 bit, alpha dropped. Without a test share, the test split is the validation split.

    Args:
        images_dir: folder of images.
        masks_dir: folder of masks; may be ``images_dir``.
        dest: new data set in the VOC layout.
        val: share (below 1) or number of images for validation.
        test: share or number of images for test.
        seed: seed of the random split.
        by_name: split in the order of names instead: the last ones validate and test.
        num_classes: number of classes; above 2, masks hold class indices.
        overwrite: replace an existing ``dest``.

    Raises:
        DataError: names the file that could not be understood; nothing is left at ``dest`` then.
    """
    pairs = pair_files(images_dir, masks_dir)
    split_of = _assign_splits([stem for stem, _, _ in pairs], val, test, seed, by_name)
    with VocWriter(dest, overwrite) as writer:
        indices = num_classes > 2
        if not indices:
            # 255 is road in 0/255 masks and ignore in 0/1 masks: all masks together tell which
            seen = np.zeros(256, bool)
            for _, _, mask_path in tqdm(pairs, desc="looking at masks", unit="mask", disable=None, leave=False):
                seen[np.unique(read_grey(mask_path))] = True
            indices = holds_indices(np.flatnonzero(seen), num_classes)
        road = pixels = 0
        counts = dict.fromkeys(("train", "val", "test"), 0)
        for stem, image_path, mask_path in tqdm(pairs, desc="converting", unit="pair", disable=None, leave=False):
            image = read_image(image_path)[:, :, ::-1]
            mask = labels_of(read_grey(mask_path), indices, num_classes, mask_path)
            check_same_size(mask.shape, image.shape, mask_path, image_path)
            with Image.open(image_path) as raw:
                plain = raw.mode == "RGB"
            writer.add(stem, image, mask, split_of[stem], source=image_path if plain else None)
            counts[split_of[stem]] += 1
            road += int(((mask > 0) & (mask != IGNORE)).sum())
            pixels += mask.size
    mean, std = writer.statistics()
    return Conversion(counts, mean, std, road / pixels)
