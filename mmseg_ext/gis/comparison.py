"""Two surveys of a road network compared: which stretches are new, removed, shifted, widened or narrowed."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from numpy.lib.stride_tricks import sliding_window_view
from scipy.spatial import KDTree

from ..errors import ConfigError, DataError
from ..roads.polyline import cut, parts_of, points_at

CHANGES = ("new", "removed", "shifted", "widened", "narrowed")
_SPACING_M = 2.0
_PARALLEL = np.cos(np.radians(30))
_WIDTH_SHARE = 0.2
_WIDTH_SPAN = 2  # ragged edges look like widths that change: those are reported over so many times the shortest stretch
_ACROSS_M = 20.0  # how much farther than the median width a road's edges are looked for
_CHUNK = 20_000
# what a station is, besides one of CHANGES: unchanged; off the other survey's lines but on its road; too near a
# crossing or an end, where a centreline goes its own way, to tell shifts and widths
_SAME, _BESIDE, _BY_NODE = "same", "beside", "by node"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparisonSettings:
    """What counts as a change; metres.

    Attributes:
        tolerance: how far apart the same road may be: the error of the registration and of the lines.
        shift: how far a road may have moved to be called shifted, not removed and new.
        min_length: shorter stretches are not reported, nor widths that change over less than twice as much.
        width_change: how much wider or narrower a road is to be reported; a fifth of its old width at least.
    """

    tolerance: float = 3.0
    shift: float = 15.0
    min_length: float = 10.0
    width_change: float = 2.0

    def __post_init__(self) -> None:
        for name in ("tolerance", "shift", "min_length", "width_change"):
            if not 0 <= (value := getattr(self, name)) < np.inf:
                raise ConfigError(f"{name} of {value:g}: give 0 or more")
        if self.tolerance == 0:
            raise ConfigError("tolerance of 0: give more, no two surveys agree to the last digit")
        if self.shift < self.tolerance:
            raise ConfigError(f"a shift of {self.shift:g} m is below the tolerance, {self.tolerance:g} m; give more")


@dataclass(frozen=True)
class Survey:
    """A road network as it was at one time.

    Attributes:
        edges: centrelines; where known ``width_median_m``, ``width_p10_m`` and ``width_p90_m``, as `extract_network`
            makes them.
        surface: polygons of the road, which tell its width at each place; None where only medians are known.
    """

    edges: gpd.GeoDataFrame
    surface: gpd.GeoDataFrame | None = None


@dataclass(frozen=True)
class Comparison:
    """How a road network has changed.

    Attributes:
        changes: a stretch of road a row, in the coordinate reference system of the old survey: ``kind`` (of
            `CHANGES`), ``length_m``, ``offset_m`` (median distance from the old line; shifted roads only),
            ``width_old_m`` and ``width_new_m`` (medians, nan where unknown). Removed roads lie where they were, the
            others where they are.
        old_m: length of the old network.
        new_m: length of the new network.
    """

    changes: gpd.GeoDataFrame
    old_m: float
    new_m: float

    def lengths(self) -> dict[str, float]:
        """Return the metres of each kind of change, and of the new network what is ``unchanged``."""
        found = self.changes.groupby("kind")["length_m"].sum()
        lengths = {kind: float(found.get(kind, 0.0)) for kind in CHANGES}
        return lengths | {"unchanged": self.new_m - sum(lengths.values()) + lengths["removed"]}


def read_survey(path: str) -> Survey:
    """Return the lines of a vector file, each part a row, with its columns, and the surface that belongs to them.

    Lines are the layer ``edges``, else the only layer of lines; points and areas in it are passed over. The surface is
    the layer ``surface`` beside ``edges``, or the file ``NAME_surface`` beside ``NAME_edges``.

    Args:
        path: GeoPackage, GeoJSON, GeoParquet or any other vector file.

    Raises:
        DataError: missing, unreadable, or no layer of lines or several in it.
    """
    names = [] if path.endswith(".parquet") else _layers(path)
    edges = _lines(_table(path, _layer_of_lines(path, names)), path)
    if {"edges", "surface"} <= dict(names).keys():
        return Survey(edges, _table(path, "surface"))
    stem, suffix = os.path.splitext(path)
    beside = f"{stem.removesuffix('_edges')}_surface{suffix}"
    return Survey(edges, _table(beside, None) if stem.endswith("_edges") and os.path.isfile(beside) else None)


def _layers(path: str) -> list[tuple[str, str]]:
    """Return the names of a file's layers and the kinds of their geometries."""
    try:
        return [(str(name), str(kind)) for name, kind in pyogrio.list_layers(_checked(path))]
    except (RuntimeError, ValueError):
        raise DataError(f"{path}: cannot be read as vector data; give a file of road lines") from None


