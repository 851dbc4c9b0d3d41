"""Rasters in, georeferenced road maps out: resumable, in one process or several."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..errors import ConfigError, DataError
from ..geo import (
    PixelFrame,
    RasterArea,
    RasterInfo,
    RasterSource,
    VectorLayer,
    disk_needed,
    fingerprint,
    glimpses,
    ground_sampling_distance,
    source_files,
)
from ..imagery.reading import ImageReading
from ..metrics.pixels import entropy
from ..runtime.facts import MapModel, NetworkFacts, predict_at_scales
from ..tiling import OVERLAP_PX, TILE_PX
from .cleaning import Cleaning
from .map_files import NODATA, PROBABILITY_STEPS, MapFiles
from .strips import Strip, TilePlan, map_strips

# GDAL keeps what it has read; by default up to 5 % of the memory
os.environ.setdefault("GDAL_CACHEMAX", "256")

_SAME_SCALE = 1.1
_FAR_SCALE = 1.5
_BEYOND = 0.95  # share of the pixels; 0.02 in training
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapSettings:
    """How rasters are mapped.

    Attributes:
        tile_px: rows and columns of a tile as given to the network.
        overlap_px: least overlap of neighbouring tiles, over which their probabilities blend.
        batch: tiles in one forward pass.
        scale: pixels given to the network for one pixel of the raster; None: from the ground sampling distances of
            raster and training images, 1 where one is not known.
        threshold: probability from which a pixel is road, for two classes; None: the network's, else argmax.
        uncertainty: write the entropy of the probability too.
        bands: numbers from 1 of the bands to read; None: those of the training images.
        min_area_m2: pieces of road that are smaller are dropped; in pixels where the raster has no georeference.
        fill_holes_m2: holes in roads that are smaller are filled, likewise; see `Cleaning` for both.
        scales: sizes at which the network looks at each tile, whose probabilities are averaged; None: the network's.
    """

    tile_px: int = TILE_PX
    overlap_px: int = OVERLAP_PX
    batch: int = 2
    scale: float | None = None
    threshold: float | None = None
    uncertainty: bool = False
    bands: tuple[int, ...] | None = None
    min_area_m2: float = 0.0
    fill_holes_m2: float = 0.0
    scales: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(f"a threshold of {self.threshold:g}: give a probability between 0 and 1")
        if self.batch < 1:
            raise ConfigError(f"a batch of {self.batch}: give 1 or more")
        if self.scales is not None and not (self.scales and all(0 < scale <= 4 for scale in self.scales)):
            raise ConfigError(f"--scales {self.scales}: give one or more factors above 0 and up to 4, such as 0.5,1")
        for option, value in (("--min-area", self.min_area_m2), ("--fill-holes", self.fill_holes_m2)):
            if not 0 <= value < np.inf:
                raise ConfigError(f"{option} {value:g}: give square metres, 0 or more")

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the maps that are written."""
        return ("labels", "probability", "uncertainty") if self.uncertainty else ("labels", "probability")

    @property
    def cleans(self) -> bool:
        """Whether small pieces or holes of the mask are changed."""
        return self.min_area_m2 > 0 or self.fill_holes_m2 > 0

    def threshold_for(self, facts: NetworkFacts) -> float | None:
        """Return the probability from which a pixel is road for a network; None: argmax."""
        return facts.threshold if self.threshold is None else self.threshold

    def scales_for(self, facts: NetworkFacts) -> tuple[float, ...]:
        """Return the sizes at which a network looks at each tile."""
        return facts.scales if self.scales is None else self.scales


@dataclass(frozen=True)
class Group:
    """The processes that share the strips of a raster: which one this is, of how many, and how to wait for all."""

    rank: int = 0
    world_size: int = 1
    wait: Callable[[], None] = lambda: None


