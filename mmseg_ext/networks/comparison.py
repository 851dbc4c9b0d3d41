"""Two surveys of a road network compared: which stretches are new, removed, shifted, widened or narrowed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import geopandas as gpd
import numpy as np
import shapely

from ..errors import DataError
from ..roads.polyline import cut
from .heights import median
from .pieces import (
    BESIDE,
    BY_NODE,
    CHANGES,
    OUTSIDE,
    SAME,
    ComparisonSettings,
    SurveyPieces,
    piece_kinds,
    survey_pieces,
)
from .survey import Survey, SurveyFrame

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkChanges:
    """How a road network has changed.

    Attributes:
        changes: a stretch of road a row, in the coordinate reference system of the old survey: ``kind`` (of
            `CHANGES`), ``length_m``, ``offset_m`` (median distance from the old line; shifted roads only),
            ``width_old_m`` and ``width_new_m`` (medians, nan where unknown). Removed roads lie where they were, the
            others where they are.
        old_m: length of the old network, on the ground that was compared.
        new_m: length of the new network there.
    """

    changes: gpd.GeoDataFrame
    old_m: float
    new_m: float

    def lengths(self) -> dict[str, float]:
        """Return the metres of each kind of change, and of the new network what is ``unchanged``."""
        found = self.changes.groupby("kind")["length_m"].sum()
        lengths = {kind: float(found.get(kind, 0.0)) for kind in CHANGES}
        return lengths | {"unchanged": self.new_m - sum(lengths.values()) + lengths["removed"]}


def compare_networks(
    old: Survey, new: Survey, settings: ComparisonSettings | None = None, area: gpd.GeoDataFrame | None = None
) -> NetworkChanges:
    """Return how a road network has changed from one survey to the next.

    Both networks are cut into short pieces. A piece is unchanged where a piece of the other network lies within the
    tolerance and runs the same way, or where one road's width covers the other's. Of the rest, pieces that face each
    other within the shift are shifted; what is on no road of the other survey is new or removed.

    Args:
        old: the network before.
        new: the network after, in any coordinate reference system.
        settings: what counts as a change.
        area: polygons of the ground that both surveys cover, in any coordinate reference system. Roads are compared up
            to its border; what lies beyond only helps to find the same road again. None for everywhere.

    Raises:
        DataError: one has a coordinate reference system and the other has none, or it is wrong for these places; widths
            that are not numbers; no road in the area.
    """
    settings = settings or ComparisonSettings()
    old, new = (
        survey if survey.name else replace(survey, name=f"the {role} survey")
        for role, survey in (("old", old), ("new", new))
    )
    frame = SurveyFrame(old, new)
    ground = None
    if area is not None:
        shapes = shapely.make_valid(frame.to_metres(area, "the area"), method="structure", keep_collapsed=False)
        ground = shapely.union_all(shapes)
    local = old.surface is not None and new.surface is not None
    before = survey_pieces(old, frame, settings, ground, local)
    after = survey_pieces(new, frame, settings, ground, local)
    inside = np.concatenate([before.inside, after.inside])
    if len(inside) and not inside.any():
        raise DataError("the area has no road of either survey in it; give the ground that both cover")
    if not (len(before.xy) and len(after.xy)):
        logger.warning("%s: has no roads", (new if len(before.xy) else old).name)
    elif (
        np.maximum(before.xy.min(axis=0), after.xy.min(axis=0)) - settings.shift
        > np.minimum(before.xy.max(axis=0), after.xy.max(axis=0))
    ).any():
        logger.warning("%s lies elsewhere than %s; check the coordinate reference systems", new.name, old.name)
    kinds_old, kinds_new, offset, partner = piece_kinds(before, after, settings)
    widths = {"width_old_m": np.append(before.width, np.nan)[partner], "width_new_m": after.width}
    rows = [
        *_stretches(before, _smoothed(kinds_old, before, settings), ("removed",), {"width_old_m": before.width}),
        *_stretches(after, _smoothed(kinds_new, after, settings), CHANGES, {"offset_m": offset, **widths}),
    ]
    names = ("length_m", "offset_m", "width_old_m", "width_new_m")
    changes = gpd.GeoDataFrame(
        {"kind": np.array([row["kind"] for row in rows], object)}
        | {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names},
        geometry=frame.to_map([row["line"] for row in rows]),
        crs=old.edges.crs,
    )
    changes.loc[changes["kind"] != "shifted", "offset_m"] = np.nan
    return NetworkChanges(changes, before.total, after.total)


@dataclass(frozen=True)
class _Run:
    """Pieces of one ``kind`` that follow each other on a ``line``; ``size`` is their length in metres."""

    kind: str
    line: int
    pieces: slice
    size: float


def _smoothed(kinds: np.ndarray, pieces: SurveyPieces, settings: ComparisonSettings) -> np.ndarray:
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


def _stretches(
    pieces: SurveyPieces, kinds: np.ndarray, wanted: Sequence[str], columns: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return a row for each stretch of the ``kinds`` (M,) ``wanted``.

    A row has ``kind``, ``length_m``, ``line`` (N, 2) in metres, and the median of each of the ``columns`` (M,).
    """
    rows: list[dict[str, Any]] = []
    for run in _runs(kinds, pieces):
        if run.kind in wanted:
            first = int(np.searchsorted(pieces.owner, run.line))
            start = pieces.length[first : run.pieces.start].sum()
            medians = {name: float(median(values[run.pieces])) for name, values in columns.items()}
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
