"""Rasters in, georeferenced road maps out: resumable, in one process or several."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import distributed as dist
from tqdm import tqdm

from .. import __version__
from ..datasets.reading import ImageReading
from ..datasets.voc import road_labels
from ..errors import ConfigError, DataError, UserError
from ..files import complete_file
from ..geo import Georeference, RasterInfo, RasterSource, disk_needed, ground_sampling_distance, write_cog
from ..metrics.pixels import entropy
from ..report.pictures import paint_labels, save_picture
from ..report.qgis_style import write_qgis_probability_style, write_qgis_style, write_qgis_uncertainty_style
from .plan import TilePlan
from .road_network import RoadNetwork
from .strips import Strip, map_strips

# GDAL keeps what it has read; by default up to 5 % of the memory
os.environ.setdefault("GDAL_CACHEMAX", "256")

NODATA = 255
PROBABILITY_STEPS = 250
_SAME_SCALE = 1.1
_FAR_SCALE = 1.5
_PREVIEW_PX = 2048
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapSettings:
    """How rasters are mapped.

    Attributes:
        tile_px: rows and columns that the network sees at a time.
        overlap_px: least overlap of neighbouring tiles, over which their probabilities blend.
        batch: tiles in one forward pass.
        scale: pixels that the network sees for one pixel of the raster; None: as the ground sampling distances of
            raster and training images ask for, 1 where one is not known.
        threshold: probability from which a pixel is road, for two classes; None takes the likelier class.
        uncertainty: write the entropy of the probability too.
        bands: numbers from 1 of the bands to read; None: those of the training images.
    """

    tile_px: int = 1024
    overlap_px: int = 256
    batch: int = 2
    scale: float | None = None
    threshold: float | None = None
    uncertainty: bool = False
    bands: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(f"a threshold of {self.threshold:g}: give a probability between 0 and 1")
        if self.batch < 1:
            raise ConfigError(f"a batch of {self.batch}: give 1 or more")


@dataclass(frozen=True)
class MapFiles:
    """Where the results for one raster stand.

    Attributes:
        folder: of the results.
        name: of the raster, without its suffix.
    """

    folder: str
    name: str

    @classmethod
    def of(cls, raster: str, folder: str) -> MapFiles:
        """Return those of the raster at a path."""
        return cls(folder, os.path.splitext(os.path.basename(raster))[0])

    def path(self, ending: str) -> str:
        """Return the path of a result: ``_roads.tif``, ``_probability.tif``, ``.json``, ..."""
        return os.path.join(self.folder, f"{self.name}{ending}")

    @property
    def parts(self) -> str:
        """Folder of the strips that are done, while the map is not."""
        return self.path(".parts")

    def strip(self, index: int) -> str:
        """Return the path of a finished strip."""
        return os.path.join(self.parts, f"{index:06d}.npz")


class _Counted:
    """A network that tells a progress bar of its tiles, and remembers the time it took."""

    def __init__(self, network: RoadNetwork, bar: tqdm) -> None:
        self.network, self.bar, self.seconds = network, bar, 0.0
        self.classes, self.reading = network.classes, network.reading

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        start = time.perf_counter()
        found = self.network.predict(images)
        self.seconds += time.perf_counter() - start
        self.bar.update(len(images))
        return found


def _rank_and_size() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def check_rasters(paths: Sequence[str], network: RoadNetwork, settings: MapSettings) -> None:
    """Look at all rasters before the first is mapped.

    Raises:
        DataError: names every raster that cannot be mapped.
    """
    problems = []
    for path in paths:
        try:
            with RasterSource(path) as source:
                _reading_of(source.info, network, settings)
        except UserError as error:
            problems.append(str(error))
    if problems:
        count = f"{len(problems)} of {len(paths)} rasters cannot be mapped: " if len(paths) > 1 else ""
        raise DataError(count + "; ".join(problems))


def _reading_of(info: RasterInfo, network: RoadNetwork, settings: MapSettings) -> ImageReading:
    """Return how the raster is read.

    Raises:
        DataError: its bands or its depth do not fit the network.
    """
    reading = network.reading.with_settings(bands=settings.bands)
    _check_depth(info, reading)
    read = reading.select(np.empty((1, 1, info.bands), np.uint8), info.path).shape[2]
    needed = len(network.normalize.mean)
    if read != needed:
        raise DataError(f"{info.path}: {read} band(s) to read, but the network takes {needed}; say which: --bands")
    return reading


def _check_depth(info: RasterInfo, reading: ImageReading) -> None:
    """Refuse what has more than 8 bits where the network knows no scaling."""
    if info.dtype != "uint8" and reading.low is None:
        raise DataError(
            f"{info.path}: {info.dtype} pixels, but the network was trained on 8-bit images; make it 8 bits too, "
            f"such as: gdal_translate -ot Byte -scale LOW HIGH 0 255 {info.path} 8bit.tif"
        )


def chosen_scale(info: RasterInfo, reading: ImageReading, settings: MapSettings) -> float:
    """Return the pixels that the network sees for one pixel of the raster; a large difference is logged."""
    if settings.scale is not None:
        return settings.scale
    own, trained = ground_sampling_distance(info), reading.gsd_m
    if own is None or trained is None:
        return 1.0
    scale = own / trained
    if max(scale, 1 / scale) <= _SAME_SCALE:
        return 1.0
    if max(scale, 1 / scale) > _FAR_SCALE:
        logger.warning(
            "%s: has %.3g m per pixel, the training images had %.3g m; it is resampled, but roads may look different",
            info.path,
            own,
            trained,
        )
    return scale


def map_raster(path: str, network: RoadNetwork, folder: str, settings: MapSettings, overwrite: bool = False) -> dict:
    """Map the roads of one raster; every process of a group calls it with the same arguments.

    Writes ``NAME_roads.tif`` (classes, `NODATA` where the raster holds nothing), ``NAME_probability.tif`` (of road,
    uint8 with scale 1/`PROBABILITY_STEPS`), on request ``NAME_uncertainty.tif`` (entropy in bits, likewise), QGIS
    styles, a preview and at last ``NAME.json``. A run that was killed goes on with its finished strips; a finished map
    of the same raster, weights and settings is kept.

    Args:
        path: the raster.
        network: what maps.
        folder: where the results go.
        settings: how.
        overwrite: replace results that are there.

    Returns:
        what the JSON file holds.

    Raises:
        DataError: the raster cannot be read, or does not fit the network.
        ConfigError: results are there already, the disk is too small, or settings do not fit.
    """
    files = MapFiles.of(path, folder)
    rank, size = _rank_and_size()
    started = time.time()
    with RasterSource(path) as source:
        reading = _reading_of(source.info, network, settings)
        scale = chosen_scale(source.info, reading, settings)
        shape = source.info.height, source.info.width
        plan = TilePlan(*shape, settings.tile_px, settings.overlap_px, scale, network.stride)
        key = _key(source.info, network, settings, scale)
        kept = None if overwrite else _finished(files, key)
        _barrier()
        if kept is not None:
            if rank == 0:
                logger.info("%s: is there already and kept", files.path(".json"))
            return kept
        if rank == 0:
            _prepare(files, source.info, settings, key)
        _barrier()
        missing = [index for index in plan.rows if not os.path.isfile(files.strip(index))]
        mine = missing[len(missing) * rank // size : len(missing) * (rank + 1) // size]
        if rank == 0:
            _announce(source.info, network, plan, settings, missing)
        columns = len(plan.column_starts)
        rows = {row for index in mine for row in plan.tile_rows_of(index)}
        pause_s = 0.1 if sys.stderr.isatty() else 30
        bar = tqdm(total=len(rows) * columns, desc=files.name, unit="tile", disable=rank > 0, mininterval=pause_s)
        with bar:
            counted = _Counted(network, bar)
            for strip in map_strips(source, counted, plan, batch=settings.batch, strips=mine, reading=reading):
                _save_strip(files, strip, network, settings)
        _barrier()
        record = {}
        if rank == 0:
            seconds = dict(total=round(time.time() - started, 2), network=round(counted.seconds, 2))
            record = _finish(files, source, plan, network, settings, scale, seconds, reading, key)
            road = sum(record["class_share"][network.classes[i]] or 0 for i in road_labels(network.classes))
            logger.info("%s: %.1f %% road, %.0f s", files.path("_roads.tif"), 100 * road, seconds["total"])
        _barrier()
    return record


def _key(info: RasterInfo, network: RoadNetwork, settings: MapSettings, scale: float) -> str:
    """Return what tells one mapping from another: raster, weights, settings."""
    status = os.stat(info.path)
    facts = [os.path.abspath(info.path), status.st_size, status.st_mtime_ns, network.weights_sha256]
    # other numbers of threads sum in another order
    facts += [asdict(settings), scale, network.backend, network.precision, network.exported_sha256]
    facts += [torch.get_num_threads(), asdict(network.reading)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _finished(files: MapFiles, key: str) -> dict | None:
    """Return the record of the finished map, None where there is none.

    Raises:
        ConfigError: it is of another raster, or was made otherwise.
    """
    path = files.path(".json")
    if not os.path.exists(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):
        record = {}
    if record.get("key") != key:
        raise ConfigError(
            f"{path}: is there already, of another raster, checkpoint or setting; give --overwrite, or another --out"
        )
    return record


def _prepare(files: MapFiles, info: RasterInfo, settings: MapSettings, key: str) -> None:
    """Make the folders; parts of another mapping are removed."""
    key_file = os.path.join(files.parts, "key")
    try:
        if os.path.isdir(files.parts) and _text(key_file) != key:
            shutil.rmtree(files.parts)
        os.makedirs(files.parts, exist_ok=True)
        with open(key_file, "w", encoding="ascii") as file:
            file.write(key)
    except OSError as error:
        raise ConfigError(f"{files.folder}: cannot be written ({error.strerror}); choose another --out") from None
    pixels = info.height * info.width
    needed = 2 * pixels + (3 if settings.uncertainty else 2) * disk_needed(info.height, info.width, 1)
    free = shutil.disk_usage(files.parts).free
    if free < needed:
        raise ConfigError(
            f"{files.folder}: {free / 2**30:.1f} GiB are free, but mapping {info.path} may need "
            f"{needed / 2**30:.1f} GiB; free some, or choose another --out"
        )


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _announce(
    info: RasterInfo, network: RoadNetwork, plan: TilePlan, settings: MapSettings, missing: Sequence[int]
) -> None:
    """Log what the mapping will need; the time is that of a tile, tried once."""
    tile = np.zeros((*plan.network_shape, len(network.normalize.mean)), np.uint8)
    network.predict([tile])  # the first is slower
    start = time.perf_counter()
    network.predict([tile])
    one = time.perf_counter() - start
    tiles = len({row for index in missing for row in plan.tile_rows_of(index)}) * len(plan.column_starts)
    if len(missing) < len(plan.rows):
        logger.info("%s: going on, %d of %d strips are there", info.path, len(plan.rows) - len(missing), len(plan.rows))
    height = plan.tile_shape[0]
    memory = len(network.classes) * 4 * height * info.width * 2 + 2**30
    disk = (3 if settings.uncertainty else 2) * disk_needed(info.height, info.width, 1)
    logger.info(
        "%s: %d x %d px%s; %d tile(s) of %d px to map by %s %s, about %s, %s of memory and at most %s of disk",
        info.path,
        info.width,
        info.height,
        "" if info.crs else ", no coordinate reference system: the map is in pixels",
        tiles,
        plan.tile_px,
        network.backend,
        network.precision,
        f"{tiles * one:.0f} s" if tiles * one < 90 else f"{tiles * one / 60:.0f} min",
        _size(memory),
        _size(disk),
    )


def _size(count: float) -> str:
    """Return bytes in words."""
    return f"{count / 2**30:.1f} GiB" if count > 2**30 else f"{count / 2**20:.0f} MiB"


def _save_strip(files: MapFiles, strip: Strip, network: RoadNetwork, settings: MapSettings) -> None:
    """Write a finished strip, complete or not at all."""
    probability = strip.probability
    roads = road_labels(network.classes)
    road = np.clip(probability[roads].sum(axis=0), 0, 1)
    threshold = settings.threshold if settings.threshold is not None else network.threshold
    if threshold is not None and len(network.classes) == 2:
        labels = np.where(road >= threshold, roads[0], 1 - roads[0]).astype(np.uint8)
    else:
        labels = probability.argmax(axis=0).astype(np.uint8)
    layers = dict(labels=labels, probability=np.rint(road * PROBABILITY_STEPS).astype(np.uint8))
    if settings.uncertainty:
        layers["uncertainty"] = np.rint(entropy(road) * PROBABILITY_STEPS).astype(np.uint8)
    if strip.valid is not None:
        layers = {name: np.where(strip.valid, layer, NODATA).astype(np.uint8) for name, layer in layers.items()}
    path = files.strip(strip.index)
    with complete_file(path, "what is done stays, free some disk") as partial, open(partial, "wb") as file:
        np.savez_compressed(file, row=strip.row, **layers)


def _strips(files: MapFiles, plan: TilePlan, layer: str) -> Iterator[tuple[int, np.ndarray]]:
    for index in plan.rows:
        with np.load(files.strip(index), allow_pickle=False) as part:
            yield int(part["row"]), part[layer]


def _finish(
    files: MapFiles,
    source: RasterSource,
    plan: TilePlan,
    network: RoadNetwork,
    settings: MapSettings,
    scale: float,
    seconds: dict[str, float],
    reading: ImageReading,
    key: str,
) -> dict:
    """Put the strips together, and write everything else beside them."""
    place: Georeference = source.georeference
    colours = {label: (red, green, blue) for label, (red, green, blue) in enumerate(network.palette)}
    names = {label: (name, colours[label]) for label, name in enumerate(network.classes)}
    write_cog(
        files.path("_roads.tif"),
        _strips(files, plan, "labels"),
        plan.height,
        plan.width,
        "uint8",
        place,
        nodata=NODATA,
        colours=colours,
        overview_resampling="mode",
        band_names=("class",),
    )
    write_qgis_style(files.path("_roads.qml"), names)
    maps = ["probability", "uncertainty"] if settings.uncertainty else ["probability"]
    for layer in maps:
        write_cog(
            files.path(f"_{layer}.tif"),
            _strips(files, plan, layer),
            plan.height,
            plan.width,
            "uint8",
            place,
            nodata=NODATA,
            scale=1 / PROBABILITY_STEPS,
            band_names=(layer,),
        )
    write_qgis_probability_style(files.path("_probability.qml"))
    if settings.uncertainty:
        write_qgis_uncertainty_style(files.path("_uncertainty.qml"))
    counts = np.zeros(256, np.int64)
    for _, labels in _strips(files, plan, "labels"):
        counts += np.bincount(labels.ravel(), minlength=256)
    _preview(files, source, reading, network)
    valid = int(counts[:NODATA].sum())
    record = dict(
        raster=dict(asdict(source.info), path=source.info.path),
        weights_sha256=network.weights_sha256,
        classes=list(network.classes),
        settings=dict(
            asdict(settings),
            scale=scale,
            backend=network.backend,
            precision=network.precision,
            exported_sha256=network.exported_sha256,
            threads=torch.get_num_threads(),
        ),
        reading=asdict(reading),
        version=__version__,
        torch=str(torch.__version__),
        valid_share=valid / (plan.height * plan.width),
        class_share={name: float(counts[i] / valid) if valid else None for i, name in enumerate(network.classes)},
        seconds=seconds,
        key=key,
    )
    if not valid:
        logger.warning("%s: holds no valid pixel; its map is empty", source.info.path)
    with complete_file(files.path(".json")) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, default=float)
    shutil.rmtree(files.parts)
    return record


def _preview(files: MapFiles, source: RasterSource, reading: ImageReading, network: RoadNetwork) -> None:
    """Write the raster with its roads tinted, small enough to look at."""
    info = source.info
    shrink = min(1.0, _PREVIEW_PX / max(info.height, info.width))
    shape = max(1, round(info.height * shrink)), max(1, round(info.width * shrink))
    values, valid = source.read(0, 0, info.height, info.width, bands=reading.bands, out_shape=shape)
    plain = replace(reading, bands=None if reading.bands is None else tuple(range(1, values.shape[2] + 1)))
    image = plain.as_read(values, valid, info.path)
    image = np.ascontiguousarray(image[:, :, [0, 1, 2] if image.shape[2] >= 3 else [0, 0, 0]])
    with RasterSource(files.path("_roads.tif")) as roads:
        labels, holes = np.zeros(shape, np.uint8), np.zeros(shape, bool)
        # a road thinner than a pixel of the preview shows: the largest of the labels below it counts
        for row in range(shape[0]):
            top = row * info.height // shape[0]
            bottom = max((row + 1) * info.height // shape[0], top + 1)
            band, _ = roads.read(top, 0, bottom - top, info.width)
            rows = np.where(band[:, :, 0] == NODATA, 0, band[:, :, 0]).max(axis=0)
            starts = np.arange(shape[1]) * info.width // shape[1]
            labels[row] = np.maximum.reduceat(rows, starts)
            holes[row] = np.minimum.reduceat(band[:, :, 0].min(axis=0), starts) == NODATA
    picture = paint_labels(image, labels, network.palette)
    picture[holes] = 255
    save_picture(files.path("_preview.png"), picture)
