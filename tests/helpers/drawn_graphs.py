"""Road graphs drawn by hand, for tests."""

import numpy as np
from networkx import MultiGraph

from mmseg_ext.roads.polyline import length


def graph_from_nodes(nodes, roads):
    """Return a road graph of nodes, (x, y) by key, and roads, (first node, last node, points between them...)."""
    graph = MultiGraph()
    for key, (x, y) in nodes.items():
        graph.add_node(key, x=float(x), y=float(y))
    for u, v, *between in roads:
        line = np.array([nodes[u], *between, nodes[v]], np.float64)[:: 1 if u <= v else -1]
        graph.add_edge(u, v, line=line, length=length(line))
    return graph


def moved(graph, matrix=((1, 0), (0, 1)), shift=(0, 0)):
    """Return a copy of ``graph`` with every point times ``matrix`` (2, 2) plus ``shift`` (2,), lengths anew."""
    result = graph.copy()
    for _, node in result.nodes(data=True):
        node["x"], node["y"] = (float(value) for value in np.array(matrix) @ (node["x"], node["y"]) + shift)
    for *_, edge in result.edges(data=True):
        edge["line"] = edge["line"] @ np.array(matrix).T + shift
        edge["length"] = length(edge["line"])
    return result
