import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from mmseg_ext.metrics.pixels import MatchedCounts, relaxed_counts, within_distance

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
PAIRS = SIDES.flatmap(lambda shape: arrays(bool, (3, *shape)))
RADII = st.sampled_from(
    [0, 0.5, 1, 1.2, math.sqrt(2), 2, math.sqrt(5), math.sqrt(8), 3, math.sqrt(10), math.sqrt(13), 5]
)


def brute_force(prediction, truth, rho, valid):
    """All pairs of pixels, one by one; squared distances are whole numbers."""

    def matched(ones, others):
        largest = math.floor(rho * rho + 1e-9)
        return sum(any((y - v) ** 2 + (x - u) ** 2 <= largest for v, u in others) for y, x in ones)

    predicted, true = (
        [(y, x) for y, x in itertools.product(*map(range, mask.shape)) if mask[y, x] and valid[y, x]]
        for mask in (prediction, truth)
    )
    return MatchedCounts(matched(predicted, true), len(predicted), matched(true, predicted), len(true))


def test_a_shifted_road_by_hand():
    prediction, truth = np.zeros((2, 8, 12), bool)
    truth[2, :10] = True  # ten pixels; above the predicted ones, three rows away, are five of them
    prediction[5, :5] = True
    assert relaxed_counts(prediction, truth, 2.99) == MatchedCounts(0, 5, 0, 10)
    counts = relaxed_counts(prediction, truth)
    assert counts == MatchedCounts(5, 5, 5, 10)
    assert (counts.precision, counts.recall) == (1, 0.5) and counts.f1 == pytest.approx(2 / 3, abs=1e-15)
    # one column further on is sqrt(9 + 1) away, two are sqrt(9 + 4)
    assert relaxed_counts(prediction, truth, 3.16) == MatchedCounts(5, 5, 5, 10)
    assert relaxed_counts(prediction, truth, math.sqrt(10)) == MatchedCounts(5, 5, 6, 10)
    assert relaxed_counts(prediction, truth, math.sqrt(13)) == MatchedCounts(5, 5, 7, 10)
    # columns 3 and on of the truth are ignored: neither counted nor a match for the predicted columns 3 and 4
    valid = np.ones((8, 12), bool)
    valid[2, 3:] = False
    assert relaxed_counts(prediction, truth, 3, valid) == MatchedCounts(3, 5, 3, 3)


def test_roads_along_the_border():
    prediction, truth = np.zeros((2, 6, 6), bool)
    truth[0], prediction[:, 0] = True, True  # they share the corner; 3 pixels further along each are within 3 of it
    assert relaxed_counts(prediction, truth) == MatchedCounts(4, 6, 4, 6)


def test_empty_and_full():
    none, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    empty = relaxed_counts(none, none)
    assert empty == MatchedCounts(0, 0, 0, 0) and np.isnan([empty.precision, empty.recall, empty.f1]).all()
    missed, invented = relaxed_counts(none, full), relaxed_counts(full, none)
    assert missed.f1 == missed.recall == 0 and math.isnan(missed.precision)
    assert invented.f1 == invented.precision == 0 and math.isnan(invented.recall)
    assert relaxed_counts(full, full) == MatchedCounts(20, 20, 20, 20)
    assert relaxed_counts(full, full, 3, none) == MatchedCounts(0, 0, 0, 0)  # all is ignored


def test_a_single_pixel_reaches_a_disk():
    one = np.zeros((9, 9), bool)
    one[4, 4] = True
    # whole offsets of length up to 3: 7 + 2 * (5 + 5 + 1) = 29
    assert within_distance(one, 3).sum() == 29 and within_distance(one, 0).sum() == 1
    assert within_distance(one[4:, 4:], 3).sum() == 4 + 3 + 3 + 1  # a quarter of it at a corner of the image


@given(PAIRS, RADII)
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_all_pairs(masks, rho):
    prediction, truth, valid = masks
    assert relaxed_counts(prediction, truth, rho, valid) == brute_force(prediction, truth, rho, valid)


@given(PAIRS, RADII)
@settings(max_examples=60, deadline=None)
def test_counts_do_not_depend_on_the_view(masks, rho):
    prediction, truth, valid = masks
    counts = relaxed_counts(prediction, truth, rho, valid)
    for view in (np.flipud, np.fliplr, np.rot90, np.transpose):
        assert relaxed_counts(view(prediction), view(truth), rho, view(valid)) == counts
    swapped = relaxed_counts(truth, prediction, rho, valid)
    np.testing.assert_array_equal([swapped.precision, swapped.recall], [counts.recall, counts.precision])
    np.testing.assert_allclose(swapped.f1, counts.f1, rtol=1e-14)
    same = relaxed_counts(truth, truth, rho, valid)
    assert same.f1 == 1 if (truth & valid).any() else math.isnan(same.f1)


@given(PAIRS, RADII)
@settings(max_examples=40, deadline=None)
def test_counts_of_an_image_at_twice_the_resolution(masks, rho):
    # blocks (dx, dy) apart hold pixels from 2 |dx| - 1 apart (facing sides) to 2 |dx| (the far side of one block), so
    # a block's pixels are at most 2 d from the other block, and at least 2 d - sqrt(2)
    counts = relaxed_counts(*masks[:2], rho)
    twice = masks.repeat(2, axis=1).repeat(2, axis=2)
    doubled = relaxed_counts(*twice[:2], 2 * rho)
    assert (doubled.prediction, doubled.truth) == (4 * counts.prediction, 4 * counts.truth)
    assert doubled.matched_prediction >= 4 * counts.matched_prediction
    assert doubled.matched_truth >= 4 * counts.matched_truth
    if 2 * rho > math.sqrt(2) + 0.01:
        tight = relaxed_counts(*twice[:2], 2 * rho - math.sqrt(2) - 0.01)
        assert tight.matched_prediction <= 4 * counts.matched_prediction
        assert tight.matched_truth <= 4 * counts.matched_truth
    pixels = relaxed_counts(*masks[:2], 0)
    assert relaxed_counts(*twice[:2], 0) == MatchedCounts(*(4 * np.array(list(vars(pixels).values()))))


def test_distances_are_those_of_scipy():
    random = np.random.default_rng(0)
    for share in (0.3, 0.02, 0.002):
        mask = random.random((120, 90)) < share
        distance = distance_transform_edt(~mask)
        for squared in range(0, 150):  # whole distances and irrational ones
            radius = math.sqrt(squared)
            np.testing.assert_array_equal(within_distance(mask, radius), distance <= radius)


def test_a_very_wide_image():
    mask = np.random.default_rng(1).random((40, 40_000)) < 0.001
    np.testing.assert_array_equal(within_distance(mask, 3), distance_transform_edt(~mask) <= 3)
    prediction, truth = np.zeros((2, 40, 40_000), bool)
    truth[20], prediction[24, :39_990] = True, True
    # four rows apart; beyond the end, 3 more columns are within 5 of it (3-4-5)
    assert relaxed_counts(prediction, truth, 3) == MatchedCounts(0, 39_990, 0, 40_000)
    assert relaxed_counts(prediction, truth, 5) == MatchedCounts(39_990, 39_990, 39_993, 40_000)
    far = np.zeros((40, 40_000), bool)
    far[0, -1] = True
    assert relaxed_counts(far, far[::-1, ::-1]) == MatchedCounts(0, 1, 0, 1)


def test_a_distance_below_zero_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        within_distance(np.ones((2, 2), bool), -1)
