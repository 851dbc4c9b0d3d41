"""What a conversion works on: settings, raw data sets and their scenes, and the split of each scene."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise

from ..errors import ConfigError, DataError
from ..geo.raster import RasterInfo, Window
from ..imagery.voc import SPLITS, read_names


@dataclass(frozen=True)
class ConversionSettings:
    """What a user can choose; a data set takes the common ones and those it names in its ``options``.

    Attributes:
        tile: images with a longer side, in pixels, are cut into tiles of at most this size; 0 never cuts.
        overlap: least overlap of neighbouring training tiles in pixels; validation and test tiles do not overlap.
        bands: numbers from 1 of the bands to read, red first; None takes all of a grey or three-band image.
        percentiles: raw values at these percentiles of the training pixels become 0 and 255 in images of more than
            8 bits.
        gsd: ground sampling distance in metres per pixel; None: as published, or read from the georeference.
        val: share (below 1) or number of scenes for validation.
        test: share or number of scenes for test; 0 makes the validation split the test split too.
        by_name: split in the order of names instead: the last ones validate and test.
        by_area: split every image instead: its last part along its longer side validates and tests.
        val_list: file with the names of the validation scenes; ``test_list`` with those of the test scenes.
        scene: regular expression whose first group is the scene of an image's name; images of one scene stay in
            one split.
        images: folder of the images, relative to the source, as is ``masks``.
        pairs: file with an image, its mask and perhaps its split on each line.
        colours: classes of colour masks, as `ClassColours.of` takes them.
        annotations: folder of LabelMe files, or a COCO file, with what is drawn on the images.
        classes: names of the drawn classes in the order of their labels, from 1.
        line_width: full width of drawn lines in pixels.
        num_classes: above 2, masks hold class indices.
        road_width: full width in metres at which centrelines are drawn.
        areas: areas of interest to convert, by a part of their names; empty takes all.
    """

    tile: int = 2048
    overlap: int = 128
    bands: tuple[int, ...] | None = None
    percentiles: tuple[float, float] = (2.0, 98.0)
    gsd: float | None = None
    workers: int = min(8, os.cpu_count() or 1)
    overwrite: bool = False
    val: float = 0.2
    test: float = 0.0
    seed: int = 0
    by_name: bool = False
    by_area: bool = False
    val_list: str | None = None
    test_list: str | None = None
    scene: str | None = None
    images: str | None = None
    masks: str | None = None
    pairs: str | None = None
    colours: tuple[str, ...] = ()
    annotations: str | None = None
    classes: tuple[str, ...] = ()
    line_width: float | None = None
    num_classes: int = 2
    road_width: float = 4.0
    areas: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that contradict each other."""
        if self.tile and not 0 <= self.overlap < self.tile:
            raise ConfigError(f"overlap {self.overlap} px must be at least 0 and below the tile's {self.tile} px")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ConfigError(f"percentiles {low:g} and {high:g}: give two rising numbers from 0 to 100")
        if self.bands is not None and (not self.bands or min(self.bands) < 1):
            raise ConfigError(f"bands {self.bands}: bands are numbered from 1")
        for name in ("val", "test"):
            value = getattr(self, name)
            if value < 0 or (value >= 1 and value != int(value)):
                raise ConfigError(f"--{name} {value:g}: give a share below 1 or a whole number of images")
        for name in ("gsd", "road_width", "line_width", "workers"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name.replace('_', ' ')} {value:g} must be above 0")

    def decisive(self) -> dict:
        """Return the settings that decide over the result, in the form that earlier conversions know."""
        given = {k: v for k, v in asdict(self).items() if k not in ("workers", "overwrite")}
        return {k: v for k, v in given.items() if v or k not in _LATER}


_LATER = ("pairs", "colours", "annotations", "classes", "line_width")
COMMON = ("tile", "overlap", "bands", "percentiles", "gsd", "workers", "overwrite")
SPLITTING = ("val", "test", "seed", "by_name", "by_area", "val_list", "test_list")
NAMES = tuple(field.name for field in fields(ConversionSettings))


@dataclass(frozen=True)
class Scene:
    """One image and where its roads are drawn.

    Attributes:
        name: unique; the stem of its files in the data set.
        splits: the splits it belongs to; one, or val and test where a data set tests on its validation images.
        image: path of the image.
        mask: path of its mask, None where the roads are lines.
        lines: path of a GeoJSON with its road centrelines.
        part: (row, column, height, width) of the image that it is, None for all.
    """

    name: str
    splits: tuple[str, ...]
    image: str
    mask: str | None = None
    lines: str | None = None
    part: Window | None = None


