"""Road networks cut into short pieces, and what each piece is beside the network of another survey."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import shapely
from numpy.lib.stride_tricks import sliding_window_view
from scipy.spatial import KDTree

from ..errors import ConfigError, DataError
from ..roads.polyline import cut, parts_of, points_at
from .extraction import check_not_negative
from .survey import Survey, SurveyFrame

CHANGES = ("new", "removed", "shifted", "widened", "narrowed")
# besides one of CHANGES: unchanged; off the other survey's lines but on its road; too near a crossing or an end, where
# a centreline goes its own way, to tell shifts and widths; outside of the ground that is compared
SAME, BESIDE, BY_NODE, OUTSIDE = "same", "beside", "by node", "outside"
SPACING_M = 2.0
_ACROSS_M = 20.0  # how much farther than the median width a road's edges are looked for
_PARALLEL = np.cos(np.radians(30))
_WIDTH_SHARE = 0.2
_CHUNK = 20_000


@dataclass(frozen=True)
class ComparisonSettings:
    """What counts as a change; metres.

    Attributes:
        tolerance: how far apart the same road may be: the error of the registration and of the lines.
        shift: how far a road may have moved to be called shifted, not removed and new.
        min_length: shorter stretches are not reported, nor changes of width along less than twice this length.
        width_change: how much wider or narrower a road is to be reported; a fifth of its old width at least.
    """

    tolerance: float = 3.0
    shift: float = 15.0
    min_length: float = 10.0
    width_change: float = 2.0

    def __post_init__(self) -> None:
        check_not_negative(self, "tolerance", "shift", "min_length", "width_change")
        if self.tolerance == 0:
            raise ConfigError("tolerance of 0: give more, no two surveys agree to the last digit")
        if self.shift < self.tolerance:
            raise ConfigError(f"a shift of {self.shift:g} m is below the tolerance, {self.tolerance:g} m; give more")

    @property
    def width_span(self) -> float:
        """Over how many metres a width is measured: ragged edges look like widths that change."""
        return 2 * self.min_length


@dataclass(frozen=True)
class SurveyPieces:
    """A network cut into short pieces, in metres, in the order of its lines.

    Attributes:
        lines: the whole lines (N, 2).
        owner: the line of each piece (M,).
        xy: middles (M, 2).
        along: unit vectors along the line (M, 2).
        length: (M,).
        inside: whether the piece lies on the ground that is compared, bool (M,).
        width: of the road (M,), nan where unknown; ``low`` and ``high`` bound what it is along the line.
        nodes: where lines end (K, 2).
        reach: how far around each of the nodes centrelines go their own way (K,).
    """

    lines: list[np.ndarray]
    owner: np.ndarray
    xy: np.ndarray
    along: np.ndarray
    length: np.ndarray
    inside: np.ndarray
    width: np.ndarray
    low: np.ndarray
    high: np.ndarray
    nodes: np.ndarray
    reach: np.ndarray

    @property
    def total(self) -> float:
        """Length of all lines on the ground that is compared."""
        return float(self.length[self.inside].sum())

    @property
    def half_width(self) -> np.ndarray:
        """Half of the road's width (M,), 0 where it is unknown."""
        return np.nan_to_num(self.width) / 2

    def by_node(self, *networks: SurveyPieces) -> np.ndarray:
        """Say which pieces (M,) are within the reach of a node of one of the ``networks``."""
        near = np.zeros(len(self.xy), bool)
        for network in networks:
            if len(network.nodes):
                pairs = KDTree(self.xy).sparse_distance_matrix(
                    KDTree(network.nodes), network.reach.max(), output_type="ndarray"
                )
                near[pairs["i"][pairs["v"] <= network.reach[pairs["j"]]]] = True
        return near


