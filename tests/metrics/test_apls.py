import math
from itertools import combinations, pairwise, permutations

import networkx as nx
import numpy as np
import pytest
from drawn_graphs import graph_from_nodes as road_graph
from drawn_graphs import moved

from mmseg_ext.metrics.apls import SAT2GRAPH, SPACENET, SpaceNetApls, apls
from mmseg_ext.roads import polyline

VARIANTS = [SPACENET, SAT2GRAPH]


CORNERS = {0: (0, 0), 1: (100, 0), 2: (100, 100), 3: (0, 100)}
SQUARE = road_graph(CORNERS, [(0, 1), (1, 2), (2, 3), (3, 0)])
RING = road_graph({0: (0, 0)}, [(0, 0, (50, 0), (50, 50), (0, 50))])
BIG_RING = moved(RING, ((4, 0), (0, 4)))
ROUNDABOUT = road_graph(
    {0: (0, 150), 1: (130, 150), 2: (170, 150), 3: (300, 150)}, [(0, 1), (1, 2, (150, 130)), (1, 2, (150, 170)), (2, 3)]
)
ZIGZAG = road_graph({0: (0, 0), 1: (400, 0)}, [(0, 1, (100, 60), (200, 0), (300, 60))])
NOTHING = nx.MultiGraph()
LONE_NODE = road_graph({0: (5, 0)}, [])


# ---- SpaceNet, by hand


def test_spacenet_road_with_a_missing_half():
    # a straight road has no control points but its ends. Truth's second end is missing: 1 both as start and as end of
    # a path, so 0. The half's ends lie on truth, 50 apart as well: 1. The harmonic mean with 0 is 0
    road = road_graph({0: (0, 0), 1: (100, 0)}, [(0, 1)])
    half = road_graph({0: (0, 0), 1: (50, 0)}, [(0, 1)])

    assert apls(half, road) == (0, 0, 1)


def test_spacenet_square_with_a_missing_side():
    # truth to prediction: side 0-1 is 100 but 300 around, difference 1; the other five pairs of corners keep their
    # lengths: 1 - 1/6. Back: 0-1 is 300 but 100 in truth, difference 2/3 of six pairs: 1 - 1/9
    result = apls(road_graph(CORNERS, [(1, 2), (2, 3), (3, 0)]), SQUARE)

    assert result.truth_to_prediction == pytest.approx(5 / 6)
    assert result.prediction_to_truth == pytest.approx(8 / 9)
    assert result.apls == pytest.approx(2 / (6 / 5 + 9 / 8))


def test_spacenet_a_missing_start_counts_however_near():
    # truth 0 -5- 1 -95- 2, predicted from 1 on; node 0 is 5 away: missing.
    # 0-1: 1, 0-2: 1, 1-0: shorter than 10, left out, 1-2: 0, 2-0: 1, 2-1: 0. So 1 - 3/5
    truth = road_graph({0: (0, 0), 1: (5, 0), 2: (100, 0)}, [(0, 1), (1, 2)])
    prediction = road_graph({1: (5, 0), 2: (100, 0)}, [(1, 2)])

    assert apls(prediction, truth).truth_to_prediction == pytest.approx(2 / 5)


def test_spacenet_ring_opened_by_three_metres():
    # the ring of 200 has its node at 0 and points at 50, 100, 150. Opened between 23.5 and 26.5: 0 to 50 is 150 around,
    # difference 1; five other pairs as before: 1 - 1/6.
    # Back: the open line of 197 has its ends and points at 49.25, 98.5, 147.75. End to end: 197, in truth 3; an end to
    # the far point: 147.75, in truth 52.25, twice; seven pairs are as long in truth
    opened = road_graph({0: (26.5, 0), 1: (23.5, 0)}, [(0, 1, (50, 0), (50, 50), (0, 50), (0, 0))])
    result = apls(opened, RING)
    back = 1 - (194 / 197 + 2 * 95.5 / 147.75) / 10

    assert result.truth_to_prediction == pytest.approx(5 / 6)
    assert result.prediction_to_truth == pytest.approx(back)
    assert result.apls == pytest.approx(2 / (6 / 5 + 1 / back))