@dataclass(frozen=True)
class RawDataSet:
    """A published data set, or a kind of folder: where it comes from and how it is read.

    Attributes:
        name: what the command calls it.
        find_scenes: (source folder, settings) to the scenes in it.
        home: where it is described and downloaded.
        layout: files and folders as published.
        images: size, bands, depth.
        split: which images train, validate and test.
        gsd_m: ground sampling distance in metres per pixel, None where it is not published or differs.
        defaults: settings that differ from everyone's defaults.
        options: settings that it takes besides the common ones.
        indices: whether masks hold class indices; None looks at them.
        hole_value: value in every band of pixels that hold no image, where the files do not say it.
    """

    name: str
    title: str
    find_scenes: Callable[[str, ConversionSettings], list[Scene]]
    home: str
    citation: str
    licence: str
    layout: str
    images: str
    split: str
    gsd_m: float | None = None
    defaults: dict = field(default_factory=dict)
    options: tuple[str, ...] = ()
    indices: bool | None = None
    hole_value: int | None = None


def _groups(names: Sequence[str], pattern: str | None) -> dict[str, list[str]]:
    """Return the names of each scene; without a pattern every name is a scene of its own."""
    if pattern is None:
        return {name: [name] for name in names}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--scene {pattern!r} is not a regular expression ({error})") from None
    groups: dict[str, list[str]] = {}
    for name in names:
        match = compiled.search(name)
        if match is None or not compiled.groups:
            raise ConfigError(f"--scene {pattern!r} finds no group in the name {name}; give one like '(.+)_[0-9]+$'")
        groups.setdefault(match.group(1), []).append(name)
    return groups


def _by_list(names: Sequence[str], val_list: str, test_list: str | None) -> dict[str, str]:
    split_of = dict.fromkeys(names, "train")
    for split, path in (("val", val_list), ("test", test_list)):
        for line in read_names(path) if path else []:
            name = line if line in split_of else os.path.splitext(line)[0]
            if name not in split_of:
                raise DataError(f"{path}: {line} is not an image of this data set; fix the list")
            if split_of[name] != "train":
                raise DataError(f"{path}: {line} is listed twice, or for validation and test; keep one")
            split_of[name] = split
    if "train" not in split_of.values():
        raise DataError(f"{val_list}: lists every image, so none is left for training; shorten it")
    return split_of


def assign_splits(names: Sequence[str], settings: ConversionSettings) -> dict[str, str]:
    """Return the split of every name, by lists, at random or in the order of names; scenes stay together.

    Raises:
        DataError: the shares leave nothing, or a list does not fit.
        ConfigError: the pattern of scenes does not fit the names.
    """
    if settings.val_list:
        return _by_list(names, settings.val_list, settings.test_list)
    if settings.test_list:
        raise ConfigError("--test-list needs --val-list")
    groups = _groups(names, settings.scene)
    order = sorted(groups)
    wanted = settings.val, settings.test
    sizes = [round(part * len(order)) if part < 1 else int(part) for part in wanted]
    if sizes[0] < 1 or (settings.test and not sizes[1]) or sum(sizes) >= len(order):
        what = "image(s)" if settings.scene is None else f"scene(s) ({len(names)} images)"
        raise DataError(
            f"{len(order)} {what} cannot give {settings.val:g} for validation and {settings.test:g} for test and leave "
            "some for training; change --val or --test (1 is one of them), or split each image by its area: --by-area"
        )
    if not settings.by_name:
        random.Random(settings.seed).shuffle(order)
    splits = ["train"] * (len(order) - sum(sizes)) + ["val"] * sizes[0] + ["test"] * sizes[1]
    return {name: split for group, split in zip(order, splits, strict=True) for name in groups[group]}


def area_parts(image: RasterInfo, settings: ConversionSettings) -> dict[str, Window]:
    """Return (row, column, height, width) of the part of an image for each split, along its longer side.

    Raises:
        ConfigError: the shares are not below 1, or leave nothing for training.
    """
    if not 0 < settings.val < 1 or not 0 <= settings.test < 1 or settings.val + settings.test >= 1:
        raise ConfigError("--by-area needs --val and --test as shares of an image, below 1 together")
    height, width = image.height, image.width
    length = max(height, width)
    edges = [0, round((1 - settings.val - settings.test) * length), round((1 - settings.test) * length), length]
    return {
        split: (start, 0, end - start, width) if height >= width else (0, start, height, end - start)
        for split, (start, end) in zip(SPLITS, pairwise(edges), strict=True)
        if end > start
    }
