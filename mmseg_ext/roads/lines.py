"""Road graphs of lines, such as those of a vector file, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import networkx as nx
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from ..errors import DataError
from .graph import add_line, add_node
from .polyline import length, stations


def graph_from_lines(lines: Sequence[np.ndarray], snap: float = 0.0) -> nx.MultiGraph:
    """Return the road graph of lines that share a node where they share a vertex.

    Vertices where two lines only pass on into each other are no nodes; lines that cross without a common vertex are
    not connected (a bridge; Van Etten et al., "SpaceNet: A remote sensing dataset and challenge series", 2018). A
    segment that is drawn twice counts once. A line without length becomes a node without edges.

    Args:
        lines: (N, 2) each, N >= 2, of (x, y) in pixels or any metric unit.
        snap: vertices at most this far apart are one, at their mean; neighbours along a line stay apart.

    Raises:
        DataError: a line has fewer than two points, or one that is not finite.
    """
    for index, line in enumerate(lines):
        if line.ndim != 2 or line.shape[1] != 2 or len(line) < 2:
            raise DataError(f"line {index} has shape {line.shape}; give two or more (x, y) points per line")
        if not np.isfinite(line).all():
            raise DataError(f"line {index} has a coordinate that is no number; mend or remove the line")
    graph = nx.MultiGraph()
    if not lines:
        return graph
    places, positions = _places(lines, snap)
    segments = nx.Graph()
    for path in places:
        segments.add_nodes_from(path)
        segments.add_edges_from((start, end) for start, end in pairwise(path) if start != end)

    nodes = [place for place, degree in segments.degree() if degree != 2]
    for node in nodes:
        add_node(graph, node, positions[node])
    for node in [*nodes, *segments]:  # what the nodes leave over are closed rings
        while segments[node]:
            add_node(graph, node, positions[node])
            path = _walk(segments, node, graph)
            add_line(graph, node, path[-1], positions[path])
            segments.remove_edges_from(pairwise(path))
    return nx.convert_node_labels_to_integers(graph, ordering="sorted")


def graph_lines(graph: nx.MultiGraph) -> list[np.ndarray]:
    """Return the line (N, 2) of each edge of a road graph."""
    return [line for *_, line in graph.edges(data="line")]


def graph_from_nodes(
    nodes: Mapping[int, Sequence[float]], roads: Sequence[tuple[int, int, *tuple[Sequence[float], ...]]]
) -> nx.MultiGraph:
    """Return a road graph drawn by hand.

    Args:
        nodes: (x, y) by key.
        roads: (first node, last node, further points between them in this order...).
    """
    graph = nx.MultiGraph()
    for key, (x, y) in nodes.items():
        add_node(graph, key, np.array([x, y], np.float64))
    for u, v, *between in roads:
        add_line(graph, u, v, np.array([nodes[u], *between, nodes[v]], np.float64))
    return graph


def moved(
    graph: nx.MultiGraph, matrix: Sequence[Sequence[float]] = ((1, 0), (0, 1)), shift: Sequence[float] = (0, 0)
) -> nx.MultiGraph:
    """Return a copy of ``graph`` with every point times ``matrix`` (2, 2) plus ``shift`` (2,), lengths anew.

    Widths stay as they are.
    """
    result = graph.copy()
    for _, node in result.nodes(data=True):
        node["x"], node["y"] = (float(value) for value in np.array(matrix) @ (node["x"], node["y"]) + shift)
    for *_, edge in result.edges(data=True):
        edge["line"] = edge["line"] @ np.array(matrix).T + shift
        edge["length"] = length(edge["line"])
    return result


def _places(lines: Sequence[np.ndarray], snap: float) -> tuple[list[list[int]], np.ndarray]:
    """Return the place of each vertex of each line, and the positions (M, 2) of the places."""
    vertices = np.concatenate(lines).astype(np.float64)
    sizes = [len(line) for line in lines]
    owner = np.repeat(np.arange(len(lines)), sizes)
    along = np.concatenate([stations(np.asarray(line, np.float64)) for line in lines])
    one, other = KDTree(vertices).query_pairs(snap, output_type="ndarray").T
    equal = (vertices[one] == vertices[other]).all(axis=1)
    apart = (owner[one] != owner[other]) | (np.abs(along[one] - along[other]) > 2 * snap)
    one, other = one[equal | apart], other[equal | apart]
    links = coo_array((np.ones(len(one)), (one, other)), shape=(len(vertices), len(vertices)))
    count, place = connected_components(links, directed=False)
    members = np.bincount(place, minlength=count)
    positions = np.stack([np.bincount(place, axis, count) / members for axis in vertices.T], axis=1)
    return [part.tolist() for part in np.split(place, np.cumsum(sizes)[:-1])], positions


def _walk(segments: nx.Graph, start: int, nodes: nx.MultiGraph) -> list[int]:
    """Return the places from ``start`` along one of its segments to the next of ``nodes``."""
    path = [start, next(iter(segments[start]))]
    while path[-1] not in nodes:
        path.append(next(place for place in segments[path[-1]] if place != path[-2]))
    return path
