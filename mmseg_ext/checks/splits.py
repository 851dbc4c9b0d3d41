"""An image and its mask."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..datasets import ImageReading, LoadRoadImage, RoadDataset, reading_of
from ..datasets.raw_mask import RAW_MASK_SUFFIXES, find_folders, match_files
from ..datasets.reading import IMAGE_SUFFIXES, MASK_SUFFIXES
from ..datasets.road_dataset import ROAD_CLASSES
from ..errors import ConfigError, DataError
from .findings import Problem


class Pair(NamedTuple):
    """Paths of an image and its mask; no mask is None."""

    stem: str
    image: str
    mask: str | None


# -- checks.split
# A split of a data set, as the checks see it.


@dataclass(frozen=True)
class Split:
    """Pairs that train, validate or test together.

    Attributes:
        name: ``train``, ``val``, ``test``, or ``pairs`` for folders without splits.
        pairs: in the order of the split file; what is missing is left out.
        images_dir: folder of the images.
        masks_dir: folder of the masks, None without masks.
        reading: how the images become what a network sees.
        classes: class names in the order of their labels.
        ignore_index: label that counts nowhere.
        split_file: file that lists the pairs, None without one.
        normalize: mean and standard deviation (0 to 255) in the order of the read bands, None where no config says.
        raw: masks may be of any kind that the converters understand.
    """

    name: str
    pairs: tuple[Pair, ...]
    images_dir: str
    masks_dir: str | None
    reading: ImageReading = field(default_factory=ImageReading)
    classes: tuple[str, ...] = ROAD_CLASSES
    ignore_index: int = 255
    split_file: str | None = None
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    raw: bool = False

    @property
    def trains(self) -> bool:
        """Whether a network learns from it."""
        return self.name == "train"

    @property
    def place(self) -> str:
        """What to name where the whole split is meant."""
        return self.split_file or self.images_dir

    def contents(self) -> frozenset[tuple[str, str]]:
        """Return what tells the images apart: real folder and file name."""
        folder = os.path.realpath(self.images_dir)
        return frozenset((folder, os.path.basename(pair.image)) for pair in self.pairs)


# -- checks.split_files
# Finding the splits of a config or a folder, going on where something is missing.

NAMES = ("train", "val", "test")
_IMAGES, _MASKS, _LISTS = "JPEGImages", "SegmentationClass", os.path.join("ImageSets", "Segmentation")
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def splits_of_config(data: Mapping[str, Any]) -> tuple[list[Split], list[Problem]]:
    """Return the splits of a config's ``data`` and what is wrong with its folders and lists.

    Raises:
        ConfigError: a split is no `RoadDataset`, or has no split file.
        DataError: a ``dataset.json`` cannot be understood.
    """
    splits, problems = [], []
    for name in NAMES:
        settings = data.get(name)
        if settings is None:
            continue
        if settings.get("type", "RoadDataset") != "RoadDataset":
            raise ConfigError(f"data.{name} is of type {settings['type']}; only RoadDataset can be examined")
        if not settings.get("split"):
            raise ConfigError(f"data.{name} names no split file; set split='ImageSets/Segmentation/{name}.txt'")
        root = settings.get("data_root") or ""
        masks = settings.get("ann_dir", _MASKS)
        found, wrong = _listed_split(
            name,
            os.path.join(root, settings.get("img_dir", _IMAGES)),
            None if masks is None else os.path.join(root, masks),
            os.path.join(root, settings["split"]),
            reading=reading_of(root or None).with_settings(**_image_settings(settings)),
            classes=tuple(settings.get("classes") or ROAD_CLASSES),
            ignore_index=settings.get("ignore_index", 255),
            normalize=_normalize(settings),
        )
        splits.append(found)
        problems += wrong
    return splits, problems + _unlistable(splits)


def splits_of_folder(folder: str) -> tuple[list[Split], list[Problem]]:
    """Return the splits of a folder in the VOC layout, or raw folders of images and masks as one split.

    Raises:
        DataError: no such folder, or it cannot be told what it holds.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder or config")
    images, lists = os.path.join(folder, _IMAGES), os.path.join(folder, _LISTS)
    if not os.path.isdir(lists):
        return _raw_split(*find_folders(folder))
    splits, problems = [], []
    for name in NAMES:
        split_file = os.path.join(lists, f"{name}.txt")
        if name == "test" and not os.path.isfile(split_file):
            continue
        found, wrong = _listed_split(name, images, os.path.join(folder, _MASKS), split_file, reading=reading_of(folder))
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
        pairs.append(Pair(stem, image, dataset.mask_path(index) if masked else None))
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


def unlisted_images(splits: Sequence[Split]) -> list[str]:
    """Return the paths of images beside the listed ones that no split lists."""
    listed: set[str] = set()
    for split in splits:
        if split.split_file is not None and os.path.isfile(split.split_file):
            listed.update(os.path.join(split.images_dir, line.strip()) for line in _lines(split.split_file)[0])
    folders = dict.fromkeys(split.images_dir for split in splits if not split.raw)
    paths = [os.path.join(folder, name) for folder in folders for name in _files(folder, IMAGE_SUFFIXES)]
    return [path for path in paths if os.path.splitext(path)[0] not in listed]


def _files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in suffixes)


