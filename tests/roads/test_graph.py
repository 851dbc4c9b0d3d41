import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from mmseg_ext.roads import graph_from_lines, graph_lines, road_graph
from mmseg_ext.roads.graph import trace
from mmseg_ext.roads.polyline import length, project, simplify_line
from mmseg_ext.roads.skeleton import Centreline

HEIGHT, WIDTH = 60, 90


def canvas(height=HEIGHT, width=WIDTH):
    return np.zeros((height, width), bool)


def road(start, end, width, shape=(HEIGHT, WIDTH)):
    """Return a straight road with round ends between two (x, y)."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    start, step = np.array(start, float), np.subtract(end, start, dtype=float)
    share = np.clip(((x - start[0]) * step[0] + (y - start[1]) * step[1]) / (step @ step), 0, 1)
    return np.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1]) <= width / 2


def ring(centre, radius, width, shape=(HEIGHT, WIDTH)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.abs(np.hypot(x - centre[0], y - centre[1]) - radius) <= width / 2


def degrees(graph):
    return sorted(degree for _, degree in graph.degree())


def total_length(graph):
    return graph.size("length")


def only_edge(graph):
    [(*_, data)] = graph.edges(data=True)
    return data


def place(graph, node):
    return graph.nodes[node]["x"], graph.nodes[node]["y"]


def assert_contract(graph):
    assert sorted(graph) == list(range(len(graph)))
    for start, end, data in graph.edges(data=True):
        assert data["line"].dtype == np.float64 and data["line"].shape[1:] == (2,) and len(data["line"]) >= 2
        assert tuple(data["line"][0]) == place(graph, min(start, end))
        assert tuple(data["line"][-1]) == place(graph, max(start, end))
        assert data["length"] == pytest.approx(length(data["line"]))
        assert 0 < data["width_p10"] <= data["width_median"] <= data["width_p90"]


def test_an_empty_mask_has_an_empty_graph():
    assert len(road_graph(canvas())) == 0


def test_a_full_mask_has_a_piece_in_its_middle_as_wide_as_the_image():
    graph = road_graph(np.ones((20, 50), np.uint8))
    assert_contract(graph)
    assert degrees(graph) == [1, 1]
    assert only_edge(graph)["width_median"] in (19, 20)


def test_a_single_pixel_is_a_node_without_edges():
    mask = canvas()
    mask[7, 30] = True
    graph = road_graph(mask)
    assert degrees(graph) == [0] and place(graph, 0) == (30, 7)


def test_a_straight_road():
    mask = canvas()
    mask[20:25, 10:60] = True  # 5 x 50; the centreline is short of each end by at most half the width
    graph = road_graph(mask)
    assert_contract(graph)
    assert degrees(graph) == [1, 1]
    data = only_edge(graph)
    assert 50 - 1 - 2 * 3 <= data["length"] <= 50 and np.abs(data["line"][:, 1] - 22).max() <= 1
    assert data["width_median"] == 5 and data["width_p90"] == 5


@pytest.mark.parametrize("width", range(1, 16))
def test_width_of_a_road_across_the_image(width):
    mask = canvas()
    mask[20 : 20 + width] = True
    data = only_edge(road_graph(mask))
    measured = width - (width % 2 == 0)  # an even width has no pixel in its middle
    assert (data["width_p10"], data["width_median"], data["width_p90"]) == (measured,) * 3
    assert data["length"] == WIDTH - 1  # from the centre of the first pixel to that of the last
    assert data["line"][:, 0].tolist() == [0, WIDTH - 1]


def test_a_t_junction():
    mask = canvas()
    mask[20:27] = True  # its middle is row 23
    mask[27:, 40:47] = True  # its middle is column 43
    graph = road_graph(mask)
    assert_contract(graph)
    assert degrees(graph) == [1, 1, 1, 3]
    [junction] = [node for node in graph if graph.degree(node) == 3]
    assert place(graph, junction) == pytest.approx((43, 23), abs=1.5)
    assert sorted(round(size, -1) for *_, size in graph.edges(data="length")) == [40, 40, 50]


@pytest.mark.parametrize("width", [3, 7, 12, 15])
@pytest.mark.parametrize("turn", [60, 75, 90])
@pytest.mark.parametrize("first", [0, 20])
def test_a_crossing_of_wide_roads_is_one_junction_with_four_edges(width, turn, first):
    mask = np.zeros((121, 121), bool)
    for angle in np.radians([first, first + turn]):
        off = 200 * np.array([np.cos(angle), np.sin(angle)])
        mask |= road(60 - off, 60 + off, width, mask.shape)
    graph = road_graph(mask)
    assert_contract(graph)
    assert degrees(graph) == [1, 1, 1, 1, 4]
    [junction] = [node for node in graph if graph.degree(node) == 4]
    assert place(graph, junction) == pytest.approx((60, 60), abs=2)


def test_a_given_distance_decides_which_junctions_merge():
    mask = canvas()
    mask[30] = True
    mask[:30, 40] = True
    mask[31:, 46] = True  # two T junctions, six pixels apart
    assert degrees(road_graph(mask)) == [1, 1, 1, 1, 3, 3]
    assert degrees(road_graph(mask, merge_px=5.9)) == [1, 1, 1, 1, 3, 3]
    graph = road_graph(mask, merge_px=6.1)  # each at the mean of four pixels
    assert_contract(graph)
    assert degrees(graph) == [1, 1, 1, 1, 4]
    assert place(graph, next(node for node in graph if graph.degree(node) == 4)) == (43, 30)


def test_merging_keeps_a_longer_edge_between_the_same_junctions_as_a_loop():
    mask = canvas()
    mask[30, 20:60] = True
    mask[10:31, [38, 42]] = True
    mask[10, 38:43] = True  # from column 38 up 20, over 4, down 20 to column 42
    graph = road_graph(mask, merge_px=5, prune=False)
    assert_contract(graph)
    assert degrees(graph) == [1, 1, 4]
    [loop] = [size for start, end, size in graph.edges(data="length") if start == end]
    assert loop == pytest.approx(20 + 4 + 20, abs=5)


def test_a_closed_ring_is_one_node_with_a_loop():
    graph = road_graph(ring((40, 30), 20, 5))
    assert_contract(graph)
    assert len(graph) == 1 and list(graph.edges()) == [(0, 0)]
    assert only_edge(graph)["length"] == pytest.approx(2 * np.pi * 20, rel=0.05)


def test_a_roundabout_has_four_junctions_and_keeps_its_ring():
    mask = ring((45, 30), 14, 6)
    for x, y in ((0, 30), (89, 30), (45, 0), (45, 59)):
        mask |= road((x, y), (45 + 14 * np.sign(x - 45), 30 + 14 * np.sign(y - 30)), 6)
    graph = road_graph(mask)
    assert_contract(graph)
    assert degrees(graph) == [1, 1, 1, 1, 3, 3, 3, 3]
    assert graph.number_of_edges() == 8
    junctions = [node for node in graph if graph.degree(node) == 3]
    assert total_length(graph.subgraph(junctions)) == pytest.approx(2 * np.pi * 14, rel=0.1)


def test_two_carriageways_stay_two_roads():
    mask = canvas()
    mask[20:26] = mask[28:34] = True  # two pixels between them
    graph = road_graph(mask)
    assert degrees(graph) == [1, 1, 1, 1] and nx.number_connected_components(graph) == 2
    assert total_length(graph) == pytest.approx(2 * (WIDTH - 1), abs=2)


def test_two_roads_that_meet_at_both_ends_are_parallel_edges():
    mask = road((0, 30), (20, 30), 5) | road((70, 30), (89, 30), 5)
    for y in (10, 50):
        mask |= road((20, 30), (45, y), 5) | road((45, y), (70, 30), 5)
    graph = road_graph(mask)
    assert_contract(graph)
    assert degrees(graph) == [1, 1, 3, 3]
    assert max(graph.number_of_edges(*pair) for pair in set(graph.edges())) == 2
    # two ways of twice hypot(25, 20) = 64 each, and 20 + 19 outside
    assert total_length(graph) == pytest.approx(2 * 64 + 39, rel=0.05)


def test_a_road_along_the_border_is_not_lost():
    mask = canvas()
    mask[:5] = True
    data = only_edge(road_graph(mask))
    assert data["line"].tolist() == [[0, 2], [WIDTH - 1, 2]]


def test_a_mask_of_forty_thousand_columns():
    mask = np.zeros((40, 40_000), bool)
    mask[18:23] = True
    mask[:, 30_000] = True
    graph = road_graph(mask)
    assert degrees(graph) == [1, 1, 1, 1, 4]
    assert total_length(graph) == pytest.approx(39_999 + 39, abs=2)


def test_pruning_takes_spurs_and_leaves_side_roads():
    mask = canvas()
    mask[30:39] = True  # nine wide, its middle is row 34
    mask[27:30, 20:22] = True  # three pixels out of it: 34 - 27 = 7 from the middle, under the width
    mask[10:30, 60:62] = True  # twenty out of it
    assert degrees(road_graph(mask, prune=False)) == [1, 1, 1, 1, 3, 3]
    graph = road_graph(mask)
    assert_contract(graph)
    assert degrees(graph) == [1, 1, 1, 3]


def test_pruning_does_not_eat_the_end_of_a_road():
    mask = canvas()
    mask[20:31, :60] = True  # eleven wide; its square end forks the skeleton
    data = only_edge(road_graph(mask))
    assert data["line"][:, 0].min() == 0 and 59 - 6 <= data["line"][:, 0].max() <= 59


def test_pruning_keeps_a_road_shorter_than_its_width():
    mask = canvas()
    mask[20:29, 30:37] = True
    assert degrees(road_graph(mask)) in ([1, 1], [0])


def test_pruning_keeps_a_short_side_road_that_leaves_the_image():
    mask = canvas()
    mask[3:12] = True  # nine wide, its middle is row 7: the side road is seven long, under the width
    mask[:3, 40:45] = True
    graph = road_graph(mask)
    assert degrees(graph) == [1, 1, 1, 3]
    # a road that the border only touches has no side road there
    assert degrees(road_graph(ring((45, 26), 24, 7))) == [2]


def gap(size, side=0):
    mask = canvas()
    mask[28:33, :40] = True
    mask[28 + side : 33 + side, 40 + size :] = True
    return mask


def test_a_gap_is_closed_by_a_straight_edge():
    graph = road_graph(gap(8), close_gaps_px=20)
    assert_contract(graph)
    assert nx.is_connected(graph) and degrees(graph) == [1, 1, 2, 2]
    [closed] = [data for *_, data in graph.edges(data=True) if data.get("closed_gap")]
    # the centrelines end up to half a width before the road does
    assert 8 <= closed["length"] <= 8 + 2 * 3 and len(closed["line"]) == 2
    assert closed["width_median"] == 5
    assert total_length(graph) == pytest.approx(WIDTH - 1, abs=3)


@pytest.mark.parametrize(
    ("mask", "largest"),
    [
        (gap(8), 0),  # not asked for
        (gap(22), 20),  # too long
        (gap(8, side=14), 30),  # the line across turns by far more than 30 degrees: atan(14 / 14)
        (road((0, 20), (40, 20), 5) | road((46, 26), (46, 59), 5), 20),  # at a right angle
        (road((10, 20), (40, 20), 5) | road((10, 32), (40, 32), 5), 20),  # side by side
    ],
)
def test_a_gap_stays_open(mask, largest):
    graph = road_graph(mask, close_gaps_px=largest)
    assert nx.number_connected_components(graph) == 2
    assert not any(data.get("closed_gap") for *_, data in graph.edges(data=True))


def test_an_end_is_joined_once_and_to_the_nearest():
    mask = canvas()
    mask[30, :30] = True
    mask[30, 35:] = True  # five off
    mask[36, 50:] = True  # faces the first end as well, further off
    graph = road_graph(mask, close_gaps_px=25)
    [closed] = [data["line"] for *_, data in graph.edges(data=True) if data.get("closed_gap")]
    assert sorted(map(tuple, closed)) == [(29, 30), (35, 30)]


def test_pieces_with_too_little_road_are_left_out():
    mask = canvas()
    mask[10, 10:31] = True  # 20 long
    mask[40, 10:41] = True  # 30 long
    mask[50, 70] = True
    assert len(road_graph(mask)) == 5
    assert len(road_graph(mask, min_length_px=20)) == 4
    assert total_length(road_graph(mask, min_length_px=20.5)) == 30


def test_a_junction_of_several_pixels_is_one_node():
    line = canvas(9, 9)
    line[[1, 2, 3, 5, 6, 7], [1, 2, 3, 5, 6, 7]] = True
    line[[1, 2, 3, 5, 6, 7], [7, 6, 5, 3, 2, 1]] = True
    line[4, 3:6] = True  # three pixels of three or more neighbours in the middle
    graph = trace(Centreline(np.argwhere(line), np.ones(line.sum()), line.shape))
    assert degrees(graph) == [1, 1, 1, 1, 4]
    assert place(graph, next(node for node in graph if graph.degree(node) == 4)) == (4, 4)


def test_every_pixel_is_a_point_of_a_traced_line():
    line = canvas(12, 12)
    line[6, 1:11] = line[2:6, 5] = True
    line[1, 10] = True
    graph = trace(Centreline(np.argwhere(line), np.ones(line.sum()), line.shape))
    points = {tuple(point) for *_, line in graph.edges(data="line") for point in line}
    across, upright = {(x, 6) for x in range(1, 11)}, {(5, y) for y in range(2, 6)}
    # the four pixels of the junction are one point
    assert points == (across | upright | {(5, 5.75)}) - {(4, 6), (5, 6), (6, 6), (5, 5)}
    assert degrees(graph) == [0, 1, 1, 1, 3]


STEPS = st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1)).filter(any), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.booleans())
def test_no_point_is_farther_from_the_simplified_line_than_the_tolerance(steps, tolerance, closed):
    line = np.cumsum([(0, 0), *steps], axis=0).astype(float)
    if closed:
        line = np.concatenate([line, line[:1]])
    simple = simplify_line(line, tolerance)
    assert (simple[[0, -1]] == line[[0, -1]]).all() and len(simple) >= 2
    if length(simple) > 0:
        assert max(project(simple, point)[0] for point in line) <= tolerance + 1e-9


def test_a_small_loop_keeps_three_points():
    diamond = np.array([[0, 0], [1, 1], [2, 0], [1, -1], [0, 0]], float)
    for tolerance in (1.0, 1.5, 10.0):
        simple = simplify_line(diamond, tolerance)
        assert len(np.unique(simple, axis=0)) >= 3 and (simple[0] == simple[-1]).all()


def test_parallel_edges_stay_apart_however_much_they_are_simplified():
    mask = road((0, 30), (20, 30), 3) | road((70, 30), (89, 30), 3)
    for y in (24, 36):
        mask |= road((20, 30), (45, y), 3) | road((45, y), (70, 30), 3)
    fine, graph = road_graph(mask), road_graph(mask, simplify_px=20)
    assert sorted(len(line) for line in graph_lines(graph)) == [2, 2, 3, 3]
    assert total_length(graph) == pytest.approx(total_length(fine), rel=0.01)
    again = graph_from_lines(graph_lines(graph))
    assert degrees(again) == [1, 1, 3, 3] and total_length(again) == pytest.approx(total_length(graph))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_flips_and_turns_change_nothing_but_places(seed):
    rng = np.random.default_rng(seed)
    mask = canvas(80, 80)
    # streets of a town: they cross squarely, a few pixels of width differ
    for at in (20, 55):
        first, second = rng.integers(-5, 5, 2) + at
        half, other = rng.integers(1, 4, 2)
        mask[first - half : first + half + 1] = True
        mask[:, second - other : second + other + 1] = True
    graph = road_graph(mask)
    assert_contract(graph)
    assert degrees(graph) == [1] * 8 + [4] * 4
    for turned in (mask[::-1], mask[:, ::-1], mask.T, np.rot90(mask), np.rot90(mask, 2), np.rot90(mask, 3)):
        other = road_graph(turned)
        assert degrees(other) == degrees(graph)
        assert total_length(other) == pytest.approx(total_length(graph), abs=4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 3))
def test_any_mask_gives_a_graph_with_its_pieces(seed, smoothing):
    rng = np.random.default_rng(seed)
    mask = np.pad(gaussian_filter(rng.standard_normal((40, 50)), smoothing) > 0, 1)
    graph = road_graph(mask)
    assert_contract(graph)
    assert nx.number_connected_components(graph) == label(mask, np.ones((3, 3)))[1]
