"""Connectivity of a predicted road graph: components, gaps, pairs of points that stay connected."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from .graph_points import Places, RoadLines, cut_at, link_matrix, points_on, road_lines, samples, snap

_DETOUR = 4  # tolerances
_SAME_PLACE = 2  # tolerances
_SOURCES = 256


class Connectivity(NamedTuple):
    """How far the prediction keeps the truth connected.

    Attributes:
        prediction_components: connected components of the prediction; a node without edges is one.
        truth_components: those of truth.
        gap_points: (G, 2) x, y on the truth road in the middle of each gap.
        gap_lengths: (G,) straight distance between the predicted lines' ends at both sides of each gap.
        kept: weight of the pairs of points that truth and prediction connect; add it up over images.
        pairs: weight of the pairs that truth connects; add it up over images.
    """

    prediction_components: int
    truth_components: int
    gap_points: np.ndarray
    gap_lengths: np.ndarray
    kept: float
    pairs: float

    @property
    def gaps(self) -> int:
        """Number of gaps."""
        return len(self.gap_lengths)

    @property
    def pairs_kept(self) -> float:
        """Chance 0..1 that two random points that truth connects are connected in the prediction; nan without truth."""
        return self.kept / self.pairs if self.pairs > 0 else float("nan")


def connectivity(
    prediction: nx.MultiGraph, truth: nx.MultiGraph, tolerance: float = 3.0, spacing: float = 1.0
) -> Connectivity:
    """Count the components, the gaps and the pairs of points that stay connected.

    Truth's lines are parted into pieces of at most ``spacing``; the middle of each is a point with the piece's length
    as weight w. A point is matched to the nearest predicted line where one is within ``tolerance``.

    Pairs: with W(t) the weight of truth's component t, and W(t, p) the weight of its points that are matched to
    component p of the prediction, kept = sum of W(t, p)^2 and pairs = sum of W(t)^2. So kept / pairs is the chance that
    two points, drawn at random by length from one component of truth, are connected in the prediction; unmatched points
    are connected to nothing.

    Gaps: a gap lies between two matched points of truth that follow each other, or that a connected stretch of
    unmatched points joins (along a road or through a junction), where the prediction has no path between the two
    matched places, or one that is more than 4 tolerances longer than truth's. So a gap shorter than two tolerances is
    found, and one in a ring, but neither a shifted line nor a missing dead end, which is no interruption. Each stretch
    is one gap, and of those whose middles are within 2 tolerances only the longest is counted. Where predicted roads
    cross without a node (a bridge in a vector file), a shifted prediction can show a gap that is none.

    Args:
        prediction: road graph.
        truth: road graph in the same frame and unit.
        tolerance: distance up to which a predicted line is the same road, in the unit of the coordinates.
        spacing: largest distance of truth's points, in the unit of the coordinates.

    Returns:
        counts, gaps, and the two sums of the pairs.
    """
    ours, theirs = road_lines(prediction), road_lines(truth)
    at, weight = samples(theirs, spacing)
    points = np.concatenate([theirs.nodes, points_on(theirs, at)])
    matched = snap(ours, points, tolerance)

    truth_part = _edge_components(theirs)[at.edge]
    part = np.append(_edge_components(ours), -1)[matched.edge[len(theirs.nodes) :]]
    both = part >= 0
    _, shared = np.unique(truth_part[both] * len(ours.ends) + part[both], return_inverse=True)
    gap_points, gap_lengths = _gaps(ours, theirs, at, points, matched, tolerance)
    return Connectivity(
        prediction_components=nx.number_connected_components(prediction),
        truth_components=nx.number_connected_components(truth),
        gap_points=gap_points,
        gap_lengths=gap_lengths,
        kept=float((np.bincount(shared, weight[both]) ** 2).sum()),
        pairs=float((np.bincount(truth_part, weight) ** 2).sum()),
    )


def _edge_components(roads: RoadLines) -> np.ndarray:
    """Return the connected component of each edge (E,)."""
    if len(roads.ends) == 0:
        return np.empty(0, dtype=np.intp)
    return _components(roads.ends[:, 0], roads.ends[:, 1], len(roads.nodes))[roads.ends[:, 0]]


def _components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    links = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _gaps(
    ours: RoadLines, theirs: RoadLines, at: Places, points: np.ndarray, matched: Places, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles (G, 2) and lengths (G,) of the gaps; ``points``: truth's nodes, then the places ``at``."""
    if len(points) == 0:
        return np.empty((0, 2)), np.empty(0)
    links = cut_at(theirs, at)
    known = matched.edge >= 0
    # side by side on one predicted line is the common case, and no gap
    near = np.abs(matched.along[links.first] - matched.along[links.second]) <= _DETOUR * tolerance
    beside = near & (matched.edge[links.first] == matched.edge[links.second])
    doubtful = np.flatnonzero(known[links.first] & known[links.second] & ~beside)
    stretches = _stretches(links.first, links.second, known)
    if len(doubtful) + len(stretches) == 0:
        return np.empty((0, 2)), np.empty(0)

    over = np.array([pair for *pair, _ in stretches], dtype=np.intp).reshape(-1, 2)
    left = np.concatenate([links.first[doubtful], over[:, 0]])
    right = np.concatenate([links.second[doubtful], over[:, 1]])
    between = [np.array(pair) for pair in zip(left[: len(doubtful)], right[: len(doubtful)], strict=True)]
    between += [members for *_, members in stretches]
    truth_matrix = link_matrix(links.first, links.second, links.length, len(points))
    allowed = np.concatenate([links.length[doubtful], _between(truth_matrix, *over.T)]) + _DETOUR * tolerance
    ends = np.unique(np.concatenate([left, right]))
    place = np.zeros(len(points), dtype=np.intp)
    place[ends] = len(ours.nodes) + np.arange(len(ends))
    cut = cut_at(ours, matched.pick(ends))
    our_matrix = link_matrix(cut.first, cut.second, cut.length, len(ours.nodes) + len(ends))
    broken = np.flatnonzero(_between(our_matrix, place[left], place[right]) > allowed)
    if len(broken) == 0:
        return np.empty((0, 2)), np.empty(0)

    lengths = np.hypot(*(points_on(ours, matched.pick(left[broken])) - points_on(ours, matched.pick(right[broken]))).T)
    middles = np.stack([_middle(points[between[i]]) for i in broken])
    return _longest_of_each_place(middles, lengths, _SAME_PLACE * tolerance)


