"""Roads as graphs: mask to skeleton to graph; arrays and graphs only, no files, no torch. `graph` says what one is."""

from ..errors import require

require(("networkx", "scipy", "skimage"), "roads", "finding road networks")

from .graph import graph_from_lines, graph_lines, road_graph  # noqa: E402
from .skeleton import skeleton, tiled_centreline  # noqa: E402

__all__ = ["graph_from_lines", "graph_lines", "road_graph", "skeleton", "tiled_centreline"]
