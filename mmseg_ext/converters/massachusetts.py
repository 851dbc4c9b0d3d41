"""Massachusetts roads."""

from __future__ import annotations

import os

from ..datasets.pairing import pair_files
from ..errors import DataError
from .scene import RawDataSet, Scene
from .settings import Settings

_LAYOUTS = (
    {"train": ("train/sat", "train/map"), "val": ("valid/sat", "valid/map"), "test": ("test/sat", "test/map")},
    {
        "train": ("tiff/train", "tiff/train_labels"),
        "val": ("tiff/val", "tiff/val_labels"),
        "test": ("tiff/test", "tiff/test_labels"),
    },
)


def find_massachusetts(source: str, settings: Settings) -> list[Scene]:
    """Return the images of all three splits, from the publisher's folders or Kaggle's.

    Raises:
        DataError: neither layout is there.
    """
    for layout in _LAYOUTS:
        if os.path.isdir(os.path.join(source, layout["train"][0])):
            return [
                Scene(stem, (split,), image, mask=mask)
                for split, (images, masks) in layout.items()
                for stem, image, mask in pair_files(os.path.join(source, images), os.path.join(source, masks))
            ]
    raise DataError(
        f"{source}: holds neither train/sat (as published) nor tiff/train (as on Kaggle); name the folder above them"
    )


MASSACHUSETTS = RawDataSet(
    name="massachusetts",
    title="Massachusetts roads",
    find_scenes=find_massachusetts,
    home="https://www.cs.toronto.edu/~vmnih/data/",
    citation="Mnih, Machine Learning for Aerial Image Labeling, PhD thesis, University of Toronto, 2013",
    licence="none stated; released for research",
    layout="{train,valid,test}/sat/10078660_15.tiff and .../map/10078660_15.tif; Kaggle: tiff/train, tiff/train_labels",
    images="1,171 of 1500x1500, RGB 8 bit; masks 0/255, centrelines drawn 7 px wide; large white areas without image",
    split="published: 1,108 / 14 / 49",
    gsd_m=1.0,
    indices=False,
    hole_value=255,
)
