"""Roads as graphs: mask to skeleton to graph; arrays and graphs only, no files, no torch. `graph` says what one is."""

from ..errors import require

require(("networkx", "scipy", "skimage"), "roads", "finding road networks")

from .graph import graph_from_lines, graph_from_nodes, graph_lines, moved, road_graph  # noqa: E402
from .polyline import simplify_line  # noqa: E402
from .skeleton import Centreline, half_width, skeleton, tiled_centreline  # noqa: E402

__all__ = [
    "Centreline",
    "graph_from_lines",
    "graph_from_nodes",
    "graph_lines",
    "half_width",
    "moved",
    "road_graph",
    "simplify_line",
    "skeleton",
    "tiled_centreline",
]