def test_spacenet_the_shorter_parallel_road_counts():
    # A and B are 100 apart, and a way around of 200 has points at 50, 100, 150; predicted is only the way around.
    # Of ten pairs only A-B differs: 100, then 200
    both = road_graph({0: (0, 0), 1: (100, 0)}, [(0, 1), (0, 1, (0, 50), (100, 50))])
    around = road_graph({0: (0, 0), 1: (100, 0)}, [(0, 1, (0, 50), (100, 50))])

    assert apls(around, both).truth_to_prediction == pytest.approx(9 / 10)


def test_spacenet_snaps_within_four_metres():
    # a road 4 beside the true one has both ends, one 4.1 beside it none
    road = road_graph({0: (0, 0), 1: (100, 0)}, [(0, 1)])

    assert apls(moved(road, shift=(0, 4)), road) == (1, 1, 1)
    assert apls(moved(road, shift=(0, 4.1)), road) == (0, 0, 0)


def test_spacenet_draws_nodes_of_a_large_graph():
    variant = SpaceNetApls(most_nodes=3)
    without = road_graph(CORNERS, [(1, 2), (2, 3), (3, 0)])
    results = {apls(without, SQUARE, variant) for _ in range(3)}

    assert apls(SQUARE, SQUARE, variant) == (1, 1, 1)
    assert len(results) == 1
    # three corners, three pairs: side 0-1 is among them (2/3, 7/9) or not (1, 1)
    assert results.pop().truth_to_prediction in (pytest.approx(2 / 3), 1)


# ---- Sat2Graph, by hand

STREET = road_graph({0: (0, 200), 1: (400, 200)}, [(0, 1)])


def test_sat2graph_road_with_a_gap():
    # 400 m are 201 hops, 202 points; n = int(202 / 25) + 1 = 9, so points 22, 44, 67, 89, 112, ... of 1.99 m: at
    # 43.8, 87.6, 133.3, 177.1 and mirrored 222.9, ...; with the ends five on either half, all snapped.
    # Of the 25 pairs across the gap 3 are not longer than 100; of those on one half 3 are, twice, and those are kept.
    # So 22 of 28 pairs are lost. Snapping moves points by less than a hop, that is under 1.5 % of the 133 m or more.
    # Back: no pair crosses the gap; the points at its two ends block each other, one moves by 5 hops
    prediction = road_graph({0: (0, 200), 1: (198.5, 200), 2: (201.5, 200), 3: (400, 200)}, [(0, 1), (2, 3)])
    result = apls(prediction, STREET, SAT2GRAPH)

    assert result.truth_to_prediction == pytest.approx(6 / 28, abs=0.004)
    assert result.prediction_to_truth == pytest.approx(1, abs=0.02)
    assert result.apls == pytest.approx((result.truth_to_prediction + result.prediction_to_truth) / 2)


def test_sat2graph_a_missing_point_counts_even_where_truth_does_not_connect():
    # truth: roads of 30 m far from each other, ends only; predicted the first. Of 6 pairs 5 have a missing end; the
    # sixth is shorter than 100: 0. Back: the only pair is too short: nan; the total is the direction that counts
    truth = road_graph({0: (0, 0), 1: (30, 0), 2: (900, 0), 3: (930, 0)}, [(0, 1), (2, 3)])
    result = apls(road_graph({0: (0, 0), 1: (30, 0)}, [(0, 1)]), truth, SAT2GRAPH)

    assert result == pytest.approx((0, 0, np.nan), nan_ok=True)


def test_sat2graph_control_points_close_together_are_one():
    # nodes 1 and 2 are 6 m apart, that is int(6 / 2) + 1 = 4 hops: 2 would be blocked by 1 and never found
    graph = road_graph(
        {0: (0, 0), 1: (150, 0), 2: (156, 0), 3: (300, 0), 4: (156, 120)}, [(0, 1), (1, 2), (2, 3), (2, 4), (1, 4)]
    )
    assert apls(graph, graph, SAT2GRAPH) == pytest.approx((1, 1, 1))


