import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmseg_ext.metrics.pixels import BoundaryCounts, boundary, boundary_counts

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
TRIPLES = SIDES.flatmap(lambda shape: arrays(bool, (3, *shape)))
DISTANCES = st.sampled_from([1, math.sqrt(2), 2, math.sqrt(5), 3, 4.5])


def mask_of(*rows):
    return np.array([[character == "#" for character in row] for row in rows])


def brute_force(mask, distance, valid):
    """Each pixel of the mask against each valid pixel outside of it."""
    outside = np.argwhere(valid & ~mask)
    near = np.zeros_like(mask)
    for y, x in np.argwhere(valid & mask):
        near[y, x] = any((y - v) ** 2 + (x - u) ** 2 <= distance**2 + 1e-9 for v, u in outside)
    return near


def test_squares_by_hand():
    truth, prediction = np.zeros((2, 12, 12), bool)
    truth[2:9, 2:9] = True  # 7 x 7; one to three pixels in remain 5 x 5, 3 x 3, 1
    assert [boundary(truth, d).sum() for d in (1, 2, 3, 4)] == [49 - 25, 49 - 9, 49 - 1, 49]
    prediction[2:9, 3:10] = True  # one column further right: IoU is 42 / 56
    # rings of 24: in common are the columns 3 to 8 of the top and the bottom row, the upright sides miss each other
    counts = boundary_counts(prediction, truth, 1)
    assert counts == BoundaryCounts(12, 36) and counts.iou == 1 / 3
    # four deep, all is boundary: plain IoU
    assert boundary_counts(prediction, truth, 4) == BoundaryCounts(42, 56)


def test_distances_are_euclidean():
    hole = np.ones((7, 7), bool)
    hole[3, 3] = False
    # offsets of length up to 1: 4; sqrt(2): 4 diagonal ones more; 2: 4 straight ones more; sqrt(5): 8 knight's moves
    reached = [boundary(hole, d).sum() for d in (1, 1.41, math.sqrt(2), 1.99, 2, 2.23, math.sqrt(5))]
    assert reached == [4, 4, 8, 8, 12, 12, 20]


def test_the_image_border_and_ignored_areas_are_no_contour():
    mask = mask_of("######", "######", "######", "......", "......")
    assert np.array_equal(boundary(mask, 1), mask_of("......", "......", "######", "......", "......"))
    # where the ground is ignored the road has no edge: at the left three columns
    valid = np.ones((5, 6), bool)
    valid[3:, :3] = False
    assert np.array_equal(boundary(mask, 1, valid), mask_of("......", "......", "...###", "......", "......"))
    # an ignored strip of the road is neither boundary itself nor makes its neighbours so
    valid = np.ones((5, 6), bool)
    valid[2] = False
    assert not boundary(mask, 1, valid).any()
    assert np.array_equal(boundary(mask, 2, valid), mask_of("......", "######", "......", "......", "......"))


def test_empty_full_and_single_pixels():
    none, full, one = np.zeros((5, 5), bool), np.ones((5, 5), bool), np.zeros((5, 5), bool)
    one[2, 2] = True
    assert math.isnan(boundary_counts(none, none).iou)
    assert math.isnan(boundary_counts(full, full).iou)  # nowhere a contour
    assert boundary_counts(none, one).iou == 0 and boundary_counts(one, none).iou == 0
    assert boundary_counts(one, one) == BoundaryCounts(1, 1)
    assert boundary_counts(one, ~one, 1) == BoundaryCounts(0, 5)  # the pixel, and the four around the hole
    corner = np.zeros((5, 5), bool)
    corner[0, 0] = True
    assert boundary_counts(corner, corner) == BoundaryCounts(1, 1)


def test_counts_pool_over_images():
    assert sum([BoundaryCounts(12, 36), BoundaryCounts(0, 0), BoundaryCounts(6, 12)]).iou == 18 / 48


@given(TRIPLES, DISTANCES)
@settings(max_examples=60, deadline=None)
def test_boundary_is_that_of_all_pairs(masks, distance):
    mask, _, valid = masks
    np.testing.assert_array_equal(boundary(mask, distance, valid), brute_force(mask, distance, valid))


@given(TRIPLES, DISTANCES)
@settings(max_examples=60, deadline=None)
def test_counts_do_not_depend_on_the_view(masks, distance):
    prediction, truth, valid = masks
    counts = boundary_counts(prediction, truth, distance, valid)
    assert boundary_counts(truth, prediction, distance, valid) == counts
    for view in (np.flipud, np.fliplr, np.rot90, np.transpose):
        assert boundary_counts(view(prediction), view(truth), distance, view(valid)) == counts
    same = boundary_counts(truth, truth, distance, valid)
    assert same.intersection == same.union == boundary(truth, distance, valid).sum()


@given(TRIPLES, DISTANCES)
@settings(max_examples=40, deadline=None)
def test_boundary_at_twice_the_resolution(masks, distance):
    # the four pixels of a boundary pixel are at most twice as far from the ground
    mask = masks[0]
    twice = mask.repeat(2, axis=0).repeat(2, axis=1)
    broad = boundary(mask, distance).repeat(2, axis=0).repeat(2, axis=1)
    assert not (broad & ~boundary(twice, 2 * distance)).any()


def test_straight_roads_at_twice_the_resolution():
    prediction, truth = np.zeros((2, 20, 20), bool)
    truth[4:14], prediction[5:15] = True, True
    # two rows deep from top and bottom: truth 4, 5, 12, 13, prediction 5, 6, 13, 14; at twice the size each row is two
    assert boundary_counts(prediction, truth, 2) == BoundaryCounts(2 * 20, 6 * 20)
    twice = [mask.repeat(2, axis=0).repeat(2, axis=1) for mask in (prediction, truth)]
    assert boundary_counts(*twice, 4) == BoundaryCounts(4 * 2 * 20, 4 * 6 * 20)


def test_a_very_wide_image():
    prediction, truth = np.zeros((2, 40, 40_000), bool)
    truth[10:30], prediction[11:31] = True, True
    # three rows deep: truth 10-12 and 27-29, prediction 11-13 and 28-30; two rows of either side in common
    assert boundary_counts(prediction, truth) == BoundaryCounts(4 * 40_000, 8 * 40_000)


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="of one shape"):
        boundary_counts(np.ones((2, 3), bool), np.ones((2, 3), bool), 3, np.ones((1, 3), bool))
