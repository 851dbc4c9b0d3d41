"""Many rasters: looked at before the first is mapped, mapped one by one or in shares, told in tables."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

from ..errors import ConfigError, DataError, UserError
from ..geo import RasterArea, RasterSource, VectorLayer, ground_sampling_distance, log_doubts, public_name
from ..report.tables import markdown_table
from ..runtime.facts import MapModel
from .road_map import (
    MapSettings,
    RasterMap,
    check_values,
    outside,
    plan_of,
    reading_of,
    scale_of,
    shown_bytes,
    shown_seconds,
)

logger = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What came of a raster: the ``record`` of its map, or the ``failure`` that kept it from one."""

    record: dict | None = None
    failure: str = ""
    warnings: int = 0


@dataclass
class Outcomes:
    """What came of each raster, by its path, in order."""

    of: dict[str, Outcome] = field(default_factory=dict)

    @contextmanager
    def about(self, path: str) -> Iterator[Outcome]:
        """Work on a raster: count the warnings, and take what is wrong with it (`UserError`) as its failure."""
        outcome = self.of.setdefault(path, Outcome())
        counter = _Warnings(outcome)
        package = logging.getLogger("mmseg_ext")
        package.addHandler(counter)
        try:
            yield outcome
        except UserError as error:
            outcome.failure = str(error)
        finally:
            package.removeHandler(counter)

    @property
    def failed(self) -> list[str]:
        """The rasters that have no map."""
        return [path for path, outcome in self.of.items() if outcome.failure]

    def log_table(self, road_labels: Sequence[int]) -> None:
        """Log a line for every raster."""
        rows = []
        for path, outcome in self.of.items():
            seconds = road = ""
            if outcome.record:
                seconds = f"{outcome.record['seconds']['total']:.0f}"
                shares = list(outcome.record["class_share"].values())
                road = f"{100 * sum(shares[label] or 0 for label in road_labels):.1f}"
            failure = outcome.failure.removeprefix(f"{path}: ")
            rows.append((path, seconds, road, str(outcome.warnings or ""), failure))
        logger.info("%s", markdown_table(("raster", "seconds", "road, %", "warnings", "failure"), rows))

    def refuse_failures(self) -> None:
        """Raise a DataError where a raster failed."""
        failed = self.failed
        if failed and len(self.of) == 1:
            raise DataError(self.of[failed[0]].failure)
        if failed:
            raise DataError(
                f"{len(failed)} of {len(self.of)} rasters failed, for the reasons above; the others are fine"
            )


