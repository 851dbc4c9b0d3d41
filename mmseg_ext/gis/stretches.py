"""From what each piece of a road network is to stretches of road."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..roads.polyline import cut
from .changes import CHANGES, ComparisonSettings
from .piece_kinds import BESIDE, BY_NODE, OUTSIDE, SAME
from .survey_pieces import SurveyPieces


@dataclass(frozen=True)
class _Run:
    """Pieces of one ``kind`` that follow each other on a ``line``; ``size`` is their length in metres."""

    kind: str
    line: int
    pieces: slice
    size: float


def smoothed(kinds: np.ndarray, pieces: SurveyPieces, settings: ComparisonSettings) -> np.ndarray:
    """Return ``kinds`` (M,) with interruptions closed, short changes dropped, and the others up to where they begin."""
    kinds = kinds.copy()

    def drop(short: Sequence[str], longest: float) -> None:
        for run in _runs(kinds, pieces):
            if run.kind in short and run.size < longest:
                kinds[run.pieces] = SAME

    def fill(kind: Sequence[str], by: Sequence[str], longest: float = np.inf) -> None:
        for run, around in _beside(_runs(kinds, pieces)):
            if run.kind in kind and run.size <= longest:
                kinds[run.pieces] = next((other.kind for other in around if other.kind in by), run.kind)

    for run, around in _beside(_runs(kinds, pieces)):
        if len(around) == 2 and around[0].kind == around[1].kind and around[0].kind in CHANGES and run.kind != OUTSIDE:
            if run.size <= min(settings.min_length, *(other.size for other in around)):
                kinds[run.pieces] = around[0].kind
    drop(("shifted",), settings.min_length)
    drop(("widened", "narrowed"), settings.width_span)
    fill((BY_NODE,), ("shifted", "widened", "narrowed"))
    fill(("new", "removed"), ("shifted",), settings.shift)  # where a road swings out, or left the raster, it is alone
    drop(("new", "removed"), settings.min_length)
    fill((BESIDE,), ("new", "removed", "shifted"))
    return kinds


def stretches(
    pieces: SurveyPieces, kinds: np.ndarray, wanted: Sequence[str], columns: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return a row for each stretch of the ``kinds`` (M,) ``wanted``.

    Args:
        pieces: M of them.
        kinds: of the pieces.
        wanted: which.
        columns: values (M,) by name.

    Returns:
        of each stretch ``kind``, ``length_m``, ``line`` (N, 2) in metres, and the median of each of the columns.
    """
    rows: list[dict[str, Any]] = []
    for run in _runs(kinds, pieces):
        if run.kind in wanted:
            first = int(np.searchsorted(pieces.owner, run.line))
            start = pieces.length[first : run.pieces.start].sum()
            medians = {name: _median(values[run.pieces]) for name, values in columns.items()}
            line = cut(pieces.lines[run.line], start, start + run.size)
            rows.append({"kind": run.kind, "length_m": run.size, "line": line, **medians})
    return rows


def _runs(kinds: np.ndarray, pieces: SurveyPieces) -> list[_Run]:
    """Return the longest runs of one kind along one line."""
    breaks = np.flatnonzero((kinds[1:] != kinds[:-1]) | (np.diff(pieces.owner) != 0)) + 1
    ends = [0, *breaks.tolist(), len(kinds)] if len(kinds) else []
    return [
        _Run(str(kinds[start]), int(pieces.owner[start]), slice(start, end), float(pieces.length[start:end].sum()))
        for start, end in pairwise(ends)
    ]


def _beside(runs: Sequence[_Run]) -> Iterator[tuple[_Run, list[_Run]]]:
    """Yield each run with those before and after it on the same line."""
    for i, run in enumerate(runs):
        yield run, [other for other in (*runs[max(i - 1, 0) : i], *runs[i + 1 : i + 2]) if other.line == run.line]


def _median(values: np.ndarray) -> float:
    """Return the median of what is known, nan where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan
