import networkx as nx
import numpy as np
import pytest
from drawn_graphs import graph_from_nodes as road_graph
from drawn_graphs import moved

from mmseg_ext.metrics.centrelines import connectivity
from mmseg_ext.roads import polyline


def lines(*roads):
    """Roads without common nodes, each a list of points."""
    nodes = {2 * i + side: road[-side] for i, road in enumerate(roads) for side in (0, 1)}
    return road_graph(nodes, [(2 * i, 2 * i + 1, *road[1:-1]) for i, road in enumerate(roads)])


ROAD = lines([(0, 0), (200, 0)])
CUT = lines([(0, 0), (98.5, 0)], [(101.5, 0), (200, 0)])
RING = road_graph({0: (0, 0)}, [(0, 0, (50, 0), (50, 50), (0, 50))])
ROUNDABOUT = road_graph(
    {0: (0, 50), 1: (40, 50), 2: (60, 50), 3: (100, 50)}, [(0, 1), (1, 2, (50, 40)), (1, 2, (50, 60)), (2, 3)]
)
# a T: a road along x, at its middle an arm downwards
TEE = road_graph({0: (0, 0), 1: (100, 0), 2: (200, 0), 3: (100, 80)}, [(0, 1), (1, 2), (1, 3)])


def test_a_gap_of_three_pixels():
    # every truth point is within 3 of a predicted end, yet the ends are 3 apart: one gap, and of two random points the
    # chance to be on one side is 0.5^2 + 0.5^2
    result = connectivity(CUT, ROAD)

    assert (result.prediction_components, result.truth_components, result.gaps) == (2, 1, 1)
    assert result.gap_points[0] == pytest.approx((100, 0), abs=0.5)
    assert result.gap_lengths == pytest.approx([3])
    assert (result.kept, result.pairs) == pytest.approx((2 * 100**2, 200**2))
    assert result.pairs_kept == pytest.approx(0.5)


def test_a_wide_gap_has_the_length_between_the_predicted_ends():
    # 60..140 is missing: matched are 0..63 and 137..200
    result = connectivity(lines([(0, 0), (60, 0)], [(140, 0), (200, 0)]), ROAD)

    assert result.gaps == 1
    assert result.gap_points[0] == pytest.approx((100, 0), abs=0.5)
    assert result.gap_lengths == pytest.approx([80])
    assert result.pairs_kept == pytest.approx(2 * 63**2 / 200**2, rel=1e-6)


def test_two_gaps():
    # thirds of 66.67 points each: 3 * (1/3)^2
    result = connectivity(lines([(0, 0), (65, 0)], [(68, 0), (131, 0)], [(135, 0), (200, 0)]), ROAD)

    assert result.gaps == 2
    assert sorted(result.gap_lengths) == pytest.approx([3, 4])
    assert sorted(result.gap_points[:, 0]) == pytest.approx([66.5, 133], abs=0.6)
    assert result.pairs_kept == pytest.approx(1 / 3, abs=0.001)


@pytest.mark.parametrize("missing", [3, 30])
def test_a_gap_in_a_ring(missing):
    # the ring of 200 stays one component: all pairs of its matched points are kept, but the way around is long
    ends = {0: (0, 0), 1: (0, 10 + missing), 2: (0, 10)}
    opened = road_graph(ends, [(0, 1, (50, 0), (50, 50), (0, 50)), (0, 2)])
    result = connectivity(opened, RING)

    assert result.prediction_components == 1
    assert result.gaps == 1
    assert result.gap_points[0] == pytest.approx((0, 10 + missing / 2), abs=1.1)
    assert result.gap_lengths == pytest.approx([missing])
    unmatched = max(0, missing - 6)
    assert result.pairs_kept == pytest.approx((200 - unmatched) ** 2 / 200**2)


@pytest.mark.parametrize("missing", [4, 20])
def test_a_gap_at_an_arm_of_a_junction(missing):
    prediction = lines([(0, 0), (200, 0)], [(100, missing), (100, 80)])
    result = connectivity(prediction, TEE)

    assert result.gaps == 1
    assert result.gap_points[0] == pytest.approx((100, missing / 2), abs=1.1)
    # the last point beside the through road is matched to it, up to 3 down the arm, 0.5 at most to the side
    assert result.gap_lengths == pytest.approx([missing], abs=0.1)


@pytest.mark.parametrize("missing", [4, 20])
def test_a_missing_junction_is_one_gap(missing):
    prediction = lines([(0, 0), (100 - missing, 0)], [(100 + missing, 0), (200, 0)], [(100, missing), (100, 80)])
    result = connectivity(prediction, TEE)

    assert result.gaps == 1
    assert np.hypot(*(result.gap_points[0] - (100, 0))) <= missing
    assert result.gap_lengths[0] <= 2 * missing


def test_a_missing_dead_end_is_no_gap():
    # a missing piece: the arm's 80 less the 3 beside the road are connected to nothing
    result = connectivity(lines([(0, 0), (200, 0)]), TEE)

    assert result.gaps == 0
    assert result.pairs_kept == pytest.approx(203**2 / 280**2, rel=1e-2)


def test_a_missing_end_of_a_road_is_no_gap():
    result = connectivity(lines([(0, 0), (120, 0)]), ROAD)

    assert result.gaps == 0
    assert result.pairs_kept == pytest.approx(123**2 / 200**2)


