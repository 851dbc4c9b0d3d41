"""How wide the road is along the edges of its graph."""

from __future__ import annotations

import networkx as nx
import numpy as np


def half_width_at(half_width: np.ndarray, graph: nx.MultiGraph, node: int) -> float:
    """Return the ``half_width`` (H, W) of the mask at a node."""
    return float(half_width[round(graph.nodes[node]["y"]), round(graph.nodes[node]["x"])])


def measure_widths(graph: nx.MultiGraph, half_width: np.ndarray) -> None:
    """Give each edge the median and the 10th and 90th percentile of the road's width over its points.

    Args:
        graph: road graph in pixels, with a point for each pixel of the skeleton.
        half_width: (H, W), of the mask.
    """
    for *_, data in graph.edges(data=True):
        columns, rows = data["line"].round().astype(int).T
        halves = half_width[rows, columns]
        on_road = halves[halves > 0] if halves.any() else np.ones(1)  # a merged junction may lie beside the road
        data.update(percentiles(2 * on_road - 1))


def percentiles(widths: np.ndarray) -> dict[str, float]:
    """Return the width attributes of an edge for the ``widths`` (N,) along it."""
    low, median, high = np.percentile(widths, (10, 50, 90))
    return {"width_median": float(median), "width_p10": float(low), "width_p90": float(high)}
