"""A surveyed road network cut into short pieces, with the width of the road at each."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import shapely
from numpy.lib.stride_tricks import sliding_window_view
from scipy.spatial import KDTree

from ..errors import DataError
from ..roads.polyline import cut, parts_of, points_at
from .changes import ComparisonSettings
from .survey import Survey
from .survey_frame import SurveyFrame

SPACING_M = 2.0
_ACROSS_M = 20.0  # how much farther than the median width a road's edges are looked for


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

    Args:
        survey: what to cut.
        frame: to metres.
        settings: lengths within which centrelines go their own way and widths are told.
        ground: polygons in metres outside of which nothing is compared; no piece runs across their border.
        local_widths: take the width of the survey's surface at each piece, not the medians of its lines.

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

    Args:
        pieces: of the road.
        surface: its (multi)polygons, in metres.
        window: the widths are medians over so many pieces along the line; odd.
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
