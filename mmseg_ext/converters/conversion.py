"""Raw data into a data set in the VOC layout: checked, tiled, in parallel, resumable."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Protocol, TypeVar

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..checks import examine, splits_of_folder
from ..datasets.augmentation import normalize_setting
from ..errors import ConfigError, DataError
from ..geo import (
    RasterInfo,
    burn_lines,
    disagreement,
    ground_sampling_distance,
    log_doubts,
    source_files,
    write_geotiff,
)
from ..geo.raster import Window, transform_at
from ..imagery import ImageReading, read_metadata, reading_of
from ..imagery.raw_mask import holds_indices, is_chromatic, labels_of, read_grey, repaired_labels
from ..imagery.reading import check_same_size, image_info, is_tiff, orientation, part_of, read_pixels
from ..imagery.voc import IGNORE, IMAGE_SUFFIXES, is_utf8
from ..tiling import windows
from .annotations import named_classes
from .published import CATALOGUE, OPM
from .scenes import COMMON, NAMES, ConversionSettings, RawDataSet, Scene
from .voc_writer import VocWriter

_Found = TypeVar("_Found")
_Array = tuple[np.ndarray, np.ndarray | None]
_ReadLabels = Callable[[Scene], np.ndarray]
_FORMAT = 1
_HOLE_PX = 50
_SAMPLE_PX = 250_000
_NAMED_ERRORS = 5
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Conversion:
    """What a conversion made.

    Attributes:
        counts: number of images of each split.
        mean: mean of each band of the training images as they are read, 0 to 255; red first.
        std: standard deviation of each band.
        road_share: share of road pixels among the labelled ones, 0 to 1.
        found_done: whether it had been made before, so that nothing was done.
        classes: what a config says of the classes of colour masks, empty for others.
    """

    counts: dict[str, int]
    mean: list[float]
    std: list[float]
    road_share: float
    found_done: bool = False
    classes: str = ""

    def text(self, what: str) -> str:
        """Return the images of each split, the share of ``what`` and the config's step that normalises, in words."""
        counts = ", ".join(f"{count} {split}" for split, count in self.counts.items() if count)
        test = "" if self.counts["test"] else ", the validation images are the test too"
        done = " (was done already)" if self.found_done else ""
        config = normalize_setting(self.mean, self.std)
        classes = f"\nits classes: {self.classes}" if self.classes else ""
        return f"{counts}{test}; {self.road_share:.1%} {what}{done}\nfor the config: {config}{classes}"

    @classmethod
    def of(cls, metadata: dict, found_done: bool) -> Conversion:
        """Return what ``metadata``, that of a data set, says of its conversion."""
        labels = [(int(label), n) for split in metadata["label_pixels"].values() for label, n in split.items()]
        labelled = sum(count for label, count in labels if label != IGNORE)
        road = sum(count for label, count in labels if label not in (0, IGNORE))
        share, classes = road / max(labelled, 1), metadata.get("classes", "")
        return cls(metadata["images"], metadata["mean"], metadata["std"], share, found_done, classes)


class Work(Protocol):
    """One kind of conversion; the calls come in this order."""

    def about(self) -> dict:
        """Return what ``dataset.json`` says of the origin."""

    def look(self) -> list[Scene]:
        """Return all scenes, each in its split; refuse what cannot be converted before anything is written."""

    def reading(self, scenes: Sequence[Scene]) -> ImageReading:
        """Return how all images are read: bands, one scaling for images of more than 8 bits, ground resolution."""

    def write(self, writer: VocWriter, scene: Scene) -> None:
        """Write the tiles of one scene."""


def carry_out(begin: Callable[[], Work], dest: str, settings: ConversionSettings, key: str) -> Conversion:
    """Make the data set ``dest``, or finish it; do nothing if it stands there, made under the same ``key``.

    Raises:
        DataError: names the files that could not be understood.
    """
    if not settings.overwrite and os.path.isdir(dest) and read_metadata(dest).get("key") == key:
        return Conversion.of(read_metadata(dest), found_done=True)
    with VocWriter(dest, settings.overwrite, key) as writer:
        work = begin()
        writer.about = work.about()
        scenes = work.look()
        writer.reading = work.reading(scenes)
        todo = [scene for scene in scenes if scene.name not in writer.records]
        try:
            for _ in in_parallel(lambda scene: work.write(writer, scene), todo, settings.workers, "converting"):
                pass
        except DataError as error:
            if writer.records:
                raise DataError(f"{error} [{len(writer.records)} done; re-run the command to resume]") from None
            raise
        if not any("train" in record["splits"] and record["tiles"] for record in writer.records.values()):
            raise DataError(f"{dest}: no training image holds a valid pixel; check the sources")
    return Conversion.of(read_metadata(dest), found_done=False)