def _checked(path: str) -> str:
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    return path


def _layer_of_lines(path: str, layers: Sequence[tuple[str, str]]) -> str | None:
    """Return the name of the layer of lines, None where there is but one layer."""
    if "edges" in dict(layers):
        return "edges"
    if len(layers) <= 1:
        return None
    of_lines = [name for name, kind in layers if "LineString" in kind or kind == "Unknown"]
    if len(of_lines) != 1:
        found = f"{len(of_lines)} layers of lines ({', '.join(of_lines)})" if of_lines else "no layer of lines"
        raise DataError(f"{path}: has {found}; give a file with one, or name one edges")
    return of_lines[0]


def _table(path: str, layer: str | None) -> gpd.GeoDataFrame:
    """Return a layer, its geometries in two dimensions."""
    try:
        parquet = _checked(path).endswith(".parquet")
        table = gpd.read_parquet(path) if parquet else pyogrio.read_dataframe(path, layer=layer)
        return table.set_geometry(table.geometry.force_2d())
    except (RuntimeError, ValueError, AttributeError):
        raise DataError(f"{path}: cannot be read as vector data; give a file of road lines") from None


def _lines(table: gpd.GeoDataFrame, path: str) -> gpd.GeoDataFrame:
    """Return the lines that have a length, each part a row; name the others."""
    known = table.reset_index(drop=True)
    known = known[~(known.geometry.isna() | known.geometry.is_empty)].explode()
    lines = known[known.geom_type == "LineString"]
    if len(known) and not len(lines):
        raise DataError(f"{path}: has no lines; give road lines, such as those of tools/extract_network.py")
    length = shapely.length(lines.geometry.to_numpy())  # in any unit
    good = np.isfinite(length) & (length > 0)
    rows = sorted({*lines.index[~good], *set(range(len(table))).difference(known.index)})
    if rows:
        shown = ", ".join(str(row + 1) for row in rows[:5]) + (", ..." if len(rows) > 5 else "")
        logger.warning("%s: no line with a length in %d features (number %s); passed over", path, len(rows), shown)
    return lines[good].reset_index(drop=True)


def compare_networks(old: Survey, new: Survey, settings: ComparisonSettings | None = None) -> Comparison:
    """Return how a road network has changed from one survey to the next.

    Both networks are cut into short pieces. A piece is unchanged where a piece of the other network lies within the
    tolerance and runs the same way, or where one road's width covers the other's. Of the rest, pieces that face each
    other within the shift are shifted; what is on no road of the other survey is new or removed.

    Args:
        old: the network before.
        new: the network after, in any coordinate reference system.
        settings: what counts as a change.

    Raises:
        DataError: one has a coordinate reference system and the other has none, or it is none for these places.
    """
    settings = settings or ComparisonSettings()
    crs = old.edges.crs
    if (crs is None) != (new.edges.crs is None):
        name = "old" if crs is None else "new"
        raise DataError(f"the {name} survey has no coordinate reference system, the other one has; give it its own")
    if crs is None:
        logger.warning("both surveys have no coordinate reference system; their units are taken for metres")
    frame = _MetricFrame(old.edges, new.edges)
    local = old.surface is not None and new.surface is not None
    before, after = (_Pieces.of(survey, frame, settings.min_length, local) for survey in (old, new))
    kinds_old, kinds_new, offset, partner = _kinds(before, after, settings)
    width_old = np.append(before.width, np.nan)[partner]
    rows = [
        *_stretches(before, _smoothed(kinds_old, before, settings), CHANGES[1:2], {"width_old_m": before.width}),
        *_stretches(
            after,
            _smoothed(kinds_new, after, settings),
            CHANGES,
            {"offset_m": offset, "width_old_m": width_old, "width_new_m": after.width},
        ),
    ]
    names = ("length_m", "offset_m", "width_old_m", "width_new_m")
    changes = gpd.GeoDataFrame(
        {"kind": np.array([row["kind"] for row in rows], object)}
        | {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names},
        geometry=frame.to_map([row["line"] for row in rows]),
        crs=crs,
    )
    return Comparison(changes, before.total, after.total)


