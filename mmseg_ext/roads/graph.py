"""Road graphs of masks.

A road graph is a `networkx.MultiGraph`. Its nodes are the junctions and ends of roads: integer keys, with attributes
``x`` and ``y``. Its edges are the roads between them, with attributes

- ``line``: float64 (N, 2), N >= 2, of (x, y) from node min(u, v) to node max(u, v), or from a node around to itself;
- ``length``: of the line;
- ``width_median``, ``width_p10``, ``width_p90``: of the road's width along the edge, in pixels, where the graph comes
  from a mask;
- ``closed_gap``: True on edges that were put across a gap of the mask; absent on all others.

The unit is the pixel, x the column to the right and y the row downwards, whole numbers at pixel centres; a graph of
lines from a vector file has the file's (metric) unit. Loops, parallel edges and nodes without edges are legal.
"""

from __future__ import annotations

import networkx as nx
import numpy as np

from .centreline import Centreline
from .gaps import close_gaps
from .merge import merge_junctions
from .prune import prune_spurs
from .simplify import simplify_lines
from .trace import trace
from .width import measure_widths


def road_graph(
    road: np.ndarray | Centreline,
    *,
    prune: bool = True,
    merge_px: float | None = None,
    close_gaps_px: float = 0,
    simplify_px: float = 1.0,
    min_length_px: float = 0,
) -> nx.MultiGraph:
    """Return the road graph of a mask.

    Args:
        road: mask, bool or uint8 (H, W), non-zero is road; or the centreline of one.
        prune: remove dead ends shorter than the road that they branch off is wide.
        merge_px: junctions that an edge of at most this length links become one; None for the sum of the road's
            half widths at both, 0 to keep all.
        close_gaps_px: longest gap between dead ends facing each other that is closed; 0 closes none.
        simplify_px: farthest that a line may pass from a pixel of the centreline; 0 keeps every pixel.
        min_length_px: pieces of the network with less road than this in all are left out.
    """
    centreline = road if isinstance(road, Centreline) else Centreline.of_mask(road)
    graph = trace(centreline)
    if prune:
        prune_spurs(graph, centreline)
    merge_junctions(graph, centreline, merge_px)
    measure_widths(graph, centreline)
    if close_gaps_px > 0:
        close_gaps(graph, close_gaps_px)
    simplify_lines(graph, simplify_px)
    _drop_short_pieces(graph, min_length_px)
    return nx.convert_node_labels_to_integers(graph, ordering="sorted")


def _drop_short_pieces(graph: nx.MultiGraph, min_length: float) -> None:
    """Remove the connected parts of ``graph`` whose edges are shorter than ``min_length`` in all."""
    for piece in list(nx.connected_components(graph)):
        if graph.subgraph(piece).size("length") < min_length:
            graph.remove_nodes_from(piece)