def _by_stem(folder: str, suffixes: tuple[str, ...]) -> tuple[dict[str, str], list[Problem]]:
    """Return the file of every stem, and where a second one has the same."""
    found: dict[str, str] = {}
    problems = []
    for name in _files(folder, suffixes):
        stem = os.path.splitext(name)[0]
        if stem in found:
            problems.append(Problem("two-files", os.path.join(folder, name), f"shares its name with {found[stem]}"))
        else:
            found[stem] = name
    return found, problems


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _lines(path: str) -> tuple[list[str], list[Problem]]:
    """Return the lines of a split file that are not blank, bytes that are no UTF-8 escaped as file names have them."""
    with open(path, "rb") as file:
        content = file.read()
    problems = []
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            problems.append(Problem("split-encoding", path, f"begins with a byte-order mark ({encoding})"))
            text = content.decode(encoding, "replace")
            break
    else:
        text = content.decode("utf-8", "surrogateescape")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip()], problems


def _listed_split(
    name: str, images_dir: str, masks_dir: str | None, split_file: str, **settings: Any
) -> tuple[Split, list[Problem]]:
    """Return the pairs that ``split_file`` lists, and what is missing."""
    problems = []
    lines: list[str] = []
    for folder in filter(None, (images_dir, masks_dir)):
        if not os.path.isdir(folder):
            problems.append(Problem("no-folder", folder))
    if os.path.isfile(split_file):
        lines, problems_of_file = _lines(split_file)
        problems += problems_of_file
        if not lines:
            problems.append(Problem("empty-split", split_file))
    else:
        problems.append(Problem("no-split-file", split_file))
    pairs = []
    if not any(problem.code == "no-folder" for problem in problems):
        found, wrong = _pairs(lines, images_dir, masks_dir, split_file)
        pairs += found
        problems += wrong
    split = Split(name, tuple(pairs), images_dir, masks_dir, split_file=split_file, **settings)
    return split, problems


def _pairs(
    lines: Sequence[str], images_dir: str, masks_dir: str | None, split_file: str
) -> tuple[list[Pair], list[Problem]]:
    images, problems = _by_stem(images_dir, IMAGE_SUFFIXES)
    masks: dict[str, str] = {}
    other_masks: dict[str, str] = {}
    if masks_dir is not None:
        masks, twins = _by_stem(masks_dir, MASK_SUFFIXES)
        problems += twins
        other_masks, _ = _by_stem(masks_dir, RAW_MASK_SUFFIXES)
    pairs: dict[str, Pair] = {}
    for line in lines:
        stem = line if line in images else line.strip()
        if stem in pairs:
            problems.append(Problem("line-twice", split_file, f"lists {stem} twice"))
            continue
        if stem not in images:
            if _is_utf8(stem):
                hint = ", with its suffix" if os.path.splitext(stem)[0] in images else ""
                problems.append(
                    Problem("no-image", os.path.join(images_dir, f"{stem}.*"), f"{split_file} lists it{hint}")
                )
            else:
                problems.append(Problem("split-encoding", split_file, f"the name {stem!r} is no UTF-8"))
            continue
        if not _is_utf8(stem):
            continue  # `_unlistable` tells; no decoder opens such files
        image = os.path.join(images_dir, images[stem])
        if stem != stem.strip():
            problems.append(Problem("name-spaces", image))
        mask = masks.get(stem) or other_masks.get(stem)
        if masks_dir is not None and stem not in masks:
            near = f"; {mask} is no {' or '.join(s[1:] for s in MASK_SUFFIXES[:2])}" if mask else ""
            problems.append(Problem("no-mask", image, f"there is no {os.path.join(masks_dir, stem)}.png{near}"))
            if mask is None:
                continue
        pairs[stem] = Pair(stem, image, None if mask is None or masks_dir is None else os.path.join(masks_dir, mask))
    return list(pairs.values()), problems


def _raw_split(images_dir: str, masks_dir: str) -> tuple[list[Split], list[Problem]]:
    matching = match_files(images_dir, masks_dir)
    problems = [Problem("no-mask", path, f"no file named like it in {masks_dir}") for path in matching.lone_images]
    for stem, path, other in matching.clashes:
        problems.append(Problem("two-files", other, f"stands for {stem}, as {os.path.basename(path)} does"))
    pairs = [Pair(*pair) for pair in matching.pairs if all(_is_utf8(os.path.basename(path)) for path in pair[1:])]
    problems += [Problem("name-spaces", pair.image) for pair in pairs if pair.stem != pair.stem.strip()]
    split = Split("pairs", tuple(pairs), images_dir, masks_dir, raw=True)
    return [split], problems + _unlistable([split])


def _unlistable(splits: Sequence[Split]) -> list[Problem]:
    """Return the image and mask files whose names no split file can hold, listed or not."""
    folders = dict.fromkeys(
        folder for split in splits for folder in (split.images_dir, split.masks_dir) if folder is not None
    )
    return [
        Problem("name-encoding", os.path.join(folder, name))
        for folder in folders
        for name in _files(folder, RAW_MASK_SUFFIXES)
        if not _is_utf8(name)
    ]


def _steps(settings: Mapping[str, Any]) -> Iterator[dict]:
    """Yield every step of a split's pipeline, also the nested ones, with ``step_args`` over it."""
    steps = list(settings.get("pipeline", []))
    while steps:
        step = steps.pop(0)
        yield {**step, **settings.get("step_args", {}).get(step["type"], {})}
        steps = [*step.get("transforms", []), *steps]


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
