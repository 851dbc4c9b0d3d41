"""Roads as graphs: mask to skeleton to graph; arrays and graphs only, no files, no torch. `graph` says what one is."""

from .graph import graph_from_lines, graph_lines, road_graph
from .skeleton import skeleton, tiled_centreline

__all__ = ["graph_from_lines", "graph_lines", "road_graph", "skeleton", "tiled_centreline"]
