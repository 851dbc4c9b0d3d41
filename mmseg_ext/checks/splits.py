"""Splits: finding those of a config or a folder, their figures, and what only all pairs of a split together tell."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ..datasets.augmentation import normalize_setting
from ..datasets.loading import LoadRoadImage
from ..datasets.pipelines import nested_steps, refuse_reduced_labels, with_step_args
from ..datasets.road_dataset import RoadDataset
from ..datasets.several import part_settings
from ..errors import ConfigError, DataError
from ..imagery import reading_of, voc
from ..imagery.raw_mask import (
    find_folders,
    first_values,
    holds_indices,
    is_black_and_white,
    match_files,
    read_stored,
    shows_scene,
)
from ..imagery.raw_splits import split_folders
from .findings import Problem
from .pairs import PairFacts, Split, mean_and_std

Examined = Sequence[tuple[Split, Sequence[PairFacts]]]

_Part = TypeVar("_Part")

_MAX_LEVELS = 16
_ALL_ROAD = 0.95
_MOSTLY_ROAD = 0.5
_MOSTLY_EMPTY = 0.9
_RARE = 0.001
_ON_NOTHING = 0.1
_IMAGES_LOOKED_AT = 20


def splits_of_config(data: Mapping[str, Any]) -> tuple[list[Split], list[Problem]]:
    """Return the splits of a config's ``data`` and what is wrong with its folders and lists.

    Raises:
        ConfigError: a split is not a `RoadDataset`, has no split file, or reduces zero labels.
        DataError: a ``dataset.json`` cannot be understood.
    """
    splits, problems = [], []
    parts = [(s, part) for s in voc.SPLITS if data.get(s) for part in numbered(s, list(part_settings(data[s])))]
    for split, (name, settings) in parts:
        if settings.get("type", "RoadDataset") != "RoadDataset":
            raise ConfigError(f"data.{split} is of type {settings['type']}; only RoadDataset can be examined")
        if not settings.get("split"):
            raise ConfigError(f"data.{split} names no split file; set split={voc.split_file('', split)!r}")
        refuse_reduced_labels(settings)
        root = settings.get("data_root") or ""
        masks = settings.get("ann_dir", voc.MASKS)
        found, wrong = _listed_split(
            name,
            os.path.join(root, settings["split"]),
            os.path.join(root, settings.get("img_dir", voc.IMAGES)),
            None if masks is None else os.path.join(root, masks),
            reading=reading_of(root or None).with_settings(**_image_settings(settings)),
            classes=tuple(settings.get("classes") or voc.ROAD_CLASSES),
            ignore_index=settings.get("ignore_index", voc.IGNORE),
            normalize=_normalize(settings),
        )
        splits.append(found)
        problems += wrong
    return splits, problems + _unlistable(splits)


def numbered(name: str, parts: Sequence[_Part]) -> list[tuple[str, _Part]]:
    """Return the data sets of the split ``name`` with names of their own, where there are several."""
    return [(name if len(parts) == 1 else f"{name} {number}", part) for number, part in enumerate(parts, 1)]


def splits_of_folder(folder: str) -> tuple[list[Split], list[Problem]]:
    """Return the splits of a folder in the VOC layout, or raw folders of images and masks as one split.

    Raises:
        DataError: no such folder, or it cannot be told what it holds.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder or config")
    if not os.path.isdir(os.path.join(folder, voc.LISTS)):
        return _raw_splits(split_folders(folder) or {"pairs": find_folders(folder)})
    splits, problems = [], []
    for name in voc.SPLITS:
        path = voc.split_file(folder, name)
        if name == "test" and not os.path.isfile(path):
            continue
        images, masks = os.path.join(folder, voc.IMAGES), os.path.join(folder, voc.MASKS)
        found, wrong = _listed_split(name, path, images, masks, reading=reading_of(folder))
        splits.append(found)
        problems += wrong
    return splits, problems + _unlistable(splits)


def split_of_dataset(name: str, dataset: RoadDataset) -> Split:
    """Return the split that ``dataset`` reads."""
    masked = dataset.ann_dir is not None
    pairs = []
    for index in range(len(dataset)):
        image = dataset.image_path(index)
        stem = os.path.splitext(os.path.basename(image))[0]
        pairs.append(voc.Pair(stem, image, dataset.mask_path(index) if masked else None))
    return Split(
        name,
        tuple(pairs),
        dataset.img_dir,
        dataset.ann_dir,
        reading=dataset.image_reading(),
        classes=tuple(dataset.CLASSES),
        ignore_index=dataset.ignore_index,
        split_file=dataset.split,
    )


