"""Places on a road graph: points along its lines, snapping onto it, shortest paths between places.

A place is an edge's index and a distance along that edge's line; index -1 stands for no place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from ..roads import polyline

_ROUNDING = 1e-9
_SEAM = 1.0


@dataclass(frozen=True)
class RoadLines:
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
    """Edges cut at places: vertices at both ends (K,), the edge (K,), where on it a link starts, and its length."""

    first: np.ndarray
    second: np.ndarray
    edge: np.ndarray
    start: np.ndarray
    length: np.ndarray


def road_lines(graph: nx.MultiGraph, scale: float = 1.0) -> RoadLines:
    """Return ``graph`` as arrays, its coordinates multiplied by ``scale`` (such as metres per pixel)."""
    keys = sorted(graph.nodes)
    index = {key: i for i, key in enumerate(keys)}
    edges = sorted((min(u, v), max(u, v), key) for u, v, key in graph.edges(keys=True))
    lines = [np.asarray(graph.edges[edge]["line"], dtype=np.float64) * scale for edge in edges]
    stations = [polyline.stations(line) for line in lines]
    lengths = np.array([at[-1] for at in stations])
    starts = np.concatenate([[0.0], np.cumsum(lengths + _SEAM)])[:-1]
    return RoadLines(
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


def node_places(roads: RoadLines) -> Places:
    """Return a place of every node (N,): an end of one of its edges, none for a node without edges."""
    edge, along = np.full(len(roads.nodes), -1), np.zeros(len(roads.nodes))
    every = np.arange(len(roads.ends))
    for side in (1, 0):
        edge[roads.ends[:, side]] = every
        along[roads.ends[:, side]] = side * roads.lengths
    return places(edge, along)


def points_on(roads: RoadLines, at: Places) -> np.ndarray:
    """Return the points (M, 2) at places, all of which exist; beyond an end of a line, that end."""
    if len(at.edge) == 0:
        return np.empty((0, 2))
    station = roads.starts[at.edge] + np.clip(at.along, 0, roads.lengths[at.edge])
    return np.stack([np.interp(station, roads.stations, roads.vertices[:, axis]) for axis in (0, 1)], axis=1)


def directions_on(roads: RoadLines, at: Places, reach: float) -> np.ndarray:
    """Return the lines' directions (M, 2) at places: unit chords over ``reach`` to both sides.

    A chord smooths the steps of a line traced pixel by pixel; it reaches no further than a quarter of the line, so
    that it does not close on a ring.
    """
    half = np.minimum(reach, roads.lengths[at.edge] / 4)
    chord = points_on(roads, Places(at.edge, at.along + half)) - points_on(roads, Places(at.edge, at.along - half))
    size = np.hypot(*chord.T)
    return chord / np.where(size > 0, size, 1)[:, None]


def samples(roads: RoadLines, spacing: float) -> tuple[Places, np.ndarray]:
    """Part every line evenly into the fewest pieces of at most ``spacing``; return their middles and lengths (M,)."""
    counts = np.maximum(1, np.ceil(roads.lengths / spacing)).astype(np.intp)
    edge, rank = repeats(counts)
    size = roads.lengths[edge] / counts[edge]
    return Places(edge, (rank + 0.5) * size), size


def near(roads: RoadLines, points: np.ndarray, radius: float) -> tuple[np.ndarray, Places, np.ndarray]:
    """Find the lines around points, exactly.

    Args:
        roads: the graph.
        points: (M, 2) x, y.
        radius: how far a line may be, included.

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


def snap(roads: RoadLines, points: np.ndarray, tolerance: float) -> Places:
    """Return the place nearest to each of ``points`` (M, 2), none where no line is within ``tolerance``."""
    return nearest(len(points), *near(roads, points, tolerance))


def cut_at(roads: RoadLines, at: Places) -> Links:
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


def path_lengths(roads: RoadLines, at: Places) -> np.ndarray:
    """Return the length of the shortest path between all pairs of places (M, M); inf where there is none.

    One Dijkstra search from every place: the time grows with M (N + M) log(N + M).
    """
    size = len(at.edge)
    if size == 0:
        return np.empty((0, 0))
    links, count = cut_at(roads, at), len(roads.nodes)
    matrix = link_matrix(links.first, links.second, links.length, count + size)
    return dijkstra(matrix, directed=False, indices=np.arange(count, count + size))[:, count:]


def chains(roads: RoadLines) -> list[list[tuple[int, bool]]]:
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
