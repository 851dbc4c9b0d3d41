import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import convolve, gaussian_filter, label

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.roads import road_graph, skeleton, tiled_centreline
from mmseg_ext.roads.skeleton import Centreline, half_width, widest_px


def oblique_strip(size, width, degrees):
    """Return a strip through the middle of a square mask, and the distance of each pixel from its centreline."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    off = np.abs(x * np.sin(np.radians(degrees)) - y * np.cos(np.radians(degrees)))
    return off <= width / 2, off


def ends(line):
    """Return the (row, column) of the pixels with one neighbour."""
    padded = np.pad(line.astype(int), 1)
    around = sum(np.roll(padded, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1))[1:-1, 1:-1] - 1
    return np.argwhere(line & (around == 1))


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("width", range(1, 16))
def test_a_straight_strip_gives_a_straight_line_from_border_to_border(width, turn):
    mask = np.zeros((40, 50), bool)
    mask[10 : 10 + width] = True
    line = np.rot90(skeleton(np.rot90(mask, turn)), -turn)
    rows, columns = np.nonzero(line)
    assert sorted(columns) == list(range(50))
    # the middle row, or one of the two of an even width
    assert len(set(rows)) == 1 and abs(rows[0] - (10 + (width - 1) / 2)) <= 0.5
    assert (2 * half_width(mask)[line] - 1 == width - (width % 2 == 0)).all()


@pytest.mark.parametrize("width", [1.5, 3, 8, 15])
@pytest.mark.parametrize("degrees", [10, 30, 45, 60, 80, 110, 135, 160])
def test_an_oblique_strip_gives_one_line_from_border_to_border(width, degrees):
    mask, off = oblique_strip(80, width, degrees)
    line = skeleton(mask)
    tips = ends(line)
    assert len(tips) == 2 and label(line, np.ones((3, 3)))[1] == 1
    assert np.isin(tips, (0, 79)).any(axis=1).all()
    inner = line[10:-10, 10:-10]
    assert off[10:-10, 10:-10][inner].max() <= 1.5
    assert off[line].max() <= 1 + width / 4  # where the border cuts it slantwise
    widths = 2 * half_width(mask)[10:-10, 10:-10][inner] - 1
    assert abs(np.median(widths) - width) <= 1.5 and np.abs(widths - width).max() <= 2


def test_a_road_along_the_border_keeps_the_middle_of_what_is_seen():
    mask = np.zeros((20, 40), bool)
    mask[:5] = True
    for turn in range(4):
        assert np.argwhere(np.rot90(skeleton(np.rot90(mask, turn)), -turn)).tolist() == [[2, x] for x in range(40)]


def test_a_road_that_ends_in_the_image_keeps_its_end_but_half_its_width():
    mask = np.zeros((21, 40), bool)
    mask[8:13, :30] = True  # five wide; its last pixel is in column 29
    columns = np.nonzero(skeleton(mask)[10])[0]
    assert columns[0] == 0 and 29 - 3 <= columns[-1] <= 29


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(3, 14), st.integers(3, 14))))
def test_pieces_and_holes_are_those_of_the_mask(inner):
    mask = np.pad(inner, 1)  # nothing at the border: holes are counted inside
    line = skeleton(mask)
    assert not (line & ~mask).any()
    assert label(line, np.ones((3, 3)))[1] == label(mask, np.ones((3, 3)))[1]
    assert label(~line)[1] == label(~mask)[1]


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_every_piece_has_a_line_also_at_the_border(mask):
    line = skeleton(mask)
    pieces, count = label(mask, np.ones((3, 3)))
    assert set(pieces[line]) == set(range(1, count + 1))


def test_a_bend_that_touches_the_border_stays_in_one_part():
    y, x = np.mgrid[:50, :90]
    mask = np.abs(np.hypot(x - 45, y - 26) - 24) <= 3.5  # a ring whose outermost pixels are cut off by row 0
    line = skeleton(mask)
    assert label(line, np.ones((3, 3)))[1] == 1 and not line[0].any()


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 10), st.integers(1, 10))))
def test_half_width_is_the_distance_to_the_nearest_pixel_beside_the_road_in_the_repeated_image(mask):
    if mask.all():
        return
    repeated = np.argwhere(~np.pad(mask, 6, mode="edge")) - 6
    expected = [
        [min(np.hypot(*(repeated - (row, column)).T)) if road else 0 for column, road in enumerate(line)]
        for row, line in enumerate(mask)
    ]
    np.testing.assert_allclose(half_width(mask), expected)


def test_an_empty_mask_has_no_line_and_no_width():
    mask = np.zeros((9, 12), np.uint8)
    assert not skeleton(mask).any() and not half_width(mask).any()


def test_a_full_mask_is_as_wide_as_the_image():
    mask = np.ones((9, 31), np.uint8)
    assert half_width(mask)[4, 15] == 5  # to the first row outside: 2 * 5 - 1 = 9 rows
    line = skeleton(mask)
    assert line[4, 10:21].all() and label(line, np.ones((3, 3)))[1] == 1


def test_a_mask_of_forty_thousand_columns():
    mask = np.zeros((40, 40_000), bool)
    mask[18:23] = True
    assert np.array_equal(skeleton(mask), np.arange(40)[:, None] == np.full(40_000, 20))
    assert (half_width(mask)[20] == 3).all()


def reader(mask):
    return lambda row, column, height, width: mask[row : row + height, column : column + width]


def in_tiles(mask, **options):
    return tiled_centreline(reader(mask), mask.shape, **options)


def assert_same(one, other):
    assert np.array_equal(one.rc, other.rc)
    np.testing.assert_array_equal(one.half_width, other.half_width)
    assert one.shape == other.shape


@pytest.mark.parametrize("seed", range(4))
def test_tiles_of_a_mine_give_its_centreline_in_one_piece(seed):
    mask = generate_mine(seed, 700, 1.5).mask
    whole = Centreline.of_mask(mask)
    halo = 64
    assert 2 * whole.half_width.max() < widest_px(halo)
    tiled, wide = in_tiles(mask, tile_px=150, halo_px=halo)
    assert_same(tiled, whole)
    assert wide == []


@pytest.mark.parametrize("seed", range(30))
def test_tiles_of_ragged_roads_give_their_centreline_in_one_piece(seed):
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal((240, 300)), rng.uniform(2, 6))
    mask = np.abs(field) < 0.25 * field.std()  # winding bands with junctions, holes and specks, some along the border
    halo = 48
    if half_width(mask).max() * 2 - 1 > widest_px(halo):
        halo = 96
    tiled, wide = in_tiles(mask, tile_px=int(rng.integers(40, 120)), halo_px=halo)
    assert wide == []
    assert_same(tiled, Centreline.of_mask(mask))


def test_graphs_of_both_are_equal():
    mask = generate_mine(7, 700, 1.5).mask
    one, other = road_graph(mask), road_graph(in_tiles(mask, tile_px=128, halo_px=64)[0])
    assert nx.utils.graphs_equal(*(nx.MultiGraph(graph.edges(keys=True)) for graph in (one, other)))
    assert one.number_of_edges() > 4
    for start, end, key, data in one.edges(keys=True, data=True):
        twin = other.edges[start, end, key]
        assert np.array_equal(data["line"], twin["line"])
        assert (data["width_median"], data["width_p90"]) == (twin["width_median"], twin["width_p90"])


def test_what_is_wider_than_the_halo_shows_is_reported():
    mask = np.zeros((300, 300), np.uint8)
    mask[140:150] = 1
    mask[200:280, 20:90] = 1  # a yard
    tiled, wide = in_tiles(mask, tile_px=100, halo_px=40)
    assert {(row, column) for row, column, _ in wide} == {(200, 0)}
    assert 60 < wide[0][2] <= 80
    road = tiled.rc[:, 0] < 180
    assert tiled.rc[road].tolist() == [[144, column] for column in range(300)] or set(tiled.rc[road, 0]) == {145}
    assert in_tiles(mask, tile_px=100, halo_px=200)[1] == []


def test_tiles_are_read_with_their_halo_and_told_when_done():
    asked, done = [], []

    def read(row, column, height, width):
        asked.append((row, column, height, width))
        return np.zeros((height, width), bool)

    centreline, wide = tiled_centreline(read, (100, 70), tile_px=50, halo_px=8, done=lambda: done.append(1))
    assert asked == [(0, 0, 58, 58), (0, 42, 58, 28), (42, 0, 58, 58), (42, 42, 58, 28)]
    assert len(done) == 4 and wide == [] and centreline.rc.shape == (0, 2)
    assert road_graph(centreline).number_of_nodes() == 0


def test_neighbours_are_those_of_the_image():
    lines = skeleton(generate_mine(2, 300, 3.0).mask)
    counted = convolve(lines.astype(int), np.ones((3, 3), int), mode="constant") - 1
    rc = np.argwhere(lines)
    near = Centreline(rc, np.ones(len(rc)), lines.shape).neighbours()
    assert np.array_equal((near >= 0).sum(axis=1), counted[lines])
    start, side = np.nonzero(near >= 0)
    assert (np.abs(rc[near[start, side]] - rc[start]).max(axis=1) == 1).all()


def test_half_widths_beside_the_line_are_none():
    mask = np.zeros((40, 40), bool)
    mask[10:15] = True
    centreline = Centreline.of_mask(mask)
    assert centreline.half_width_at(np.array([[7.2, 12.4], [7.0, 30.0]])).tolist() == [3, 0]
    assert Centreline.of_mask(mask & False).half_width_at(np.zeros((2, 2))).tolist() == [0, 0]
