"""Average path length similarity (APLS) of two road graphs, in two published variants."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np
from scipy.spatial import cKDTree

from .centrelines import LineNetwork, Places, chains, line_network, node_places, path_lengths, places, points_on, snap


@dataclass(frozen=True)
class SpaceNetApls:
    """APLS of the SpaceNet challenges (Van Etten et al. 2018); the total is the harmonic mean of both directions.

    Control points are all nodes of a graph and points about every ``spacing_m`` inside its edges; nearly straight edges
    and those shorter than 0.75 ``spacing_m`` get none inside, others of up to ``spacing_m`` one in the middle.

    Attributes:
        spacing_m: distance of the control points inside an edge.
        straight: an edge is nearly straight where its length and the diagonal of its bounding box differ by less than
            this share of the length.
        snap_m: how far the other graph's line may be from a control point.
        shortest_m: shorter paths do not count.
        most_nodes: where truth has more, this many nodes drawn from either graph are the control points.
    """

    spacing_m: float = 50.0
    straight: float = 0.012
    snap_m: float = 4.0
    shortest_m: float = 10.0
    most_nodes: int = 500


@dataclass(frozen=True)
class Sat2GraphApls:
    """APLS as Sat2Graph measures it on City-Scale (He et al. 2020; also SAM-Road); the total is the arithmetic mean.

    Edges are parted into hops. Control points are the ends of the chains between nodes where not exactly two edges
    meet, and points inside the longer chains.

    Attributes:
        hop_m: edges are parted into int(length / hop_m) + 1 hops,
        whole_m: unless they are no longer than this.
        long_chain: a chain of more points than this gets control points inside,
        chain_step: one about every that many points.
        snap_m: the other graph's point must be nearer than this to a control point,
        candidates: among that many nearest,
        blocked_hops: and not within so many hops of a point that is taken.
        shortest_m: paths no longer than this do not count.
    """

    hop_m: float = 2.0
    whole_m: float = 3.0
    long_chain: int = 37
    chain_step: int = 25
    snap_m: float = 10.0
    candidates: int = 10
    blocked_hops: int = 4
    shortest_m: float = 100.0


SPACENET = SpaceNetApls()
SAT2GRAPH = Sat2GraphApls()


class Apls(NamedTuple):
    """APLS 0..1 and its two directions; nan where there is nothing to score."""

    apls: float
    truth_to_prediction: float
    prediction_to_truth: float


def apls(
    prediction: nx.MultiGraph,
    truth: nx.MultiGraph,
    variant: SpaceNetApls | Sat2GraphApls = SPACENET,
    gsd_m: float = 1.0,
) -> Apls:
    """Compare the lengths of shortest paths between control points in both graphs.

    For each direction the control points of one graph are snapped onto the other. The difference of a pair is
    min(1, |L - L'| / L) of the path lengths L in their own graph and L' in the other, 1 where the other has no path;
    the direction's score is 1 - the mean difference. The variants differ in what pairs count:

    - `SPACENET`: ordered pairs that their own graph connects. The first point missing in the other graph: 1, however
      short the path; else paths shorter than 10 m are left out, and the second point missing: 1. A direction without a
      pair is 0, and the total then too; nan where neither has one (published as 0).
    - `SAT2GRAPH`: unordered pairs. Either point missing: 1, even where their own graph does not connect them; else only
      paths longer than 100 m count. A direction without a pair is nan, and the total then the other direction.
      Differences to the published code: it visits points in random order, here in the order of nodes and edges; it
      parts straight segments into hops, here the lines of edges (the same where edges are straight); it overlooks
      rings without a junction, here their lowest node is a control point; it merges control points in one cell of 2 m,
      here those within 4 hops of an earlier one are left out, since one to one they could not be found again; it
      leaves out control points within 100 m of the image's border, here none are.

    Graphs without edges are empty: both, the total is nan; one of them, 0.

    The time grows with the square of the number of control points.

    Both graphs are in the same frame; ``gsd_m`` is metres per unit of the coordinates.
    """
    ours, theirs = line_network(prediction, gsd_m), line_network(truth, gsd_m)
    if isinstance(variant, SpaceNetApls):
        few = len(theirs.nodes) <= variant.most_nodes
        forth, back = (_spacenet(own, other, variant, few) for own, other in ((theirs, ours), (ours, theirs)))
        if np.isnan(forth) and np.isnan(back):
            return Apls(*3 * [float("nan")])
        forth, back = (0.0 if np.isnan(score) else score for score in (forth, back))
        total = 2 * forth * back / (forth + back) if min(forth, back) > 0 else 0.0
    else:
        forth, back = (_sat2graph(own, other, variant) for own, other in ((theirs, ours), (ours, theirs)))
        scores = [score for score in (forth, back) if not np.isnan(score)]
        total = sum(scores) / len(scores) if scores else float("nan")
    empty = (len(ours.lengths) == 0) + (len(theirs.lengths) == 0)
    if empty == 2:
        return Apls(*3 * [float("nan")])
    return Apls(0.0 if empty else total, forth, back)


def _similarity(lost: int, lengths: np.ndarray, others: np.ndarray) -> float:
    """Return 1 - the mean difference of ``lost`` missing paths and of paths with ``lengths`` (N,) and ``others``."""
    differences = np.concatenate([np.ones(lost), np.minimum(1, np.abs(lengths - others) / lengths)])
    return 1 - float(differences.mean()) if len(differences) else float("nan")


def _spacenet(own: LineNetwork, other: LineNetwork, variant: SpaceNetApls, few: bool) -> float:
    """Score the direction from ``own`` to ``other``; ``few``: take all nodes and points inside the edges."""
    control = node_places(own)
    control = control.pick(control.edge >= 0)
    if few:
        control = Places(*map(np.concatenate, zip(control, _inside_edges(own, variant), strict=True)))
    elif len(control.edge) > variant.most_nodes:
        control = control.pick(np.random.default_rng(0).choice(len(control.edge), variant.most_nodes, replace=False))

    snapped = snap(other, points_on(own, control), variant.snap_m)
    missing = snapped.edge < 0
    lengths, others = path_lengths(own, control), path_lengths(other, snapped)
    paired = np.isfinite(lengths) & ~np.eye(len(lengths), dtype=bool)
    lost = paired & missing[:, None]
    counted = paired & ~missing[:, None] & (lengths >= variant.shortest_m)
    return _similarity(int(np.count_nonzero(lost)), lengths[counted], others[counted])


def _inside_edges(roads: LineNetwork, variant: SpaceNetApls) -> Places:
    edge: list[int] = []
    along: list[float] = []
    for index, length in enumerate(roads.lengths):
        diagonal = np.hypot(*np.ptp(roads.vertices[roads.edges == index], axis=0))
        if length < 0.75 * variant.spacing_m or abs(diagonal - length) < variant.straight * length:
            continue
        pieces = max(2, int(np.ceil(length / variant.spacing_m)))
        along.extend(length * np.arange(1, pieces) / pieces)
        edge.extend([index] * (pieces - 1))
    return places(edge, along)


class _Hops(NamedTuple):
    """A graph parted into hops: the place of each point, its neighbours, the points along each edge."""

    at: Places
    neighbours: list[set[int]]
    along_edge: list[list[int]]


def _hops(roads: LineNetwork, variant: Sat2GraphApls) -> _Hops:
    nodes = node_places(roads)
    edge, along = list(nodes.edge), list(nodes.along)
    neighbours: list[set[int]] = [set() for _ in edge]
    along_edge = []
    for index, (length, (start, end)) in enumerate(zip(roads.lengths, roads.ends, strict=True)):
        count = int(length / variant.hop_m) + 1 if length > variant.whole_m else 1
        points = [int(start), *range(len(edge), len(edge) + count - 1), int(end)]
        edge.extend([index] * (count - 1))
        along.extend(length * np.arange(1, count) / count)
        neighbours.extend(set() for _ in range(count - 1))
        for a, b in pairwise(points):
            neighbours[a].add(b)
            neighbours[b].add(a)
        along_edge.append(points)
    return _Hops(places(edge, along), neighbours, along_edge)


def _control_points(roads: LineNetwork, hops: _Hops, variant: Sat2GraphApls) -> np.ndarray:
    control: set[int] = set()
    for chain in chains(roads):
        points: list[int] = []
        for edge, forward in chain:
            points.extend(hops.along_edge[edge][:: 1 if forward else -1][len(points) > 0 :])
        control.update((points[0], points[-1]))
        if len(points) > variant.long_chain:
            parts = int(len(points) / variant.chain_step) + 1
            control.update(points[int(len(points) * i / parts)] for i in range(1, parts))
    kept: list[int] = []
    blocked: set[int] = set()
    for point in sorted(control):  # nodes before points along edges
        if point not in blocked:
            kept.append(point)
            blocked |= _within(hops.neighbours, point, variant.blocked_hops)
    return np.array(kept, dtype=np.intp)


def _snap_one_to_one(points: np.ndarray, other: LineNetwork, variant: Sat2GraphApls) -> Places:
    """Snap each of ``points`` onto a point of ``other``'s hops that no earlier one has blocked."""
    hops = _hops(other, variant)
    on_line = np.flatnonzero(hops.at.edge >= 0)
    found = np.full(len(points), -1)
    if len(points) and len(on_line):
        tree = cKDTree(points_on(other, hops.at.pick(on_line)))
        distances, ranks = tree.query(points, k=np.arange(1, variant.candidates + 1))
        blocked: set[int] = set()
        for i, (near, rank) in enumerate(zip(distances, ranks, strict=True)):
            free = [int(on_line[r]) for r, d in zip(rank, near, strict=True) if d < variant.snap_m]
            free = [point for point in free if point not in blocked]
            if free:
                found[i] = free[0]
                blocked |= _within(hops.neighbours, free[0], variant.blocked_hops)
    # index -1 of both, past the last point, is no place
    return places(np.append(hops.at.edge, -1)[found], np.append(hops.at.along, 0.0)[found])


def _within(neighbours: list[set[int]], start: int, hops: int) -> set[int]:
    reached = ring = {start}
    for _ in range(hops):
        ring = {beyond for point in ring for beyond in neighbours[point]} - reached
        reached = reached | ring
    return reached


def _sat2graph(own: LineNetwork, other: LineNetwork, variant: Sat2GraphApls) -> float:
    """Score the direction from ``own`` to ``other``."""
    hops = _hops(own, variant)
    control = hops.at.pick(_control_points(own, hops, variant))
    points = points_on(own, control)
    snapped = _snap_one_to_one(points, other, variant)
    pairs = np.triu_indices(len(points), k=1)
    missing = (snapped.edge < 0)[pairs[0]] | (snapped.edge < 0)[pairs[1]]
    lengths, others = path_lengths(own, control)[pairs], path_lengths(other, snapped)[pairs]
    counted = ~missing & np.isfinite(lengths) & (lengths > variant.shortest_m)
    return _similarity(int(np.count_nonzero(missing)), lengths[counted], others[counted])
