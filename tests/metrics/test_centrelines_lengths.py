import networkx as nx
import numpy as np
import pytest
from drawn_graphs import graph_from_nodes as road_graph
from drawn_graphs import moved

from mmseg_ext.metrics.centrelines import centreline_lengths
from mmseg_ext.metrics.pixels import MatchedCounts
from mmseg_ext.roads import polyline


def scores(prediction, truth, buffer=3.0):
    """Completeness, correctness and quality."""
    lengths = centreline_lengths(prediction, truth, buffer)
    return lengths.recall, lengths.precision, lengths.quality


ROAD = road_graph({0: (0, 0), 1: (100, 0)}, [(0, 1)])
NOTHING = nx.MultiGraph()
LONE_NODE = road_graph({0: (5, 0)}, [])
RING = road_graph({0: (0, 0)}, [(0, 0, (40, 0), (40, 40), (0, 40))])
ROUNDABOUT = road_graph(
    {0: (0, 50), 1: (40, 50), 2: (60, 50), 3: (100, 50)}, [(0, 1), (1, 2, (50, 40)), (1, 2, (50, 60)), (2, 3)]
)


def test_half_a_road_found():
    # predicted: 0..60 of the 100 long road, 1 beside it. Truth within 3 of it: up to x = 60 + sqrt(9 - 1) = 62.83,
    # which the pieces of 0.5 put wrong by at most 0.25
    half = road_graph({0: (0, 1), 1: (60, 1)}, [(0, 1)])
    lengths = centreline_lengths(half, ROAD)

    assert lengths.matched_prediction == pytest.approx(60)
    assert lengths.prediction == pytest.approx(60)
    assert lengths.matched_truth == pytest.approx(60 + np.sqrt(8), abs=0.25)
    assert lengths.truth == pytest.approx(100)


def test_scores_of_lengths():
    # 50 of 80 predicted, 45 of 90 of truth: quality = 50 / (80 + 45)
    lengths = MatchedCounts(50, 80, 45, 90)

    assert (lengths.recall, lengths.precision, lengths.quality) == pytest.approx((0.5, 0.625, 0.4))


def test_the_buffer_is_included():
    beside = moved(ROAD, shift=(0, 3))

    assert scores(beside, ROAD, buffer=3) == pytest.approx((1, 1, 1))
    assert scores(beside, ROAD, buffer=2.99) == pytest.approx((0, 0, 0))


@pytest.mark.parametrize("graph", [ROAD, RING, ROUNDABOUT])
def test_equal_graphs_score_one(graph):
    assert scores(graph, graph) == pytest.approx((1, 1, 1))


def test_nothing_to_score():
    nan = np.nan

    assert scores(NOTHING, NOTHING) == pytest.approx((nan, nan, nan), nan_ok=True)
    assert scores(NOTHING, LONE_NODE) == pytest.approx((nan, nan, nan), nan_ok=True)
    assert scores(NOTHING, ROAD) == pytest.approx((0, nan, 0), nan_ok=True)
    assert scores(ROAD, NOTHING) == pytest.approx((nan, 0, 0), nan_ok=True)
    # a pixel without a road is no line, even on the road
    assert scores(LONE_NODE, ROAD) == pytest.approx((0, nan, 0), nan_ok=True)


def test_a_second_parallel_road_costs_correctness_only_outside_the_buffer():
    # a loop road 20 beside the road: of 20 + 100 + 20 only the 3 next to the road at both ends match
    double = road_graph({0: (0, 0), 1: (100, 0)}, [(0, 1), (0, 1, (0, 20), (100, 20))])
    completeness, correctness, _ = scores(double, ROAD)

    assert completeness == pytest.approx(1)
    assert correctness == pytest.approx(106 / 240, abs=0.5 / 240)


def test_swap_exchanges_completeness_and_correctness():
    prediction = road_graph({0: (0, 2), 1: (70, 8), 2: (30, 40)}, [(0, 1), (0, 2)])
    forth, back = scores(prediction, ROAD), scores(ROAD, prediction)

    assert forth[:2] == pytest.approx(back[1::-1])


@pytest.mark.parametrize(
    ("matrix", "shift"),
    [([[-1, 0], [0, 1]], (0, 0)), ([[0, -1], [1, 0]], (0, 0)), ([[1, 0], [0, 1]], (512.5, -7))],
)
def test_flips_turns_and_shifts_change_nothing(matrix, shift):
    prediction = road_graph({0: (0, 2), 1: (70, 8), 2: (30, 40)}, [(0, 1), (0, 2)])
    other = scores(moved(prediction, matrix, shift), moved(ROAD, matrix, shift))

    assert other == pytest.approx(scores(prediction, ROAD))


def test_lengths_of_images_add_up():
    # two images as one, 1000 apart
    near, far = ROUNDABOUT, moved(RING, shift=(1000, 0))
    both = nx.disjoint_union(near, far)
    half = moved(both, shift=(2, 1))
    parts = [centreline_lengths(half, graph) for graph in (near, far)]
    whole = centreline_lengths(half, both)

    assert parts[0].matched_truth + parts[1].matched_truth == pytest.approx(whole.matched_truth)
    assert parts[0].truth + parts[1].truth == pytest.approx(whole.truth)


def test_agrees_with_a_fine_brute_force():
    # every 0.1 unit a point; each of the few crossings of the buffer's border may be wrong by 0.25
    prediction = road_graph({0: (0, 1), 1: (80, 9), 2: (45, 60)}, [(0, 1, (40, -4)), (0, 2, (20, 30))])

    def matched(graph, other):
        total = 0.0
        for *_, edge in graph.edges(data=True):
            middles, size = polyline.parts_of(edge["line"], 0.1)
            distances = [
                min(polyline.project(road["line"], point)[0] for *_, road in other.edges(data=True))
                for point in middles
            ]
            total += size[np.array(distances) <= 3].sum()
        return total

    lengths = centreline_lengths(prediction, ROUNDABOUT)

    assert lengths.matched_prediction == pytest.approx(matched(prediction, ROUNDABOUT), abs=1.5)
    assert lengths.matched_truth == pytest.approx(matched(ROUNDABOUT, prediction), abs=1.5)
