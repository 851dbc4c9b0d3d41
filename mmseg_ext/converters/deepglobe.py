"""DeepGlobe roads."""

from __future__ import annotations

import os

from ..datasets.pairing import pair_files
from ..errors import DataError
from .folder_pair import scenes_of_pairs
from .scene import RawDataSet, Scene
from .settings import SPLITTING, Settings

_PAIRS, _VALIDATION = 6226, 1530


def find_deepglobe(source: str, settings: Settings) -> list[Scene]:
    """Return the labelled images of the download in ``source``; its valid/ and test/ have no masks.

    Raises:
        DataError: no such folder, or an image without a mask.
    """
    train = os.path.join(source, "train")
    folder = train if os.path.isdir(train) else source
    if not any(name.endswith("_sat.jpg") for name in os.listdir(folder)):
        raise DataError(f"{folder}: holds no x_sat.jpg beside x_mask.png; name the folder that holds train/")
    return scenes_of_pairs(pair_files(folder, folder), settings)


DEEPGLOBE = RawDataSet(
    name="deepglobe",
    title="DeepGlobe roads 2018",
    find_scenes=find_deepglobe,
    home="https://competitions.codalab.org/competitions/18467",
    citation="Demir et al., DeepGlobe 2018: A Challenge to Parse the Earth through Satellite Images, CVPRW 2018",
    licence="DigitalGlobe internal use licence; not open",
    layout="train/100034_sat.jpg and train/100034_mask.png; valid/ and test/ hold images without masks",
    images="6,226 labelled, 1024x1024, RGB JPEG 8 bit; masks RGB PNG, not purely 0 and 255: road from 128 up",
    split="none published; the usual 4,696 / 1,530 by --seed, or by a list with --val-list",
    gsd_m=0.5,
    defaults=dict(val=_VALIDATION / _PAIRS),
    options=SPLITTING,
    indices=False,
)
