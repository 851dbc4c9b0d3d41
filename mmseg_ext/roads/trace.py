"""From the pixels of a skeleton to lines between its ends and junctions."""

from __future__ import annotations

import networkx as nx
import numpy as np
from scipy.ndimage import convolve

from .edges import add_line, add_node


def trace(skeleton: np.ndarray) -> nx.MultiGraph:
    """Return the road graph of a skeleton, with all its pixels as points of the lines.

    Pixels of three or more neighbours that touch make one junction at their mean. A closed ring becomes a node with a
    loop, a single pixel a node without edges. The walk along the pixels is skan's (Nunez-Iglesias et al., "A new
    Python library to analyse skeleton images confirms malaria parasite remodelling of the red blood cell membrane
    skeleton", PeerJ 2018).

    Args:
        skeleton: centrelines one pixel wide, bool (H, W).
    """
    neighbours = convolve(skeleton.astype(np.uint8), np.ones((3, 3), np.uint8), mode="constant") - skeleton
    paths = _paths(skeleton & (neighbours > 0))
    inside_junction = [bool((neighbours[tuple(path.T)] >= 3).all()) for path in paths]
    pixels = nx.Graph()  # only those that will be nodes, and the links inside a junction
    pixels.add_nodes_from(map(tuple, np.argwhere(skeleton & (neighbours == 0)).tolist()))
    for path, inside in zip(paths, inside_junction, strict=True):
        ends = tuple(path[0].tolist()), tuple(path[-1].tolist())
        pixels.add_nodes_from(ends)
        if inside:
            pixels.add_edge(*ends)

    graph = nx.MultiGraph()
    node_of = {}
    for node, cluster in enumerate(nx.connected_components(pixels)):
        add_node(graph, node, np.mean(list(cluster), axis=0)[::-1])
        node_of.update(dict.fromkeys(cluster, node))
    for path, inside in zip(paths, inside_junction, strict=True):
        start, end = node_of[tuple(path[0].tolist())], node_of[tuple(path[-1].tolist())]
        if inside or (start == end and len(path) <= 3):  # the latter goes around a corner of the junction
            continue
        line = path[:, ::-1].astype(np.float64)
        line[0], line[-1] = ([graph.nodes[node]["x"], graph.nodes[node]["y"]] for node in (start, end))
        add_line(graph, start, end, line)
    return graph


def _paths(skeleton: np.ndarray) -> list[np.ndarray]:
    """Return the (row, column) of the pixels from each end or junction to the next, int (N, 2) each."""
    if not skeleton.any():
        return []
    from skan import Skeleton  # its import and first call compile for seconds

    walked = Skeleton(skeleton, keep_images=False)
    return [walked.path_coordinates(path).astype(int) for path in range(walked.n_paths)]