def survey_pieces(
    survey: Survey,
    frame: SurveyFrame,
    settings: ComparisonSettings,
    ground: shapely.Geometry | None = None,
    local_widths: bool = True,
) -> SurveyPieces:
    """Cut the lines of a survey.

    Outside of ``ground``, polygons in metres, nothing is compared; no piece runs across their border. With
    ``local_widths`` the width is that of the survey's surface at each piece, not the median of its line.

    Raises:
        DataError: edges other than LineStrings; coordinates or widths that are none.
    """
    shapes = frame.to_metres(survey.edges, survey.name)
    if (shapely.get_type_id(shapes) != shapely.GeometryType.LINESTRING).any():
        raise DataError(
            f"{survey.name}: has other edges than LineStrings; take them apart, as with GeoDataFrame.explode()"
        )
    lines = [shapely.get_coordinates(shape) for shape in shapes]
    parts = [_parted(line, None if ground is None else ground.boundary) for line in lines]
    owner = np.repeat(np.arange(len(lines)), [len(lengths) for _, lengths in parts])
    xy = np.concatenate([np.empty((0, 2)), *(middles for middles, _ in parts)])
    ways = [np.empty((0, 2))]
    for line, (_, lengths) in zip(lines, parts, strict=True):
        middles = np.cumsum(lengths) - lengths / 2
        ways.append(points_at(line, middles + SPACING_M) - points_at(line, middles - SPACING_M))
    way = np.concatenate(ways)
    median, low, high = (survey.widths(column) for column in ("width_median", "width_p10", "width_p90"))
    # who corrects a width by hand leaves its percentiles as they were
    corrected = (median < low) | (median > high)
    low, high = (np.where(corrected, median, bound) for bound in (low, high))
    nodes = np.concatenate([np.empty((0, 2)), *(line[[0, -1]] for line in lines)])
    _, node, degree = np.unique(nodes.round(2), axis=0, return_inverse=True, return_counts=True)
    share = np.where(degree[node.ravel()] > 1, 1.0, 0.5)  # at a dead end, centrelines stay on the road
    pieces = SurveyPieces(
        lines,
        owner,
        xy,
        way / np.maximum(np.hypot(*way.T), 1e-9)[:, None],
        np.concatenate([np.empty(0), *(lengths for _, lengths in parts)]),
        np.ones(len(xy), bool) if ground is None else shapely.intersects_xy(ground, xy),
        median[owner],
        np.fmin(low, median)[owner],
        np.fmax(high, median)[owner],
        nodes,
        np.fmax(median.repeat(2) * share, settings.min_length),
    )
    if not local_widths or survey.surface is None or not len(lines):
        return pieces
    surface = frame.to_metres(survey.surface, f"the surface of {survey.name}")
    found = _local_widths(pieces, surface, 2 * round(settings.width_span / SPACING_M) + 1)
    known = np.isfinite(found)
    return replace(
        pieces,
        width=np.where(known, found, pieces.width),
        low=np.where(known, found, pieces.low),
        high=np.where(known, found, pieces.high),
    )


