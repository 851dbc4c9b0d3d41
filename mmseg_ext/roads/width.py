"""How wide the road is along the edges of its graph."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx
import numpy as np

from .centreline import Centreline
from .edges import position


def half_widths_at(centreline: Centreline, graph: nx.MultiGraph, nodes: Iterable[int]) -> dict[int, float]:
    """Return the half width of the road at each of ``nodes``."""
    nodes = list(nodes)
    places = np.array([position(graph, node) for node in nodes]).reshape(-1, 2)
    return dict(zip(nodes, centreline.half_width_at(places).tolist(), strict=True))


def measure_widths(graph: nx.MultiGraph, centreline: Centreline) -> None:
    """Give each edge the median and the 10th and 90th percentile of the road's width over its points.

    Args:
        graph: road graph in pixels, with a point for each pixel of the skeleton.
        centreline: which it was traced from.
    """
    for *_, data in graph.edges(data=True):
        halves = centreline.half_width_at(data["line"])
        on_road = halves[halves > 0] if halves.any() else np.ones(1)  # a merged junction may lie beside the road
        data.update(percentiles(2 * on_road - 1))


def percentiles(widths: np.ndarray) -> dict[str, float]:
    """Return the width attributes of an edge for the ``widths`` (N,) along it."""
    low, median, high = np.percentile(widths, (10, 50, 90))
    return {"width_median": float(median), "width_p10": float(low), "width_p90": float(high)}
