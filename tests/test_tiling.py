import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmseg_ext.tiling import blend_weights, even_parts, overlapping_starts, windows


@given(st.integers(1, 5000), st.integers(2, 600), st.data())
def test_overlapping_tiles_cover_and_overlap(length, tile, data):
    overlap = data.draw(st.integers(0, tile - 1))
    starts = overlapping_starts(length, tile, overlap)
    if length <= tile:
        assert starts == [0]
        return
    assert starts[0] == 0 and starts[-1] == length - tile
    steps = np.diff(starts)
    assert (steps > 0).all() and (tile - steps >= overlap).all()
    assert (len(starts) - 1) * (tile - overlap) + overlap < length  # one fewer would not do


@given(st.integers(1, 5000), st.integers(1, 600))
def test_even_parts_make_up_the_whole(length, tile):
    parts = even_parts(length, tile)
    assert sum(size for _, size in parts) == length
    assert [start for start, _ in parts] == [0, *np.cumsum([size for _, size in parts])[:-1]]
    sizes = [size for _, size in parts]
    assert max(sizes) <= tile and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("overlap", "times"), [(None, {1}), (10, {1, 2, 4})])
def test_every_pixel_is_in_a_window(overlap, times):
    seen = np.zeros((100, 70), int)
    for row, column, height, width in windows(100, 70, 64, overlap):
        seen[row : row + height, column : column + width] += 1
    assert set(np.unique(seen)) == times


@given(st.integers(1, 3000), st.integers(2, 300), st.data())
def test_blend_weights_sum_up_to_one(length, tile, data):
    starts = overlapping_starts(length, tile, data.draw(st.integers(0, tile - 1)))
    tile = min(tile, length)
    weights = blend_weights(starts, tile)
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    assert weights.min() >= 0 and np.abs(total - 1).max() < 1e-6


def test_blend_weights_by_hand():
    # two tiles of 3 px that share 1 px: half of it each; sin^2 of an eighth turn is 1/2
    assert np.allclose(blend_weights([0, 2], 3), [[1, 1, 0.5], [0.5, 1, 1]])
    assert blend_weights([0], 4).tolist() == [[1, 1, 1, 1]]
