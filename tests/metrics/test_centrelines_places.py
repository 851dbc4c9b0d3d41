import networkx as nx
import numpy as np
import pytest
from drawn_graphs import graph_from_nodes as road_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.metrics.centrelines import (
    chains,
    cut_at,
    directions_on,
    line_network,
    near,
    node_places,
    path_lengths,
    places,
    points_on,
    samples,
    snap,
)
from mmseg_ext.roads import polyline

# a square of side 10 as two parallel edges between opposite corners, and a lone node
SQUARE = road_graph({3: (0, 0), 7: (10, 10), 9: (50, 50)}, [(3, 7, (10, 0)), (3, 7, (0, 10))])


def test_lines_in_the_order_of_keys_and_scaled():
    roads = line_network(SQUARE, scale=0.5)

    np.testing.assert_array_equal(roads.nodes, [[0, 0], [5, 5], [25, 25]])
    np.testing.assert_array_equal(roads.ends, [[0, 1], [0, 1]])
    np.testing.assert_array_equal(roads.lengths, [10, 10])
    np.testing.assert_array_equal(points_on(roads, places([0, 0, 1], [2, 7, 7])), [[2, 0], [5, 2], [2, 5]])


def test_an_end_of_a_line_is_not_the_next_line():
    roads = line_network(SQUARE)

    np.testing.assert_array_equal(points_on(roads, places([0, 0, 1], [20, 25, -3])), [[10, 10], [10, 10], [0, 0]])


def test_node_places_are_ends_of_edges():
    roads = line_network(SQUARE)
    at = node_places(roads)

    assert at.edge.tolist() == [1, 1, -1]
    np.testing.assert_array_equal(points_on(roads, at.pick([0, 1])), roads.nodes[:2])


def test_directions_are_chords():
    # the corner at 10 of the first line: from (8, 0) to (10, 2), a diagonal; far from the corner: along x
    directions = directions_on(line_network(SQUARE), places([0, 0], [10, 3]), reach=2)

    np.testing.assert_allclose(directions, [[np.sqrt(0.5), np.sqrt(0.5)], [1, 0]])


def test_samples_part_evenly():
    # 20 long, at most 6 apart: four pieces of 5 with middles at 2.5, 7.5, 12.5, 17.5
    at, size = samples(line_network(SQUARE), 6)

    assert at.edge.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_allclose(at.along, [2.5, 7.5, 12.5, 17.5] * 2)
    np.testing.assert_allclose(size, 5)


def test_snap_takes_the_nearest_line_within_the_tolerance_included():
    # (4, 3) is 3 from the upper line and 4 from the left one; (12, 12) is sqrt(8) = 2.83 from the corner (10, 10)
    found = snap(line_network(SQUARE), np.array([[4, 3], [12, 12], [50, 50]], float), tolerance=3)

    assert found.edge.tolist() == [0, 0, -1]
    np.testing.assert_allclose(found.along[:2], [4, 20])


def test_a_tolerance_of_zero_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        near(line_network(SQUARE), np.zeros((1, 2)), 0)


def test_empty_graphs():
    empty = line_network(nx.MultiGraph())

    assert snap(empty, np.zeros((2, 2)), 3).edge.tolist() == [-1, -1]
    assert path_lengths(empty, places([], [])).shape == (0, 0)
    assert chains(empty) == []
    assert len(samples(empty, 1)[1]) == 0


def test_path_lengths_around_the_square():
    # clockwise from (0, 0): places at 5, 12 and, on the other line, 4 (= 36 clockwise); around 40 in all.
    # 5 to 12: 7; 5 to 36: 31 or 9 backwards; 12 to 36: 24 or 16
    lengths = path_lengths(line_network(SQUARE), places([0, 0, 1, -1], [5, 12, 4, 0]))

    inf = np.inf
    np.testing.assert_allclose(lengths, [[0, 7, 9, inf], [7, 0, 16, inf], [9, 16, 0, inf], [inf, inf, inf, 0]])


def test_places_on_one_spot_are_no_distance_apart():
    # twice the node (0, 0), as the start of either line, and once more the same place
    lengths = path_lengths(line_network(SQUARE), places([0, 1, 1], [0, 0, 0]))

    np.testing.assert_array_equal(lengths, np.zeros((3, 3)))


def test_the_shorter_of_parallel_roads_counts():
    two = road_graph({0: (0, 0), 1: (10, 0)}, [(0, 1, (5, 12)), (1, 0)])

    assert path_lengths(line_network(two), node_places(line_network(two)))[0, 1] == 10


def test_a_ring_is_walked_both_ways():
    ring = road_graph({0: (0, 0)}, [(0, 0, (10, 0), (10, 10), (0, 10))])

    assert path_lengths(line_network(ring), places([0, 0], [2, 38]))[0, 1] == 4


def test_cut_edges_keep_their_lengths():
    links = cut_at(line_network(SQUARE), places([0, 0, 1], [5, 12, 4]))

    assert sorted(zip(links.edge.tolist(), links.start.tolist(), links.length.tolist(), strict=True)) == [
        (0, 0, 5), (0, 5, 7), (0, 12, 8), (1, 0, 4), (1, 4, 16)
    ]  # fmt: skip


def test_chains_join_at_nodes_of_two_edges():
    # 0 - 1 - 2 is one road through node 1; at 2 meet three; the ring 5 - 6 stands alone
    graph = road_graph(
        {0: (0, 0), 1: (10, 0), 2: (20, 0), 3: (20, 10), 4: (30, 0), 5: (50, 0), 6: (60, 0)},
        [(1, 2), (0, 1), (2, 3), (4, 2), (5, 6, (55, 5)), (5, 6, (55, -5))],
    )
    # edges in the order of keys: 0: 0-1, 1: 1-2, 2: 2-3, 3: 2-4, 4 and 5: 5-6
    expected = [[(0, True), (1, True)], [(2, True)], [(3, True)], [(4, True), (5, False)]]

    assert chains(line_network(graph)) == expected


def test_a_ring_on_a_road_is_its_own_chain():
    graph = road_graph({0: (0, 0), 1: (10, 0)}, [(0, 1), (1, 1, (15, 5), (20, 0), (15, -5))])

    assert chains(line_network(graph)) == [[(0, True)], [(1, True)]]


coordinate = st.integers(0, 30)
point = st.tuples(coordinate, coordinate)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(point, min_size=2, max_size=4), min_size=1, max_size=4), st.lists(point, min_size=1))
def test_snap_equals_brute_force(lines, points):
    nodes = {2 * i + side: line[-side] for i, line in enumerate(lines) for side in (0, 1)}
    graph = road_graph(nodes, [(2 * i, 2 * i + 1, *line[1:-1]) for i, line in enumerate(lines)])
    roads = line_network(graph)
    points = np.array(points, dtype=np.float64) + 0.25

    found = snap(roads, points, 5)

    for target, edge, along in zip(points, *found, strict=True):
        distances = [polyline.project(np.array(line, float), target)[0] for line in lines]
        if edge < 0:
            assert min(distances) > 5
        else:
            foot = points_on(roads, places([edge], [along]))[0]
            assert np.hypot(*(foot - target)) == pytest.approx(min(distances), abs=1e-9)