@pytest.mark.parametrize("graph", [ROAD, RING, ROUNDABOUT, TEE])
@pytest.mark.parametrize("shift", [(0, 0), (0, 2), (2, 0), (-1, 2)])
def test_a_shift_within_the_tolerance_is_no_gap(graph, shift):
    result = connectivity(moved(graph, shift=shift), graph)

    assert result.gaps == 0
    assert result.pairs_kept == pytest.approx(1)


def test_a_detour_outside_the_tolerance_is_no_gap():
    # the predicted road runs up to 6 beside the truth: unmatched there, but not interrupted
    result = connectivity(lines([(0, 0), (80, 0), (100, 6), (120, 0), (200, 0)]), ROAD)

    assert result.gaps == 0
    assert 0.7 < result.pairs_kept < 1


def test_a_missing_link_between_two_roads_is_a_gap():
    # a ladder's middle rung of 60 is missing; the way around it is far
    ladder = road_graph(
        {0: (0, 0), 1: (100, 0), 2: (200, 0), 3: (0, 60), 4: (100, 60), 5: (200, 60)},
        [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)],
    )
    without = road_graph({0: (0, 0), 2: (200, 0), 3: (0, 60), 5: (200, 60)}, [(0, 2), (3, 5), (0, 3), (2, 5)])
    result = connectivity(without, ladder)

    assert result.gaps == 1
    assert result.gap_points[0] == pytest.approx((100, 30), abs=1)
    assert result.gap_lengths == pytest.approx([60])


def test_closing_a_gap_with_a_second_line_of_the_same_component():
    # the cut road's halves joined by a line that leaves the tolerance: 20 down, 3 across, 20 up: 43 > 3 + 12
    around = road_graph(
        {0: (0, 0), 1: (98.5, 0), 2: (101.5, 0), 3: (200, 0)}, [(0, 1), (1, 2, (98.5, 20), (101.5, 20)), (2, 3)]
    )
    result = connectivity(around, ROAD)

    assert result.gaps == 1
    assert result.pairs_kept == pytest.approx(1)


def test_components_count_nodes_without_edges():
    result = connectivity(road_graph({0: (0, 0), 1: (9, 9)}, []), nx.disjoint_union(ROAD, RING))

    assert (result.prediction_components, result.truth_components) == (2, 2)
    assert (result.gaps, result.kept) == (0, 0)
    assert result.pairs == pytest.approx(200**2 + 200**2)


def test_a_pixel_without_a_road_bridges_nothing():
    dotted = CUT.copy()
    dotted.add_node(9, x=100.0, y=0.0)
    result = connectivity(dotted, ROAD)

    assert (result.prediction_components, result.gaps) == (3, 1)
    assert result.pairs_kept == pytest.approx(0.5)


@pytest.mark.parametrize("prediction", [nx.MultiGraph(), ROAD])
@pytest.mark.parametrize("truth", [nx.MultiGraph(), road_graph({4: (1, 1)}, [])])
def test_without_a_true_road_there_is_nothing_to_keep(prediction, truth):
    result = connectivity(prediction, truth)

    assert (result.gaps, result.kept, result.pairs) == (0, 0, 0)
    assert result.gap_points.shape == (0, 2)
    assert np.isnan(result.pairs_kept)


def test_without_a_prediction_nothing_is_kept():
    result = connectivity(nx.MultiGraph(), TEE)

    assert (result.prediction_components, result.gaps, result.pairs_kept) == (0, 0, 0)


@pytest.mark.parametrize(
    ("matrix", "shift"),
    [([[-1, 0], [0, 1]], (0, 0)), ([[0, -1], [1, 0]], (0, 0)), ([[1, 0], [0, 1]], (512.5, -7))],
)
def test_flips_turns_and_shifts_change_nothing(matrix, shift):
    prediction = lines([(0, 1), (71, 0)], [(76.3, 0), (200, -1)], [(101, 20), (100, 61)])
    result = connectivity(prediction, TEE)
    other = connectivity(moved(prediction, matrix, shift), moved(TEE, matrix, shift))

    assert (other.gaps, result.gaps) == (2, 2)
    assert sorted(other.gap_lengths) == pytest.approx(sorted(result.gap_lengths))
    assert other.pairs_kept == pytest.approx(result.pairs_kept)


def test_pairs_kept_is_the_share_of_all_pairs():
    # one by one, over the points of the definition
    prediction = lines([(0, 1), (71, 0)], [(76.3, 0), (200, -1)], [(101, 20), (100, 61)])
    points = np.concatenate([polyline.parts_of(edge["line"], 1)[0] for *_, edge in TEE.edges(data=True)])
    roads = [edge["line"] for *_, edge in prediction.edges(data=True)]
    owner = []
    for point in points:
        distances = [polyline.project(road, point)[0] for road in roads]
        owner.append(int(np.argmin(distances)) if min(distances) <= 3 else None)
    kept = sum(a is not None and a == b for a in owner for b in owner)

    assert connectivity(prediction, TEE).pairs_kept == pytest.approx(kept / len(points) ** 2)


def test_images_pool_by_sums():
    far = moved(RING, shift=(1000, 0))
    both = nx.disjoint_union(ROAD, far)
    parts = [connectivity(CUT, ROAD), connectivity(far, far)]
    whole = connectivity(nx.disjoint_union(CUT, far), both)

    assert sum(part.kept for part in parts) == pytest.approx(whole.kept)
    assert sum(part.pairs for part in parts) == pytest.approx(whole.pairs)
