"""Which image and which mask of raw folders belong together, told by their names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError
from .image_file import IMAGE_SUFFIXES
from .raw_mask import RAW_MASK_SUFFIXES

IMAGE_ROLES = ("_sat", "_image", "_img", "_rgb", "_ortho")
MASK_ROLES = ("_mask", "_label", "_labels", "_gt", "_groundtruth", "_road", "_roads", "_seg")
IMAGE_FOLDERS = ("images", "image", "img", "imgs", "sat", "jpegimages", "rgb", "tiles")
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "gt", "groundtruth", "ground_truth", "annotations", "segmentationclass"),
    *("roads",),
)


@dataclass(frozen=True)
class Matching:
    """What the names in a folder of images and a folder of masks say.

    Attributes:
        pairs: (stem, image path, mask path), sorted by stem.
        lone_images: paths of images without a mask.
        lone_masks: paths of masks without an image.
        clashes: (stem, path, further path) of files of one folder that stand for one stem; the first is taken.
    """

    pairs: list[tuple[str, str, str]]
    lone_images: list[str]
    lone_masks: list[str]
    clashes: list[tuple[str, str, str]]


def _without_role(stem: str, roles: tuple[str, ...]) -> str:
    for role in roles:
        if stem.casefold().endswith(role):
            return stem[: -len(role)]
    return stem


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _list_files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder")
    return sorted(name for name in os.listdir(folder) if os.path.splitext(name)[1].lower() in suffixes)


def _by_stem(names: Sequence[str], roles: tuple[str, ...]) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Return the first name of every stem, and (stem, first name, further name) where there are several."""
    found: dict[str, str] = {}
    clashes = []
    for name in names:
        stem = _without_role(_stem(name), roles)
        if stem in found:
            clashes.append((stem, found[stem], name))
        else:
            found[stem] = name
    return found, clashes


def match_files(images_dir: str, masks_dir: str) -> Matching:
    """Return what pairs and what does not.

    Names pair when they are equal without a known role at their end (``_sat``, ``_mask``, ...). Both folders may be
    one, as in DeepGlobe; the roles then tell images from masks.

    Raises:
        DataError: a folder is missing, or holds no images or no masks.
    """
    images, masks = _list_files(images_dir, IMAGE_SUFFIXES), _list_files(masks_dir, RAW_MASK_SUFFIXES)
    if os.path.realpath(images_dir) == os.path.realpath(masks_dir):
        masks = [name for name in masks if _stem(name).casefold().endswith(MASK_ROLES)]
        images = sorted(set(images) - set(masks))
    for folder, names, what in ((images_dir, images, "images"), (masks_dir, masks, "masks")):
        if not names:
            raise DataError(f"{folder}: holds no {what} that could be used")
    image_of, image_clashes = _by_stem(images, IMAGE_ROLES)
    mask_of, mask_clashes = _by_stem(masks, MASK_ROLES)

    def image_path(name: str) -> str:
        return os.path.join(images_dir, name)

    def mask_path(name: str) -> str:
        return os.path.join(masks_dir, name)

    return Matching(
        pairs=[(s, image_path(image_of[s]), mask_path(mask_of[s])) for s in sorted(image_of) if s in mask_of],
        lone_images=[image_path(name) for stem, name in image_of.items() if stem not in mask_of],
        lone_masks=[mask_path(name) for stem, name in mask_of.items() if stem not in image_of],
        clashes=[
            *((stem, image_path(name), image_path(other)) for stem, name, other in image_clashes),
            *((stem, mask_path(name), mask_path(other)) for stem, name, other in mask_clashes),
        ],
    )


def pair_files(images_dir: str, masks_dir: str) -> list[tuple[str, str, str]]:
    """Return (stem, image path, mask path) of every pair, sorted by stem; masks without an image are left out.

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
    names = sorted(os.listdir(source))
    folders = [name for name in names if os.path.isdir(os.path.join(source, name))]
    images = [name for name in folders if name.casefold() in IMAGE_FOLDERS]
    masks = [name for name in folders if name.casefold() in MASK_FOLDERS]
    if len(images) == len(masks) == 1:
        return os.path.join(source, images[0]), os.path.join(source, masks[0])
    for found, what in ((images, "images"), (masks, "masks")):
        if len(found) > 1:
            raise DataError(f"{source}: {', '.join(found)} may each hold the {what}; keep one of them there")
    files = [name for name in names if os.path.splitext(name)[1].lower() in RAW_MASK_SUFFIXES]
    with_role = [name for name in files if _stem(name).casefold().endswith(MASK_ROLES)]
    if with_role and len(with_role) < len(files):
        return source, source
    raise DataError(
        f"{source}: holds no folder of images beside a folder of masks; name them images and masks, "
        "or the files x_sat and x_mask"
    )
