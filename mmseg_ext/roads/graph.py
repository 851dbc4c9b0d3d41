"""Edges of a road graph: lines between nodes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import networkx as nx
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from .polyline import length, points_at, simplify_lines
from .skeleton import Centreline


def add_node(graph: nx.MultiGraph, node: int, position: np.ndarray) -> None:
    """Add ``node`` at ``position`` (2,), or move it there."""
    graph.add_node(node, x=float(position[0]), y=float(position[1]))


def position(graph: nx.MultiGraph, node: int) -> np.ndarray:
    """Return where ``node`` is, (2,)."""
    return np.array([graph.nodes[node]["x"], graph.nodes[node]["y"]])


def add_line(graph: nx.MultiGraph, start: int, end: int, line: np.ndarray, **attributes: float | bool) -> None:
    """Add an edge for ``line`` (N, 2) that runs from node ``start`` to node ``end``, turned as the contract asks."""
    if start > end:
        line = line[::-1]
    graph.add_edge(start, end, line=line, length=length(line), **attributes)


def line_from(start: int, end: int, line: np.ndarray) -> np.ndarray:
    """Return the ``line`` (N, 2) of the edge between two nodes, turned so that it runs from ``start`` to ``end``."""
    return line if start <= end else line[::-1]


def dissolve(graph: nx.MultiGraph, node: int) -> None:
    """Join the two lines that meet at ``node``, which vanishes; a node of other than two edges stays as it is."""
    edges = list(graph.edges(node, data="line"))
    if len(edges) != 2 or graph.has_edge(node, node):
        return
    (_, start, first), (_, end, second) = edges
    line = np.concatenate([line_from(start, node, first), line_from(node, end, second)[1:]])
    graph.remove_node(node)
    add_line(graph, start, end, line)


# -- roads.width
# How wide the road is along the edges of its graph.


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


# -- roads.trace
# From the pixels of a skeleton to lines between its ends and junctions.


def trace(centreline: Centreline) -> nx.MultiGraph:
    """Return the road graph of a skeleton, with all its pixels as points of the lines.

    Pixels of three or more neighbours that touch make one junction at their mean. A closed ring becomes a node with a
    loop, a single pixel a node without edges.
    """
    graph = nx.MultiGraph()
    if not len(centreline.rc):
        return graph
    near = centreline.neighbours()
    count = (near >= 0).sum(axis=1)
    xy = centreline.rc[:, ::-1].astype(np.float64)
    node_of = _nodes(near, count)
    members = np.flatnonzero(node_of >= 0)
    for node, place in enumerate(_means(node_of[members], xy[members])):
        add_node(graph, node, place)

    # arrays of Python's numbers would take ten times the memory, NumPy's own numbers the time
    beside = np.sort(near, axis=1)
    places, one, other = node_of.data, beside[:, -2].copy().data, beside[:, -1].copy().data
    del beside
    walked = bytearray(len(node_of))

    def walk(start: int, step: int) -> list[int]:
        """Return the pixels from ``start`` by way of ``step`` to the next pixel of a node."""
        path = [start, step]
        while places[path[-1]] < 0:
            last = path[-1]
            walked[last] = 1
            path.append(other[last] if one[last] == path[-2] else one[last])
        return path

    def add(path: list[int]) -> None:
        start, end = places[path[0]], places[path[-1]]
        if start == end and len(path) == 3:
            return  # it goes around a corner of the junction
        line = xy[path]
        line[0], line[-1] = ([graph.nodes[node]["x"], graph.nodes[node]["y"]] for node in (start, end))
        add_line(graph, start, end, line)

    for pixel, around in zip(members.tolist(), near[members], strict=True):
        for step in around[around >= 0].tolist():
            if places[step] < 0:
                if not walked[step]:
                    add(walk(pixel, step))
            elif places[step] != places[pixel] and step > pixel:
                add([pixel, step])
    for pixel in np.flatnonzero(node_of < 0).tolist():
        if not walked[pixel]:  # a closed ring
            places[pixel] = graph.number_of_nodes()
            add_node(graph, places[pixel], xy[pixel])
            add(walk(pixel, one[pixel]))
    return graph


def _nodes(near: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Return the node that each pixel belongs to, (N,), -1 for those with two of the neighbours ``near`` (N, 8)."""
    links = (near >= 0) & (count[:, None] >= 3) & (count[near] >= 3)
    start = np.nonzero(links)[0]
    touching = coo_array((np.ones(len(start)), (start, near[links])), shape=(len(near), len(near)))
    _, group = connected_components(touching, directed=False)
    nodes = np.full(len(near), -1)
    _, nodes[count != 2] = np.unique(group[count != 2], return_inverse=True)
    return nodes


