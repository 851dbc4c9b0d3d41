"""Scenes of any raw data set into the VOC layout: checked, tiled, in parallel, resumable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from ..datasets.loading import check_same_size
from ..datasets.raw_mask import IGNORE, holds_indices, labels_of, read_grey
from ..datasets.reading import IMAGE_SUFFIXES, ImageReading, image_info, read_metadata, read_pixels
from ..errors import DataError
from ..geo import RasterInfo, burn_lines, disagreement, ground_sampling_distance, write_geotiff
from ..geo.raster import Window, transform_at
from ..tiling import windows
from .scenes import RawDataSet, Scene, Settings
from .voc_writer import VocWriter

_Found = TypeVar("_Found")
_FORMAT = 1
_RASTERS = (".tif", ".tiff")
_HOLE_PX = 50
_SAMPLE_PX = 250_000
_RUNNING_PER_WORKER = 2
_NAMED_ERRORS = 5


@dataclass(frozen=True)
class Conversion:
    """What a conversion made.

    Attributes:
        counts: number of images of each split.
        mean: mean of each band of the training images as they are read, 0 to 255; red first.
        std: standard deviation of each band.
        road_share: share of road pixels among the labelled ones, 0 to 1.
        found_done: whether it had been made before, so that nothing was done.
    """

    counts: dict[str, int]
    mean: list[float]
    std: list[float]
    road_share: float
    found_done: bool = False


@dataclass(frozen=True)
class _Survey:
    """What was learned of one scene before anything is written."""

    image: RasterInfo
    values: np.ndarray
    indices_apply: bool


def summary(metadata: dict, found_done: bool) -> Conversion:
    """Return what ``metadata``, that of a data set, says of its conversion."""
    total: dict[int, int] = {}
    for labels in metadata["label_pixels"].values():
        for label, count in labels.items():
            total[int(label)] = total.get(int(label), 0) + count
    labelled = sum(count for label, count in total.items() if label != IGNORE)
    road = sum(count for label, count in total.items() if label not in (0, IGNORE))
    return Conversion(
        metadata["images"], metadata["mean"], metadata["std"], road / max(labelled, 1), found_done=found_done
    )


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
        waiting: dict[Future, Scene] = {}
        todo = iter(scenes)
        try:
            while True:
                while len(waiting) < workers * _RUNNING_PER_WORKER and (scene := next(todo, None)) is not None:
                    waiting[pool.submit(function, scene)] = scene
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    scene = waiting.pop(future)
                    shown.update()
                    try:
                        result = future.result()
                    except DataError as error:
                        errors.append(str(error))
                    else:
                        yield scene, result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if errors:
        errors.sort()
        more = f" [and {len(errors) - _NAMED_ERRORS} more files]" if len(errors) > _NAMED_ERRORS else ""
        raise DataError(" | ".join(errors[:_NAMED_ERRORS]) + more)


def _holes(values: np.ndarray, valid: np.ndarray | None, hole_value: int | None) -> np.ndarray | None:
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


def _mask_info(path: str) -> RasterInfo:
    try:
        return image_info(path)
    except DataError as error:
        raise DataError(str(error).replace("cannot be read as an image", "cannot be read as a mask")) from None


def _pixels_of(path: str, wins: Sequence[Window]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield values and valid pixels of each window; a file that cannot be read in part is read once."""
    if len(wins) == 1 or path.lower().endswith(_RASTERS):
        for window in wins:
            yield read_pixels(path, window)
        return
    values, valid = read_pixels(path)
    for row, column, height, width in wins:
        part = (slice(row, row + height), slice(column, column + width))
        yield values[part], None if valid is None or valid[part].all() else valid[part]


def _grey_of(path: str, wins: Sequence[Window]) -> Iterator[np.ndarray]:
    """Yield the one-channel mask of each window; a file that cannot be read in part is read once."""
    if len(wins) == 1 or path.lower().endswith(_RASTERS):
        for window in wins:
            yield read_grey(path, window)
        return
    grey = read_grey(path)
    for row, column, height, width in wins:
        yield grey[row : row + height, column : column + width]


def _is_chromatic(path: str) -> bool:
    """Return whether the mask at ``path`` shows roads in a colour on black, so that its values are no labels."""
    if image_info(path).bands != 3 or read_grey(path).max() != IGNORE:
        return False
    values, _ = read_pixels(path)
    return values.shape[2] == 3 and bool(np.ptp(values.astype(np.int16), axis=2).max() > 0)


