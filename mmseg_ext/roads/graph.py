"""Road graphs: of a mask by way of its centreline, or of lines.

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

import heapq
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import pairwise

import networkx as nx
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from ..errors import DataError
from .polyline import length, points_at, simplify_line, smooth_line, stations
from .skeleton import Centreline

_LARGEST_TURN = np.cos(np.radians(30))
# a pixel's corner is 0.71 from its centre, the middle of two points of a line 0.5 from both; the rest is to simplify
_MARGIN_PX = 1.5
_THIN_PX = 3
_STAIRS_PX = 24  # along a line of pixels that is not quite level, its steps are so far apart


def road_graph(
    road: np.ndarray | Centreline,
    *,
    prune: bool = True,
    merge_px: float | None = None,
    close_gaps_px: float = 0,
    smooth_px: float | None = 0,
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
        smooth_px: wiggles of the lines that are shorter are smoothed out, as far as lines stay on the road, by
            `smooth_line`; None for the median width of each road, 24 at least, 0 for none. Lines of roads that are only
            one or two pixels wide may leave them by half a pixel.
        simplify_px: farthest that a line may pass from its points before, such as the pixels of the centreline; 0 keeps
            every one. Parallel edges stay bent.
        min_length_px: pieces of the network with less road than this in all are left out.
    """
    centreline = road if isinstance(road, Centreline) else Centreline.of_mask(road)
    graph = trace(centreline)
    if prune:
        _prune_spurs(graph, centreline)
    _merge_junctions(graph, centreline, merge_px)
    _measure_widths(graph, centreline)
    if close_gaps_px > 0:
        _close_gaps(graph, close_gaps_px)
    for node, other, edge in graph.edges(data=True):
        ring, width = node == other and graph.degree(node) == 2, edge["width_median"]
        reach = partial(_reach, centreline, 0.5 if width < _THIN_PX else 0)
        line = smooth_line(edge["line"], max(width, _STAIRS_PX) if smooth_px is None else smooth_px, reach, ring)
        if ring:
            _add_node(graph, node, line[0])
        parallel = graph.number_of_edges(node, other) > 1  # as straight lines, they would be one
        edge["line"] = simplify_line(line, simplify_px, bent=parallel)
        edge["length"] = length(edge["line"])
    for piece in list(nx.connected_components(graph)):
        if graph.subgraph(piece).size("length") < min_length_px:
            graph.remove_nodes_from(piece)
    return nx.convert_node_labels_to_integers(graph, ordering="sorted")


def graph_from_lines(lines: Sequence[np.ndarray], snap: float = 0.0) -> nx.MultiGraph:
    """Return the road graph of lines that share a node where they share a vertex.

    Vertices where two lines only pass on into each other are no nodes; lines that cross without a common vertex are
    not connected (a bridge; Van Etten et al., "SpaceNet: A remote sensing dataset and challenge series", 2018). A
    segment that is drawn twice counts once. A line without length becomes a node without edges.

    Args:
        lines: (N, 2) each, N >= 2, of (x, y) in pixels or any metric unit.
        snap: vertices at most this far apart are one, at their mean; neighbours along a line stay apart.

    Raises:
        DataError: a line has fewer than two points, or one that is not finite.
    """
    for index, line in enumerate(lines):
        if line.ndim != 2 or line.shape[1] != 2 or len(line) < 2:
            raise DataError(f"line {index} has shape {line.shape}; give two or more (x, y) points per line")
        if not np.isfinite(line).all():
            raise DataError(f"line {index} has a coordinate that is not finite; fix or remove the line")
    graph = nx.MultiGraph()
    if not lines:
        return graph
    places, positions = _places(lines, snap)
    segments = nx.Graph()
    for path in places:
        segments.add_nodes_from(path)
        segments.add_edges_from((start, end) for start, end in pairwise(path) if start != end)

    nodes = [place for place, degree in segments.degree() if degree != 2]
    for node in nodes:
        _add_node(graph, node, positions[node])
    for node in [*nodes, *segments]:  # what the nodes leave over are closed rings
        while segments[node]:
            _add_node(graph, node, positions[node])
            path = _walk(segments, node, graph)
            _add_line(graph, node, path[-1], positions[path])
            segments.remove_edges_from(pairwise(path))
    return nx.convert_node_labels_to_integers(graph, ordering="sorted")


def graph_lines(graph: nx.MultiGraph) -> list[np.ndarray]:
    """Return the line (N, 2) of each edge of a road graph."""
    return [line for *_, line in graph.edges(data="line")]


