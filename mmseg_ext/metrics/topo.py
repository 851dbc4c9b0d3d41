"""TOPO: what can be reached from places that both graphs have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import networkx as nx
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra, maximum_bipartite_matching
from scipy.spatial import cKDTree

from .graph_points import (
    Links,
    Places,
    RoadLines,
    chains,
    cut_at,
    directions_on,
    link_matrix,
    near,
    nearest,
    places,
    points_on,
    repeats,
    road_lines,
)

_ROUNDING = 1e-9


@dataclass(frozen=True)
class TopoVariant:
    """Parameters of TOPO, in metres; angles as 1 - |cos|.

    Attributes:
        radius_m: how far both graphs are walked from a start.
        density_m: distance of the starts along truth.
        margin: share of the region's sides where no starts lie.
        step_m: distance of the marbles and holes along the roads.
        near_m: marbles, holes and paired starts must be nearer than this.
        pair_angle: and the directions of paired starts closer than this (about 16 degrees),
        match_angle: those of a marble and a hole closer than this (about 45 degrees).
        apart_m: of starts paired with places nearer than this to each other only the most precise stays,
        precise: unless its precision reaches this.
    """

    radius_m: float = 333.0
    density_m: float = 55.6
    margin: float = 0.07
    step_m: float = 5.56
    near_m: float = 11.1
    pair_angle: float = 0.04
    match_angle: float = 0.29
    apart_m: float = 22.2
    precise: float = 0.9


CITY_SCALE = TopoVariant()
SPACENET = TopoVariant(radius_m=166.7)


class Topo(NamedTuple):
    """TOPO scores 0..1; nan where there is nothing to score."""

    f1: float
    precision: float
    recall: float


def topo(
    prediction: nx.MultiGraph,
    truth: nx.MultiGraph,
    variant: TopoVariant = CITY_SCALE,
    gsd_m: float = 1.0,
    region: tuple[float, float, float, float] | None = None,
) -> Topo:
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
    first stays. Tunnels are unknown here.

    Both graphs without edges: all nan. Only the prediction: precision nan, recall and F1 0. Only truth: recall nan,
    precision and F1 0. Roads in both but no start on truth (chains shorter than half the density, or in the margin):
    all nan.

    Args:
        prediction: road graph.
        truth: road graph in the same frame and unit.
        variant: `CITY_SCALE` or `SPACENET` (smaller tiles).
        gsd_m: metres per unit of the coordinates.
        region: (x0, y0, x1, y1) of the image in the unit of the coordinates: no starts within a margin of 7 % of its
            sides; None leaves out nothing.

    Returns:
        F1, precision, recall.
    """
    ours, theirs = road_lines(prediction, gsd_m), road_lines(truth, gsd_m)
    nan = float("nan")
    if len(theirs.ends) == 0:
        return Topo(nan, nan, nan) if len(ours.ends) == 0 else Topo(0.0, 0.0, nan)
    if len(ours.ends) == 0:
        return Topo(0.0, nan, 0.0)
    starts = _starts(theirs, variant, None if region is None else np.asarray(region, dtype=np.float64) * gsd_m)
    if len(starts.edge) == 0:
        return Topo(nan, nan, nan)

    partners = _pair(ours, theirs, starts, variant)
    found = partners.edge >= 0
    marbles = _Walks(ours, partners.pick(found), variant)
    holes = _Walks(theirs, starts.pick(found), variant)
    scores = np.array([_start_scores(marbles.drops(i), holes.drops(i), variant) for i in range(found.sum())])
    kept = _kept(scores.reshape(-1, 2), marbles.apart(), variant)
    if len(kept) == 0:
        return Topo(0.0, 0.0, 0.0)
    precision, recall = (float(mean) for mean in scores[kept].mean(axis=0))
    recall *= len(kept) / len(starts.edge)
    total = precision + recall
    return Topo(2 * precision * recall / total if total > 0 else 0.0, precision, recall)


def _starts(roads: RoadLines, variant: TopoVariant, region: np.ndarray | None) -> Places:
    edge: list[int] = []
    along: list[float] = []
    for chain in chains(roads):
        lengths = roads.lengths[[part for part, _ in chain]]
        ends = np.cumsum(lengths)
        if ends[-1] < variant.density_m / 2:
            continue
        count = max(int(ends[-1] / variant.density_m), 1)
        for distance in ends[-1] * np.arange(1, count + 1) / (count + 1):
            index = int(np.searchsorted(ends, distance))
            part, forward = chain[index]
            edge.append(part)
            along.append(distance - ends[index] + lengths[index] if forward else ends[index] - distance)
    found = places(edge, along)
    if region is None:
        return found
    points, border = points_on(roads, found), variant.margin * (region[2:] - region[:2])
    return found.pick(((points > region[:2] + border) & (points < region[2:] - border)).all(axis=1))