class _Warnings(logging.Handler):
    """Counts the warnings about a raster."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(logging.WARNING)
        self.outcome = outcome

    def emit(self, record: logging.LogRecord) -> None:
        self.outcome.warnings += 1


def check_rasters(
    paths: Sequence[str], network: MapModel, settings: MapSettings, area: VectorLayer | None = None
) -> Outcomes:
    """Look at all rasters before the first is mapped; return those that have a pixel in the ``area``, or all.

    A raster that cannot be mapped is among them, with its failure.

    Raises:
        DataError: none can be mapped; or none has a pixel in the area.
    """
    outcomes, left_out = Outcomes(), []
    paths = [public_name(path) for path in paths]
    for path in paths:
        with outcomes.about(path), RasterSource(path, colours=True) as source:
            if area is not None and RasterArea(area, source.info).window is None:
                left_out.append(path)
                continue
            reading = reading_of(source.info, network, settings)
            ground_sampling_distance(source.info)
            check_values(source, reading)
            if source.info.bands == 1 < network.facts.bands:
                text = "%s: has one band, which is shown to the network as grey; leave it out if it is no picture"
                logger.warning(text, path)
            log_doubts(path, reading.bands)
    if len(left_out) == len(paths) and area is not None:
        raise DataError(outside(paths, area))
    if left_out and area is not None:
        logger.warning("left out, as they lie outside %s: %s", area.path, ", ".join(left_out))
    for path in left_out:
        del outcomes.of[path]
    failed = outcomes.failed
    if len(failed) == len(outcomes.of):
        count = f"none of {len(failed)} rasters can be mapped: " if len(failed) > 1 else ""
        raise DataError(count + "; ".join(outcomes.of[path].failure for path in failed))
    for path in failed:
        logger.error("%s", outcomes.of[path].failure)
    return outcomes


def inventory(
    outcomes: Outcomes,
    network: MapModel,
    folder: str,
    settings: MapSettings,
    overwrite: bool = False,
    area: VectorLayer | None = None,
) -> str:
    """Return a table of the rasters, and what their maps will need; nothing is written.

    Time is that of a batch of tiles, predicted as a trial for each shape of batches. Finished strips count as done.
    """
    rows, seconds_of, memory, disk, total_seconds = [], {}, 0, 0, 0.0
    for path, outcome in outcomes.of.items():
        about = [""] * 6
        if not outcome.failure:
            with outcomes.about(path), RasterSource(path, colours=True) as source:
                info, gsd_m = source.info, ground_sampling_distance(source.info)
                metres = "" if gsd_m is None else f"{gsd_m:.3g}"
                about[:4] = f"{info.width} x {info.height}", str(info.bands), metres, _name_of(info.crs)
                work = RasterMap(source, network, folder, settings, area)
                done = not overwrite and work.kept() is not None
                tiles = 0 if done else work.tiles(work.missing(work.plan.rows))
                shape = work.plan.network_shape, work.batch_of(tiles)
                if tiles and shape not in seconds_of:
                    seconds_of[shape] = work.tile_seconds(work.batch_of(tiles))
                seconds = tiles * seconds_of.get(shape, 0.0)
                about[4:] = str(tiles), shown_seconds(seconds)
                memory, total_seconds = max(memory, work.memory_bytes()), total_seconds + seconds
                disk += 0 if done else work.disk_bytes
        rows.append((path, *about, outcome.failure.removeprefix(f"{path}: ")))
    columns = "raster", "pixels", "bands", "m per pixel", "CRS", "tiles left", "time", "problem"
    needs = (
        f"about {shown_seconds(total_seconds)}, {shown_bytes(memory)} of memory, at most {shown_bytes(disk)} of disk"
    )
    return f"{markdown_table(columns, rows)}\n\n{len(rows)} raster(s) in one process: {needs}"


def _name_of(crs: str | None) -> str:
    """Return a coordinate reference system as a cell of a table."""
    named = re.search(r'"([^"]+)"', crs or "")  # WKT
    return named[1] if named else crs or ""


def map_each(outcomes: Outcomes, work: Callable[[str], dict | None], together: bool = False) -> None:
    """Do the ``work`` for every raster that has not failed; one that fails is told and does not stop the others.

    Raises:
        DataError: one failed, in one of several processes that work ``together``: the others would wait for it.
    """
    for path in [path for path in outcomes.of if path not in outcomes.failed]:
        with outcomes.about(path) as outcome:
            outcome.record = work(path)
        if outcome.failure and together:
            raise DataError(outcome.failure)
        if outcome.failure and len(outcomes.of) > 1:
            logger.error("%s", outcome.failure)


def shard_of(text: str, environ: Mapping[str, str]) -> tuple[int, int]:
    """Return which share of the work is meant, from 0, and of how many: ``3/20``, or ``auto`` in a job array.

    ``auto`` reads the variables of Slurm, AWS Batch, or an indexed job of Kubernetes, which does not say how many there
    are: its manifest says it in ``JOB_COMPLETIONS``.

    Raises:
        ConfigError: it is neither, or the variables are not there or tell of no even sequence.
    """
    try:
        if text != "auto":
            index, count = (int(part) for part in text.split("/"))
            index -= 1
        elif "SLURM_ARRAY_TASK_ID" in environ:
            here, least = (int(environ[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN"))
            count, step = int(environ["SLURM_ARRAY_TASK_COUNT"]), int(environ.get("SLURM_ARRAY_TASK_STEP", 1))
            index, rest = divmod(here - least, step)
            if rest or int(environ["SLURM_ARRAY_TASK_MAX"]) != least + (count - 1) * step:
                raise ValueError
        elif "AWS_BATCH_JOB_ARRAY_INDEX" in environ:
            index, count = (int(environ[f"AWS_BATCH_JOB_ARRAY_{name}"]) for name in ("INDEX", "SIZE"))
        else:
            index, count = int(environ["JOB_COMPLETION_INDEX"]), int(environ["JOB_COMPLETIONS"])
        if not 0 <= index < count:
            raise ValueError
    except (ValueError, KeyError):
        raise ConfigError(
            f"--shard {text}: give a share such as 3/20, from 1/20 to 20/20; auto takes it from the array of Slurm, "
            "AWS Batch, or a Kubernetes job with JOB_COMPLETIONS in its environment"
        ) from None
    return index, count


def map_share(
    outcomes: Outcomes,
    network: MapModel,
    folder: str,
    settings: MapSettings,
    shard: tuple[int, int],
    area: VectorLayer | None = None,
) -> None:
    """Map the strips of one share (index from 0, count) of the work, which `finish_raster` puts together.

    All strips of all rasters, in order, are divided into even shares of neighbours. Every process that is given the
    same rasters and settings comes to the same division, without a word from the others and at any time.
    """
    index, count = shard
    units: list[tuple[str, int]] = []
    for path in outcomes.of:
        if path not in outcomes.failed:
            with RasterSource(path, colours=True) as source:
                scale = scale_of(source.info, reading_of(source.info, network, settings), settings)
                units += [(path, strip) for strip in plan_of(source.info, network, settings, scale).rows]
    mine = units[len(units) * index // count : len(units) * (index + 1) // count]
    shares = {path: [strip for _, strip in group] for path, group in groupby(mine, key=itemgetter(0))}

    def work(path: str) -> None:
        if path not in shares:
            return
        with RasterSource(path, colours=True) as source:
            part = RasterMap(source, network, folder, settings, area)
            strips = shares[path]
            if part.kept() is None and (missing := part.missing(strips)):
                part.prepare()
                part.announce(missing, of=len(strips))
                part.map_strips(missing)
        done = f"{strips[0] + 1} to {strips[-1] + 1}" if len(strips) > 1 else str(strips[0] + 1)
        logger.info("%s: strip(s) %s of %d are done", path, done, len(part.plan.rows))

    map_each(outcomes, work)


def finish_raster(
    path: str, network: MapModel, folder: str, settings: MapSettings, area: VectorLayer | None = None
) -> dict:
    """Put the map of a raster together, all strips of which are there; return its record.

    Raises:
        DataError: strips are missing.
    """
    started = time.time()
    with RasterSource(path, colours=True) as source:
        work = RasterMap(source, network, folder, settings, area)
        if (kept := work.kept()) is not None:
            return kept
        rows = work.plan.rows
        if missing := work.missing(rows):
            others = (
                " (there are some of other options, weights or threads)" if work.files.has_strips_of_others() else ""
            )
            raise DataError(
                f"{path}: {len(missing)} of {len(rows)} strips are missing, number {missing[0] + 1} first{others}; run "
                "the shards again that failed, all with the same rasters, options and OMP_NUM_THREADS"
            )
        return work.finish(time.time() - started)
