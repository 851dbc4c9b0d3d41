import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.datasets import generate_mine


def distance_to_edge(road, points):
    """A second implementation: the distance of ``points`` from the road's edge by brute force over all segments."""
    best = np.full(len(points), np.inf)
    for a, b, wa, wb in zip(road.xy_m[:-1], road.xy_m[1:], road.width_m[:-1], road.width_m[1:], strict=True):
        t = np.clip(((points - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)[:, None]
        distance = np.linalg.norm(points - (a + t * (b - a)), axis=1)
        best = np.minimum(best, distance - (wa + t[:, 0] * (wb - wa)) / 2)
    return best


@pytest.mark.parametrize("seed", [0, 11])
def test_mask_is_the_roads_exactly(seed):
    mine = generate_mine(seed, size_px=150, gsd_m=4.0)
    row, col = np.indices(mine.mask.shape)
    centres = (np.stack([col, row], -1).reshape(-1, 2) + 0.5) * mine.gsd_m
    on_road = np.min([distance_to_edge(road, centres) for road in mine.roads], axis=0) <= 0
    assert (on_road.reshape(mine.mask.shape) == (mine.mask == 1)).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_seed_is_a_mine(seed):
    mine = generate_mine(seed, size_px=128, gsd_m=6.0)
    assert mine.image.shape == (128, 128, 3)
    assert mine.image.dtype == mine.mask.dtype == np.uint8
    assert set(np.unique(mine.mask)) == {0, 1}
    assert 0.03 < mine.mask.mean() < 0.2
    kinds = [road.kind for road in mine.roads]
    assert kinds == ["ramp", "ring", "haul", "haul", "haul"]
    for road in mine.roads:
        assert 9 < road.width_m.min() <= road.width_m.max() < 29
        steps = np.linalg.norm(np.diff(road.xy_m, axis=0), axis=1)
        assert steps.max() < 2.5
    # the pit is a pit, and trucks can drive its ramp
    ramp = mine.roads[0]
    assert np.ptp(mine.elevation_m) > 0.09 * 768
    grades = np.abs(np.diff(ramp.z_m)) / np.linalg.norm(np.diff(ramp.xy_m, axis=0), axis=1)
    assert np.median(grades) < 0.2


def test_same_seed_same_mine_and_other_seed_other_mine():
    a, b, c = (generate_mine(seed, 128, 4.0) for seed in (3, 3, 4))
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.elevation_m, b.elevation_m)
    assert not np.array_equal(a.mask, c.mask)


def test_roads_have_nearly_the_colour_of_the_ground():
    mine = generate_mine(5, 512, 1.0)
    grey = mine.image.astype(float).mean(2)
    on, off = grey[mine.mask == 1], grey[mine.mask == 0]
    assert abs(on.mean() - off.mean()) < 1.5 * off.std()  # no threshold finds them
    best = max(((grey > t) & (mine.mask == 1)).sum() / ((grey > t) | (mine.mask == 1)).sum() for t in range(60, 240, 5))
    assert best < 0.5


def test_a_scene_too_small_for_a_mine_is_refused():
    with pytest.raises(ValueError, match="200 or more"):
        generate_mine(0, 64, 1.0)
