"""Gaps in a road, such as under a tree: dead ends that face each other."""

from __future__ import annotations

import networkx as nx
import numpy as np
from scipy.spatial import KDTree

from .edges import add_line, line_from, position
from .polyline import points_at
from .width import percentiles

_LARGEST_TURN = np.cos(np.radians(30))


def close_gaps(graph: nx.MultiGraph, largest: float) -> None:
    """Join dead ends that face each other by a straight edge with ``closed_gap=True``, nearest first; change ``graph``.

    Two dead ends face each other if the line between them turns at most 30 degrees from the direction of either.
    An end is joined at most once.

    Args:
        graph: road graph in pixels, with widths.
        largest: longest gap that is closed, between the ends of the centrelines, pixels.
    """
    ends = [node for node in graph if graph.degree(node) == 1]
    if len(ends) < 2:
        return
    places = np.array([position(graph, node) for node in ends])
    pairs = KDTree(places).query_pairs(largest, output_type="ndarray")
    gaps = np.hypot(*(places[pairs[:, 0]] - places[pairs[:, 1]]).T)
    for one, other in pairs[gaps.argsort(kind="stable")]:
        start, end = ends[one], ends[other]
        if graph.degree(start) == graph.degree(end) == 1 and _facing(_heading(graph, start), _heading(graph, end)):
            widths = [width for node in (start, end) for *_, width in graph.edges(node, data="width_median")]
            line = places[[one, other]]
            add_line(graph, start, end, line, closed_gap=True, **percentiles(np.array(widths)))


def _heading(graph: nx.MultiGraph, tip: int) -> np.ndarray:
    """Return two points (2, 2) on the way to a dead end, two road widths apart.

    The second is half a width before the end: there a skeleton may bend into a corner of the road's end.
    """
    [(_, junction, data)] = graph.edges(tip, data=True)
    width = data["width_median"]
    return points_at(line_from(tip, junction, data["line"]), np.array([2.5, 0.5]) * width)


def _facing(one: np.ndarray, other: np.ndarray) -> bool:
    """Say whether two headings lead towards each other."""
    across = _unit(other[1] - one[1])
    return _unit(one[1] - one[0]) @ across >= _LARGEST_TURN and _unit(other[1] - other[0]) @ -across >= _LARGEST_TURN


def _unit(vector: np.ndarray) -> np.ndarray:
    """Return ``vector`` (2,) with length 1; one without length stays."""
    return vector / (np.hypot(*vector) or 1)