def in_parallel(
    function: Callable[[Scene], _Found], scenes: Sequence[Scene], workers: int, title: str
) -> Iterator[tuple[Scene, _Found]]:
    """Yield each scene with what ``function`` returns, in order of completion; all are tried before errors are raised.

    Raises:
        DataError: one line that names the first files that failed, and how many more there are.
    """
    errors: list[str] = []
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(scenes), desc=title, unit="image", disable=None, leave=False) as shown,
    ):
        jobs = {pool.submit(function, scene): scene for scene in scenes}
        try:
            for job in as_completed(jobs):
                shown.update()
                try:
                    yield jobs[job], job.result()
                except DataError as error:
                    errors.append(str(error))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if errors:
        errors.sort()
        more = f" [and {len(errors) - _NAMED_ERRORS} more files]" if len(errors) > _NAMED_ERRORS else ""
        raise DataError(" | ".join(errors[:_NAMED_ERRORS]) + more)


def key_of(*parts: object) -> str:
    """Return what names sources and settings, so that equal conversions are known."""
    text = json.dumps([_FORMAT, *parts], default=list)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def stamp(path: str) -> list[str | int]:
    """Return names, sizes and times of a file and of those that it depends on, which tell whether it is the same.

    A file that cannot be opened is a DataError.
    """
    found: list[str | int] = []
    for file in source_files(path):
        try:
            status = os.stat(file)
        except OSError as error:
            raise DataError(f"{file}: {str(error.strerror).lower()}; check the path") from None
        found += [os.path.basename(file), status.st_size, status.st_mtime_ns]
    return found


def scaled(reading: ImageReading, pixels: np.ndarray, settings: ConversionSettings, path: str) -> ImageReading:
    """Return ``reading`` with the scaling to 8 bits that fits training ``pixels`` (N, B).

    A DataError names ``path`` where there are none, or a band of them is constant.
    """
    if not len(pixels):
        raise DataError(f"{path}: the training images hold no valid pixel; take them out")
    low, high = np.percentile(pixels, settings.percentiles, axis=0)
    if (high <= low).any():
        raise DataError(
            f"{path}: band {int(np.argmax(high <= low)) + 1} of the training images holds one value ({low.min():g}) "
            "nearly everywhere, so it cannot be scaled; choose other --bands or --percentiles"
        )
    return replace(reading, low=tuple(map(float, low)), high=tuple(map(float, high)))


def _without_holes(values: np.ndarray, valid: np.ndarray | None, hole_value: int | None) -> np.ndarray | None:
    """Return the valid pixels, less connected areas that have ``hole_value`` in every band; None where all are."""
    if hole_value is None:
        return valid
    candidate = (values == hole_value).all(axis=2)
    if not candidate.any():
        return valid
    _, component, stats, _ = cv2.connectedComponentsWithStats(candidate.astype(np.uint8), connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] > _HOLE_PX
    large[0] = False
    whole = ~large[component]
    combined = whole if valid is None else valid & whole
    return None if combined.all() else combined


def _parts(path: str, wins: Sequence[Window], read: Callable[..., _Array]) -> Iterator[_Array]:
    """Yield what ``read`` returns of each window; a file that cannot be read in part is read once."""
    if len(wins) == 1 or is_tiff(path):
        yield from (read(path, window) for window in wins)
        return
    values, valid = read(path)
    for window in wins:
        own = None if valid is None else part_of(valid, window)
        yield part_of(values, window), None if own is None or own.all() else own


@dataclass(frozen=True)
class _SceneFacts:
    """What was learned of one scene before anything is written: its header, and of its mask the values and nodata."""

    image: RasterInfo
    values: np.ndarray
    indices_apply: bool
    has_nodata: bool = False


