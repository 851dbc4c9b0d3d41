import networkx as nx
import numpy as np
import pytest
from drawn_graphs import graph_from_nodes as road_graph
from drawn_graphs import moved

from mmseg_ext.metrics.topo import topo


def lines(*roads):
    """Roads without common nodes, each a list of points."""
    nodes = {2 * i + side: road[-side] for i, road in enumerate(roads) for side in (0, 1)}
    return road_graph(nodes, [(2 * i, 2 * i + 1, *road[1:-1]) for i, road in enumerate(roads)])


def f1(precision, recall):
    return 2 * precision * recall / (precision + recall)


ROAD = lines([(0, 0), (200, 0)])
RING = road_graph({0: (0, 0)}, [(0, 0, (100, 0), (100, 100), (0, 100))])
ROUNDABOUT = road_graph(
    {0: (0, 50), 1: (140, 50), 2: (160, 50), 3: (300, 50)}, [(0, 1), (1, 2, (150, 40)), (1, 2, (150, 60)), (2, 3)]
)
PARALLEL = road_graph({0: (0, 0), 1: (100, 0)}, [(0, 1), (0, 1, (0, 60), (100, 60))])
TEE = road_graph({0: (0, 0), 1: (100, 0), 2: (200, 0), 3: (100, 80)}, [(0, 1), (1, 2), (1, 3)])
NOTHING = nx.MultiGraph()
LONE_NODE = road_graph({0: (5, 0)}, [])


def test_road_with_a_missing_end():
    # starts: int(200 / 55.6) = 3, at 50, 100, 150; the prediction ends at 120, so the third has no pair.
    # From 50: holes 8 (44.5) + 26 (144.6) = 34, marbles 8 + 12 (66.7) = 20. From 100: 17 + 17 = 34 and 17 + 3 = 20.
    # Every marble lies in a hole: precision 1, recall 20/34 of two starts of three
    result = topo(lines([(0, 0), (120, 0)]), ROAD)

    assert result.precision == pytest.approx(1)
    assert result.recall == pytest.approx(20 / 34 * 2 / 3)
    assert result.f1 == pytest.approx(f1(1, 20 / 34 * 2 / 3))


def test_a_gap_in_a_road():
    # cut at 98.5 and 101.5: from 50 marbles reach 98.5: 8 + 8; from 100, paired with 98.5 or 101.5: 17 + 0 of 34;
    # from 150 as from 50
    result = topo(lines([(0, 0), (98.5, 0)], [(101.5, 0), (200, 0)]), ROAD)

    assert result.precision == pytest.approx(1)
    assert result.recall == pytest.approx((16 + 17 + 16) / 34 / 3)


def test_too_long_a_road_and_starts_on_one_place():
    # two true roads of 100, 8 apart, one start each at 50; predicted one road between them, -100..200. From 50: holes
    # 8 + 8, marbles 26 + 26: precision 16/52, recall 1. Both starts are paired with one place, so one stays
    truth = lines([(0, 0), (100, 0)], [(0, 8), (100, 8)])
    result = topo(lines([(-100, 4), (200, 4)]), truth)

    assert result.precision == pytest.approx(16 / 52)
    assert result.recall == pytest.approx(1 / 2)


def test_precise_starts_on_one_place_all_stay():
    truth = lines([(0, 0), (100, 0)], [(0, 8), (100, 8)])

    assert topo(lines([(0, 4), (100, 4)]), truth) == pytest.approx((1, 1, 1))


def test_the_radius_ends_the_walks(monkeypatch):
    # two true roads of 100; of the first the prediction goes on, for 900 around a corner
    truth = lines([(0, 0), (100, 0)], [(1000, 0), (1100, 0)])
    beyond = lines([(0, 0), (100, 0), (100, 900)])
    # from 50: 8 marbles to the left; to the right out to 333 m 59 (328.0), out to 166.7 m 29 (161.2). The holes are 16,
    # all filled by the marbles on the road; the second road's start has no pair
    city = topo(beyond, truth)
    monkeypatch.setattr("mmseg_ext.metrics.topo.RADIUS_M", 166.7)
    tile = topo(beyond, truth)

    assert city.precision == pytest.approx(16 / (8 + 59))
    assert tile.precision == pytest.approx(16 / (8 + 29))
    assert city.recall == tile.recall == pytest.approx(1 / 2)


def test_roads_across_are_no_pair():
    across = lines([(50, -60), (50, 60)], [(100, -60), (100, 60)], [(150, -60), (150, 60)])

    assert topo(across, ROAD) == (0, 0, 0)


