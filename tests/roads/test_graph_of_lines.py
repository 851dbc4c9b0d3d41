import networkx as nx
import numpy as np
import pytest
from drawn_graphs import graph_from_nodes, moved
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.errors import DataError
from mmseg_ext.roads import graph_from_lines, graph_lines


def lines(*points):
    return [np.array(line, float) for line in points]


def shapes(graph):
    """Return the edges' lines as points, whichever way round."""
    return sorted(min(line.tolist(), line[::-1].tolist()) for line in graph_lines(graph))


def degrees(graph):
    return sorted(degree for _, degree in graph.degree())


def test_lines_share_a_node_at_a_common_end_or_inner_vertex():
    # a side road that ends at an inner vertex of the main road
    graph = graph_from_lines(lines([[0, 0], [5, 0], [9, 0]], [[5, 0], [5, 7]]))
    assert degrees(graph) == [1, 1, 1, 3]
    assert sorted(size for *_, size in graph.edges(data="length")) == [4, 5, 7]
    for start, end, line in graph.edges(data="line"):
        for node, point in ((min(start, end), line[0]), (max(start, end), line[-1])):
            assert (graph.nodes[node]["x"], graph.nodes[node]["y"]) == tuple(point)


def test_lines_that_cross_without_a_common_vertex_are_a_bridge():
    graph = graph_from_lines(lines([[0, 0], [8, 0]], [[4, -4], [4, 4]]))
    assert degrees(graph) == [1, 1, 1, 1] and nx.number_connected_components(graph) == 2


def test_lines_that_pass_on_into_each_other_are_one_edge():
    graph = graph_from_lines(lines([[0, 0], [4, 0]], [[9, 3], [4, 0]]))
    assert shapes(graph) == [[[0, 0], [4, 0], [9, 3]]]


def test_a_vertex_is_shared_within_the_snapping_distance_only():
    drawn = lines([[0, 0], [5, 0], [9, 0]], [[5, 0.5], [5, 7]])
    assert degrees(graph_from_lines(drawn)) == [1, 1, 1, 1]
    assert degrees(graph_from_lines(drawn, snap=0.4)) == [1, 1, 1, 1]
    graph = graph_from_lines(drawn, snap=0.5)
    assert degrees(graph) == [1, 1, 1, 3]
    # the junction is at the mean of (5, 0) and (5, 0.5)
    assert [y for node, y in graph.nodes(data="y") if graph.degree(node) == 3] == [0.25]


def test_snapping_leaves_a_dense_line_as_it_is():
    dense = np.stack([np.arange(0, 10, 0.25), np.zeros(40)], axis=1)
    assert shapes(graph_from_lines([dense], snap=1.0)) == [dense.tolist()]


def test_snapping_closes_a_ring():
    graph = graph_from_lines(lines([[0, 0], [9, 0], [9, 9], [0, 9], [0, 0.5]]), snap=1.0)
    assert degrees(graph) == [2] and list(graph.edges()) == [(0, 0)]


def test_a_closed_line_is_a_loop_and_a_line_that_ends_on_itself_too():
    graph = graph_from_lines(lines([[0, 0], [3, 0], [3, 3], [0, 0]]))
    assert list(graph.edges()) == [(0, 0)]
    # down a stem and around: a node where the line touches itself, one at the end of the stem
    graph = graph_from_lines(lines([[0, -5], [0, 0], [3, 0], [3, 3], [0, 0]]))
    assert degrees(graph) == [1, 3] and graph.number_of_edges() == 2


def test_two_ways_between_the_same_ends_are_parallel_edges():
    graph = graph_from_lines(lines([[0, 0], [5, 2], [9, 0]], [[0, 0], [9, 0]], [[-3, 0], [0, 0]], [[9, 0], [12, 0]]))
    assert degrees(graph) == [1, 1, 3, 3]
    assert max(graph.number_of_edges(*pair) for pair in set(graph.edges())) == 2


def test_a_segment_drawn_twice_counts_once():
    graph = graph_from_lines(lines([[0, 0], [5, 0], [9, 0]], [[9, 0], [5, 0], [5, 7]]))
    assert degrees(graph) == [1, 1, 1, 3]
    assert graph.size("length") == 4 + 5 + 7


def test_no_lines_and_a_line_without_length():
    assert len(graph_from_lines([])) == 0
    graph = graph_from_lines(lines([[2, 3], [2, 3]]))
    assert degrees(graph) == [0] and graph_lines(graph) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (np.zeros((1, 2)), r"line 1 has shape \(1, 2\)"),
        (np.zeros((4, 3)), r"line 1 has shape \(4, 3\)"),
        (np.array([[0, 0], [np.nan, 1]]), "line 1 has a coordinate that is not finite"),
    ],
)
def test_lines_that_are_none(line, message):
    with pytest.raises(DataError, match=message):
        graph_from_lines([np.eye(2), line])


POINT = st.tuples(st.integers(0, 6), st.integers(0, 6))
LINES = st.lists(st.lists(POINT, min_size=2, max_size=6).map(lambda line: np.array(line, float)), max_size=6)


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_the_lines_of_a_graph_make_the_same_graph_again(drawn):
    graph = graph_from_lines(drawn)
    again = graph_from_lines(graph_lines(graph))
    alone = sum(degree == 0 for degree in degrees(graph))  # nodes without edges have no line
    assert degrees(again) == degrees(graph)[alone:]
    # a ring may begin elsewhere; the sum of lengths and the segments stay
    assert again.size("length") == pytest.approx(graph.size("length"))
    assert segments(graph_lines(again)) == segments(graph_lines(graph)) == segments(drawn)


def segments(drawn):
    """Return the pairs of neighbouring points of lines, each once."""
    pairs = (
        frozenset(pair) for line in drawn for pair in zip(map(tuple, line[:-1]), map(tuple, line[1:]), strict=True)
    )
    return {pair for pair in pairs if len(pair) == 2}


def test_a_graph_drawn_by_hand_keeps_the_contract_and_moves():
    graph = graph_from_nodes({4: (0, 0), 2: (6, 8), 7: (3, 0)}, [(4, 2, (6, 0)), (2, 2, (9, 8), (9, 9))])
    assert dict(graph.nodes[2]) == {"x": 6.0, "y": 8.0} and set(graph) == {2, 4, 7}
    (edge,) = graph[2][4].values()
    assert edge["line"].tolist() == [[6, 8], [6, 0], [0, 0]] and edge["length"] == 14  # from the lower key
    (loop,) = graph[2][2].values()
    assert loop["line"].tolist() == [[6, 8], [9, 8], [9, 9], [6, 8]]
    turned = moved(graph, ((0, -2), (2, 0)), (1, 0))  # by 90 degrees, twice as large, one to the right
    assert (turned.nodes[2]["x"], turned.nodes[2]["y"]) == (-15, 12)
    assert turned[2][4][0]["line"].tolist() == [[-15, 12], [1, 12], [1, 0]] and turned[2][4][0]["length"] == 28
    assert edge["length"] == 14  # the first is left alone