def _problems(flaws: Iterable[voc.Flaw]) -> list[Problem]:
    return [Problem(flaw.code, flaw.path, flaw.words, "warning" if flaw.is_harmless else "") for flaw in flaws]


def count_unlisted(splits: Sequence[Split]) -> int:
    """Return the number of images beside the listed ones that no split lists."""
    lists: dict[str, list[str]] = {}
    for split in splits:
        if split.split_file is not None:
            lists.setdefault(split.images_dir, []).append(split.split_file)
    return sum(len(voc.unlisted_images(folder, files)) for folder, files in lists.items())


def _listed_split(
    name: str, path: str, images_dir: str, masks_dir: str | None, **settings: Any
) -> tuple[Split, list[Problem]]:
    """Return the pairs that the split file at ``path`` lists, each once, and what is missing."""
    pairs, flaws = voc.listed_pairs(path, images_dir, masks_dir)
    split = Split(name, tuple(dict.fromkeys(pairs)), images_dir, masks_dir, split_file=path, **settings)
    return split, _problems(flaws)


def _raw_splits(folders: Mapping[str, tuple[str, str]]) -> tuple[list[Split], list[Problem]]:
    splits: list[Split] = []
    problems: list[Problem] = []
    for name, (images_dir, masks_dir) in folders.items():
        matching = match_files(images_dir, masks_dir)
        problems += [Problem("no-mask", path, f"no file named like it in {masks_dir}") for path in matching.lone_images]
        for stem, path, other in matching.clashes:
            problems.append(Problem("two-files", other, f"stands for {stem}, as {os.path.basename(path)} does"))
        pairs = [pair for pair in matching.pairs if all(voc.is_utf8(os.path.basename(path or "")) for path in pair[1:])]
        problems += [Problem("name-spaces", pair.image) for pair in pairs if pair.stem != pair.stem.strip()]
        splits.append(Split(name, tuple(pairs), images_dir, masks_dir, raw=True))
    return splits, problems + _unlistable(splits)


def _unlistable(splits: Sequence[Split]) -> list[Problem]:
    """Return the files whose names no split file can hold, listed or not."""
    folders = dict.fromkeys(folder for split in splits for folder in (split.images_dir, split.masks_dir) if folder)
    return [problem for folder in folders for problem in _problems(voc.unlistable_files(folder))]


def _steps(settings: Mapping[str, Any]) -> Iterator[dict]:
    """Yield every step of a split's pipeline, also the nested ones, with ``step_args`` over it."""
    yield from nested_steps(with_step_args(settings.get("pipeline", []), settings.get("step_args", {})))


def _image_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    for step in _steps(settings):
        if step["type"] == LoadRoadImage.__name__:
            return {key: step[key] for key in ("bands", "low", "high", "gsd_m") if step.get(key) is not None}
    return {}


