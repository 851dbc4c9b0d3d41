"""Every converter by its name."""

from __future__ import annotations

import os
from dataclasses import replace
from difflib import get_close_matches

import numpy as np

from ..checks import examine, splits_of_folder
from ..datasets.raw_mask import repaired_labels
from ..errors import ConfigError, DataError
from .chn6_cug import CHN6_CUG
from .conversion import Conversion, convert_scenes
from .deepglobe import DEEPGLOBE
from .folder_pair import EPFL, PAIR
from .massachusetts import MASSACHUSETTS
from .scene import RawDataSet
from .settings import COMMON, NAMES, Settings
from .spacenet3 import SPACENET3
from .voc import OPM

CATALOGUE: dict[str, RawDataSet] = {
    raw.name: raw for raw in (PAIR, OPM, DEEPGLOBE, MASSACHUSETTS, CHN6_CUG, SPACENET3, EPFL)
}


def describe() -> str:
    """Return what every data set is and how it is converted, as Markdown."""
    sections = []
    for raw in CATALOGUE.values():
        facts = [
            ("from", raw.home),
            ("cite", raw.citation),
            ("licence", raw.licence),
            ("files", raw.layout),
            ("content", raw.images),
            ("split", raw.split),
            ("ground sampling distance", f"{raw.gsd_m:g} m" if raw.gsd_m else "from the georeference, or --gsd"),
            ("options", ", ".join(f"`--{name.replace('_', '-')}`" for name in raw.options)),
        ]
        lines = "\n".join(f"- {key}: {value}" for key, value in facts if value)
        sections.append(f"**`{raw.name}`**: {raw.title}\n\n{lines}")
    common = ", ".join(f"`--{name.replace('_', '-')}`" for name in COMMON)
    return "\n\n".join([*sections, f"All take {common}."])


def _inside(folder: str, other: str) -> bool:
    folder, other = os.path.realpath(folder), os.path.realpath(other)
    return os.path.commonpath([folder, other]) == folder


def convert(name: str, source: str, dest: str, **settings: object) -> Conversion:
    """Convert the raw data in ``source`` into a data set at ``dest``; the source is not changed.

    Args:
        name: one of `CATALOGUE`.
        source: folder of the raw data.
        dest: folder to create.
        settings: attributes of `Settings`; those left out, or None, take the data set's defaults.

    Raises:
        ConfigError: no such converter, or a setting that it does not take.
        DataError: names the files that could not be understood.
    """
    if name not in CATALOGUE:
        near = get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CATALOGUE)}"
        raise ConfigError(f"{name}: no converter has this name; {hint}")
    raw = CATALOGUE[name]
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given:
        if key not in NAMES:
            raise ConfigError(f"{key}: a conversion has no such setting")
        if key not in (*COMMON, *raw.options):
            raise ConfigError(f"--{key.replace('_', '-')} does not apply to {name} ({raw.title}); leave it out")
    source = os.path.normpath(source)
    if not os.path.isdir(source):
        raise DataError(f"{source}: no such folder")
    chosen = Settings(**{**raw.defaults, **given})
    if _inside(dest, source):
        raise DataError(f"{dest}: holds the source {source}, which must not be replaced; choose another folder")
    if raw is OPM:
        return _verified(raw, source, dest, chosen)
    return convert_scenes(raw, raw.find_scenes(source, chosen), dest, chosen)


def repair_dataset(source: str, dest: str, num_classes: int = 2, overwrite: bool = False) -> Conversion:
    """Write the VOC folder ``source`` anew at ``dest``, its masks brought to labels; images and splits stay.

    Raises:
        DataError: what has no one safe answer is named.
    """
    raw = replace(OPM, name="voc", title="repaired", home="", citation="", licence="")
    settings = Settings(tile=0, num_classes=num_classes, overwrite=overwrite)
    return _verified(raw, os.path.normpath(source), dest, settings)


def _verified(raw: RawDataSet, source: str, dest: str, settings: Settings) -> Conversion:
    """Convert a folder in the VOC layout, each mask judged by itself and by what the label doctor says of it."""
    scenes = raw.find_scenes(source, settings)
    road_is_ignore: set[str] = set()
    if settings.num_classes == 2:
        for finding in examine(source, *splits_of_folder(source)).findings:
            if finding.code == "mask-0-255":
                road_is_ignore.update(map(os.path.realpath, finding.files))

    def read_labels(path: str) -> np.ndarray:
        return repaired_labels(path, settings.num_classes, os.path.realpath(path) in road_is_ignore)

    return convert_scenes(raw, scenes, dest, settings, read_labels)