def reading_of(info: RasterInfo, network: MapModel, settings: MapSettings) -> ImageReading:
    """Return how the raster is read; refuse one whose bands or depth do not fit the network."""
    reading = network.facts.reading.with_settings(bands=settings.bands)
    if info.dtype != "uint8" and reading.low is None:
        raise DataError(
            f"{info.path}: {info.dtype} pixels, but the network was trained on 8-bit images; make it 8 bits too, "
            f"such as: gdal_translate -ot Byte -scale LOW HIGH 0 255 {info.path} 8bit.tif"
        )
    reading.check_depth(info.dtype, info.path)
    read = reading.select(np.empty((1, 1, info.bands_for(reading.bands)), np.uint8), info.path).shape[2]
    needed = network.facts.bands
    if read != needed:
        alpha = "" if info.alpha_band is None else f" (band {info.alpha_band} is marked as alpha, it may be among them)"
        raise DataError(
            f"{info.path}: {read} band(s) to read, but the network takes {needed}; say which: --bands{alpha}"
        )
    return reading


def check_values(source: RasterSource, reading: ImageReading) -> None:
    """Refuse, by a DataError, a raster that would be all black or white: reflectance for a network of counts."""
    if reading.low is None or reading.high is None:
        return
    path = source.info.path
    parts = [values if valid is None else values[valid] for values, valid in glimpses(source, reading.bands)]
    pixels = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts] or [np.zeros((1, 1))])
    if not pixels.size or pixels.min() == pixels.max():
        return
    shares = (pixels <= reading.low).mean(axis=0), (pixels >= reading.high).mean(axis=0)
    if max(share.min() for share in shares) > _BEYOND:
        raise DataError(
            f"{path}: values from {pixels.min():g} to {pixels.max():g}, but the training images were scaled from "
            f"{min(reading.low):g} (black) to {max(reading.high):g} (white); bring it to their unit, such as: "
            f"gdal_translate -ot Float32 -scale 0 1 0 10000 {path} OUT.tif"
        )


def scale_of(info: RasterInfo, reading: ImageReading, settings: MapSettings) -> float:
    """Return the pixels given to the network for one pixel of the raster."""
    own, trained = ground_sampling_distance(info), reading.gsd_m
    if settings.scale is not None or own is None or trained is None:
        return settings.scale or 1.0
    scale = own / trained
    return 1.0 if max(scale, 1 / scale) <= _SAME_SCALE else scale


def chosen_scale(
    info: RasterInfo, reading: ImageReading, settings: MapSettings, limits: tuple[float, float] | None = None
) -> float:
    """Return the pixels given to the network for one pixel of the raster; what is unknown or far off is logged.

    ``limits`` are the least and the most metres per pixel that training showed, as far as the network knows them.
    """
    scale = scale_of(info, reading, settings)
    if settings.scale is not None:
        return scale
    own, trained = ground_sampling_distance(info), reading.gsd_m
    if own is None or trained is None:
        who = "the raster tells no metres per pixel" if own is None else "the checkpoint knows no metres per pixel"
        remedy = (
            f": your metres per pixel / {trained:g}"
            if own is None and trained is not None
            else ""
            if own is None
            else (", or those of its training images: --cfg-options data.test.step_args.LoadRoadImage.gsd_m=METRES")
        )
        logger.warning("%s: %s, so it is mapped at its own scale; give --scale%s", info.path, who, remedy)
        return scale
    if scale == 1:
        return scale
    low, high = limits or (trained / _FAR_SCALE, trained * _FAR_SCALE)
    if not low <= own <= high:
        seen = f"{trained:.3g}" if limits is None else f"{low:.3g} to {high:.3g}"
        text = "%s: has %.3g m per pixel, the training images had %s m; it is resampled, but roads may look different"
        logger.warning(text, info.path, own, seen)
    return scale