class _MetricFrame:
    """From the map of the old survey to metres and back: its UTM zone where the map is in degrees."""

    def __init__(self, old: gpd.GeoDataFrame, new: gpd.GeoDataFrame) -> None:
        self._map = old.crs
        self._metric, self._factor = old.crs, 1.0
        if old.crs is not None and old.crs.is_geographic:
            some = old if len(old) else new.to_crs(old.crs)
            self._metric = some.estimate_utm_crs() if len(some) else old.crs
        elif old.crs is not None:
            self._factor = old.crs.axis_info[0].unit_conversion_factor

    def to_metres(self, table: gpd.GeoDataFrame) -> np.ndarray:
        """Return the geometries (N,) of a table in metres.

        Raises:
            DataError: their coordinates are none of their coordinate reference system.
        """
        known = self._metric is not None and table.crs is not None
        shapes = table.geometry.to_crs(self._metric) if known else table.geometry
        if not np.isfinite(shapely.get_coordinates(shapes)).all():
            raise DataError(f"coordinates of one survey are not of {table.crs.name}, which it claims; correct that")
        return shapely.transform(shapes.to_numpy(), lambda points: points * self._factor)

    def to_map(self, lines: Sequence[np.ndarray]) -> gpd.GeoSeries:
        """Return lines (N, 2) in metres on the map."""
        shapes = gpd.GeoSeries([shapely.LineString(line / self._factor) for line in lines], crs=self._metric)
        return shapes if self._map is None else shapes.to_crs(self._map)


