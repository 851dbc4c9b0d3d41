"""Road graphs as lines: places on them, snapping and shortest paths, and what is measured along them.

A place is the index of an edge and a distance along its line; the index -1 means no place. APLS and TOPO use places;
completeness, correctness, quality and connectivity are at the end of this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from ..roads import polyline
from .pixels import MatchedCounts

_ROUNDING = 1e-9
_SEAM = 1.0


@dataclass(frozen=True)
class LineNetwork:
    """A road graph as arrays; nodes in the order of their keys, edges in the order of (node, node, key).

    Attributes:
        nodes: (N, 2) x, y.
        ends: (E, 2) indices of the nodes where each edge's line starts and ends.
        lengths: (E,).
        vertices: (V, 2) x, y of all lines, one after the other.
        stations: (V,) distance of each vertex along all lines, one after the other with a seam between them.
        starts: (E,) station where each edge starts.
        edges: (V,) edge of each vertex.
    """

    nodes: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray
    vertices: np.ndarray
    stations: np.ndarray
    starts: np.ndarray
    edges: np.ndarray


class Places(NamedTuple):
    """Places on a graph: edge (M,), -1 for none, and distance along its line (M,)."""

    edge: np.ndarray
    along: np.ndarray

    def pick(self, index: ArrayLike) -> Places:
        """Return the places at ``index``, or where it is True."""
        return Places(self.edge[np.asarray(index)], self.along[np.asarray(index)])


class Links(NamedTuple):
    """Edges cut at places, (K,) each: vertices at both ends, the edge, where on it a link starts, and its length."""

    first: np.ndarray
    second: np.ndarray
    edge: np.ndarray
    start: np.ndarray
    length: np.ndarray


def line_network(graph: nx.MultiGraph, scale: float = 1.0) -> LineNetwork:
    """Return ``graph`` as arrays, its coordinates multiplied by ``scale`` (such as metres per pixel)."""
    keys = sorted(graph.nodes)
    index = {key: i for i, key in enumerate(keys)}
    edges = sorted((min(u, v), max(u, v), key) for u, v, key in graph.edges(keys=True))
    lines = [np.asarray(graph.edges[edge]["line"], dtype=np.float64) * scale for edge in edges]
    stations = [polyline.stations(line) for line in lines]
    lengths = np.array([at[-1] for at in stations])
    starts = np.concatenate([[0.0], np.cumsum(lengths + _SEAM)])[:-1]
    return LineNetwork(
        nodes=np.array([(graph.nodes[key]["x"], graph.nodes[key]["y"]) for key in keys]).reshape(-1, 2) * scale,
        ends=np.array([(index[u], index[v]) for u, v, _ in edges], dtype=np.intp).reshape(-1, 2),
        lengths=lengths,
        vertices=np.concatenate([np.empty((0, 2)), *lines]),
        stations=np.concatenate([np.empty(0), *(at + start for at, start in zip(stations, starts, strict=True))]),
        starts=starts,
        edges=np.repeat(np.arange(len(lines)), [len(line) for line in lines]),
    )


def places(edge: Sequence[int] | np.ndarray, along: Sequence[float] | np.ndarray) -> Places:
    """Return the places at distances ``along`` (M,) on edges ``edge`` (M,)."""
    return Places(np.asarray(edge, dtype=np.intp), np.asarray(along, dtype=np.float64))


def node_places(roads: LineNetwork) -> Places:
    """Return a place of every node (N,): an end of one of its edges, none for a node without edges."""
    edge, along = np.full(len(roads.nodes), -1), np.zeros(len(roads.nodes))
    every = np.arange(len(roads.ends))
    for side in (1, 0):
        edge[roads.ends[:, side]] = every
        along[roads.ends[:, side]] = side * roads.lengths
    return places(edge, along)


def points_on(roads: LineNetwork, at: Places) -> np.ndarray:
    """Return the points (M, 2) at places, all of which exist; beyond an end of a line, that end."""
    if len(at.edge) == 0:
        return np.empty((0, 2))
    station = roads.starts[at.edge] + np.clip(at.along, 0, roads.lengths[at.edge])
    return np.stack([np.interp(station, roads.stations, roads.vertices[:, axis]) for axis in (0, 1)], axis=1)


def directions_on(roads: LineNetwork, at: Places, reach: float) -> np.ndarray:
    """Return the lines' directions (M, 2) at places: unit chords over ``reach`` to both sides.

    A chord smooths the steps of a line traced pixel by pixel; it reaches no further than a quarter of the line, so
    that it does not close on a ring.
    """
    half = np.minimum(reach, roads.lengths[at.edge] / 4)
    chord = points_on(roads, Places(at.edge, at.along + half)) - points_on(roads, Places(at.edge, at.along - half))
    size = np.hypot(*chord.T)
    return chord / np.where(size > 0, size, 1)[:, None]


def samples(roads: LineNetwork, spacing: float) -> tuple[Places, np.ndarray]:
    """Part every line evenly into the fewest pieces of at most ``spacing``; return their middles and lengths (M,)."""
    counts = np.maximum(1, np.ceil(roads.lengths / spacing)).astype(np.intp)
    edge, rank = repeats(counts)
    size = roads.lengths[edge] / counts[edge]
    return Places(edge, (rank + 0.5) * size), size


def near(roads: LineNetwork, points: np.ndarray, radius: float) -> tuple[np.ndarray, Places, np.ndarray]:
    """Find the lines at most ``radius`` from ``points`` (M, 2), exactly.

    Returns:
        for every straight piece of a line in reach: the point's index (K,), the place of its foot on the piece, and
        the distance (K,); at least one piece for every line in reach.

    Raises:
        ValueError: ``radius`` is not positive.
    """
    if radius <= 0:
        raise ValueError(f"the distance to a line must be above 0, not {radius}")
    joined = np.flatnonzero(roads.edges[1:] == roads.edges[:-1])
    if len(joined) == 0 or len(points) == 0:
        return np.empty(0, np.intp), places([], []), np.empty(0)
    whole = roads.vertices[joined + 1] - roads.vertices[joined]
    counts = np.maximum(1, np.ceil(np.hypot(*whole.T) / radius)).astype(np.intp)
    segment, rank = repeats(counts)
    step = whole[segment] / counts[segment, None]
    start = roads.vertices[joined[segment]] + rank[:, None] * step
    size = np.hypot(*step.T)

    reach = (radius + size.max() / 2) * (1 + _ROUNDING)
    found = cKDTree(start + step / 2).query_ball_point(points, reach)
    point = np.repeat(np.arange(len(points)), [len(pieces) for pieces in found])
    piece = np.concatenate([np.asarray(pieces, dtype=np.intp) for pieces in found])
    squared = (step[piece] ** 2).sum(axis=1)
    share = ((points[point] - start[piece]) * step[piece]).sum(axis=1) / np.where(squared > 0, squared, 1)
    share = np.clip(share, 0, 1)
    distance = np.hypot(*(points[point] - start[piece] - share[:, None] * step[piece]).T)
    vertex = joined[segment[piece]]
    edge = roads.edges[vertex]
    along = roads.stations[vertex] - roads.starts[edge] + (rank[piece] + share) * size[piece]
    inside = distance <= radius * (1 + _ROUNDING)
    return point[inside], Places(edge, along).pick(inside), distance[inside]


def nearest(count: int, point: np.ndarray, at: Places, distance: np.ndarray) -> Places:
    """Keep the nearest of the feet that `near` found for each of ``count`` points; no place where it found none."""
    order = np.lexsort([at.along, at.edge, distance, point])
    owner, first = np.unique(point[order], return_index=True)
    edge, along = np.full(count, -1), np.zeros(count)
    edge[owner], along[owner] = at.edge[order[first]], at.along[order[first]]
    return places(edge, along)


def snap(roads: LineNetwork, points: np.ndarray, tolerance: float) -> Places:
    """Return the place nearest to each of ``points`` (M, 2), none where no line is within ``tolerance``."""
    return nearest(len(points), *near(roads, points, tolerance))


def cut_at(roads: LineNetwork, at: Places) -> Links:
    """Cut the edges at places: vertex i < N is node i, vertex N + i is place i."""
    count, on_line = len(roads.nodes), np.flatnonzero(at.edge >= 0)
    every = np.arange(len(roads.ends))
    edge = np.concatenate([every, at.edge[on_line], every])
    along = np.concatenate([np.zeros(len(every)), np.clip(at.along, 0, None)[on_line], roads.lengths])
    along = np.minimum(along, roads.lengths[edge])
    vertex = np.concatenate([roads.ends[:, 0], count + on_line, roads.ends[:, 1]])
    kind = np.repeat([0, 1, 2], [len(every), len(on_line), len(every)])
    order = np.lexsort([kind, along, edge])
    left, right = order[:-1], order[1:]
    same = edge[left] == edge[right]
    left, right = left[same], right[same]
    return Links(vertex[left], vertex[right], edge[left], along[left], along[right] - along[left])


def link_matrix(first: np.ndarray, second: np.ndarray, length: np.ndarray, count: int) -> csr_array:
    """Return links (K,) between ``count`` vertices as a matrix for scipy's undirected shortest paths.

    Every link stands in one triangle only; of parallel links the shortest counts.
    """
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort([length, high, low])
    low, high, length = low[order], high[order], length[order]
    new = np.ones(len(low), dtype=bool)
    new[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return csr_array((length[new], (low[new], high[new])), shape=(count, count))


def path_lengths(roads: LineNetwork, at: Places) -> np.ndarray:
    """Return the length of the shortest path between all pairs of places (M, M); inf where there is none.

    One Dijkstra search from every place: the time grows with M (N + M) log(N + M).
    """
    size = len(at.edge)
    if size == 0:
        return np.empty((0, 0))
    links, count = cut_at(roads, at), len(roads.nodes)
    matrix = link_matrix(links.first, links.second, links.length, count + size)
    return dijkstra(matrix, directed=False, indices=np.arange(count, count + size))[:, count:]


def chains(roads: LineNetwork) -> list[list[tuple[int, bool]]]:
    """Join edges at nodes where exactly two meet.

    Returns:
        chains of (edge, whether it is followed from its start); each edge is in one. A chain starts at the lower of
        its nodes; a ring without a junction starts at its lowest node.
    """
    incident: list[list[tuple[int, int]]] = [[] for _ in roads.nodes]
    for edge, ends in enumerate(roads.ends):
        for side in (0, 1):
            incident[ends[side]].append((edge, side))
    seen: set[int] = set()
    result = []
    for node in sorted(range(len(incident)), key=lambda node: (len(incident[node]) == 2, node)):
        for edge, side in incident[node]:
            chain = []
            while edge not in seen:
                seen.add(edge)
                chain.append((edge, side == 0))
                end = incident[roads.ends[edge, 1 - side]]
                if len(end) == 2:
                    edge, side = end[1 - end.index((edge, 1 - side))]
            if chain:
                result.append(chain)
    return result


def repeats(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for item i repeated counts[i] times, the item and the rank among its repeats, both (sum(counts),)."""
    item = np.repeat(np.arange(len(counts)), counts)
    return item, np.arange(len(item)) - np.repeat(np.cumsum(counts) - counts, counts)