def _means(group: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return the mean (M, 2) of the points ``xy`` (N, 2) of each ``group`` (N,), 0 to M - 1."""
    size = np.bincount(group)
    return np.stack([np.bincount(group, axis) / size for axis in xy.T], axis=1)


# -- roads.prune
# Spurs: short dead ends that a ragged edge of the road leaves on its skeleton.


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


# -- roads.merge
# Junctions that belong together: a skeleton makes two of one crossing of wide roads.


def merge_junctions(graph: nx.MultiGraph, centreline: Centreline, merge_px: float | None) -> None:
    """Make one junction, at their mean, of those that an edge of at most ``merge_px`` links; change ``graph``.

    The short edges vanish; longer ones between the same junctions become loops. The other edges run straight from the
    new junction to where they leave the largest disc inside the mask around their old one, if they do.

    Args:
        graph: road graph in pixels.
        centreline: which it was traced from.
        merge_px: pixels along the edge; None for the two junctions' half widths together, so that their discs touch.
            That makes one junction of nearly every crossing at 60 degrees or more, of few at 45.
    """
    junctions = half_widths_at(centreline, graph, (node for node in graph if graph.degree(node) >= 3))
    short = nx.Graph()
    removed = []
    for start, end, key, extent in graph.edges(keys=True, data="length"):
        if {start, end} <= junctions.keys():
            if extent <= (junctions[start] + junctions[end] if merge_px is None else merge_px):
                short.add_edge(start, end)
                removed.append((start, end, key))
    graph.remove_edges_from(removed)
    for cluster in nx.connected_components(short):
        if len(cluster) > 1:
            _merge(graph, cluster, junctions)
    for node in list(graph):
        dissolve(graph, node)


def _merge(graph: nx.MultiGraph, cluster: set[int], radius: dict[int, float]) -> None:
    """Make one node of ``cluster``; ``radius`` is that of the disc around each of its nodes."""
    node = min(cluster)
    centres = {member: position(graph, member) for member in cluster}
    mean = np.mean(list(centres.values()), axis=0)
    edges = list(graph.edges(cluster, data="line"))
    graph.remove_nodes_from(cluster)
    add_node(graph, node, mean)
    for start, end, line in edges:
        line = line_from(start, end, line)
        if end in cluster:
            add_line(graph, node, node, np.concatenate([[mean], line, [mean]]))
        else:
            outside = np.hypot(*(line[:-1] - centres[start]).T) > radius[start]
            add_line(graph, node, end, np.concatenate([[mean], line[int(outside.argmax()) :]]))


# -- roads.gaps
# Gaps in a road, such as under a tree: dead ends that face each other.

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


# -- roads.graph
# Road graphs of masks.
#
# A road graph is a `networkx.MultiGraph`. Its nodes are the junctions and ends of roads: integer keys, with attributes
# ``x`` and ``y``. Its edges are the roads between them, with attributes
#
# - ``line``: float64 (N, 2), N >= 2, of (x, y) from node min(u, v) to node max(u, v), or from a node around to itself;
# - ``length``: of the line;
# - ``width_median``, ``width_p10``, ``width_p90``: of the road's width along the edge, in pixels, where the graph comes
#   from a mask;
# - ``closed_gap``: True on edges that were put across a gap of the mask; absent on all others.
#
# The unit is the pixel, x the column to the right and y the row downwards, whole numbers at pixel centres; a graph of
# lines from a vector file has the file's (metric) unit. Loops, parallel edges and nodes without edges are legal.


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
