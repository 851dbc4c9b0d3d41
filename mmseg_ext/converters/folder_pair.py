"""A folder of images and a folder of masks, as most data comes."""

from __future__ import annotations

import os

from ..datasets.image_file import image_info
from ..datasets.pairing import find_folders, pair_files
from ..errors import ConfigError
from .scene import RawDataSet, Scene
from .settings import SPLITTING, Settings
from .splits import area_parts, assign_splits


def scenes_of_pairs(pairs: list[tuple[str, str, str]], settings: Settings) -> list[Scene]:
    """Return a scene for every (stem, image path, mask path), each in the split that the settings give it."""
    if settings.by_area:
        return _by_area(pairs, settings)
    split_of = assign_splits([stem for stem, _, _ in pairs], settings)
    return [Scene(stem, (split_of[stem],), image, mask=mask) for stem, image, mask in pairs]


def _by_area(pairs: list[tuple[str, str, str]], settings: Settings) -> list[Scene]:
    if settings.val_list or settings.scene or settings.by_name:
        raise ConfigError("--by-area splits every image; leave out --val-list, --by-name and --scene")
    scenes = []
    for stem, image, mask in pairs:
        info = image_info(image)
        for split, part in area_parts(info.height, info.width, settings).items():
            scenes.append(Scene(f"{stem}_{split}", (split,), image, mask=mask, part=part))
    return scenes


def find_pairs(source: str, settings: Settings) -> list[Scene]:
    """Return the pairs in ``source``: the folders that the settings name, or those with the usual names.

    Raises:
        DataError: it is not clear which folder is which, an image has no mask, or two files stand for one name.
    """
    if settings.images is None and settings.masks is None:
        images, masks = find_folders(source)
    else:
        images, masks = (os.path.join(source, folder or ".") for folder in (settings.images, settings.masks))
    return scenes_of_pairs(pair_files(os.path.normpath(images), os.path.normpath(masks)), settings)


PAIR = RawDataSet(
    name="pair",
    title="your own images and masks",
    find_scenes=find_pairs,
    home="",
    citation="",
    licence="",
    layout="images/x.tif and masks/x.png, or x_sat.jpg and x_mask.png in one folder; --images and --masks name others",
    images="any size, 8 or 16 bit, any bands; masks 0/1, 0/255, grey, RGB, palette, 1 bit",
    split="--val and --test by --seed, --by-name, or by --val-list and --test-list; --scene keeps scenes together",
    options=(*SPLITTING, "scene", "images", "masks", "num_classes"),
)
EPFL = RawDataSet(
    name="epfl",
    title="EPFL and ETH course data",
    find_scenes=find_pairs,
    home="https://www.aicrowd.com/challenges/epfl-ml-road-segmentation",
    citation="EPFL machine learning course CS-433; ETH Zurich computational intelligence lab uses the same form",
    licence="none stated; pictures from Google Maps, for the course",
    layout="images/satImage_001.png and groundtruth/satImage_001.png below training/ (ETH since 2022: satimage_0.png)",
    images="100 (ETH 144) of 400x400, RGB 8 bit (ETH RGBA); masks grey with soft edges, road from half of white up",
    split="none published: here the last fifth of the names validates; change with --val and the like",
    defaults=dict(by_name=True),
    options=(*SPLITTING, "images", "masks"),
    indices=False,
)