def test_spacenet_without_a_path_of_ten_metres_has_nothing_to_score():
    short = road_graph({0: (0, 0), 1: (9, 0)}, [(0, 1)])
    long = road_graph({0: (0, 0), 1: (30, 0)}, [(0, 1)])
    assert apls(short, short) == pytest.approx((np.nan,) * 3, nan_ok=True)
    assert apls(short, long).apls == apls(long, short).apls == 0


def test_sat2graph_short_roads_give_nothing_to_score():
    short = road_graph({0: (0, 0), 1: (30, 0)}, [(0, 1)])

    assert apls(short, short, SAT2GRAPH) == pytest.approx((np.nan,) * 3, nan_ok=True)


def test_sat2graph_snaps_one_to_one():
    # truth: two roads 4 apart; predicted one between them. Each road has points at 0, 39.6, 79.2, 120.8, 160.4, 200.
    # The first road's take all places: up to 4 hops of 1.98 beside them are blocked, and a fifth, 9.9 along and 2
    # across, is 10.1 from the second road's points: missing. Of 66 pairs 51 have a missing point; of the first road's
    # 15 those three steps apart or more are longer than 100: 6, all kept
    first = road_graph({0: (0, 0), 1: (200, 0)}, [(0, 1)])
    both = road_graph({0: (0, 0), 1: (200, 0), 2: (0, 4), 3: (200, 4)}, [(0, 1), (2, 3)])
    one = road_graph({0: (0, 2), 1: (200, 2)}, [(0, 1)])

    assert apls(one, both, SAT2GRAPH).truth_to_prediction == pytest.approx(6 / 57)
    assert apls(one, first, SAT2GRAPH).truth_to_prediction == pytest.approx(1)


def test_sat2graph_counts_up_to_the_border_and_in_metres():
    # predicted 90..310 of 0..400
    part = road_graph({0: (90, 200), 1: (310, 200)}, [(0, 1)])
    found = apls(part, STREET, SAT2GRAPH)

    assert found.truth_to_prediction < 0.4
    in_pixels = apls(moved(part, ((2, 0), (0, 2))), moved(STREET, ((2, 0), (0, 2))), SAT2GRAPH, gsd_m=0.5)
    assert in_pixels == pytest.approx(found)


# ---- both


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("graph", [SQUARE, BIG_RING, ROUNDABOUT, ZIGZAG])
def test_equal_graphs_score_one(graph, variant):
    assert apls(graph, graph, variant) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gap_of_three_pixels_costs_much(variant):
    line = ZIGZAG.edges[0, 1, 0]["line"]
    whole = polyline.length(line)
    parts = [polyline.cut(line, 0, whole / 2 - 1.5), polyline.cut(line, whole / 2 + 1.5, whole)]
    gap = road_graph(
        {2 * i + side: tuple(part[-side]) for i, part in enumerate(parts) for side in (0, 1)},
        [(2 * i, 2 * i + 1, *map(tuple, part[1:-1])) for i, part in enumerate(parts)],
    )

    assert apls(gap, ZIGZAG, variant).apls < 0.65


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("empty", [NOTHING, LONE_NODE])
def test_nothing_to_score(empty, variant):
    assert apls(empty, NOTHING, variant) == pytest.approx((np.nan,) * 3, nan_ok=True)
    assert apls(empty, ZIGZAG, variant).apls == 0
    assert apls(ZIGZAG, empty, variant).apls == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_nodes_without_edges_change_nothing(variant):
    prediction, truth = random_pair(1)
    lonely = prediction.copy()
    lonely.add_node(99, x=150.0, y=150.0)

    assert apls(lonely, truth, variant) == apls(prediction, truth, variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_swap_changes_only_the_directions(variant):
    prediction, truth = random_pair(2)
    forth, back = apls(prediction, truth, variant), apls(truth, prediction, variant)

    assert forth.apls == pytest.approx(back.apls)
    assert forth.truth_to_prediction == pytest.approx(back.prediction_to_truth)
    assert 0 < forth.apls < 1


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("matrix", "shift", "gsd_m"),
    [
        ([[-1, 0], [0, 1]], (0, 0), 1),
        ([[0, -1], [1, 0]], (0, 0), 1),
        ([[1, 0], [0, 1]], (512.5, -7), 1),
        ([[4, 0], [0, 4]], (0, 0), 0.25),
    ],
)
def test_flips_turns_shifts_and_units_change_nothing(matrix, shift, gsd_m, variant):
    prediction, truth = random_pair(3)
    other = apls(moved(prediction, matrix, shift), moved(truth, matrix, shift), variant, gsd_m)

    assert other == pytest.approx(apls(prediction, truth, variant))


