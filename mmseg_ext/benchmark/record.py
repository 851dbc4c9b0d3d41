"""What was measured of one cell, and the figures that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from .cell import Cell
from .worker import Turn


@dataclass
class Record:
    """What was measured of one cell.

    Attributes:
        cell: what it is of.
        backend: that ran; None where nothing did.
        precision: that ran.
        turns: one for each round.
        failed: why it was not measured to the end.
    """

    cell: Cell
    backend: str | None = None
    precision: str | None = None
    turns: list[Turn] = field(default_factory=list)
    failed: str | None = None

    @property
    def round_seconds(self) -> list[float]:
        """Median seconds of a call in each round."""
        return [median(turn.seconds) for turn in self.turns]


def figures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the figures of each of ``records``; where one failed or was never measured, they are None.

    ``speedup`` is the median, over the rounds that both have, of how many times as fast the cell is as the first one
    of the same size and batch.
    """
    firsts: dict[tuple[int, int], Record] = {}
    return [_figures(record, firsts.setdefault((record.cell.size_px, record.cell.batch), record)) for record in records]


def _figures(record: Record, first: Record) -> dict[str, Any]:
    cell = record.cell
    row: dict[str, Any] = dict(
        contender=str(cell.contender),
        backend=record.backend,
        precision=record.precision,
        size_px=cell.size_px,
        batch=cell.batch,
        tiles=cell.tiles,
        failed=record.failed,
        round_seconds=record.round_seconds,
    )
    names = ("latency_s", "latency_p90_s", "images_per_s", "megapixels_per_s", "speedup", "peak_bytes", "joules")
    row.update(dict.fromkeys(names), calls=sum(len(turn.seconds) for turn in record.turns))
    if record.failed or not record.turns:
        return row
    seconds = [second for turn in record.turns for second in turn.seconds]
    latency = median(seconds)
    joules = [turn.joules for turn in record.turns if turn.joules is not None]
    peaks = [turn.peak_bytes for turn in record.turns if turn.peak_bytes is not None]
    row.update(
        latency_s=latency,
        latency_p90_s=float(np.quantile(seconds, 0.9)),
        images_per_s=cell.images / latency,
        megapixels_per_s=cell.megapixels / latency,
        peak_bytes=max(peaks, default=None),
        joules=median(joules) / cell.images if joules else None,
    )
    if not first.failed:
        pairs = zip(first.round_seconds, record.round_seconds, strict=False)  # a stop may end within a round
        row["speedup"] = median(theirs / own for theirs, own in pairs)
    return row
