from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.errors import ConfigError
from mmseg_ext.mapping import TilePlan


@st.composite
def plans(draw):
    tile = draw(st.integers(1, 80))
    scale = draw(st.sampled_from([1.0, 1.0, 0.5, 2.0, 1.25, 0.37, 3.0]))
    stride = draw(st.sampled_from([1, 2, 8, 16]))
    shape = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    return TilePlan(*shape, tile, draw(st.integers(0, tile // 2)), scale, stride)


@given(plans())
@settings(deadline=None)
def test_tiles_lie_inside_but_for_a_square_and_cover(plan):
    aligned = plan.scale == 1 and plan.tile_px % plan.stride == 0 and plan.tile_px > plan.stride
    for starts, size, length in (
        (plan.row_starts, plan.tile_shape[0], plan.height),
        (plan.column_starts, plan.tile_shape[1], plan.width),
    ):
        seen = np.zeros(length, int)
        for start in starts:
            assert 0 <= start <= start + size < length + (plan.stride if aligned and len(starts) > 1 else 1)
            assert not aligned or start % plan.stride == 0
            seen[start : start + size] += 1
        assert seen.min() >= 1
        assert all(b - a <= size - min(plan.overlap_px, size // 2) for a, b in pairwise(starts)) or plan.scale != 1
    assert max(plan.network_shape) <= plan.tile_px


@given(plans())
@settings(deadline=None)
def test_strips_part_the_rows_and_know_their_tile_rows(plan):
    done = 0
    tile_height = plan.tile_shape[0]
    for index in plan.rows:
        start, end = plan.strip(index)
        assert start == done < end
        done = end
        touching = [i for i, row in enumerate(plan.row_starts) if row < end and row + tile_height > start]
        assert list(plan.tile_rows_of(index)) == touching  # brute force: no later tile row, and all earlier ones
    assert done == plan.height


@given(plans())
@settings(deadline=None)
def test_weights_sum_up_to_one(plan):
    total = np.zeros((plan.height, plan.width))
    height, width = plan.tile_shape
    for row, row_weights in zip(plan.row_starts, plan.row_weights, strict=True):
        for column, column_weights in zip(plan.column_starts, plan.column_weights, strict=True):
            inside = total[row : row + height, column : column + width]
            inside += np.outer(row_weights, column_weights)[: inside.shape[0], : inside.shape[1]]
    assert np.abs(total - 1).max() < 1e-6
    assert plan.row_weights.min() >= 0 and plan.column_weights.min() >= 0


def test_by_hand():
    # 6 px tiles that share 2 px: starts 0, 4, 8 make up 14 rows; 5 columns are less than a tile
    plan = TilePlan(14, 5, 6, 2)
    assert plan.row_starts == (0, 4, 8) and plan.column_starts == (0,)
    assert plan.tile_shape == plan.network_shape == (6, 5)
    assert [plan.strip(i) for i in plan.rows] == [(0, 4), (4, 8), (8, 14)]
    assert [list(plan.tile_rows_of(i)) for i in plan.rows] == [[0], [0, 1], [1, 2]]
    # sin^2 at 1/4 and 3/4 of a quarter turn
    low, high = np.sin(np.pi / 8) ** 2, np.sin(3 * np.pi / 8) ** 2
    assert np.allclose(plan.row_weights[1], [low, high, 1, 1, high, low], atol=1e-6)
    assert np.allclose(plan.row_weights[0], [1, 1, 1, 1, high, low], atol=1e-6)  # flat at the raster's border
    assert np.allclose(plan.column_weights, 1)


def test_the_stride_by_hand():
    # 128 px tiles begin at multiples of 32, and the last reaches out to 320 where 300 rows are
    plan = TilePlan(300, 128, 128, 40, stride=32)
    assert plan.row_starts == (0, 64, 128, 192) and plan.column_starts == (0,)
    assert plan.strip(3) == (192, 300)
    # neither tiles of 100 px nor another scale can be aligned
    assert TilePlan(300, 128, 100, 40, stride=32).row_starts == (0, 50, 100, 150, 200)
    assert TilePlan(300, 128, 128, 40, 0.5, stride=32).row_starts == (0, 44)


def test_scale():
    # 512 network pixels at 1.25 for one of the raster are 409.6, so 410; at 3 they are 171, which still show 512
    assert TilePlan(2000, 3000, 512, 100, 1.25).tile_shape == (410, 410)
    assert TilePlan(2000, 3000, 512, 100, 3).tile_shape == (171, 171)
    assert TilePlan(2000, 3000, 512, 100, 3).network_shape == (512, 512)
    # 100 rows are less than a tile of 1024, of which the network sees half
    half = TilePlan(100, 3000, 512, 100, 0.5)
    assert half.tile_shape == (100, 1024) and half.network_shape == (50, 512)


@pytest.mark.parametrize(
    ("tile", "overlap", "scale", "words"),
    [(64, 33, 1, "half a tile, which is 32"), (64, -1, 1, "overlap"), (0, 0, 1, "1 px or more"), (64, 8, 0, "scale")],
)
def test_refused(tile, overlap, scale, words):
    with pytest.raises(ConfigError, match=words):
        TilePlan(100, 100, tile, overlap, scale)
