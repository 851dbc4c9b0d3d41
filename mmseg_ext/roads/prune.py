"""Spurs: short dead ends that a ragged edge of the road leaves on its skeleton."""

from __future__ import annotations

import heapq

import networkx as nx

from .centreline import Centreline
from .edges import dissolve
from .width import half_widths_at


def prune_spurs(graph: nx.MultiGraph, centreline: Centreline) -> None:
    """Remove dead ends shorter than the road is wide where they branch off, shortest first; change ``graph``.

    Each removal joins the two edges that are left at a junction, so that the last branch at the end of a road is its
    end and stays. A dead end at the image's border is a road that leaves, and stays unless it is hidden in the road
    that it branches off: shorter than half the width.

    Args:
        graph: road graph in pixels.
        centreline: which it was traced from.
    """
    halves = half_widths_at(centreline, graph, graph)
    queue = [(edge[2], tip) for tip in graph if graph.degree(tip) == 1 for edge in graph.edges(tip, data="length")]
    heapq.heapify(queue)
    while queue:
        length, tip = heapq.heappop(queue)
        [(_, junction, length_now)] = graph.edges(tip, data="length")
        if length_now > length:  # joined to another edge since
            heapq.heappush(queue, (length_now, tip))
            continue
        half = halves[junction]
        limit = half if _at_border(graph, tip, centreline.shape) else 2 * half - 1
        if graph.degree(junction) >= 3 and length < limit:
            graph.remove_node(tip)
            dissolve(graph, junction)


def _at_border(graph: nx.MultiGraph, node: int, shape: tuple[int, ...]) -> bool:
    x, y = graph.nodes[node]["x"], graph.nodes[node]["y"]
    return x in (0, shape[1] - 1) or y in (0, shape[0] - 1)
