"""Junctions that belong together: a skeleton makes two of one crossing of wide roads."""

from __future__ import annotations

import networkx as nx
import numpy as np

from .centreline import Centreline
from .edges import add_line, add_node, dissolve, line_from, position
from .width import half_widths_at


def merge_junctions(graph: nx.MultiGraph, centreline: Centreline, merge_px: float | None) -> None:
    """Make one junction, at their mean, of those that an edge of at most ``merge_px`` links; change ``graph``.

    The short edges vanish; longer ones between the same junctions become loops. The other edges run straight from the
    new junction to where they leave the largest disc inside the mask around their old one, if they do.

    Args:
        graph: road graph in pixels.
        centreline: which it was traced from.
        merge_px: pixels along the edge; None for the two junctions' half widths together, so that their discs touch.
            That makes one junction of nearly every crossing at 60 degrees or more, of few at 45.
    """
    junctions = half_widths_at(centreline, graph, (node for node in graph if graph.degree(node) >= 3))
    short = nx.Graph()
    removed = []
    for start, end, key, length in graph.edges(keys=True, data="length"):
        if {start, end} <= junctions.keys():
            if length <= (junctions[start] + junctions[end] if merge_px is None else merge_px):
                short.add_edge(start, end)
                removed.append((start, end, key))
    graph.remove_edges_from(removed)
    for cluster in nx.connected_components(short):
        if len(cluster) > 1:
            _merge(graph, cluster, junctions)
    for node in list(graph):
        dissolve(graph, node)


def _merge(graph: nx.MultiGraph, cluster: set[int], radius: dict[int, float]) -> None:
    """Make one node of ``cluster``; ``radius`` is that of the disc around each of its nodes."""
    node = min(cluster)
    centres = {member: position(graph, member) for member in cluster}
    mean = np.mean(list(centres.values()), axis=0)
    edges = list(graph.edges(cluster, data="line"))
    graph.remove_nodes_from(cluster)
    add_node(graph, node, mean)
    for start, end, line in edges:
        line = line_from(start, end, line)
        if end in cluster:
            add_line(graph, node, node, np.concatenate([[mean], line, [mean]]))
        else:
            outside = np.hypot(*(line[:-1] - centres[start]).T) > radius[start]
            add_line(graph, node, end, np.concatenate([[mean], line[int(outside.argmax()) :]]))