def _pair(ours: RoadLines, theirs: RoadLines, starts: Places, variant: TopoVariant) -> Places:
    """Return the place on the prediction that belongs to each start, none where there is none."""
    point, at, distance = near(ours, points_on(theirs, starts), variant.near_m)
    directions = directions_on(theirs, starts, variant.step_m)[point]
    turned = 1 - np.abs((directions * directions_on(ours, at, variant.step_m)).sum(axis=1))
    good = (distance < variant.near_m) & (turned < variant.pair_angle)
    return nearest(len(starts.edge), point[good], at.pick(good), distance[good])


class _Walks:
    """Walks over a graph from places, each out to the variant's radius."""

    def __init__(self, roads: RoadLines, starts: Places, variant: TopoVariant) -> None:
        self.roads, self.variant = roads, variant
        self.links, self.nodes = cut_at(roads, starts), len(roads.nodes)
        count = self.nodes + len(starts.edge)
        matrix = link_matrix(self.links.first, self.links.second, self.links.length, count)
        sources = np.arange(self.nodes, count)
        self.lengths = np.empty((0, count))
        if len(sources):
            self.lengths = dijkstra(matrix, directed=False, indices=sources, limit=variant.radius_m)

    def apart(self) -> np.ndarray:
        """Return the path lengths between the starts (S, S), inf beyond the radius."""
        return self.lengths[:, self.nodes :]

    def drops(self, start: int) -> tuple[np.ndarray, np.ndarray]:
        """Return points (M, 2) and directions (M, 2) at every step of the paths from a start."""
        at = _dropped(self.links, self.lengths[start], self.variant)
        return points_on(self.roads, at), directions_on(self.roads, at, self.variant.step_m)


def _dropped(links: Links, lengths: np.ndarray, variant: TopoVariant) -> Places:
    """Return the places at multiples of the step from a start, given each vertex's path length from it.

    Each link is walked from both ends, up to where the two walks meet.
    """
    here = lengths[np.concatenate([links.first, links.second])]
    there = lengths[np.concatenate([links.second, links.first])]
    sign = np.repeat([1.0, -1.0], len(links.first))
    origin = np.concatenate([links.start, links.start + links.length])
    edge, length = np.tile(links.edge, 2), np.tile(links.length, 2)

    reached = np.isfinite(here)
    here, there, sign, origin, edge, length = (a[reached] for a in (here, there, sign, origin, edge, length))
    walked = np.minimum((length + there - here) / 2, variant.radius_m - here)
    first = np.floor(here / variant.step_m + _ROUNDING).astype(np.intp) + 1
    last = np.floor((here + walked) / variant.step_m + _ROUNDING).astype(np.intp)
    count = np.maximum(0, last - first + 1)
    item, rank = repeats(count)
    walked = (first[item] + rank) * variant.step_m - here[item]
    return Places(edge[item], origin[item] + sign[item] * walked)


_Drops = tuple[np.ndarray, np.ndarray]


def _start_scores(marbles: _Drops, holes: _Drops, variant: TopoVariant) -> tuple[float, float]:
    """Return a start's precision and recall; nan where nothing was dropped on one side."""
    if len(marbles[0]) == 0 or len(holes[0]) == 0:
        return float("nan"), float("nan")
    close = cKDTree(marbles[0]).query_ball_tree(cKDTree(holes[0]), variant.near_m)
    marble = np.repeat(np.arange(len(close)), [len(around) for around in close])
    hole = np.concatenate([np.asarray(around, dtype=np.intp) for around in close])
    turned = 1 - np.abs((marbles[1][marble] * holes[1][hole]).sum(axis=1))
    good = (turned < variant.match_angle) & (np.hypot(*(marbles[0][marble] - holes[0][hole]).T) < variant.near_m)
    shape = len(marbles[0]), len(holes[0])
    graph = csr_array((np.ones(good.sum()), (marble[good], hole[good])), shape=shape)
    matched = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    return matched / shape[0], matched / shape[1]


def _kept(scores: np.ndarray, apart: np.ndarray, variant: TopoVariant) -> list[int]:
    """Return the starts that stay, of those with ``scores`` (S, 2), from the most precise on."""
    scored = np.flatnonzero(~np.isnan(scores[:, 0]))
    kept: list[int] = []
    for start in scored[np.argsort(-scores[scored, 0], kind="stable")]:
        if scores[start, 0] >= variant.precise or not (apart[start, kept] < variant.apart_m).any():
            kept.append(int(start))
    return kept