_PIECE = 0.5  # unit of the coordinates


def centreline_lengths(prediction: nx.MultiGraph, truth: nx.MultiGraph, buffer: float = 3.0) -> MatchedCounts:
    """Measure how much of either graph's lines lies within ``buffer`` of the other's, in the unit of the coordinates.

    Of the lengths of one image or the sum of many, recall is completeness, precision correctness, and quality quality
    (Heipke et al. 1997; Wiedemann et al. 1998). Lines are parted into pieces of at most 0.5 unit; a piece counts whole
    where its middle is at most ``buffer`` from the other graph's lines (exact distance). So each place where a line
    enters or leaves the buffer puts the length wrong by at most 0.25 unit.
    """
    ours, theirs = line_network(prediction), line_network(truth)
    lengths: list[float] = []
    for roads, other in ((ours, theirs), (theirs, ours)):
        at, size = samples(roads, _PIECE)
        matched = snap(other, points_on(roads, at), buffer).edge >= 0
        lengths += float(size[matched].sum()), float(roads.lengths.sum())
    return MatchedCounts(*lengths)


_SPACING = 1.0  # unit of the coordinates
_DETOUR = 4  # tolerances
_SAME_PLACE = 2  # tolerances
_SOURCES = 256  # of one search for shortest paths


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