def _reach(centreline: Centreline, least: float, xy: np.ndarray) -> np.ndarray:
    """Return how far (N,) points (N, 2) of lines may move and leave these on the road; ``least`` even where they do."""
    return np.maximum(centreline.room_around(xy) - _MARGIN_PX, least)


def _add_node(graph: nx.MultiGraph, node: int, xy: np.ndarray) -> None:
    """Add ``node`` at ``xy`` (2,), or move it there."""
    graph.add_node(node, x=float(xy[0]), y=float(xy[1]))


def _position(graph: nx.MultiGraph, node: int) -> np.ndarray:
    return np.array([graph.nodes[node]["x"], graph.nodes[node]["y"]])


def _add_line(graph: nx.MultiGraph, start: int, end: int, line: np.ndarray, **attributes: float | bool) -> None:
    """Add an edge for ``line`` (N, 2) that runs from node ``start`` to node ``end``, turned as the contract asks."""
    if start > end:
        line = line[::-1]
    graph.add_edge(start, end, line=line, length=length(line), **attributes)


def _line_from(start: int, end: int, line: np.ndarray) -> np.ndarray:
    """Return the ``line`` (N, 2) of an edge, turned so that it runs from ``start`` to ``end``."""
    return line if start <= end else line[::-1]


def _dissolve(graph: nx.MultiGraph, node: int) -> None:
    """Join the two lines that meet at ``node``, which vanishes; a node of other than two edges stays as it is."""
    edges = list(graph.edges(node, data="line"))
    if len(edges) != 2 or graph.has_edge(node, node):
        return
    (_, start, first), (_, end, second) = edges
    line = np.concatenate([_line_from(start, node, first), _line_from(node, end, second)[1:]])
    graph.remove_node(node)
    _add_line(graph, start, end, line)


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
    size = np.bincount(node_of[members])
    means = np.stack([np.bincount(node_of[members], axis) / size for axis in xy[members].T], axis=1)
    for node, place in enumerate(means):
        _add_node(graph, node, place)

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
        _add_line(graph, start, end, line)

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
            _add_node(graph, places[pixel], xy[pixel])
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


def _prune_spurs(graph: nx.MultiGraph, centreline: Centreline) -> None:
    """Remove spurs: dead ends shorter than the road is wide where they branch off, shortest first.

    Each removal joins the two edges that are left at a junction, so that the last branch at the end of a road is its
    end and stays. A dead end at the image's border is a road that leaves, and stays unless it is hidden in the road
    that it branches off: shorter than half the width.
    """
    halves = _half_widths_at(centreline, graph, graph)
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
            _dissolve(graph, junction)


def _at_border(graph: nx.MultiGraph, node: int, shape: tuple[int, ...]) -> bool:
    x, y = graph.nodes[node]["x"], graph.nodes[node]["y"]
    return x in (0, shape[1] - 1) or y in (0, shape[0] - 1)


def _merge_junctions(graph: nx.MultiGraph, centreline: Centreline, merge_px: float | None) -> None:
    """Make one junction, at their mean, of those that an edge of at most ``merge_px`` links.

    A skeleton makes two junctions of one crossing of wide roads. The short edges vanish; longer ones between the same
    junctions become loops. The other edges run straight from the new junction to where they leave the largest disc
    inside the mask around their old one, if they do. None takes the two junctions' half widths together, so that their
    discs touch: that makes one junction of nearly every crossing at 60 degrees or more, of few at 45.
    """
    junctions = _half_widths_at(centreline, graph, (node for node in graph if graph.degree(node) >= 3))
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
        _dissolve(graph, node)


def _merge(graph: nx.MultiGraph, cluster: set[int], radius: dict[int, float]) -> None:
    """Make one node of ``cluster``; ``radius`` is that of the disc around each of its nodes."""
    node = min(cluster)
    centres = {member: _position(graph, member) for member in cluster}
    mean = np.mean(list(centres.values()), axis=0)
    edges = list(graph.edges(cluster, data="line"))
    graph.remove_nodes_from(cluster)
    _add_node(graph, node, mean)
    for start, end, line in edges:
        line = _line_from(start, end, line)
        if end in cluster:
            _add_line(graph, node, node, np.concatenate([[mean], line, [mean]]))
        else:
            outside = np.hypot(*(line[:-1] - centres[start]).T) > radius[start]
            _add_line(graph, node, end, np.concatenate([[mean], line[int(outside.argmax()) :]]))