def test_direction_limit_of_a_pair():
    # 1 - cos(16) = 0.039 < 0.04, 1 - cos(17) = 0.044
    for degrees, found in ((16, True), (17, False)):
        step = 30 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        turned = lines(
            *[[tuple(centre - step), tuple(centre + step)] for centre in np.array([(50, 0), (100, 0), (150, 0)])]
        )

        assert (topo(turned, ROAD).f1 > 0) == found


def test_distance_limit_of_a_pair():
    assert topo(moved(ROAD, shift=(0, 11)), ROAD) == pytest.approx((1, 1, 1))
    assert topo(moved(ROAD, shift=(0, 11.2)), ROAD) == (0, 0, 0)


def test_pixel_steps_do_not_turn_a_road():
    # a slope of 1/2 as a skeleton draws it: steps of 0 and 45 degrees, never 27. All is paired and found; only the
    # steps are 100 (1 + sqrt(2)) = 241 long on a road of 224, so that some marbles find no hole
    pixels = [(x, (x + 1) // 2) for x in range(201)]

    result = topo(lines(pixels), lines([(0, 0), (200, 100)]))

    assert result.recall == pytest.approx(1)
    assert 224 / 241 < result.precision < 1


@pytest.mark.parametrize("graph", [ROAD, RING, ROUNDABOUT, PARALLEL, TEE])
def test_equal_graphs_score_one(graph):
    assert topo(graph, graph) == pytest.approx((1, 1, 1))


def test_ring_opened_by_three_metres():
    # seven starts, 50 apart; in truth both ways around are 200 each: 35 + 35 holes. Opened at 25, the walk from the
    # start at 50 k is 50 k - 26.5 one way and 423.5 - 50 k the other, 333 at most; nearly all its marbles lie in
    # holes
    opened = road_graph({0: (26.5, 0), 1: (23.5, 0)}, [(0, 1, (100, 0), (100, 100), (0, 100), (0, 0))])
    marbles = [int(min(50 * k - 26.5, 333) / 5.56) + int(min(423.5 - 50 * k, 333) / 5.56) for k in range(1, 8)]
    result = topo(opened, RING)

    assert result.precision == pytest.approx(1, abs=0.02)
    assert result.recall == pytest.approx(np.mean(marbles) / 70, abs=0.02)


def test_nothing_to_score():
    nan = np.nan

    assert topo(NOTHING, LONE_NODE) == pytest.approx((nan, nan, nan), nan_ok=True)
    assert topo(ROAD, NOTHING) == pytest.approx((0, 0, nan), nan_ok=True)
    assert topo(LONE_NODE, ROAD) == pytest.approx((0, nan, 0), nan_ok=True)
    # no chain of at least 27.8 m
    assert topo(ROAD, lines([(0, 0), (27, 0)])) == pytest.approx((nan, nan, nan), nan_ok=True)


def test_nodes_without_edges_change_nothing():
    lonely = ROUNDABOUT.copy()
    lonely.add_node(77, x=100.0, y=55.0)

    assert topo(lonely, TEE) == topo(ROUNDABOUT, TEE)
    assert topo(TEE, lonely) == topo(TEE, ROUNDABOUT)


def test_a_road_is_one_chain_through_its_nodes():
    # without joining at x = 40 and 80 the pieces' middles would be the starts
    pieces = road_graph({0: (0, 0), 5: (40, 0), 2: (80, 0), 7: (200, 0)}, [(5, 0), (2, 5), (2, 7)])

    assert topo(lines([(0, 0), (120, 0)]), pieces) == pytest.approx(topo(lines([(0, 0), (120, 0)]), ROAD))


@pytest.mark.parametrize(
    ("matrix", "shift", "gsd_m"),
    [
        ([[-1, 0], [0, 1]], (0, 0), 1),
        ([[0, -1], [1, 0]], (0, 0), 1),
        ([[1, 0], [0, 1]], (512.5, -7), 1),
        ([[4, 0], [0, 4]], (0, 0), 0.25),
    ],
)
def test_flips_turns_shifts_and_units_change_nothing(matrix, shift, gsd_m):
    prediction = lines([(3, 1), (171.3, 2), (230.7, 40)], [(101, 20), (100, 71.7)], [(30, 60), (90.2, 55)])
    result = topo(prediction, TEE)
    other = topo(moved(prediction, matrix, shift), moved(TEE, matrix, shift), gsd_m=gsd_m)

    assert other == pytest.approx(result)
    assert 0 < result.f1 < 1
