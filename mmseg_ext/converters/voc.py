"""Data that is in the VOC layout already: verified, and repaired where one answer is safe."""

from __future__ import annotations

import os

from ..datasets.image_file import IMAGE_SUFFIXES
from ..datasets.raw_mask import RAW_MASK_SUFFIXES
from ..datasets.road_dataset import files_by_stem
from ..errors import DataError
from .scene import RawDataSet, Scene
from .settings import Settings
from .splits import SPLITS, read_names


def find_voc(source: str, settings: Settings) -> list[Scene]:
    """Return the listed images of a VOC folder, in the splits of its lists; a list ``test`` may be missing.

    Raises:
        DataError: a folder or a list is missing, a listed file is not there, or a training image is listed twice.
    """
    images, masks = os.path.join(source, "JPEGImages"), os.path.join(source, "SegmentationClass")
    lists = os.path.join(source, "ImageSets", "Segmentation")
    for needed in (images, masks, lists):
        if not os.path.isdir(needed):
            raise DataError(
                f"{needed}: no such folder; {source} is no VOC layout (JPEGImages, SegmentationClass, ImageSets); "
                "images and masks in other folders: convert_dataset.py pair"
            )
    image_of, mask_of = files_by_stem(images, IMAGE_SUFFIXES), files_by_stem(masks, RAW_MASK_SUFFIXES)
    found = {
        stem: (os.path.join(images, name), os.path.join(masks, mask_of[stem]))
        for stem, name in image_of.items()
        if stem in mask_of
    }
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        path = os.path.join(lists, f"{split}.txt")
        if split == "test" and not os.path.isfile(path):
            continue
        for name in dict.fromkeys(read_names(path)):
            stem = name if name in found else os.path.splitext(name)[0]
            if stem not in found:
                raise DataError(
                    f"{path}: lists {name}, but {images} and {masks} do not both hold it; add it or remove the line"
                )
            splits.setdefault(stem, []).append(split)
    for stem, listed in splits.items():
        if "train" in listed and len(listed) > 1:
            raise DataError(
                f"{lists}: {stem} is listed for {' and '.join(listed)}, so the scores would be of images trained on; "
                "keep it in one list"
            )
    if not any("train" in listed for listed in splits.values()):
        raise DataError(f"{os.path.join(lists, 'train.txt')}: lists no image; name the training images in it")
    return [Scene(stem, tuple(listed), *found[stem]) for stem, listed in splits.items()]


OPM = RawDataSet(
    name="opm",
    title="OPM, open-pit mine roads",
    find_scenes=find_voc,
    home="https://github.com/D-SegNeXt/D-SegNeXt",
    citation="Cui, Meng, Zhang, Road Extraction From High-Resolution Remote Sensing Images of Open-Pit Mine Using "
    "D-SegNeXt, IEEE GRSL 2024",
    licence="none stated; ask the authors for commercial use",
    layout="JPEGImages/<name>.png, SegmentationClass/<name>.png, ImageSets/Segmentation/{train,val,test}.txt; any "
    "folder in this layout will do",
    images="RGB 8 bit from drones; masks 0/1 with palette; 0/255, colour and 3-channel masks are repaired",
    split="as listed",
    options=("num_classes",),
)