def map_raster(
    path: str,
    network: MapModel,
    folder: str,
    settings: MapSettings,
    overwrite: bool = False,
    group: Group = Group(),
    area: VectorLayer | None = None,
) -> dict:
    """Map the roads of one raster; every process of a ``group`` calls it with the same arguments.

    Writes ``NAME_roads.tif`` (classes, `NODATA` where the raster is nodata), ``NAME_probability.tif`` (of road, uint8
    with scale 1/`PROBABILITY_STEPS`), on request ``NAME_uncertainty.tif`` (entropy in bits, likewise), QGIS styles, a
    preview and at last ``NAME.json``. A killed run resumes with its finished strips; a finished map of the same raster,
    weights, settings and area is kept, unless ``overwrite`` asks to replace it.

    Of a raster that lies partly in the polygons of an ``area``, only tiles with a pixel of it are read; the map is
    nodata outside, and inside as without it.

    Returns:
        The content of the JSON file; in processes other than the first, of a map that was already finished only.

    Raises:
        DataError: the raster cannot be read, does not fit the network, or has no pixel in the area.
        ConfigError: other results exist already, the disk is too small, or settings do not fit.
    """
    first, started = group.rank == 0, time.time()
    record: dict = {}
    with RasterSource(path, colours=True) as source:
        work = RasterMap(source, network, folder, settings, area)
        kept = None if overwrite else work.kept()
        group.wait()
        if kept is not None:
            if first:
                logger.info("%s: exists and is kept", work.files.path(".json"))
            return kept
        if first:
            work.prepare()
        group.wait()
        missing = work.missing(work.plan.rows)
        group.wait()  # a strip that one has finished already would be missing in another's list
        share = [len(missing) * rank // group.world_size for rank in (group.rank, group.rank + 1)]
        if first:
            work.announce(missing, len(work.plan.rows))
        work.map_strips(missing[slice(*share)], show=first)
        group.wait()
        if first:
            record = work.finish(time.time() - started)
        group.wait()
    return record


class RasterMap:
    """The map of one raster while it is made: whoever has the raster and the network maps strips, one finishes it.

    Attributes:
        files: where strips and results are.
        plan: strips and tiles.

    Raises:
        DataError: the raster does not fit the network, or has no pixel in the area.
        ConfigError: the settings do not fit.
    """

    def __init__(
        self,
        source: RasterSource,
        network: MapModel,
        folder: str,
        settings: MapSettings,
        area: VectorLayer | None = None,
    ) -> None:
        self.source, self.network, self.settings, self.area = source, network, settings, area
        info, facts = source.info, network.facts
        self.reading = reading_of(info, network, settings)
        self.scale = chosen_scale(info, self.reading, settings, facts.gsd_range_m)
        self.plan = plan_of(info, network, settings, self.scale)
        self.here = None if area is None else RasterArea(area, info)
        if area is not None and (self.here is None or self.here.window is None):
            raise DataError(outside([info.path], area))
        self.files = MapFiles.of(info.path, folder, _key(info, network, settings, self.scale, self.here))
        self.cleaning = _cleaning(info, network, settings) if settings.cleans else None
        self.network_seconds = 0.0

    def kept(self) -> dict | None:
        """Return the record of the map where it is finished already, else None; see `MapFiles.finished`."""
        return self.files.finished()

    @property
    def disk_bytes(self) -> int:
        """The most that the results take."""
        info = self.source.info
        return len(self.settings.layers) * disk_needed(info.height, info.width, 1)

    def prepare(self) -> None:
        """Make the folder of strips; see `MapFiles.prepare`."""
        info = self.source.info
        strips_bytes = (len(self.settings.layers) + self.settings.cleans) * info.height * info.width
        self.files.prepare(self.disk_bytes + strips_bytes, info.path)

    def missing(self, strips: Iterable[int]) -> list[int]:
        """Return those of the strips that nobody has finished."""
        return [index for index in strips if not os.path.isfile(self.files.strip(index))]

    def map_strips(self, strips: Sequence[int], show: bool = True) -> None:
        """Map some strips and write each as it is done, complete or not at all; ``show`` the progress."""
        self.source.make_room(*self.plan.tile_shape)
        tiles = self.tiles(strips)
        pause_s = 0.1 if sys.stderr.isatty() else 30
        with tqdm(total=tiles, desc=self.files.name, unit="tile", disable=not show, mininterval=pause_s) as bar:
            timed = _Timed(self.network, bar, self.settings.scales_for(self.network.facts))
            found = map_strips(
                self.source, timed, self.plan, batch=self.settings.batch, strips=strips, reading=self.reading,
                area=self.here,
            )  # fmt: skip
            for strip in found:
                self.files.save_strip(strip.index, strip.row, _layers(strip, self.network, self.settings))
        self.network_seconds += timed.seconds

    def finish(self, seconds: float) -> dict:
        """Write maps, preview and record from all strips, and remove these; return the record.

        ``seconds`` are what this process has spent on the map before.

        Raises:
            DataError: a strip is missing or damaged.
        """
        info, facts, settings, network = self.source.info, self.network.facts, self.settings, self.network
        spent = dict(total=round(seconds, 2), network=round(self.network_seconds, 2))
        counts = self.files.write_maps(
            self.plan.rows, self.source, self.reading, facts, settings.layers, self.here, self.cleaning
        )
        valid = int(counts[:NODATA].sum())
        if not valid:
            logger.warning("%s: no valid pixel in it; its map is empty", info.path)
        shares = [float(count / valid) if valid else None for count in counts[: len(facts.classes)]]
        record = dict(
            raster=asdict(info),
            weights_sha256=facts.weights_sha256,
            classes=list(facts.classes),
            settings=dict(
                asdict(settings),
                scale=self.scale,
                scales=list(settings.scales_for(facts)),
                threshold=settings.threshold_for(facts),
                area=self.area and self.area.path,
                **network.execution,
            ),
            reading=asdict(self.reading),
            version=__version__,
            **network.software,
            valid_share=valid / (self.plan.height * self.plan.width),
            class_share=dict(zip(facts.classes, shares, strict=True)),
            seconds=spent,
            key=self.files.key,
        )
        self.files.finish(record)
        road = sum(shares[label] or 0 for label in facts.road_labels)
        logger.info("%s: %.1f %% road, %.0f s", self.files.path("_roads.tif"), 100 * road, spent["total"])
        return record

    def tiles(self, strips: Sequence[int]) -> int:
        """Return the number of tiles that strips depend on and that meet the area."""
        rows = {row for index in strips for row in self.plan.tile_rows_of(index)}
        if self.here is None:
            return len(rows) * len(self.plan.column_starts)
        places = product((self.plan.row_starts[row] for row in rows), self.plan.column_starts)
        return sum(self.here.meets(*place, *self.plan.tile_shape) for place in places)

    def batch_of(self, tiles: int) -> int:
        """Return how many of some tiles the network gets at once: batches do not go beyond a row of tiles."""
        return max(1, min(self.settings.batch, len(self.plan.column_starts), tiles))

    def tile_seconds(self, together: int) -> float:
        """Return the seconds that a tile takes in a batch of so many, which is predicted as a trial."""
        trial = [np.zeros((*self.plan.network_shape, self.network.facts.bands), np.uint8)] * together
        scales = self.settings.scales_for(self.network.facts)
        predict_at_scales(self.network, trial, scales)  # the first is slower
        start = time.perf_counter()
        predict_at_scales(self.network, trial, scales)
        return (time.perf_counter() - start) / together

    def memory_bytes(self) -> int:
        """Return about the most memory that the mapping takes, what this process has taken included."""
        room = self.source.make_room(*self.plan.tile_shape)
        classes, width = len(self.network.facts.classes), self.plan.width
        return classes * 4 * self.plan.tile_shape[0] * width * 2 + _peak_bytes() + room

    def announce(self, missing: Sequence[int], of: int) -> None:
        """Log what the mapping of strips that are ``missing`` of a number will need."""
        info, execution, tiles = self.source.info, self.network.execution, self.tiles(missing)
        seconds = tiles * self.tile_seconds(self.batch_of(tiles))
        if len(missing) < of:
            logger.info("%s: resuming, %d of %d strips are done", info.path, of - len(missing), of)
        logger.info(
            "%s: %d x %d px%s; %d tile(s) of %d px to map by %s %s, about %s, %s of memory and at most %s of disk",
            info.path,
            info.width,
            info.height,
            "" if info.crs else ", no coordinate reference system: the map is in pixels",
            tiles,
            self.plan.tile_px,
            execution["backend"],
            execution["precision"],
            shown_seconds(seconds),
            shown_bytes(self.memory_bytes()),
            shown_bytes(self.disk_bytes),
        )


def shown_seconds(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def shown_bytes(size: float) -> str:
    """Return a size for people."""
    return f"{size / 2**30:.1f} GiB" if size > 2**30 else f"{size / 2**20:.0f} MiB"


def plan_of(info: RasterInfo, network: MapModel, settings: MapSettings, scale: float) -> TilePlan:
    """Return strips and tiles of a raster at a scale."""
    return TilePlan(info.height, info.width, settings.tile_px, settings.overlap_px, scale, network.facts.stride)


def outside(paths: Sequence[str], area: VectorLayer) -> str:
    """Return what is said of rasters that have no pixel in an area."""
    where = f"{paths[0]}: lies" if len(paths) == 1 else f"all {len(paths)} rasters, {paths[0]} first, lie"
    return f"{where} outside {area.path}; give another --area, or check the coordinate reference systems"


def _cleaning(info: RasterInfo, network: MapModel, settings: MapSettings) -> Cleaning:
    """Return what cleans the mask; a DataError where the place of the raster is none."""
    shape = info.height, info.width
    limits = settings.min_area_m2, settings.fill_holes_m2
    return Cleaning(PixelFrame(info), shape, network.facts.road_labels, NODATA, *limits)


def _key(
    info: RasterInfo, network: MapModel, settings: MapSettings, scale: float, area: RasterArea | None = None
) -> str:
    """Return what identifies a map: raster, weights, settings, area, and all else that its pixels depend on."""
    facts = [*fingerprint(info.path), network.facts.weights_sha256]
    # normalisation, threshold and names of the config, but not the version: an update keeps what is there
    facts += [asdict(settings), scale, *network.execution.values(), {**asdict(network.facts), "version": None}]
    if area is not None:
        facts.append(area.digest)
    for file in source_files(info.path)[1:]:
        facts += fingerprint(file)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _peak_bytes() -> int:
    """Return the most memory that this process has had; 0 on Windows, which has no module to ask."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class _Timed:
    """The network at some scales, which moves a progress bar and adds up the seconds it took."""

    def __init__(self, network: MapModel, bar: tqdm, scales: Sequence[float]) -> None:
        self.network, self.bar, self.scales, self.seconds = network, bar, scales, 0.0
        self.facts, self.execution, self.software = network.facts, network.execution, network.software

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        start = time.perf_counter()
        found = predict_at_scales(self.network, images, self.scales)
        self.seconds += time.perf_counter() - start
        self.bar.update(len(images))
        return found


def _layers(strip: Strip, network: MapModel, settings: MapSettings) -> dict[str, np.ndarray]:
    """Return the layers of a strip that `MapFiles.save_strip` writes."""
    facts, probability = network.facts, strip.probability
    roads = facts.road_labels
    road = np.clip(probability[roads].sum(axis=0), 0, 1)
    threshold = settings.threshold_for(facts)
    if threshold is not None and len(facts.classes) == 2:
        labels = np.where(road >= threshold, roads[0], 1 - roads[0]).astype(np.uint8)
    else:
        labels = probability.argmax(axis=0).astype(np.uint8)
    layers = dict(labels=labels, probability=np.rint(road * PROBABILITY_STEPS).astype(np.uint8))
    if settings.cleans:
        rest = [label for label in range(len(facts.classes)) if label not in roads]
        road_class, other_class = (np.take(side, probability[side].argmax(axis=0)) for side in (roads, rest))
        layers["other"] = np.where(np.isin(labels, roads), other_class, road_class).astype(np.uint8)
    if settings.uncertainty:
        layers["uncertainty"] = np.rint(entropy(road) * PROBABILITY_STEPS).astype(np.uint8)
    if strip.valid is None:
        return layers
    return {name: np.where(strip.valid, layer, NODATA).astype(np.uint8) for name, layer in layers.items()}