@dataclass(frozen=True)
class _Pieces:
    """A network cut into short pieces, in metres, in the order of its lines.

    Attributes:
        lines: the whole lines (N, 2).
        owner: the line of each piece (M,).
        xy: middles (M, 2).
        along: unit vectors along the line (M, 2).
        length: (M,).
        width: of the road (M,), nan where unknown; ``low`` and ``high`` bound what it is along the line.
        nodes: where lines end (K, 2).
        reach: how far around each of the nodes centrelines go their own way (K,).
    """

    lines: list[np.ndarray]
    owner: np.ndarray
    xy: np.ndarray
    along: np.ndarray
    length: np.ndarray
    width: np.ndarray
    low: np.ndarray
    high: np.ndarray
    nodes: np.ndarray
    reach: np.ndarray

    @property
    def total(self) -> float:
        """Length of all lines."""
        return float(self.length.sum())

    @property
    def half_width(self) -> np.ndarray:
        """Half of the road's width (M,), 0 where it is unknown."""
        return np.nan_to_num(self.width) / 2

    @classmethod
    def of(cls, survey: Survey, frame: _MetricFrame, min_length: float, local: bool) -> _Pieces:
        """Cut the lines of a survey; ``local`` widths are those of its surface at each piece."""
        table = survey.edges
        lines = [shapely.get_coordinates(line) for line in frame.to_metres(table)]
        parts = [parts_of(line, _SPACING_M) for line in lines]
        owner = np.repeat(np.arange(len(lines)), [len(lengths) for _, lengths in parts])
        ways = [np.empty((0, 2))]
        for line, (_, lengths) in zip(lines, parts, strict=True):
            middles = np.cumsum(lengths) - lengths / 2
            ways.append(points_at(line, middles + _SPACING_M) - points_at(line, middles - _SPACING_M))
        way = np.concatenate(ways)
        unknown = np.full(len(lines), np.nan)
        median, low, high = (
            next((table[column].to_numpy(float) for column in (f"{name}_m", f"{name}_px") if column in table), unknown)
            for name in ("width_median", "width_p10", "width_p90")
        )
        nodes = np.concatenate([np.empty((0, 2)), *(line[[0, -1]] for line in lines)])
        _, node, degree = np.unique(nodes.round(2), axis=0, return_inverse=True, return_counts=True)
        share = np.where(degree[node.ravel()] > 1, 1.0, 0.5)  # at a dead end, centrelines stay on the road
        pieces = cls(
            lines,
            owner,
            np.concatenate([np.empty((0, 2)), *(middles for middles, _ in parts)]),
            way / np.maximum(np.hypot(*way.T), 1e-9)[:, None],
            np.concatenate([np.empty(0), *(lengths for _, lengths in parts)]),
            median[owner],
            np.fmin(low, median)[owner],
            np.fmax(high, median)[owner],
            nodes,
            np.fmax(median.repeat(2) * share, min_length),
        )
        if not local or survey.surface is None or not len(lines):
            return pieces
        window = 2 * round(_WIDTH_SPAN * min_length / _SPACING_M) + 1
        found = _local_widths(pieces, frame.to_metres(survey.surface), window)
        known = np.isfinite(found)
        return replace(
            pieces,
            width=np.where(known, found, pieces.width),
            low=np.where(known, found, pieces.low),
            high=np.where(known, found, pieces.high),
        )