class _ImagesAndMasks:
    """One conversion of images with masks or centrelines: its scenes and what all of them share."""

    def __init__(
        self,
        raw: RawDataSet,
        scenes: list[Scene],
        settings: ConversionSettings,
        read_labels: _ReadLabels | None,
        classes: str,
    ) -> None:
        self.raw, self.scenes, self.settings = raw, scenes, settings
        self.read_labels, self.classes = read_labels, classes
        self.facts: dict[str, _SceneFacts] = {}
        self.indices = bool(raw.indices) or settings.num_classes > 2

    def about(self) -> dict:
        raw = self.raw
        about = dict(data_set=raw.name, title=raw.title, home=raw.home, licence=raw.licence, citation=raw.citation)
        return {**about, "classes": self.classes} if self.classes else about

    def tiles(self, scene: Scene, image: RasterInfo, overlapping: bool = False) -> list[Window]:
        """Return the windows of ``scene``: for training they may overlap, for scores no pixel must count twice."""
        top, left, height, width = scene.part or (0, 0, image.height, image.width)
        tile = self.settings.tile or max(height, width)
        overlap = self.settings.overlap if overlapping and scene.splits == ("train",) else None
        return [(top + r, left + c, h, w) for r, c, h, w in windows(height, width, tile, overlap)]

    def inspect(self, scene: Scene) -> _SceneFacts:
        image = image_info(scene.image)
        values = np.zeros(256, bool)
        chromatic = has_nodata = False
        if scene.mask is not None and self.settings.annotations is not None and self.read_labels is not None:
            check_same_size(self.read_labels(scene).shape, (image.height, image.width), scene.mask, scene.image)
            return _SceneFacts(image, values, True)
        if scene.mask is not None:
            try:
                mask = image_info(scene.mask)
            except DataError as error:
                raise DataError(str(error).replace("read as an image", "read as a mask")) from None
            check_same_size((mask.height, mask.width), (image.height, image.width), scene.mask, scene.image)
            shifted = disagreement(image, mask)
            if shifted:
                raise DataError(f"{scene.mask}: {shifted}, {scene.image}; export both on the same grid")
            if self.read_labels is not None:
                self.read_labels(scene)
                return _SceneFacts(image, values, True)
            for grey, valid in _parts(scene.mask, self.tiles(scene, image), read_grey):
                labels_of(grey, self._could_be_indices(grey), self.settings.num_classes, scene.mask)
                has_nodata |= valid is not None
                values |= np.bincount(grey.ravel() if valid is None else grey[valid], minlength=256) > 0
            chromatic = not self.raw.indices and is_chromatic(scene.mask)
        elif scene.lines is not None:
            burn_lines(scene.lines, image, self.settings.road_width, (0, 0, 1, 1))
        return _SceneFacts(image, values, not chromatic, has_nodata)

    def _could_be_indices(self, grey: np.ndarray) -> bool:
        if self.indices or self.raw.indices is not None:
            return self.indices
        classes = self.settings.num_classes
        return bool(grey.max() < classes) or holds_indices(np.unique(grey), classes)

    def look(self) -> list[Scene]:
        """Inspect all scenes, and decide from all masks together what their values mean."""
        for scene, found in in_parallel(self.inspect, self.scenes, self.settings.workers, "looking"):
            self.facts[scene.name] = found
        turned = [scene.image for scene in self.scenes if scene.mask and orientation(scene.image) != 1]
        if turned:
            logger.warning(
                "%s: has an EXIF orientation (%d images have), which is not applied; see that its mask is drawn on the "
                "pixels as they are stored, not as viewers show them", turned[0], len(turned),
            )  # fmt: skip
        with_nodata = [scene.mask for scene in self.scenes if self.facts[scene.name].has_nodata]
        if with_nodata and not any(found.values[0] for found in self.facts.values()):
            raise DataError(
                f"{with_nodata[0]}: no mask has background, all but roads is nodata or transparent; fill that with 0"
            )
        if self.raw.indices is None and not self.indices:
            # 255 is road in 0/255 masks and ignore in 0/1 masks: all masks together tell which
            seen = np.zeros(256, bool)
            for found in self.facts.values():
                if found.indices_apply:
                    seen |= found.values
            self.indices = holds_indices(np.flatnonzero(seen), self.settings.num_classes)
        return self.scenes

    def reading(self, scenes: Sequence[Scene]) -> ImageReading:
        images = [found.image for found in self.facts.values()]
        first = self.facts[scenes[0].name].image
        odd = next((image for image in images if image.kind != first.kind), None)
        if odd is not None:
            raise DataError(
                f"{odd.path}: {odd.kind} pixels, but {first.path} has {first.kind}; one scaling cannot fit both"
            )
        gsd_m = self.settings.gsd or self.raw.gsd_m or _median_gsd_m(images)
        reading = ImageReading(bands=None if self.settings.bands is None else tuple(self.settings.bands), gsd_m=gsd_m)
        reading.select(np.zeros((1, 1, first.bands_for(reading.bands)), first.dtype), first.path)
        any(log_doubts(image.path, reading.bands) for image in images if is_tiff(image.path) and image.may_have_holes)
        if first.dtype == "uint8":
            return reading
        training = [scene for scene in scenes if "train" in scene.splits]
        samples = in_parallel(
            lambda scene: self._sample(scene, reading), training, self.settings.workers, "measuring values"
        )
        return scaled(reading, np.concatenate([part for _, part in samples]), self.settings, training[0].image)

    def _sample(self, scene: Scene, reading: ImageReading) -> np.ndarray:
        """Return some valid pixels (N, B) of a scene."""
        parts = []
        wins = self.tiles(scene, self.facts[scene.name].image)
        for values, valid in _parts(scene.image, wins, partial(read_pixels, bands=reading.bands)):
            valid = _without_holes(values, valid, self.raw.hole_value)
            chosen = reading.select(values, scene.image)
            flat = chosen.reshape(-1, chosen.shape[2]) if valid is None else chosen[valid]
            parts.append(flat[:: max(1, len(flat) * len(wins) // _SAMPLE_PX)])
        return np.concatenate(parts)

    def labels(self, scene: Scene, wins: Sequence[Window]) -> Iterator[np.ndarray]:
        """Yield the labels (H, W) of each window."""
        found = self.facts[scene.name]
        if scene.lines is not None:
            yield from (burn_lines(scene.lines, found.image, self.settings.road_width, window) for window in wins)
            return
        assert scene.mask is not None
        if self.read_labels is not None:
            labels = self.read_labels(scene)
            yield from (part_of(labels, window).copy() for window in wins)
            return
        indices = self.indices and found.indices_apply
        for grey, valid in _parts(scene.mask, wins, read_grey):
            labels = labels_of(grey, indices, self.settings.num_classes, scene.mask).copy()
            if valid is not None:
                labels[~valid] = IGNORE
            yield labels

    def write(self, writer: VocWriter, scene: Scene) -> None:
        """Write the tiles of ``scene``; a tile without any image is left out."""
        image = self.facts[scene.name].image
        wins = self.tiles(scene, image, overlapping=True)
        whole = scene.part is None and len(wins) == 1
        stems, statistics = [], []
        read = partial(read_pixels, bands=writer.reading.bands)
        parts = zip(wins, _parts(scene.image, wins, read), self.labels(scene, wins), strict=True)
        for window, (values, own), mask in parts:
            stem = scene.name if whole else f"{scene.name}_r{window[0]:05d}_c{window[1]:05d}"
            valid = _without_holes(values, own, self.raw.hole_value)
            if valid is not None and not valid.any():
                continue
            if valid is not None:
                mask[~valid] = IGNORE
            if whole and valid is own and _stands_alone(image):
                suffix = os.path.splitext(scene.image)[1].lower()
                shutil.copyfile(scene.image, writer.image_path(stem, suffix))
            else:
                _write_image(writer, stem, values, valid, image, window)
            writer.write_mask(stem, mask)
            stems.append(stem)
            statistics.append(writer.statistics_of(writer.reading.as_read(values, valid, scene.image), valid, mask))
        writer.finish_scene(scene.name, scene.splits, stems, statistics)


def _stands_alone(image: RasterInfo) -> bool:
    """Return whether a copy of the image's one file tells all that is known of it."""
    if is_tiff(image.path):
        return not os.path.exists(f"{image.path}.msk")
    return image.path.lower().endswith(IMAGE_SUFFIXES) and image.transform is None


def _write_image(
    writer: VocWriter, stem: str, values: np.ndarray, valid: np.ndarray | None, image: RasterInfo, window: Window
) -> None:
    """Write one tile: PNG where that loses nothing, else GeoTIFF."""
    bands = values.shape[2]
    if values.dtype == np.uint8 and bands in (1, 3) and image.transform is None:
        layers = values if valid is None else np.dstack([values, np.where(valid, 255, 0).astype(np.uint8)])
        Image.fromarray(layers[:, :, 0] if layers.shape[2] == 1 else layers).save(writer.image_path(stem, ".png"))
        return
    nodata = image.nodata
    if valid is not None and nodata is None and (values[~valid] == 0).all() and (values[valid] != 0).any(axis=-1).all():
        nodata, valid = 0, None
    elif nodata is not None and valid is not None:
        values, valid = np.where(valid[:, :, None], values, np.array(nodata, values.dtype)), None
    transform = None if image.transform is None else transform_at(image.transform, *window[:2])
    write_geotiff(writer.image_path(stem, ".tif"), values, image.crs, transform, valid, nodata)


def _median_gsd_m(images: Sequence[RasterInfo]) -> float | None:
    """Return the median ground sampling distance in metres that the georeferences tell, None where none does."""
    found = [gsd_m for gsd_m in map(ground_sampling_distance, images) if gsd_m is not None]
    return round(float(np.median(found)), 4) if found else None


def convert(name: str, source: str, dest: str, **settings: object) -> Conversion:
    """Convert the raw data in ``source`` into a data set at ``dest``; the source is not changed.

    If it is done already, from the same files with the same settings, nothing happens; if it was interrupted, it
    resumes. Only a finished conversion stands at ``dest``.

    Args:
        name: one of `CATALOGUE`.
        source: folder of the raw data.
        dest: folder to create.
        settings: attributes of `ConversionSettings`; those left out, or None, take the data set's defaults.

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
    if os.path.commonpath([os.path.realpath(dest), os.path.realpath(source)]) == os.path.realpath(dest):
        raise DataError(f"{dest}: holds the source {source}, which must not be replaced; choose another folder")
    chosen = ConversionSettings(**{**raw.defaults, **given})
    read_labels: _ReadLabels | None = None
    named, classes = named_classes(chosen), ""
    if named is not None:
        read_labels, classes = named.labels, named.words()
        chosen = replace(chosen, num_classes=len(named.classes))
    elif raw is OPM:
        read_labels = _single_masks(source, chosen)
    return _convert(raw, source, dest, chosen, read_labels, classes)


def repair_dataset(source: str, dest: str, num_classes: int = 2) -> Conversion:
    """Write the VOC folder ``source`` anew at ``dest``, its masks turned into labels; images and splits stay.

    Raises:
        DataError: names the masks that have no one safe answer.
    """
    raw = replace(OPM, name="voc", title="repaired", home="", citation="", licence="")
    settings = ConversionSettings(tile=0, num_classes=num_classes)
    source = os.path.normpath(source)
    return _convert(raw, source, dest, settings, _single_masks(source, settings))


def _single_masks(source: str, settings: ConversionSettings) -> _ReadLabels:
    """Return how masks of a VOC folder are read, each judged by itself and by what the label doctor says of it."""
    road_is_ignore: set[str] = set()
    if settings.num_classes == 2:
        for finding in examine(source, *splits_of_folder(source)).findings:
            if finding.code == "mask-0-255":
                road_is_ignore.update(map(os.path.realpath, finding.files))

    def read(scene: Scene) -> np.ndarray:
        assert scene.mask is not None
        return repaired_labels(scene.mask, settings.num_classes, os.path.realpath(scene.mask) in road_is_ignore)

    return read


def _convert(
    raw: RawDataSet,
    source: str,
    dest: str,
    settings: ConversionSettings,
    read_labels: _ReadLabels | None,
    classes: str = "",
) -> Conversion:
    """Convert the scenes of ``raw``; without ``read_labels`` all masks together tell; ``classes``: for a config."""
    own = reading_of(source)  # a data set that was made before knows its metres and bands
    settings = replace(settings, gsd=settings.gsd or own.gsd_m, bands=settings.bands or own.bands)
    scenes = raw.find_scenes(source, settings)
    for scene in scenes:
        if not is_utf8(scene.name):
            raise DataError(f"{scene.image!a}: the file's name is not UTF-8; rename it")
    files = [
        [scene.name, scene.splits, scene.part, *stamp(path)]
        for scene in scenes
        for path in (scene.image, scene.mask, scene.lines)
        if path is not None
    ]
    key = key_of(raw.name, settings.decisive(), files, *filter(None, [classes]))
    return carry_out(lambda: _ImagesAndMasks(raw, scenes, settings, read_labels, classes), dest, settings, key)
