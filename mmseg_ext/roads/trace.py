"""From the pixels of a skeleton to lines between its ends and junctions."""

from __future__ import annotations

import networkx as nx
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .centreline import Centreline
from .edges import add_line, add_node


def trace(centreline: Centreline) -> nx.MultiGraph:
    """Return the road graph of a skeleton, with all its pixels as points of the lines.

    Pixels of three or more neighbours that touch make one junction at their mean. A closed ring becomes a node with a
    loop, a single pixel a node without edges.
    """
    graph = nx.MultiGraph()
    if not len(centreline.rc):
        return graph
    near = centreline.neighbours()
    count = (near >= 0).sum(axis=1)
    xy = centreline.rc[:, ::-1].astype(np.float64)
    node_of = _nodes(near, count)
    members = np.flatnonzero(node_of >= 0)
    for node, position in enumerate(_means(node_of[members], xy[members])):
        add_node(graph, node, position)

    # arrays of Python's numbers would take ten times the memory, NumPy's own numbers the time
    beside = np.sort(near, axis=1)
    places, one, other = node_of.data, beside[:, -2].copy().data, beside[:, -1].copy().data
    del beside
    walked = bytearray(len(node_of))

    def walk(start: int, step: int) -> list[int]:
        """Return the pixels from ``start`` by way of ``step`` to the next pixel of a node."""
        path = [start, step]
        while places[path[-1]] < 0:
            last = path[-1]
            walked[last] = 1
            path.append(other[last] if one[last] == path[-2] else one[last])
        return path

    def add(path: list[int]) -> None:
        start, end = places[path[0]], places[path[-1]]
        if start == end and len(path) == 3:
            return  # it goes around a corner of the junction
        line = xy[path]
        line[0], line[-1] = ([graph.nodes[node]["x"], graph.nodes[node]["y"]] for node in (start, end))
        add_line(graph, start, end, line)

    for pixel, around in zip(members.tolist(), near[members], strict=True):
        for step in around[around >= 0].tolist():
            if places[step] < 0:
                if not walked[step]:
                    add(walk(pixel, step))
            elif places[step] != places[pixel] and step > pixel:
                add([pixel, step])
    for pixel in np.flatnonzero(node_of < 0).tolist():
        if not walked[pixel]:  # a closed ring
            places[pixel] = graph.number_of_nodes()
            add_node(graph, places[pixel], xy[pixel])
            add(walk(pixel, one[pixel]))
    return graph


def _nodes(near: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the node that each pixel belongs to, (N,), -1 for those with two of the neighbours ``near`` (N, 8)."""
    links = (near >= 0) & (count[:, None] >= 3) & (count[near] >= 3)
    start = np.nonzero(links)[0]
    touching = coo_array((np.ones(len(start)), (start, near[links])), shape=(len(near), len(near)))
    _, group = connected_components(touching, directed=False)
    nodes = np.full(len(near), -1)
    _, nodes[count != 2] = np.unique(group[count != 2], return_inverse=True)
    return nodes


def _means(group: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the mean (M, 2) of the points ``xy`` (N, 2) of each ``group`` (N,), 0 to M - 1."""
    size = np.bincount(group)
    return np.stack([np.bincount(group, axis) / size for axis in xy.T], axis=1)