def connectivity(prediction: nx.MultiGraph, truth: nx.MultiGraph, tolerance: float = 3.0) -> Connectivity:
    """Count the components, the gaps and the pairs of points that stay connected, by the unit of the coordinates.

    Truth's lines are parted into pieces of at most 1 unit; the middle of each is a point with the piece's length
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
    cross without a node (a bridge in a vector file), a shifted prediction can show a false gap.
    """
    ours, theirs = line_network(prediction), line_network(truth)
    at, weight = samples(theirs, _SPACING)
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


def _edge_components(roads: LineNetwork) -> np.ndarray:
    """Return the connected component of each edge (E,)."""
    return _components(roads.ends[:, 0], roads.ends[:, 1], len(roads.nodes))[roads.ends[:, 0]]


def _components(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    links = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(links, directed=False)[1]


def _gaps(
    ours: LineNetwork, theirs: LineNetwork, at: Places, points: np.ndarray, matched: Places, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles (G, 2) and lengths (G,) of the gaps; ``points``: truth's nodes, then the places ``at``."""
    links = cut_at(theirs, at)
    known = matched.edge >= 0
    # side by side on one predicted line is the common case, and no gap
    short = np.abs(matched.along[links.first] - matched.along[links.second]) <= _DETOUR * tolerance
    beside = short & (matched.edge[links.first] == matched.edge[links.second])
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
    allowed = np.concatenate([links.length[doubtful], _shortest(truth_matrix, *over.T)]) + _DETOUR * tolerance
    ends = np.unique(np.concatenate([left, right]))
    place = np.zeros(len(points), dtype=np.intp)
    place[ends] = len(ours.nodes) + np.arange(len(ends))
    cut = cut_at(ours, matched.pick(ends))
    our_matrix = link_matrix(cut.first, cut.second, cut.length, len(ours.nodes) + len(ends))
    broken = np.flatnonzero(_shortest(our_matrix, place[left], place[right]) > allowed)
    if len(broken) == 0:
        return np.empty((0, 2)), np.empty(0)

    lengths = np.hypot(*(points_on(ours, matched.pick(left[broken])) - points_on(ours, matched.pick(right[broken]))).T)
    crowds = [points[between[i]] for i in broken]
    # the point nearest to the mean of all between both sides
    middles = np.stack([crowd[np.hypot(*(crowd - crowd.mean(axis=0)).T).argmin()] for crowd in crowds])
    return _longest_of_each_place(middles, lengths, _SAME_PLACE * tolerance)


def _stretches(first: np.ndarray, second: np.ndarray, known: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Find the connected stretches of unmatched points between matched ones.

    Links (K,) run from ``first`` to ``second``; ``known`` (M,) tells which points are matched. Of each stretch that
    k > 1 matched points bound, return k - 1 pairs of these and the stretch's points; where every pair is connected,
    all are.
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


def _shortest(matrix: csr_array, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the length of the shortest path from each source to its target (P,); inf where there is none."""
    starts, row = np.unique(sources, return_inverse=True)
    result = np.empty(len(sources))
    for begin in range(0, len(starts), _SOURCES):
        lengths = dijkstra(matrix, directed=False, indices=starts[begin : begin + _SOURCES])
        here = (row >= begin) & (row < begin + _SOURCES)
        result[here] = lengths[row[here] - begin, targets[here]]
    return result


def _longest_of_each_place(middles: np.ndarray, lengths: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Keep the longest gap of each group whose middles are linked by steps within ``reach``."""
    close = cKDTree(middles).query_pairs(reach, output_type="ndarray")
    group = _components(close[:, 0], close[:, 1], len(middles))
    order = np.lexsort([-lengths, group])
    _, first = np.unique(group[order], return_index=True)
    kept = np.sort(order[first])
    return middles[kept], lengths[kept]