def _normalize(settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and deviation of the pipeline's Normalize, in the order of the read bands."""
    for step in _steps(settings):
        if step["type"] in ("Normalize", "BandNormalize"):
            mean, std = tuple(step["mean"]), tuple(step["std"])
            if len(mean) == 3 and not step.get("to_rgb", True):
                mean, std = mean[::-1], std[::-1]
            return mean, std
    return None


@dataclass(frozen=True)
class SplitStatistics:
    """What a split consists of.

    Attributes:
        names: the split, and others that list the same images.
        pairs: number of pairs.
        sizes: number of images of each size, as ``WIDTHxHEIGHT``.
        bands: number of images of each number of bands and type of values.
        label_pixels: mask pixels of each class by name, and ``ignored``.
        without_road: number of masks without a pixel above 0.
        mean: of each band of the training images as a network reads them, RGB, 0 to 255.
        std: standard deviation of each band.
        class_weights: pixels / (classes * pixels of the class) of training; so each class weighs the same in sum.
    """

    names: tuple[str, ...]
    pairs: int
    sizes: dict[str, int]
    bands: dict[str, int]
    label_pixels: dict[str, int]
    without_road: int
    mean: list[float] | None = None
    std: list[float] | None = None
    class_weights: list[float] | None = None

    @classmethod
    def of(cls, names: Sequence[str], split: Split, facts: Sequence[PairFacts]) -> SplitStatistics:
        """Return the figures of ``split``, which stands under ``names``."""
        infos = [fact.image for fact in facts if fact.image is not None]
        pixels = label_pixels(facts)
        classes = pixels[: len(split.classes)]
        measured = training_statistics(split, facts) if split.trains else None
        weights = None
        if split.trains and classes.all():
            weights = [round(float(classes.sum() / (len(classes) * count)), 3) for count in classes]
        return cls(
            names=tuple(names),
            pairs=len(facts),
            sizes=_counted(f"{info.width}x{info.height}" for info in infos),
            bands=_counted(f"{info.bands} {info.dtype}{' + alpha' * info.has_alpha}" for info in infos),
            label_pixels={
                **{name: int(count) for name, count in zip(split.classes, classes, strict=True)},
                "ignored": int(pixels[split.ignore_index]),
            },
            without_road=sum(fact.counts is not None and not fact.labelled(split) for fact in facts),
            mean=None if measured is None else np.round(measured[0], 2).tolist(),
            std=None if measured is None else np.round(measured[1], 2).tolist(),
            class_weights=weights,
        )

    def row(self) -> list[str]:
        """Return the cells of the report's table."""
        total = max(sum(self.label_pixels.values()), 1)
        shares = [f"{count / total:.1%} {name}" for name, count in self.label_pixels.items() if count]
        return [
            ", ".join(self.names),
            str(self.pairs),
            _most(self.sizes),
            _most(self.bands),
            ", ".join(shares) or "-",
            str(self.without_road),
        ]

    def advice(self) -> list[str]:
        """Return lines for a config, empty for splits that do not train."""
        lines = []
        if self.mean is not None and self.std is not None:
            lines.append(f"for the config: {normalize_setting(self.mean, self.std)}")
        if self.class_weights is not None:
            lines.append(
                f"to balance the classes: class_weight={self.class_weights}  (pixels / (classes x pixels of one))"
            )
        return ["", *lines] if lines else []


def _counted(values: object) -> dict[str, int]:
    return dict(Counter(values).most_common())  # type: ignore[call-overload]


def _most(counts: dict[str, int]) -> str:
    """Return the most frequent value, and how many others there are."""
    if not counts:
        return "-"
    first = next(iter(counts))
    return first if len(counts) == 1 else f"{first} and {len(counts) - 1} other{'s' * (len(counts) > 2)}"


def apply_split_rules(examined: Examined) -> list[Problem]:
    """Return the defects of whole splits, and correct what their pairs' facts say in the light of all."""
    for split, facts in examined:
        _note_exchanged_folders(facts)
        if split.raw:
            _understand_raw_masks(split, facts)
    _note_ignored_roads(examined)
    return [
        problem
        for split, facts in examined
        for rules in (_label_rules, _image_rules)
        for problem in rules(split, facts)
    ]


def training_statistics(split: Split, facts: Sequence[PairFacts]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and standard deviation of each band over all valid pixels, None where no image was read."""
    looks = [fact.look.histograms for fact in facts if fact.look is not None]
    if not looks or split.raw or len({look.shape for look in looks}) > 1:
        return None
    return mean_and_std(np.sum(looks, axis=0))


def label_pixels(facts: Sequence[PairFacts]) -> np.ndarray:
    """Return the pixels of each of the 256 labels in the masks that could be used."""
    return np.sum([fact.counts for fact in facts if fact.counts is not None], axis=0, initial=0) + np.zeros(256, int)


def _shows_labels(path: str) -> bool:
    try:
        values, *_ = read_stored(path)
    except DataError:
        return False
    return not shows_scene(values)


def _note_exchanged_folders(facts: Sequence[PairFacts]) -> None:
    """Note the masks that are photographs where the images are labels; their other defects follow from that."""
    suspects = [fact for fact in facts if any(problem.code == "mask-photograph" for problem in fact.problems)]
    some = suspects[:_IMAGES_LOOKED_AT]
    if 2 * len(suspects) >= len(facts) and 2 * sum(_shows_labels(fact.pair.image) for fact in some) >= len(some):
        for fact in suspects:
            fact.problems.clear()
            fact.add("folders-exchanged", fact.pair.mask, f"shows a photograph, and {fact.pair.image} holds labels")
            fact.look = None


def _understand_raw_masks(split: Split, facts: Sequence[PairFacts]) -> None:
    """Turn counts of grey values into counts of labels, as the converters will; note the masks that resist."""
    if holds_indices(np.flatnonzero(label_pixels(facts)), len(split.classes)):
        return
    for fact in facts:
        counts = fact.counts
        if counts is None:
            continue
        if is_black_and_white(counts):
            fact.counts = np.zeros(256, int)
            fact.counts[:2] = counts[:128].sum(), counts[128:].sum()
        else:
            words = f"values {first_values(np.flatnonzero(counts))} are neither labels nor black and white"
            fact.add("mask-labels", fact.pair.mask, words)
            fact.counts = None


def _note_ignored_roads(examined: Examined) -> None:
    """Note the masks in which 255 must mean road.

    That is so in a split without any class above 0; and in single masks where no mask of the data set holds both a
    class above 0 and 255, and what they ignore may be road.
    """
    both = any(
        fact.labelled(split) and fact.counts is not None and fact.counts[split.ignore_index]
        for split, facts in examined
        for fact in facts
    )
    for split, facts in examined:
        suspects = [
            fact
            for fact in facts
            if fact.counts is not None and fact.counts[split.ignore_index] and not fact.labelled(split)
        ]
        if any(fact.labelled(split) for fact in facts):
            suspects = [fact for fact in suspects if not both and _may_hide_road(fact, split)]
        for fact in suspects:
            words = f"values 0 and {split.ignore_index} but no class above 0, so every road would be ignored"
            fact.add("mask-0-255", fact.pair.mask, words)
            fact.counts = None


def _may_hide_road(fact: PairFacts, split: Split) -> bool:
    """Return whether what is ignored may be road: the image shows something there, and it is not most of the tile."""
    if fact.counts is None:
        return False
    return fact.textured_ignore and 2 * int(fact.counts[split.ignore_index]) < int(fact.counts.sum())


def _label_rules(split: Split, facts: Sequence[PairFacts]) -> list[Problem]:
    usable = [fact for fact in facts if fact.counts is not None]
    if not usable:
        return []
    problems = []
    classes = label_pixels(facts)[: len(split.classes)]
    labelled = max(int(classes.sum()), 1)
    if not classes[1:].any():
        # masks that could not be read may hold roads
        if len(usable) == len(facts):
            words = f"not one of its {len(facts)} masks holds a road pixel"
            problems.append(Problem("no-road", split.place, words, "error" if split.trains else "warning"))
        return problems
    if classes[1:].sum() > _MOSTLY_ROAD * labelled and len(split.classes) == 2:
        problems.append(Problem("inverted", split.place, f"{classes[1] / labelled:.0%} of its pixels are road"))
    for fact in usable:
        own = fact.counts[: len(split.classes)] if fact.counts is not None else np.zeros(2)
        if len(split.classes) == 2 and own[1] > _ALL_ROAD * own.sum():
            problems.append(Problem("all-road", fact.pair.mask or "", f"{own[1] / own.sum():.0%} of it is road"))
    empty = sum(not fact.labelled(split) for fact in usable)
    if empty > _MOSTLY_EMPTY * len(usable):
        problems.append(Problem("mostly-empty", split.place, f"{empty} of its {len(usable)} tiles have no road"))
    for name, count in zip(split.classes, classes, strict=True):
        if not count:
            problems.append(Problem("class-absent", split.place, f"no pixel of {name}"))
        elif split.trains and count < _RARE * labelled:
            problems.append(Problem("rare-class", split.place, f"{name} is {count / labelled:.3%} of its pixels"))
    return problems


def _image_rules(split: Split, facts: Sequence[PairFacts]) -> list[Problem]:
    looks = [(fact, fact.look) for fact in facts if fact.look is not None]
    problems = []
    poor = [(fact, look) for fact, look in looks if not look.is_blank and look.levels <= _MAX_LEVELS]
    # a hazy or even tile may have few levels; where most have, the depth was lost
    severity = "error" if 2 * len(poor) >= len(looks) else "warning"
    for fact, look in poor:
        problems.append(Problem("few-grey-levels", fact.pair.image, f"{look.levels} grey levels", severity))
    for fact, look in looks:
        if look.is_blank:
            problems.append(Problem("blank-image", fact.pair.image))
        if look.road_on_nothing > _ON_NOTHING:
            words = f"road covers {look.road_on_nothing:.0%} of what its image leaves transparent or without data"
            problems.append(Problem("road-on-nothing", fact.pair.mask or "", words))
    statistics = training_statistics(split, facts) if split.trains else None
    if statistics is not None and split.normalize is not None:
        (mean, std), (wanted_mean, wanted_std) = statistics, split.normalize
        if len(wanted_mean) != len(mean):
            words = f"it has {len(wanted_mean)} bands, the images have {len(mean)}"
            problems.append(Problem("normalize", split.place, words))
        else:
            shift, spread = np.abs(mean - wanted_mean) / wanted_std, std / wanted_std
            if shift.max() > 1 or spread.max() > 2 or spread.min() < 0.5:
                words = f"images get mean {shift.max():.1f} and deviation {spread.min():.1f} instead of 0 and 1"
                problems.append(Problem("normalize", split.place, words))
    return problems