def _local_widths(pieces: _Pieces, surface: np.ndarray, window: int) -> np.ndarray:
    """Return the width (M,) of the road across each piece, nan where it has no edge near or a node.

    Args:
        pieces: of the road.
        surface: its polygons, in metres.
        window: the widths are medians over so many pieces along the line; odd.
    """
    rings, ring = shapely.get_coordinates(shapely.get_rings(surface), return_index=True)
    inner = ring[1:] == ring[:-1]
    starts, steps = rings[:-1][inner], np.diff(rings, axis=0)[inner]
    tree = shapely.STRtree(shapely.linestrings(np.stack([starts, starts + steps], axis=1)))
    across = np.stack([-pieces.along[:, 1], pieces.along[:, 0]], axis=1)
    far = across * (np.fmax(pieces.width, 0) + _ACROSS_M)[:, None]
    piece, edge = tree.query(
        shapely.linestrings(np.stack([pieces.xy - far, pieces.xy + far], axis=1)), predicate="intersects"
    )
    slant = across[piece, 0] * steps[edge, 1] - across[piece, 1] * steps[edge, 0]
    apart = starts[edge] - pieces.xy[piece]
    with np.errstate(divide="ignore", invalid="ignore"):  # an edge that runs across the road does not bound it
        at = (apart[:, 0] * steps[edge, 1] - apart[:, 1] * steps[edge, 0]) / slant
    left, right = np.full((2, len(pieces.xy)), np.inf)
    np.minimum.at(left, piece[at > 0], at[at > 0])
    np.minimum.at(right, piece[at < 0], -at[at < 0])
    width = left + right
    width[np.isinf(width) | _by_node(pieces, pieces)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the median of nothing is nan
        return np.concatenate(
            [
                np.nanmedian(
                    sliding_window_view(
                        np.pad(width[pieces.owner == line], window // 2, constant_values=np.nan), window
                    ),
                    1,
                )
                for line in range(len(pieces.lines))
            ]
        )


@dataclass(frozen=True)
class _Run:
    """Pieces of one ``kind`` that follow each other on a ``line``; ``size`` is their length in metres."""

    kind: str
    line: int
    pieces: slice
    size: float


def _nearest(
    pieces: _Pieces, others: _Pieces, chosen: np.ndarray, allowed: np.ndarray, reach: float, slack: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the ``chosen`` (M,) pieces' middles are from others that are ``allowed`` (K,), and from which.

    Args:
        pieces: whose middles.
        others: the pieces of the other network.
        chosen: bool (M,).
        allowed: bool (K,).
        reach: how far to look, metres.
        slack: look at parallel pieces only, which may end by so much before they face the middle; None for all.

    Returns:
        distances (M,), inf where there is none, and indices (M,), -1 there.
    """
    distances, indices = np.full(len(pieces.xy), np.inf), np.full(len(pieces.xy), -1)
    mine, theirs = np.flatnonzero(chosen), np.flatnonzero(allowed)
    if not len(theirs):
        return distances, indices
    tree = KDTree(others.xy[theirs])
    for start in range(0, len(mine), _CHUNK):
        some = mine[start : start + _CHUNK]
        pairs = KDTree(pieces.xy[some]).sparse_distance_matrix(tree, reach + _SPACING_M, output_type="ndarray")
        one, other = some[pairs["i"]], theirs[pairs["j"]]
        apart, way = pieces.xy[one] - others.xy[other], others.along[other]
        beyond = np.maximum(np.abs((apart * way).sum(axis=1)) - others.length[other] / 2, 0)
        distance = np.hypot(apart[:, 0] * way[:, 1] - apart[:, 1] * way[:, 0], beyond)
        keep = distance <= reach
        if slack is not None:
            keep &= (np.abs((pieces.along[one] * way).sum(axis=1)) >= _PARALLEL) & (beyond <= slack)
        order = np.flatnonzero(keep)[np.lexsort((distance[keep], one[keep]))]
        found, first = np.unique(one[order], return_index=True)
        distances[found], indices[found] = distance[order[first]], other[order[first]]
    return distances, indices


def _facing(
    networks: Sequence[_Pieces], chosen: Sequence[np.ndarray], settings: ComparisonSettings
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return what each piece of two networks faces within the shift among the ``chosen`` (bool, (M,)) ones.

    Returns:
        for each network distances (M,) and partners (M,), see `_nearest`, and whether the partner has no nearer one.
    """
    (one, back), (other, forth) = (
        _nearest(networks[i], networks[1 - i], chosen[i], chosen[1 - i], settings.shift, settings.tolerance)
        for i in (0, 1)
    )
    return [
        (mine, partner, np.isfinite(mine) & (mine <= np.append(theirs, -np.inf)[partner] + settings.tolerance))
        for mine, partner, theirs in ((one, back, other), (other, forth, one))
    ]


def _kinds(
    old: _Pieces, new: _Pieces, settings: ComparisonSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what each piece of the old and of the new network is, and each new one's offset and partner (-1: none)."""
    networks = old, new
    everything = [np.ones(len(network.xy), bool) for network in networks]
    facing = _facing(networks, everything, settings)
    same = []
    for one, other, (distance, partner, mutual) in zip(networks, networks[::-1], facing, strict=True):
        wider = np.nan_to_num(np.abs(one.width - np.append(other.width, np.nan)[partner]) / 2)
        same.append((distance <= settings.tolerance) | (mutual & (distance <= wider + settings.tolerance)))
    # what has its own road in the other survey is no partner for another one
    moved = _facing(networks, [~known for known in same], settings)
    kinds = []
    for i, missing in enumerate(("removed", "new")):
        other = networks[1 - i]
        absent = ~same[i] & ~moved[i][2]
        reach = settings.tolerance + other.half_width.max(initial=0)
        away, nearby = _nearest(networks[i], other, absent, everything[1 - i], reach, None)
        off_road = away > settings.tolerance + np.append(other.half_width, 0)[nearby]
        choices = [same[i], moved[i][2], off_road]
        kinds.append(np.select(choices, [_SAME, "shifted", missing], _BESIDE).astype("U8"))
    partner = np.where(same[1], facing[1][1], np.where(moved[1][2], moved[1][1], -1))
    before, low, high = (np.append(values, np.nan)[partner] for values in (old.width, old.low, old.high))
    least = np.maximum(settings.width_change, _WIDTH_SHARE * before)
    # lines cut otherwise have other medians: the widths along them tell whether the road has another
    kinds[1][same[1] & (new.width - before > least) & (new.width > high) & (new.low > before)] = "widened"
    kinds[1][same[1] & (before - new.width > least) & (new.width < low) & (new.high < before)] = "narrowed"
    for i, network in enumerate(networks):
        kinds[i][_by_node(network, *networks) & (same[i] | moved[i][2])] = _BY_NODE
    return kinds[0], kinds[1], np.where(moved[1][2], moved[1][0], np.nan), partner


def _by_node(pieces: _Pieces, *networks: _Pieces) -> np.ndarray:
    """Say which pieces (M,) are within the reach of a node of one of the ``networks``."""
    near = np.zeros(len(pieces.xy), bool)
    for network in networks:
        if len(network.nodes):
            pairs = KDTree(pieces.xy).sparse_distance_matrix(
                KDTree(network.nodes), network.reach.max(), output_type="ndarray"
            )
            near[pairs["i"][pairs["v"] <= network.reach[pairs["j"]]]] = True
    return near


def _runs(kinds: np.ndarray, pieces: _Pieces) -> list[_Run]:
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


def _smoothed(kinds: np.ndarray, pieces: _Pieces, settings: ComparisonSettings) -> np.ndarray:
    """Return ``kinds`` (M,) with interruptions closed, short changes dropped, and the others up to where they begin."""
    kinds = kinds.copy()

    def drop(short: Sequence[str], longest: float) -> None:
        for run in _runs(kinds, pieces):
            if run.kind in short and run.size < longest:
                kinds[run.pieces] = _SAME

    def fill(kind: Sequence[str], by: Sequence[str], longest: float = np.inf) -> None:
        for run, around in _beside(_runs(kinds, pieces)):
            if run.kind in kind and run.size <= longest:
                kinds[run.pieces] = next((other.kind for other in around if other.kind in by), run.kind)

    for run, around in _beside(_runs(kinds, pieces)):
        if len(around) == 2 and around[0].kind == around[1].kind and around[0].kind in CHANGES:
            if run.size <= min(settings.min_length, *(other.size for other in around)):
                kinds[run.pieces] = around[0].kind
    drop(("shifted",), settings.min_length)
    drop(("widened", "narrowed"), _WIDTH_SPAN * settings.min_length)
    fill((_BY_NODE,), ("shifted", "widened", "narrowed"))
    fill(("new", "removed"), ("shifted",), settings.shift)  # where a road swings out, or left the raster, it is alone
    drop(("new", "removed"), settings.min_length)
    fill((_BESIDE,), ("new", "removed", "shifted"))
    return kinds


def _stretches(
    pieces: _Pieces, kinds: np.ndarray, wanted: Sequence[str], columns: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Return a row for each stretch of the changes ``wanted``, with the median of each of the ``columns`` (M,)."""
    rows: list[dict[str, Any]] = []
    for run in _runs(kinds, pieces):
        if run.kind in wanted:
            first = int(np.searchsorted(pieces.owner, run.line))
            start = pieces.length[first : run.pieces.start].sum()
            medians = {name: _median(values[run.pieces]) for name, values in columns.items()}
            if run.kind != "shifted":
                medians.pop("offset_m", None)
            line = cut(pieces.lines[run.line], start, start + run.size)
            rows.append({"kind": run.kind, "length_m": run.size, "line": line, **medians})
    return rows


def _median(values: np.ndarray) -> float:
    """Return the median of what is known, nan where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan
