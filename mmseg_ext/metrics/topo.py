"""TOPO: what can be reached from places that both graphs have."""

from __future__ import annotations

from typing import NamedTuple

import networkx as nx
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra, maximum_bipartite_matching
from scipy.spatial import cKDTree

from .centrelines import (
    LineNetwork,
    Places,
    chains,
    cut_at,
    directions_on,
    line_network,
    link_matrix,
    near,
    nearest,
    places,
    points_on,
    repeats,
)

# parameters of Sat2Graph on City-Scale, in metres; angles as 1 - |cos|
RADIUS_M = 333.0  # how far both graphs are walked from a start
DENSITY_M = 55.6  # distance of the starts along truth
STEP_M = 5.56  # distance of the marbles and holes along the roads
NEAR_M = 11.1  # marbles, holes and paired starts must be nearer than this,
PAIR_ANGLE = 0.04  # the directions of paired starts closer than this (about 16 degrees),
MATCH_ANGLE = 0.29  # and those of a marble and a hole closer than this (about 45 degrees)
APART_M = 22.2  # of starts paired with places nearer than this to each other only the most precise stays,
PRECISE = 0.9  # unless its precision reaches this
_ROUNDING = 1e-9


class Topo(NamedTuple):
    """TOPO scores 0..1; nan where there is nothing to score."""

    f1: float
    precision: float
    recall: float


def topo(prediction: nx.MultiGraph, truth: nx.MultiGraph, gsd_m: float = 1.0) -> Topo:
    """Score what can be reached (Biagioni & Eriksson 2012, in the variant of Sat2Graph, He et al. 2020, and SAM-Road).

    Starts lie evenly on truth's chains between nodes where not exactly two edges meet. Each is paired with the nearest
    predicted line of its direction. From both places the graphs are walked out to the radius, dropping marbles on the
    prediction and holes on truth at every step; both are matched one to one, as many as possible. A start's precision
    is matched / marbles, its recall matched / holes. Of starts paired with nearly one place, one stays. Precision is
    the mean over those that stay; recall their mean times their share of all starts; F1 the harmonic mean.

    Differences to the published code: marbles drop at multiples of the step of the shortest path from the start (there:
    along a depth-first walk in the order of the edges); directions are chords over one step to both sides, since lines
    from masks have pixel steps (there: of the straight segment); precision and recall share one matching, without the
    second set of holes for roads of two directions; rings without a junction have starts; of equally precise starts the
    first stays; starts lie near the image's border too. Tunnels are unknown here.

    Both graphs without edges: all nan. Only the prediction: precision nan, recall and F1 0. Only truth: recall nan,
    precision and F1 0. Roads in both but no start on truth (chains shorter than half the density): all nan.

    Both graphs are in the same frame; ``gsd_m`` is metres per unit of the coordinates.
    """
    ours, theirs = line_network(prediction, gsd_m), line_network(truth, gsd_m)
    nan = float("nan")
    if len(theirs.ends) == 0:
        return Topo(nan, nan, nan) if len(ours.ends) == 0 else Topo(0.0, 0.0, nan)
    if len(ours.ends) == 0:
        return Topo(0.0, nan, 0.0)
    starts = _starts(theirs)
    if len(starts.edge) == 0:
        return Topo(nan, nan, nan)

    partners = _pair(ours, theirs, starts)
    found = partners.edge >= 0
    marbles, holes = _Walks(ours, partners.pick(found)), _Walks(theirs, starts.pick(found))
    scores = np.array([_start_scores(marbles.drops(i), holes.drops(i)) for i in range(found.sum())])
    kept = _kept(scores.reshape(-1, 2), marbles.apart())
    if len(kept) == 0:
        return Topo(0.0, 0.0, 0.0)
    precision, recall = (float(mean) for mean in scores[kept].mean(axis=0))
    recall *= len(kept) / len(starts.edge)
    total = precision + recall
    return Topo(2 * precision * recall / total if total > 0 else 0.0, precision, recall)


def _starts(roads: LineNetwork) -> Places:
    edge: list[int] = []
    along: list[float] = []
    for chain in chains(roads):
        lengths = roads.lengths[[part for part, _ in chain]]
        ends = np.cumsum(lengths)
        if ends[-1] < DENSITY_M / 2:
            continue
        count = max(int(ends[-1] / DENSITY_M), 1)
        for distance in ends[-1] * np.arange(1, count + 1) / (count + 1):
            index = int(np.searchsorted(ends, distance))
            part, forward = chain[index]
            edge.append(part)
            along.append(distance - ends[index] + lengths[index] if forward else ends[index] - distance)
    return places(edge, along)


def _pair(ours: LineNetwork, theirs: LineNetwork, starts: Places) -> Places:
    """Return the place on the prediction that belongs to each start, none where there is none."""
    point, at, distance = near(ours, points_on(theirs, starts), NEAR_M)
    directions = directions_on(theirs, starts, STEP_M)[point]
    turned = 1 - np.abs((directions * directions_on(ours, at, STEP_M)).sum(axis=1))
    good = (distance < NEAR_M) & (turned < PAIR_ANGLE)
    return nearest(len(starts.edge), point[good], at.pick(good), distance[good])


class _Walks:
    """Walks over a graph from places, each out to the radius."""

    def __init__(self, roads: LineNetwork, starts: Places) -> None:
        self.roads = roads
        self.links, self.nodes = cut_at(roads, starts), len(roads.nodes)
        count = self.nodes + len(starts.edge)
        matrix = link_matrix(self.links.first, self.links.second, self.links.length, count)
        sources = np.arange(self.nodes, count)
        self.lengths = np.empty((0, count))
        if len(sources):
            self.lengths = dijkstra(matrix, directed=False, indices=sources, limit=RADIUS_M)

    def apart(self) -> np.ndarray:
        """Return the path lengths between the starts (S, S), inf beyond the radius."""
        return self.lengths[:, self.nodes :]

    def drops(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Return points (M, 2) and directions (M, 2) at every step of the paths from a start.

        Each link is walked from both ends, up to where the two walks meet.
        """
        links, lengths = self.links, self.lengths[start]
        here = lengths[np.concatenate([links.first, links.second])]
        there = lengths[np.concatenate([links.second, links.first])]
        sign = np.repeat([1.0, -1.0], len(links.first))
        origin = np.concatenate([links.start, links.start + links.length])
        edge, length = np.tile(links.edge, 2), np.tile(links.length, 2)

        reached = np.isfinite(here)
        here, there, sign, origin, edge, length = (a[reached] for a in (here, there, sign, origin, edge, length))
        walked = np.minimum((length + there - here) / 2, RADIUS_M - here)
        first = np.floor(here / STEP_M + _ROUNDING).astype(np.intp) + 1
        last = np.floor((here + walked) / STEP_M + _ROUNDING).astype(np.intp)
        item, rank = repeats(np.maximum(0, last - first + 1))
        walked = (first[item] + rank) * STEP_M - here[item]
        at = Places(edge[item], origin[item] + sign[item] * walked)
        return points_on(self.roads, at), directions_on(self.roads, at, STEP_M)


def _start_scores(marbles: tuple[np.ndarray, ...], holes: tuple[np.ndarray, ...]) -> tuple[float, float]:
    """Return a start's precision and recall from points and directions; nan where one side has none."""
    if len(marbles[0]) == 0 or len(holes[0]) == 0:
        return float("nan"), float("nan")
    close = cKDTree(marbles[0]).query_ball_tree(cKDTree(holes[0]), NEAR_M)
    marble = np.repeat(np.arange(len(close)), [len(around) for around in close])
    hole = np.concatenate([np.asarray(around, dtype=np.intp) for around in close])
    turned = 1 - np.abs((marbles[1][marble] * holes[1][hole]).sum(axis=1))
    good = (turned < MATCH_ANGLE) & (np.hypot(*(marbles[0][marble] - holes[0][hole]).T) < NEAR_M)
    shape = len(marbles[0]), len(holes[0])
    graph = csr_array((np.ones(good.sum()), (marble[good], hole[good])), shape=shape)
    matched = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    return matched / shape[0], matched / shape[1]


def _kept(scores: np.ndarray, apart: np.ndarray) -> list[int]:
    """Return the starts that stay, of those with ``scores`` (S, 2), from the most precise on."""
    scored = np.flatnonzero(~np.isnan(scores[:, 0]))
    kept: list[int] = []
    for start in scored[np.argsort(-scores[scored, 0], kind="stable")]:
        if scores[start, 0] >= PRECISE or not (apart[start, kept] < APART_M).any():
            kept.append(int(start))
    return kept
