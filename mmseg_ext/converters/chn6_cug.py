"""CHN6-CUG roads."""

from __future__ import annotations

import os

from ..datasets.pairing import pair_files
from ..errors import DataError
from .scene import RawDataSet, Scene
from .settings import Settings


def find_chn6_cug(source: str, settings: Settings) -> list[Scene]:
    """Return the images of both splits.

    Raises:
        DataError: train/images is not there.
    """
    if not os.path.isdir(os.path.join(source, "train", "images")):
        raise DataError(f"{source}: holds no train/images; name the folder that holds train/ and val/")
    return [
        Scene(stem, (split,), image, mask=mask)
        for split in ("train", "val")
        for stem, image, mask in pair_files(*(os.path.join(source, split, part) for part in ("images", "gt")))
    ]


CHN6_CUG = RawDataSet(
    name="chn6_cug",
    title="CHN6-CUG roads",
    find_scenes=find_chn6_cug,
    home="https://github.com/CUG-URS/CHN6-CUG-Roads-Dataset",
    citation="Zhu et al., A Global Context-aware and Batch-independent Network for road extraction from VHR satellite "
    "imagery, ISPRS Journal 175, 2021",
    licence="academic use only; pictures from Google Earth",
    layout="{train,val}/images/<id>_sat.jpg and {train,val}/gt/<id>_mask.png",
    images="4,511 of 512x512, RGB JPEG 8 bit; masks 0 to 255, road from 128 up",
    split="published: 3,608 / 903; the validation images are the test",
    gsd_m=0.5,
    indices=False,
)