def _stretches(first: np.ndarray, second: np.ndarray, known: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Find the connected stretches of unmatched points between matched ones.

    Args:
        first: one point of each link (K,).
        second: the other point (K,).
        known: whether a point is matched (M,).

    Returns:
        of each stretch that k > 1 matched points bound, k - 1 pairs of these and the stretch's points; where every
        pair is connected, all are.
    """
    loose = ~known[first] & ~known[second]
    stretch = _components(first[loose], second[loose], len(known))
    border = known[first] != known[second]
    inner = np.where(known[first], second, first)[border]
    outer = np.where(known[first], first, second)[border]
    members: dict[int, list[int]] = {}
    for point in np.flatnonzero(~known):
        members.setdefault(int(stretch[point]), []).append(int(point))
    bounds: dict[int, set[int]] = {}
    for own, point in zip(stretch[inner], outer, strict=True):
        bounds.setdefault(int(own), set()).add(int(point))
    return [(a, b, np.array(members[own])) for own, around in bounds.items() for a, b in pairwise(sorted(around))]


def _between(matrix: csr_array, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the length of the shortest path from each source to its target (P,); inf where there is none."""
    starts, row = np.unique(sources, return_inverse=True)
    result = np.empty(len(sources))
    for begin in range(0, len(starts), _SOURCES):
        lengths = dijkstra(matrix, directed=False, indices=starts[begin : begin + _SOURCES])
        here = (row >= begin) & (row < begin + _SOURCES)
        result[here] = lengths[row[here] - begin, targets[here]]
    return result


def _middle(points: np.ndarray) -> np.ndarray:
    """Return the one of ``points`` (M, 2) that is nearest to their mean."""
    return points[np.hypot(*(points - points.mean(axis=0)).T).argmin()]


def _longest_of_each_place(middles: np.ndarray, lengths: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Keep the longest gap of each group whose middles are linked by steps within ``reach``."""
    close = cKDTree(middles).query_pairs(reach, output_type="ndarray")
    group = _components(close[:, 0], close[:, 1], len(middles))
    order = np.lexsort([-lengths, group])
    _, first = np.unique(group[order], return_index=True)
    kept = np.sort(order[first])
    return middles[kept], lengths[kept]