def _parted(line: np.ndarray, border: shapely.Geometry | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles (M, 2) and lengths (M,) of the pieces of ``line`` (N, 2), also cut at a ``border``."""
    if border is None:
        return parts_of(line, SPACING_M)
    shape = shapely.LineString(line)
    crossings = shapely.points(shapely.get_coordinates(shape.intersection(border)))
    at = np.unique(shapely.line_locate_point(shape, crossings).round(6))
    stops = [0.0, *at[(at > 0) & (at < shape.length)], shape.length]
    parts = [parts_of(cut(line, start, end), SPACING_M) for start, end in pairwise(stops)]
    return np.concatenate([middles for middles, _ in parts]), np.concatenate([lengths for _, lengths in parts])


def _local_widths(pieces: SurveyPieces, surface: np.ndarray, window: int) -> np.ndarray:
    """Return the width (M,) of the road across each piece, nan where it has no edge near or a node.

    ``surface`` is the road's (multi)polygons in metres; widths are medians over a ``window`` of pieces, odd.
    """
    rings, ring = shapely.get_coordinates(shapely.get_rings(shapely.get_parts(surface)), return_index=True)
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
    width[np.isinf(width) | pieces.by_node(pieces)] = np.nan
    # every line has a piece
    by_line = np.split(width, np.flatnonzero(np.diff(pieces.owner)) + 1)
    padded = [np.pad(widths, window // 2, constant_values=np.nan) for widths in by_line]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the median of nothing is nan
        return np.concatenate([np.nanmedian(sliding_window_view(widths, window), 1) for widths in padded])


def piece_kinds(
    old: SurveyPieces, new: SurveyPieces, settings: ComparisonSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what each piece is: one of `CHANGES`, `SAME`, `BESIDE`, `BY_NODE` or `OUTSIDE`.

    Returns:
        the kinds of the old pieces (M,) and of the new ones (K,); how far each new piece that moved is from the old
        line (K,), metres, nan for others; and the old piece that each new one was (K,), -1 without.
    """
    networks = old, new
    everything = [np.ones(len(network.xy), bool) for network in networks]
    facing = _facing(networks, everything, settings)
    same = []
    for one, other, met in zip(networks, networks[::-1], facing, strict=True):
        wider = np.nan_to_num(np.abs(one.width - np.append(other.width, np.nan)[met.partner]) / 2)
        on_it = met.mutual & (met.distance <= wider + settings.tolerance)
        same.append((met.distance <= settings.tolerance) | on_it)
    # what has its own road in the other survey is no partner for another one
    moved = _facing(networks, [~known for known in same], settings)
    kinds = []
    for i, missing in enumerate(("removed", "new")):
        other = networks[1 - i]
        absent = ~same[i] & ~moved[i].mutual
        reach = settings.tolerance + other.half_width.max(initial=0)
        away, nearby = _nearest(networks[i], other, absent, everything[1 - i], reach, None)
        off_road = away > settings.tolerance + np.append(other.half_width, 0)[nearby]
        choices = [same[i], moved[i].mutual, off_road]
        kinds.append(np.select(choices, [SAME, "shifted", missing], BESIDE).astype("U8"))
    partner = np.where(same[1], facing[1].partner, np.where(moved[1].mutual, moved[1].partner, -1))
    before, low, high = (np.append(values, np.nan)[partner] for values in (old.width, old.low, old.high))
    least = np.maximum(settings.width_change, _WIDTH_SHARE * before)
    # lines cut otherwise have other medians: the widths along them tell whether the road has another
    kinds[1][same[1] & (new.width - before > least) & (new.width > high) & (new.low > before)] = "widened"
    kinds[1][same[1] & (before - new.width > least) & (new.width < low) & (new.high < before)] = "narrowed"
    for i, network in enumerate(networks):
        kinds[i][network.by_node(*networks) & (same[i] | moved[i].mutual)] = BY_NODE
        kinds[i][~network.inside] = OUTSIDE
    return kinds[0], kinds[1], np.where(moved[1].mutual, moved[1].distance, np.nan), partner


@dataclass(frozen=True)
class _Facing:
    """What each piece of a network faces in the other one."""

    distance: np.ndarray  # from the nearest piece (M,), inf without
    partner: np.ndarray  # that piece (M,), -1 without
    mutual: np.ndarray  # whether the partner has no nearer one, bool (M,)


def _facing(
    networks: Sequence[SurveyPieces], chosen: Sequence[np.ndarray], settings: ComparisonSettings
) -> list[_Facing]:
    """Return what each piece of two networks faces within the shift among the ``chosen`` (bool, (M,)) ones."""
    (one, back), (other, forth) = (
        _nearest(networks[i], networks[1 - i], chosen[i], chosen[1 - i], settings.shift, settings.tolerance)
        for i in (0, 1)
    )
    return [
        _Facing(mine, partner, np.isfinite(mine) & (mine <= np.append(theirs, -np.inf)[partner] + settings.tolerance))
        for mine, partner, theirs in ((one, back, other), (other, forth, one))
    ]


def _nearest(
    pieces: SurveyPieces,
    others: SurveyPieces,
    chosen: np.ndarray,
    allowed: np.ndarray,
    reach: float,
    slack: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the middles of ``chosen`` (bool, M) pieces are from ``allowed`` (bool, K) others, and from which.

    Distances (M,) are inf where there is none within ``reach`` metres, indices (M,) -1 there. With ``slack`` only
    parallel pieces count, which may end by so much before they face the middle; None for all.
    """
    distances, indices = np.full(len(pieces.xy), np.inf), np.full(len(pieces.xy), -1)
    mine, theirs = np.flatnonzero(chosen), np.flatnonzero(allowed)
    if not len(theirs):
        return distances, indices
    tree = KDTree(others.xy[theirs])
    for start in range(0, len(mine), _CHUNK):
        some = mine[start : start + _CHUNK]
        pairs = KDTree(pieces.xy[some]).sparse_distance_matrix(tree, reach + SPACING_M, output_type="ndarray")
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