class _Converter:
    """One conversion: its scenes and what all of them share."""

    def __init__(
        self,
        raw: RawDataSet,
        scenes: Sequence[Scene],
        settings: Settings,
        read_labels: Callable[[str], np.ndarray] | None,
    ) -> None:
        self.raw, self.scenes, self.settings = raw, scenes, settings
        self.read_labels = read_labels
        self.surveys: dict[str, _Survey] = {}
        self.indices = bool(raw.indices) or settings.num_classes > 2

    def tiles(self, scene: Scene, image: RasterInfo, overlapping: bool = False) -> list[Window]:
        """Return the windows of ``scene``: for training they may overlap, for scores no pixel must count twice."""
        top, left, height, width = scene.part or (0, 0, image.height, image.width)
        tile = self.settings.tile or max(height, width)
        overlap = self.settings.overlap if overlapping and scene.splits == ("train",) else None
        return [(top + r, left + c, h, w) for r, c, h, w in windows(height, width, tile, overlap)]

    def survey(self, scene: Scene) -> _Survey:
        """Return what the files of ``scene`` hold; refuse what cannot be converted before anything is written."""
        image = image_info(scene.image)
        values = np.zeros(256, bool)
        chromatic = False
        if scene.mask is not None:
            mask = _mask_info(scene.mask)
            check_same_size((mask.height, mask.width), (image.height, image.width), scene.mask, scene.image)
            shifted = disagreement(image, mask)
            if shifted:
                raise DataError(f"{scene.mask}: {shifted}, {scene.image}; export both on the same grid")
            if self.read_labels is not None:
                self.read_labels(scene.mask)
                return _Survey(image, values, True)
            for grey in _grey_of(scene.mask, self.tiles(scene, image)):
                labels_of(grey, self._could_be_indices(grey), self.settings.num_classes, scene.mask)
                values |= np.bincount(grey.ravel(), minlength=256) > 0
            chromatic = not self.raw.indices and _is_chromatic(scene.mask)
        elif scene.lines is not None:
            burn_lines(scene.lines, image, self.settings.road_width, (0, 0, 1, 1))
        return _Survey(image, values, not chromatic)

    def _could_be_indices(self, grey: np.ndarray) -> bool:
        if self.indices or self.raw.indices is not None:
            return self.indices
        return bool(grey.max() < self.settings.num_classes) or (
            holds_indices(np.unique(grey), self.settings.num_classes)
        )

    def look(self) -> None:
        """Survey all scenes, and decide from all masks together what their values mean."""
        for scene, found in in_parallel(self.survey, self.scenes, self.settings.workers, "looking"):
            self.surveys[scene.name] = found
        if self.raw.indices is None and not self.indices:
            # 255 is road in 0/255 masks and ignore in 0/1 masks: all masks together tell which
            seen = np.zeros(256, bool)
            for found in self.surveys.values():
                if found.indices_apply:
                    seen |= found.values
            self.indices = holds_indices(np.flatnonzero(seen), self.settings.num_classes)

    def reading(self) -> ImageReading:
        """Return how all images are read: bands, one scaling for images of more than 8 bits, ground resolution."""
        bands = None if self.settings.bands is None else tuple(self.settings.bands)
        first = self.surveys[self.scenes[0].name].image
        kinds = {found.image.dtype for found in self.surveys.values()}
        if len(kinds) > 1:
            odd = next(f.image for f in self.surveys.values() if f.image.dtype != first.dtype)
            raise DataError(
                f"{odd.path}: {odd.dtype} pixels, but {first.path} has {first.dtype}; one scaling cannot fit both"
            )
        reading = ImageReading(bands=bands, gsd_m=self.settings.gsd or self.raw.gsd_m or _gsd_m(self.surveys))
        reading.select(np.zeros((1, 1, first.bands), first.dtype), first.path)
        if first.dtype == "uint8":
            return reading
        low, high = self._percentiles(reading)
        return replace(reading, low=low, high=high)

    def _percentiles(self, reading: ImageReading) -> tuple[tuple[float, ...], tuple[float, ...]]:
        training = [scene for scene in self.scenes if "train" in scene.splits]

        def sample(scene: Scene) -> np.ndarray:
            parts = []
            wins = self.tiles(scene, self.surveys[scene.name].image)
            for values, valid in _pixels_of(scene.image, wins):
                valid = _holes(values, valid, self.raw.hole_value)
                chosen = reading.select(values, scene.image)
                flat = chosen.reshape(-1, chosen.shape[2]) if valid is None else chosen[valid]
                parts.append(flat[:: max(1, len(flat) * len(wins) // _SAMPLE_PX)])
            return np.concatenate(parts)

        workers = self.settings.workers
        samples = [part for _, part in in_parallel(sample, training, workers, "measuring values")]
        pixels = np.concatenate(samples)
        if not len(pixels):
            raise DataError(f"{training[0].image}: the training images hold no valid pixel; take them out")
        low, high = np.percentile(pixels, self.settings.percentiles, axis=0)
        if (high <= low).any():
            raise DataError(
                f"{training[0].image}: band {int(np.argmax(high <= low)) + 1} of the training images holds one value "
                f"({low.min():g}) nearly everywhere, so it cannot be scaled; choose other --bands or --percentiles"
            )
        return tuple(float(v) for v in low), tuple(float(v) for v in high)

    def labels(self, scene: Scene, wins: Sequence[Window]) -> Iterator[np.ndarray]:
        """Yield the labels (H, W) of each window."""
        found = self.surveys[scene.name]
        if scene.lines is not None:
            for window in wins:
                yield burn_lines(scene.lines, found.image, self.settings.road_width, window)
            return
        assert scene.mask is not None
        if self.read_labels is not None:
            labels = self.read_labels(scene.mask)
            for row, column, height, width in wins:
                yield labels[row : row + height, column : column + width].copy()
            return
        indices = self.indices and found.indices_apply
        for grey in _grey_of(scene.mask, wins):
            yield labels_of(grey, indices, self.settings.num_classes, scene.mask).copy()

    def write(self, writer: VocWriter, scene: Scene) -> None:
        """Write the tiles of ``scene``; a tile without any image is left out."""
        image = self.surveys[scene.name].image
        wins = self.tiles(scene, image, overlapping=True)
        whole = scene.part is None and len(wins) == 1
        stems, statistics = [], []
        parts = zip(wins, _pixels_of(scene.image, wins), self.labels(scene, wins), strict=True)
        for window, (values, own), mask in parts:
            stem = scene.name if whole else f"{scene.name}_r{window[0]:05d}_c{window[1]:05d}"
            valid = _holes(values, own, self.raw.hole_value)
            if valid is not None and not valid.any():
                continue
            if valid is not None:
                mask[~valid] = IGNORE
            suffix = os.path.splitext(scene.image)[1].lower()
            if whole and valid is own and _stands_alone(image):
                shutil.copyfile(scene.image, writer.image_path(stem, suffix))
            else:
                _write_image(writer, stem, values, valid, image, window)
            writer.write_mask(stem, mask)
            stems.append(stem)
            statistics.append(writer.statistics_of(writer.reading.as_read(values, valid, scene.image), valid, mask))
        writer.finish_scene(scene.name, scene.splits, stems, statistics)


def _stands_alone(image: RasterInfo) -> bool:
    """Return whether a copy of the image's one file tells all that is known of it."""
    path = image.path.lower()
    if path.endswith(_RASTERS):
        return not os.path.exists(f"{image.path}.msk")
    return path.endswith(IMAGE_SUFFIXES) and image.transform is None


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


def _gsd_m(surveys: dict[str, _Survey]) -> float | None:
    """Return the median ground sampling distance in metres that the georeferences tell, None where none does."""
    each = [ground_sampling_distance(survey.image) for survey in surveys.values()]
    found = [gsd_m for gsd_m in each if gsd_m is not None]
    return round(float(np.median(found)), 4) if found else None


def _key(raw: RawDataSet, scenes: Sequence[Scene], settings: Settings) -> str:
    """Return what names the sources and the settings, so that equal conversions are known."""
    files = []
    for scene in scenes:
        for path in filter(None, (scene.image, scene.mask, scene.lines)):
            try:
                status = os.stat(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be opened ({error.strerror})") from None
            files.append(
                [scene.name, scene.splits, scene.part, os.path.basename(path), status.st_size, status.st_mtime_ns]
            )
    chosen = {k: v for k, v in asdict(settings).items() if k not in ("workers", "overwrite")}
    text = json.dumps([_FORMAT, raw.name, chosen, files], default=list)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def convert_scenes(
    raw: RawDataSet,
    scenes: Sequence[Scene],
    dest: str,
    settings: Settings,
    read_labels: Callable[[str], np.ndarray] | None = None,
) -> Conversion:
    """Convert ``scenes`` into the VOC layout at ``dest``; the sources are not changed.

    Done already, from the same files with the same settings: nothing happens. Interrupted before: it goes on. Only a
    finished conversion stands at ``dest``.

    Args:
        raw: what the scenes are.
        scenes: each in its split.
        dest: folder to create.
        settings: tiling, bands, scaling and the like.
        read_labels: path of a mask to its labels (H, W), where each mask is judged by itself; otherwise all masks
            together tell what their values mean.

    Raises:
        DataError: names the files that could not be understood.
    """
    for scene in scenes:
        try:
            scene.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{scene.image!a}: the file's name is not UTF-8; rename it") from None
    key = _key(raw, scenes, settings)
    if not settings.overwrite and os.path.isdir(dest):
        metadata = read_metadata(dest)
        if metadata.get("key") == key:
            return summary(metadata, found_done=True)
    about = dict(data_set=raw.name, title=raw.title, home=raw.home, licence=raw.licence, citation=raw.citation)
    with VocWriter(dest, settings.overwrite, key, about=about) as writer:
        work = _Converter(raw, scenes, settings, read_labels)
        work.look()
        writer.reading = work.reading()
        todo = [scene for scene in scenes if scene.name not in writer.records]
        try:
            for _ in in_parallel(lambda scene: work.write(writer, scene), todo, settings.workers, "converting"):
                pass
        except DataError as error:
            if writer.records:
                raise DataError(f"{error} [{len(writer.records)} images are done; the same command goes on]") from None
            raise
        if not any("train" in record["splits"] and record["tiles"] for record in writer.records.values()):
            raise DataError(f"{dest}: no training image holds a valid pixel; check the sources")
    return summary(read_metadata(dest), found_done=False)
