"""Rasters in, georeferenced road maps out: resumable, in one process or several."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..errors import ConfigError, DataError, UserError
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
    log_doubts,
    public_name,
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


def check_rasters(
    paths: Sequence[str], network: MapModel, settings: MapSettings, area: VectorLayer | None = None
) -> list[str]:
    """Look at all rasters before the first is mapped; return those that have a pixel in the ``area``, or all.

    Raises:
        DataError: names every raster that cannot be mapped; or none has a pixel in the area.
    """
    problems, outside, paths = [], [], [public_name(path) for path in paths]
    for path in paths:
        try:
            with RasterSource(path, colours=True) as source:
                if area is not None and RasterArea(area, source.info).window is None:
                    outside.append(path)
                    continue
                reading = _reading_of(source.info, network, settings)
                ground_sampling_distance(source.info)
                _check_values(source, reading)
            log_doubts(path, reading.bands)
        except UserError as error:
            problems.append(str(error))
    if problems:
        count = f"{len(problems)} of {len(paths)} rasters cannot be mapped: " if len(paths) > 1 else ""
        raise DataError(count + "; ".join(problems))
    if area is not None and outside:
        if len(outside) == len(paths):
            raise _outside(paths, area)
        logger.warning("left out, as they lie outside %s: %s", area.path, ", ".join(outside))
    return [path for path in paths if path not in outside]


def _outside(paths: Sequence[str], area: VectorLayer) -> DataError:
    """Return what is said of rasters that have no pixel in an area."""
    where = f"{paths[0]}: lies" if len(paths) == 1 else f"all {len(paths)} rasters, {paths[0]} first, lie"
    return DataError(f"{where} outside {area.path}; give another --area, or check the coordinate reference systems")


def _reading_of(info: RasterInfo, network: MapModel, settings: MapSettings) -> ImageReading:
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


def _check_values(source: RasterSource, reading: ImageReading) -> None:
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


def chosen_scale(
    info: RasterInfo, reading: ImageReading, settings: MapSettings, limits: tuple[float, float] | None = None
) -> float:
    """Return the pixels given to the network for one pixel of the raster; what is unknown or far off is logged.

    ``limits`` are the least and the most metres per pixel that training showed, as far as the network knows them.
    """
    if settings.scale is not None:
        return settings.scale
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
        return 1.0
    scale = own / trained
    if max(scale, 1 / scale) <= _SAME_SCALE:
        return 1.0
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
    files, facts, path = MapFiles.of(path, folder), network.facts, public_name(path)
    first, started = group.rank == 0, time.time()
    with RasterSource(path, colours=True) as source:
        info = source.info
        reading = _reading_of(info, network, settings)
        scale = chosen_scale(info, reading, settings, facts.gsd_range_m)
        plan = TilePlan(info.height, info.width, settings.tile_px, settings.overlap_px, scale, facts.stride)
        here = None if area is None else RasterArea(area, info)
        if area is not None and (here is None or here.window is None):
            raise _outside([path], area)
        key = _key(info, network, settings, scale, here)
        cleaning = _cleaning(info, network, settings) if settings.cleans else None
        kept = None if overwrite else files.finished(key)
        group.wait()
        if kept is not None:
            if first:
                logger.info("%s: exists and is kept", files.path(".json"))
            return kept
        disk = len(settings.layers) * disk_needed(info.height, info.width, 1)
        if first:
            strips_bytes = (len(settings.layers) + settings.cleans) * info.height * info.width
            files.prepare(key, disk + strips_bytes, info.path)
        group.wait()
        missing = [index for index in plan.rows if not os.path.isfile(files.strip(index))]
        group.wait()  # a strip that one has finished already would be missing in another's list
        share = [len(missing) * rank // group.world_size for rank in (group.rank, group.rank + 1)]
        mine = missing[slice(*share)]
        room = source.make_room(*plan.tile_shape)
        if first:
            _announce(info, network, plan, missing, disk, room, here, settings)
        tiles = _tiles(plan, mine, here)
        pause_s = 0.1 if sys.stderr.isatty() else 30
        with tqdm(total=tiles, desc=files.name, unit="tile", disable=not first, mininterval=pause_s) as bar:
            timed = _Timed(network, bar, settings.scales_for(facts))
            strips = map_strips(source, timed, plan, batch=settings.batch, strips=mine, reading=reading, area=here)
            for strip in strips:
                files.save_strip(strip.index, strip.row, _layers(strip, network, settings))
        group.wait()
        record: dict = {}
        if first:
            seconds = dict(total=round(time.time() - started, 2), network=round(timed.seconds, 2))
            counts = files.write_maps(plan.rows, source, reading, facts, settings.layers, here, cleaning)
            valid = int(counts[:NODATA].sum())
            if not valid:
                logger.warning("%s: no valid pixel in it; its map is empty", path)
            shares = [float(count / valid) if valid else None for count in counts[: len(facts.classes)]]
            record = dict(
                raster=asdict(info),
                weights_sha256=facts.weights_sha256,
                classes=list(facts.classes),
                settings=dict(
                    asdict(settings),
                    scale=scale,
                    scales=list(settings.scales_for(facts)),
                    threshold=settings.threshold_for(facts),
                    area=area and area.path,
                    **network.execution,
                ),
                reading=asdict(reading),
                version=__version__,
                **network.software,
                valid_share=valid / (plan.height * plan.width),
                class_share=dict(zip(facts.classes, shares, strict=True)),
                seconds=seconds,
                key=key,
            )
            files.finish(record)
            road = sum(shares[label] or 0 for label in facts.road_labels)
            logger.info("%s: %.1f %% road, %.0f s", files.path("_roads.tif"), 100 * road, seconds["total"])
        group.wait()
    return record


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


def _tiles(plan: TilePlan, strips: Sequence[int], area: RasterArea | None) -> int:
    """Return the number of tiles that strips depend on and that meet the area."""
    rows = {row for index in strips for row in plan.tile_rows_of(index)}
    if area is None:
        return len(rows) * len(plan.column_starts)
    places = product((plan.row_starts[row] for row in rows), plan.column_starts)
    return sum(area.meets(*place, *plan.tile_shape) for place in places)


def _peak_bytes() -> int:
    """Return the most memory that this process has had; 0 on Windows, which has no module to ask."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _announce(
    info: RasterInfo,
    network: MapModel,
    plan: TilePlan,
    missing: Sequence[int],
    disk: int,
    room: int,
    area: RasterArea | None,
    settings: MapSettings,
) -> None:
    """Log what the mapping will need; time and memory are those of a batch of tiles, predicted as a trial."""
    tiles = _tiles(plan, missing, area)
    together = max(1, min(settings.batch, len(plan.column_starts), tiles))  # batches do not go beyond a row of tiles
    trial = [np.zeros((*plan.network_shape, network.facts.bands), np.uint8)] * together
    scales = settings.scales_for(network.facts)
    predict_at_scales(network, trial, scales)  # the first is slower
    start = time.perf_counter()
    predict_at_scales(network, trial, scales)
    seconds = tiles * (time.perf_counter() - start) / len(trial)
    peak = _peak_bytes()
    if len(missing) < len(plan.rows):
        logger.info("%s: resuming, %d of %d strips are done", info.path, len(plan.rows) - len(missing), len(plan.rows))
    memory = len(network.facts.classes) * 4 * plan.tile_shape[0] * info.width * 2 + peak + room
    logger.info(
        "%s: %d x %d px%s; %d tile(s) of %d px to map by %s %s, about %s, %s of memory and at most %s of disk",
        info.path,
        info.width,
        info.height,
        "" if info.crs else ", no coordinate reference system: the map is in pixels",
        tiles,
        plan.tile_px,
        network.execution["backend"],
        network.execution["precision"],
        f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min",
        *(f"{size / 2**30:.1f} GiB" if size > 2**30 else f"{size / 2**20:.0f} MiB" for size in (memory, disk)),
    )


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
