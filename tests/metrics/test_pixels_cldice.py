import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmseg_ext.metrics.pixels import MatchedCounts, cldice_counts

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
# prediction, truth, valid, and which pixels of a mask are called its skeleton
MASKS = SIDES.flatmap(lambda shape: arrays(bool, (4, *shape)))


def drawn(*rows):
    """A mask of all that is no point, and its skeleton, drawn as o."""
    characters = np.array([list(row) for row in rows])
    return characters != ".", characters == "o"


ROAD, ROAD_LINE = drawn(
    "..........",
    "##########",
    "oooooooooo",
    "##########",
    "..........",
    "..........",
)
BROKEN, BROKEN_LINE = drawn(
    "..........",
    "..........",
    "..........",
    "####..####",
    "oooo..oooo",
    "####..####",
)
HIGHER, HIGHER_LINE = drawn(
    "..........",
    "..........",
    "####..####",
    "oooo..oooo",
    "####..####",
    "..........",
)


def test_clDice_by_hand():
    # one row off with a gap of two: all 8 of its line lie in the road, 8 of the road's 10 lie in it
    counts = cldice_counts(HIGHER, ROAD, HIGHER_LINE, ROAD_LINE)
    assert counts == MatchedCounts(8, 8, 8, 10)
    assert (counts.precision, counts.recall) == (1, 0.8) and counts.f1 == pytest.approx(8 / 9, abs=1e-15)
    # two rows off, the masks still touch but neither line lies in the other mask
    counts = cldice_counts(BROKEN, ROAD, BROKEN_LINE, ROAD_LINE)
    assert counts == MatchedCounts(0, 8, 0, 10) and counts.f1 == 0


def test_ignored_pixels_count_nowhere():
    valid = np.ones(ROAD.shape, bool)
    valid[:, 3:6] = False  # the gap and a column left of it: 7 of each line are left, all of them matched
    assert cldice_counts(HIGHER, ROAD, HIGHER_LINE, ROAD_LINE, valid) == MatchedCounts(7, 7, 7, 7)


def test_empty_full_and_single_pixels():
    none, full = np.zeros((3, 5), bool), np.ones((3, 5), bool)
    line = np.zeros((3, 5), bool)
    line[1] = True
    assert math.isnan(cldice_counts(none, none, none, none).f1)
    missed, invented = cldice_counts(none, full, none, line), cldice_counts(full, none, line, none)
    assert missed.f1 == missed.recall == 0 and math.isnan(missed.precision)
    assert invented.f1 == invented.precision == 0 and math.isnan(invented.recall)
    assert cldice_counts(full, full, line, line) == MatchedCounts(5, 5, 5, 5)
    one = np.zeros((3, 5), bool)
    one[0, 0] = True
    assert cldice_counts(one, one, one, one).f1 == 1
    assert cldice_counts(one, full, one, line) == MatchedCounts(1, 1, 0, 5)


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_a_loop_and_do_not_depend_on_the_view(masks):
    prediction, truth, valid, thin = masks
    images = [prediction, truth, prediction & thin, truth & thin, valid]
    counts = cldice_counts(*images)
    matched_prediction = predicted = matched_truth = true = 0
    for p, t, ps, ts, v in zip(*(image.ravel().tolist() for image in images), strict=True):
        predicted += ps and v
        true += ts and v
        matched_prediction += ps and t and v
        matched_truth += ts and p and v
    assert counts == MatchedCounts(matched_prediction, predicted, matched_truth, true)
    for view in (np.flipud, np.fliplr, np.rot90):
        assert cldice_counts(*map(view, images)) == counts
    larger = cldice_counts(*(image.repeat(2, axis=0).repeat(2, axis=1) for image in images))
    assert larger == MatchedCounts(*(4 * n for n in vars(counts).values()))
    swapped = cldice_counts(truth, prediction, truth & thin, prediction & thin, valid)
    np.testing.assert_array_equal([swapped.precision, swapped.recall], [counts.recall, counts.precision])
    np.testing.assert_allclose(swapped.f1, counts.f1, rtol=1e-14)
    same = cldice_counts(truth, truth, truth & thin, truth & thin, valid)
    assert same.f1 == 1 if (truth & thin & valid).any() else math.isnan(same.f1)


def test_a_very_wide_image():
    road, line = np.zeros((2, 40, 40_000), bool)
    road[10:21], line[15] = True, True
    lower, lower_line = np.roll(road, 5, axis=0), np.roll(line, 5, axis=0)
    assert cldice_counts(lower, road, lower_line, line) == MatchedCounts(40_000, 40_000, 40_000, 40_000)
    lower, lower_line = np.roll(road, 6, axis=0), np.roll(line, 6, axis=0)
    assert cldice_counts(lower, road, lower_line, line) == MatchedCounts(0, 40_000, 0, 40_000)
