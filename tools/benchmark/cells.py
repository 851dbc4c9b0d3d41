"""Methods on backends at sizes: each in a process of its own, those that are compared in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from statistics import median
from typing import Any

import numpy as np
import torch
from timing import Worker, WorkerError, forget_peak, in_turns, peak_bytes, process_bytes, timed
from mapping import RepeatedRaster
from methods import AUTO, Contender, build_method
from tqdm import tqdm

from mmseg_ext.deploy.choice import choose_backend, fast_precisions
from mmseg_ext.deploy.facts import facts_of
from mmseg_ext.deploy.runner import accelerated, make_runner
from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine.distributed import start_process
from mmseg_ext.errors import ConfigError
from mmseg_ext.files import cache_folder
from mmseg_ext.mapping import TilePlan, map_strips


@dataclass(frozen=True)
class Cell:
    """A contender at one size."""

    contender: Contender
    size_px: int  # rows and columns of the image
    batch: int = 1  # images, or tiles, in one forward pass
    tiles: tuple[int, int] | None = None  # sides and least overlap, in pixels; None: the whole image at once

    @property
    def images(self) -> int:
        """Images that one call maps."""
        return self.batch if self.tiles is None else 1

    @property
    def megapixels(self) -> float:
        """Millions of pixels that one call maps."""
        return self.images * self.size_px**2 / 1e6

    @property
    def computed(self) -> float:
        """How often a pixel goes through the network."""
        if self.tiles is None:
            return 1.0
        plan = TilePlan(self.size_px, self.size_px, *self.tiles, stride=32)
        height, width = plan.tile_shape
        return len(plan.row_starts) * height * len(plan.column_starts) * width / self.size_px**2

    def __str__(self) -> str:
        return f"{self.contender} {self.size_px} px x {self.batch}"


@dataclass(frozen=True)
class Settings:
    """How every cell is measured."""

    threads: int | None = None  # that a network may use; None for torch's default
    checkpoint: str | None = None  # weights; None for random ones
    int8_file: str | None = None  # exported network, for the cells with precision int8
    turn_seconds: float = 0.5  # a turn makes calls until these are over


@dataclass
class Record:
    """What was measured of one cell: of each turn the seconds of the calls that count, and the peak memory in bytes."""

    cell: Cell
    backend: str | None = None  # that ran, where ``auto`` chose too
    precision: str | None = None
    turns: list[tuple[tuple[float, ...], int | None]] = field(default_factory=list)
    failed: str | None = None  # why it was not measured to the end

    @property
    def round_seconds(self) -> list[float]:
        """Median seconds of a call in each round."""
        return [median(seconds) for seconds, _ in self.turns]


def prepare(cell: Cell, device: torch.device, settings: Settings) -> tuple[Callable[[], object], str, str]:
    """Return what maps the images of ``cell`` once on ``device``, and the backend and the precision that run.

    Raises:
        UserError: the method does not run on this backend, at this precision or at this size.
    """
    method, plan = build_method(cell.contender.method, settings.checkpoint), None
    backend, precision = cell.contender.backend, cell.contender.precision or "fp32"
    shape = [cell.batch, method.bands, cell.size_px, cell.size_px]
    if cell.tiles is not None:
        if method.cfg is None:
            raise ConfigError("a peer does not map rasters")
        plan = TilePlan(cell.size_px, cell.size_px, *cell.tiles, stride=method.stride)
        shape[2:] = plan.network_shape
    elif cell.size_px % method.stride:
        raise ConfigError(f"{cell.size_px} px is no multiple of {method.stride}")
    images: Any = None if plan else torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    if method.cfg is None:
        network = method.network.to(device)
        return torch.inference_mode()(lambda: network(images)), backend, precision
    if backend == AUTO:
        precisions = fast_precisions(device) if cell.contender.precision is None else (precision,)
        choice = choose_backend(method.network, shape, precisions, device)
        backend, precision = choice.backend, choice.precision
    runs = (backend, precision, device, settings.int8_file if precision == "int8" else None)
    if plan is None:
        return partial(make_runner(method.network, *runs), images), backend, precision
    facts = facts_of(method.cfg, {}, method.network)
    network = TrainedNetwork(accelerated(method.network, *runs), facts, device, backend, precision)
    square = np.random.default_rng(0).integers(0, 256, (256, 256, method.bands), np.uint8)
    raster = RepeatedRaster(square, cell.size_px, cell.size_px)
    strips = partial(map_strips, raster, network, plan, batch=cell.batch)  # type: ignore[arg-type]
    return lambda: deque(strips(), maxlen=0), backend, precision


def cell_steps(cell: Cell, settings: Settings) -> Iterator[Any]:
    """Build ``cell`` and warm it up, then measure a turn at each step.

    Yields:
        First backend, precision and whether files such as an export were made, which takes memory that the next
        process does not need; then one of a record's ``turns`` each time.
    """
    before, cached = process_bytes("VmRSS"), _cached()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    call, backend, precision = prepare(cell, start_process().device, settings)
    for _ in range(2):
        call()
    forget_peak()
    yield backend, precision, _cached() != cached
    while True:
        yield calls(timed(call), settings.turn_seconds), peak_bytes(before)


def calls(one: Callable[[], float], turn_seconds: float) -> tuple[float, ...]:
    """Return the seconds of calls until ``turn_seconds`` are over; of several, not of the first, which warms caches."""
    seconds = [one()]
    while sum(seconds) < turn_seconds:
        seconds.append(one())
    return tuple(seconds[1:] or seconds)


def _cached() -> set[str]:
    folder = cache_folder()
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _started(record: Record, settings: Settings, held: ExitStack) -> Worker:
    """Return the process of a cell that is built and warm, or has failed; ``held`` ends it."""
    worker = held.enter_context(Worker(cell_steps, record.cell, settings))
    try:
        record.backend, record.precision, filled_cache = worker.ask()
    except WorkerError as error:
        record.failed = str(error)
        return worker
    if not filled_cache:
        return worker
    worker.end()
    return _started(record, settings, held)


def _take_turn(record: Record, worker: Worker, bar: tqdm) -> None:
    bar.set_description_str(str(record.cell))
    try:
        if record.failed is None:
            record.turns.append(worker.ask())
    except WorkerError as error:
        record.failed = str(error)
    bar.update()


def measure(
    cells: Sequence[Cell], rounds: int, settings: Settings, together: bool = False
) -> tuple[list[Record], bool]:
    """Measure ``cells``, each in a process of its own.

    Those of one size and batch, which stand in a row, take turns, ``rounds`` times; ``together``: all, which keeps all
    of them in memory. What cannot be measured fails alone. Ctrl-C ends the measurement early.

    Returns:
        What was measured of each cell, in their order, as far as it was begun; and whether it came to its end.
    """
    records: list[Record] = []
    groups = groupby(cells, lambda cell: together or (cell.size_px, cell.batch))
    with tqdm(total=len(cells) * (rounds + 1), unit="turn", dynamic_ncols=True, disable=None) as bar:
        try:
            for _, group in groups:
                with ExitStack() as held:
                    works = {}
                    for cell in group:
                        bar.set_description_str(str(cell))
                        records.append(Record(cell))
                        worker = _started(records[-1], settings, held)
                        works[str(len(records))] = partial(_take_turn, records[-1], worker, bar)
                        bar.update()
                    in_turns(works, rounds, warm_up=0)
        except KeyboardInterrupt:
            return [record for record in records if record.turns or record.failed], False
    return records, True