# ---- a second implementation, in plain loops over networkx graphs


def random_pair(seed):
    """A random graph with bends, rings and parallel roads, and a shaken copy that lacks some roads."""
    random = np.random.default_rng(seed)
    count = random.integers(4, 8)
    nodes = {int(key): tuple(random.uniform(0, 300, 2)) for key in random.permutation(20)[:count]}
    roads = []
    for _ in range(random.integers(3, 9)):
        u, v = (int(key) for key in random.choice(list(nodes), 2))
        bends = random.integers(2 if u == v else 0, 4)
        roads.append((u, v, *(tuple(random.uniform(0, 300, 2)) for _ in range(bends))))

    def shaken(point):
        return tuple(np.add(point, random.normal(0, 1.5, 2)))

    others = {key: shaken(point) for key, point in nodes.items()}
    kept = [(u, v, *map(shaken, bends)) for u, v, *bends in roads if random.random() < 0.8]
    return road_graph(others, kept), road_graph(nodes, roads)


def shortest(graph, stops):
    """All shortest paths of ``graph`` with nodes inserted: stops {name: ((u, v, key), along)}."""
    simple = nx.Graph()
    simple.add_nodes_from(graph.nodes)
    for edge in graph.edges(keys=True):
        edge = (min(edge[:2]), max(edge[:2]), edge[2])
        on = sorted((along, name) for name, (owner, along) in stops.items() if owner == edge)
        length = graph.edges[edge]["length"]
        for (start, a), (end, b) in pairwise([(0, edge[0]), *on, (length, edge[1])]):
            weight = min(end - start, simple.edges[a, b]["weight"] if simple.has_edge(a, b) else np.inf)
            simple.add_edge(a, b, weight=weight)
    return dict(nx.all_pairs_dijkstra_path_length(simple))


def spacenet_points(graph):
    """{name: (x, y)} and the inserted ones' {name: (edge, along)}."""
    points = {node: (graph.nodes[node]["x"], graph.nodes[node]["y"]) for node in graph.nodes}
    stops = {}
    for u, v, key, edge in graph.edges(keys=True, data=True):
        line, length = edge["line"], edge["length"]
        box = np.hypot(*(line.max(axis=0) - line.min(axis=0)))
        if abs(box - length) / length < 0.012 or length < 37.5:
            continue
        if length <= 50:
            inner = [length / 2]
        else:
            inner = np.linspace(0, length, len(np.arange(0, length, 50)) + 1)[1:-1]
        for along in inner:
            name = 1000 + len(stops)
            stops[name] = ((min(u, v), max(u, v), key), along)
            points[name] = tuple(polyline.points_at(line, np.array([along]))[0])
    return points, stops


def spacenet_direction(own, other):
    points, own_stops = spacenet_points(own)
    found = {}
    for name, point in points.items():
        feet = []
        for u, v, key, edge in other.edges(keys=True, data=True):
            distance, along = polyline.project(edge["line"], np.array(point))
            feet.append((distance, (min(u, v), max(u, v), key), along))
        if feet and min(feet)[0] <= 4:
            found[5000 + name] = min(feet)[1:]
    lengths, others = shortest(own, own_stops), shortest(other, found)
    differences = []
    for a, b in permutations(points, 2):
        if b not in lengths[a]:
            continue
        if 5000 + a not in found:
            differences.append(1)
        elif lengths[a][b] >= 10:
            reached = others[5000 + a].get(5000 + b) if 5000 + b in found else None
            differences.append(1 if reached is None else min(1, abs(lengths[a][b] - reached) / lengths[a][b]))
    return 1 - np.mean(differences) if differences else 0.0


