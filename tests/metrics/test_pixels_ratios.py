import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmseg_ext.metrics.pixels import MatchedCounts, only_valid, ratio, ratios


def test_a_ratio_without_a_denominator_is_nan():
    assert ratio(3, 4) == 0.75 and ratio(0, 4) == 0 and math.isnan(ratio(0, 0))
    assert ratio(np.int64(3), np.int64(4)) == 0.75 and math.isnan(ratio(np.int64(0), np.int64(0)))
    np.testing.assert_array_equal(ratios([1, 0, 0], [2, 0, 5]), [0.5, np.nan, 0])
    np.testing.assert_array_equal(ratios([1, 0], 4), [0.25, 0])


def test_f1_by_hand():
    # precision 3/4, recall 1/2: 2 * 3/8 / (5/4) = 3/5
    assert MatchedCounts(3, 4, 5, 10).f1 == pytest.approx(0.6, abs=1e-15)
    assert math.isnan(MatchedCounts(0, 0, 0, 0).f1)  # nothing to score
    assert MatchedCounts(0, 0, 0, 7).f1 == 0 and MatchedCounts(0, 7, 0, 0).f1 == 0  # one is empty
    assert MatchedCounts(0, 7, 0, 7).f1 == 0  # both there, nothing matched
    assert MatchedCounts(0.0, 0.0, 0.0, 2.5).f1 == 0 and MatchedCounts(2.5, 2.5, 2.5, 2.5).f1 == 1  # lengths


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_f1_of_the_same_hits_is_dice(hits, false_alarms, misses):
    f1 = MatchedCounts(hits, hits + false_alarms, hits, hits + misses).f1
    dice = ratio(2 * hits, 2 * hits + false_alarms + misses)
    np.testing.assert_allclose(f1, dice, rtol=1e-14)  # nan and 0 where Dice has them


def test_counts_add_up_over_images():
    # (1 + 3) of (2 + 4) predicted pixels, (2 + 0) of (4 + 0) true ones: precision 2/3, recall 1/2, F1 4/7
    images = [MatchedCounts(1, 2, 2, 4), MatchedCounts(3, 4, 0, 0)]
    pooled = images[0] + images[1]
    assert pooled == MatchedCounts(4, 6, 2, 4) == sum(images)
    assert (pooled.precision, pooled.recall) == (4 / 6, 0.5) and pooled.f1 == pytest.approx(4 / 7, abs=1e-15)
    assert images[1].f1 == 0 and math.isnan(images[1].recall)
    with pytest.raises(TypeError):
        5 + images[0]


def test_ignored_pixels_are_taken_out():
    mask, valid = np.array([[True, True, False]]), np.array([[True, False, True]])
    assert only_valid(valid, mask, ~mask)[0].tolist() == [[True, False, False]]
    assert only_valid(valid, mask, ~mask)[1].tolist() == [[False, False, True]]
    assert only_valid(None, mask)[0] is mask


@pytest.mark.parametrize(
    "arrays",
    [
        (None, np.ones((2, 3), bool), np.ones((1, 3), bool)),  # would broadcast
        (np.ones((1, 3), bool), np.ones((2, 3), bool)),
        (None, np.ones((2, 3), np.uint8)),  # ~ and & would go by bits
        (np.ones((2, 3), int), np.ones((2, 3), bool)),
        (None, np.ones(3, bool)),
    ],
)
def test_masks_that_do_not_fit_are_refused(arrays):
    with pytest.raises(ValueError, match="of one shape"):
        only_valid(*arrays)
