"""Several data sets that train together: as a list, or in MMSegmentation's `ConcatDataset` and `RepeatDataset`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from mmseg.datasets import ConcatDataset, RepeatDataset, build_dataset
from torch.utils.data import Dataset

from ..errors import ConfigError
from ..imagery.reading import ImageReading
from .augmentation import BandNormalize
from .road_dataset import RoadDataset

_SAME_SCALE = 1.1
_SCALING_STEPS = ("ScaleToGSD", "RandomAffineCrop")
logger = logging.getLogger(__name__)


def part_settings(split: Any) -> Iterator[dict]:
    """Yield the settings of every data set in ``split``, what a config's ``data.train`` says.

    It may be a list, ``RepeatDataset(dataset=..., times=...)``, ``ConcatDataset(datasets=[...])``, or have a list of
    split files.
    """
    if isinstance(split, (list, tuple)):
        for part in split:
            yield from part_settings(part)
    elif split.get("type") in ("RepeatDataset", "ConcatDataset"):
        yield from part_settings(split.get("dataset" if split["type"] == "RepeatDataset" else "datasets") or [])
    elif isinstance(split.get("split"), (list, tuple)):
        yield from ({**split, "split": file} for file in split["split"])
    else:
        yield split


def build_training_set(split: Any) -> Any:
    """Return the data set of ``data.train``, which may be several; see `part_settings`."""
    if isinstance(split, dict) and split.get("type") == "ConcatDataset":
        split = split["datasets"]
    if isinstance(split, (list, tuple)):
        return ConcatDataset([build_training_set(part) for part in split])
    if split.get("type") == "RepeatDataset":
        return RepeatDataset(build_training_set(split["dataset"]), split["times"])
    files = list(part_settings(split))
    return build_dataset(split) if files == [split] else ConcatDataset([build_dataset(part) for part in files])


def parts_of(dataset: Dataset | None) -> list[Any]:
    """Return the data sets that ``dataset`` consists of; itself where it is one, none for None."""
    if isinstance(dataset, ConcatDataset):
        return [part for one in dataset.datasets for part in parts_of(one)]
    if isinstance(dataset, RepeatDataset):
        return parts_of(dataset.dataset)
    return [] if dataset is None else [dataset]


def _scaling(reading: ImageReading) -> tuple:
    return reading.low, reading.high


def _normalization(dataset: RoadDataset) -> tuple:
    steps = [step for step in dataset.pipeline.transforms if isinstance(step, BandNormalize)]
    return tuple((tuple(step.mean.ravel().tolist()), tuple(step.std.ravel().tolist()), step.to_rgb) for step in steps)


_COMMON: tuple[tuple[str, Callable[[RoadDataset], Any], str], ...] = (
    ("classes", lambda d: tuple(d.CLASSES), "give all the same classes"),
    ("ignored label", lambda d: d.ignore_index, "give all the same ignore_index"),
    ("bands", lambda d: d.image_reading().bands, "give all the same LoadRoadImage bands"),
    (
        "scaling to 8 bits",
        lambda d: _scaling(d.image_reading()),
        "give all the same low and high of LoadRoadImage",
    ),
    ("normalisation", _normalization, "give all the same Normalize, for example the mean of theirs"),
)


def common_reading(dataset: Dataset) -> ImageReading | None:
    """Return how the images of all parts of a training set are read; None where it has none of `RoadDataset`.

    Where they differ in metres per pixel and no step brings them to one scale, those are not known, and it is logged.

    Raises:
        ConfigError: a network cannot see all parts in one way; names the first that differs from the first of all.
    """
    parts = [part for part in parts_of(dataset) if isinstance(part, RoadDataset)]
    if not parts:
        return None
    first, *others = parts
    for other in others:
        for what, value, remedy in _COMMON:
            if value(other) != value(first):
                raise ConfigError(
                    f"{first.split} and {other.split} train together, but differ in their {what}: {value(first)} and "
                    f"{value(other)}; {remedy}"
                )
    reading = first.image_reading()
    metres = [part.image_reading().gsd_m for part in parts]
    known = [value for value in metres if value is not None]
    if len(known) == len(metres) and max(known) <= _SAME_SCALE * min(known):
        return reading
    if known and not all(_brings_to_one_scale(part) for part in parts):
        text = "the training sets have %s m per pixel; ScaleToGSD(gsd_m=...) would bring all to one scale"
        logger.warning(text, ", ".join("unknown" if value is None else f"{value:g}" for value in metres))
    return replace(reading, gsd_m=None)


def _brings_to_one_scale(dataset: RoadDataset) -> bool:
    return any(type(step).__name__ in _SCALING_STEPS and step.gsd_m for step in dataset.pipeline.transforms)


def refuse_several(split: Any, name: str) -> None:
    """Refuse several data sets where scores are computed, which are those of one data set.

    Raises:
        ConfigError: ``split`` is a list or a wrapper of data sets; names ``data.<name>``.
    """
    wrapped = isinstance(split, (list, tuple)) or str(split.get("type")) in ("RepeatDataset", "ConcatDataset")
    if wrapped or isinstance(split.get("split"), (list, tuple)):
        raise ConfigError(f"data.{name}: several data sets can train together, but scores are of one; give one of them")