def sat2graph_hops(graph):
    hops = nx.Graph()
    for u, v, key in sorted((min(u, v), max(u, v), key) for u, v, key in graph.edges(keys=True)):
        line, length = graph.edges[u, v, key]["line"], graph.edges[u, v, key]["length"]
        count = int(length / 2) + 1 if length > 3 else 1
        names = [(u,), *((u, v, key, i) for i in range(1, count)), (v,)]
        for name, at in zip(names, polyline.points_at(line, np.linspace(0, length, count + 1)), strict=True):
            hops.add_node(name, at=at)
        for a, b in pairwise(names):
            hops.add_edge(a, b, weight=length / count)
    return hops


def sat2graph_control(hops):
    crossings = {name for name in hops if hops.degree(name) != 2}
    for part in nx.connected_components(hops):
        if not part & crossings:
            crossings.add(min(name for name in part if len(name) == 1))
    control = set(crossings)
    walked = set()
    for start in sorted(crossings, key=lambda name: (hops.degree(name) == 2, name)):
        # in the order of the roads that start here
        for step in sorted(hops[start], key=lambda name: (name[:3], name[3] if name[0] == start[0] else -name[3])):
            if step in walked:
                continue
            chain = [start, step]
            while chain[-1] not in crossings:
                walked.add(chain[-1])
                chain.append(next(name for name in hops[chain[-1]] if name != chain[-2]))
            if len(chain) > 37:
                n = int(len(chain) / 25) + 1
                control |= {chain[int(len(chain) * i / n)] for i in range(1, n)}
    ordered = sorted(name for name in control if len(name) == 1) + sorted(name for name in control if len(name) > 1)
    kept, near = [], set()
    for name in ordered:
        if name not in near:
            kept.append(name)
            near |= set(nx.single_source_shortest_path_length(hops, name, cutoff=4))
    return kept


def sat2graph_direction(own, other):
    own, other = sat2graph_hops(own), sat2graph_hops(other)
    found, blocked = {}, set()
    control = sat2graph_control(own)
    for name in control:
        distances = sorted((math.dist(own.nodes[name]["at"], other.nodes[b]["at"]), b) for b in other)[:10]
        for distance, candidate in distances:
            if distance < 10 and candidate not in blocked:
                found[name] = candidate
                blocked |= set(nx.single_source_shortest_path_length(other, candidate, cutoff=4))
                break
    lengths = {a: nx.single_source_dijkstra_path_length(own, a) for a in control}
    others = {b: nx.single_source_dijkstra_path_length(other, b) for b in found.values()}
    differences = []
    for a, b in combinations(control, 2):
        if a not in found or b not in found:
            differences.append(1)
        elif lengths[a].get(b, 0) > 100:
            reached = others[found[a]].get(found[b], 0)
            differences.append(min(1, abs(lengths[a][b] - reached) / lengths[a][b]) if reached else 1)
    return 1 - np.mean(differences) if differences else np.nan


@pytest.mark.parametrize("seed", range(30))
def test_spacenet_agrees_with_plain_loops(seed):
    prediction, truth = random_pair(seed)
    result = apls(prediction, truth)
    forth, back = spacenet_direction(truth, prediction), spacenet_direction(prediction, truth)

    assert result[1:] == pytest.approx((forth, back))
    assert result.apls == pytest.approx(2 * forth * back / (forth + back) if forth > 0 and back > 0 else 0)


@pytest.mark.parametrize("seed", range(20))
def test_sat2graph_agrees_with_plain_loops(seed):
    prediction, truth = random_pair(seed)
    result = apls(prediction, truth, SAT2GRAPH)

    assert result[1:] == pytest.approx(
        (sat2graph_direction(truth, prediction), sat2graph_direction(prediction, truth)), nan_ok=True
    )
