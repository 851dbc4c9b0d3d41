"""Centrelines by tiles: the same as in one piece, and what is too wide is told."""

import networkx as nx
import numpy as np
import pytest
from scipy.ndimage import convolve, gaussian_filter

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.roads import Centreline, road_graph, tiled_centreline
from mmseg_ext.roads.skeleton import half_width, skeleton, widest_px


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
    assert {(area.row, area.column) for area in wide} == {(200, 0)}
    assert 60 < wide[0].width_px <= 80
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
