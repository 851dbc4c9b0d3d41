"""Edges of a road graph: lines between nodes."""

from __future__ import annotations

import networkx as nx
import numpy as np

from .polyline import length


def add_node(graph: nx.MultiGraph, node: int, position: np.ndarray) -> None:
    """Add ``node`` at ``position`` (2,), or move it there."""
    graph.add_node(node, x=float(position[0]), y=float(position[1]))


def position(graph: nx.MultiGraph, node: int) -> np.ndarray:
    """Return where ``node`` is, (2,)."""
    return np.array([graph.nodes[node]["x"], graph.nodes[node]["y"]])


def add_line(graph: nx.MultiGraph, start: int, end: int, line: np.ndarray, **attributes: float | bool) -> None:
    """Add an edge for ``line`` (N, 2) that runs from node ``start`` to node ``end``, turned as the contract asks."""
    if start > end:
        line = line[::-1]
    graph.add_edge(start, end, line=line, length=length(line), **attributes)


def line_from(start: int, end: int, line: np.ndarray) -> np.ndarray:
    """Return the ``line`` (N, 2) of the edge between two nodes, turned so that it runs from ``start`` to ``end``."""
    return line if start <= end else line[::-1]


def dissolve(graph: nx.MultiGraph, node: int) -> None:
    """Join the two lines that meet at ``node``, which vanishes; a node of other than two edges stays as it is."""
    edges = list(graph.edges(node, data="line"))
    if len(edges) != 2 or graph.has_edge(node, node):
        return
    (_, start, first), (_, end, second) = edges
    line = np.concatenate([line_from(start, node, first), line_from(node, end, second)[1:]])
    graph.remove_node(node)
    add_line(graph, start, end, line)