def _half_widths_at(centreline: Centreline, graph: nx.MultiGraph, nodes: Iterable[int]) -> dict[int, float]:
    nodes = list(nodes)
    places = np.array([_position(graph, node) for node in nodes]).reshape(-1, 2)
    return dict(zip(nodes, centreline.half_width_at(places).tolist(), strict=True))


def _measure_widths(graph: nx.MultiGraph, centreline: Centreline) -> None:
    """Give each edge the median and the 10th and 90th percentile of the road's width over its pixels."""
    for *_, data in graph.edges(data=True):
        halves = centreline.half_width_at(data["line"])
        on_road = halves[halves > 0] if halves.any() else np.ones(1)  # a merged junction may lie beside the road
        data.update(_percentiles(2 * on_road - 1))


def _percentiles(widths: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(widths, (10, 50, 90))
    return {"width_median": float(median), "width_p10": float(low), "width_p90": float(high)}


def _close_gaps(graph: nx.MultiGraph, largest: float) -> None:
    """Join dead ends that face each other by a straight edge with ``closed_gap=True``, nearest first.

    A gap may come from a tree over the road. Two dead ends face each other if the line between them turns at most 30
    degrees from the direction of either. An end is joined at most once, and at most ``largest`` pixels away.
    """
    ends = [node for node in graph if graph.degree(node) == 1]
    if len(ends) < 2:
        return
    places = np.array([_position(graph, node) for node in ends])
    pairs = KDTree(places).query_pairs(largest, output_type="ndarray")
    gaps = np.hypot(*(places[pairs[:, 0]] - places[pairs[:, 1]]).T)
    for one, other in pairs[gaps.argsort(kind="stable")]:
        start, end = ends[one], ends[other]
        if graph.degree(start) == graph.degree(end) == 1 and _facing(_heading(graph, start), _heading(graph, end)):
            widths = [width for node in (start, end) for *_, width in graph.edges(node, data="width_median")]
            line = places[[one, other]]
            _add_line(graph, start, end, line, closed_gap=True, **_percentiles(np.array(widths)))


def _heading(graph: nx.MultiGraph, tip: int) -> np.ndarray:
    """Return two points (2, 2) on the way to a dead end, two road widths apart.

    The second is half a width before the end: there a skeleton may bend into a corner of the road's end.
    """
    [(_, junction, data)] = graph.edges(tip, data=True)
    width = data["width_median"]
    return points_at(_line_from(tip, junction, data["line"]), np.array([2.5, 0.5]) * width)


def _facing(one: np.ndarray, other: np.ndarray) -> bool:
    across = _unit(other[1] - one[1])
    return _unit(one[1] - one[0]) @ across >= _LARGEST_TURN and _unit(other[1] - other[0]) @ -across >= _LARGEST_TURN


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / (np.hypot(*vector) or 1)


def _places(lines: Sequence[np.ndarray], snap: float) -> tuple[list[list[int]], np.ndarray]:
    """Return the place of each vertex of each line, and the positions (M, 2) of the places."""
    vertices = np.concatenate(lines).astype(np.float64)
    sizes = [len(line) for line in lines]
    owner = np.repeat(np.arange(len(lines)), sizes)
    along = np.concatenate([stations(np.asarray(line, np.float64)) for line in lines])
    one, other = KDTree(vertices).query_pairs(snap, output_type="ndarray").T
    equal = (vertices[one] == vertices[other]).all(axis=1)
    apart = (owner[one] != owner[other]) | (np.abs(along[one] - along[other]) > 2 * snap)
    one, other = one[equal | apart], other[equal | apart]
    links = coo_array((np.ones(len(one)), (one, other)), shape=(len(vertices), len(vertices)))
    count, place = connected_components(links, directed=False)
    members = np.bincount(place, minlength=count)
    positions = np.stack([np.bincount(place, axis, count) / members for axis in vertices.T], axis=1)
    return [part.tolist() for part in np.split(place, np.cumsum(sizes)[:-1])], positions


def _walk(segments: nx.Graph, start: int, nodes: nx.MultiGraph) -> list[int]:
    """Return the places from ``start`` along one of its segments to the next of ``nodes``."""
    path = [start, next(iter(segments[start]))]
    while path[-1] not in nodes:
        path.append(next(place for place in segments[path[-1]] if place != path[-2]))
    return path
