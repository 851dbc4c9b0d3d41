import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.errors import DataError
from mmseg_ext.metrics.pixels import (
    BINS,
    best_threshold,
    calibration_curve,
    entropy,
    error_found,
    expected_calibration_error,
    precision_recall_curve,
    probability_counts,
)


def counts_of(probability, truth, valid=None):
    """Counts of one row of pixels."""
    probability, truth = np.array([probability], float), np.array([truth], bool)
    return probability_counts(probability, truth, None if valid is None else np.array([valid], bool))


def cases(shapes=((1, 1), (3, 5), (12, 20))):
    """Probabilities at the centres of bins, few of them so that they repeat, truth and valid."""

    def make(seed):
        random = np.random.default_rng(seed)
        shape = shapes[random.integers(len(shapes))]
        levels = random.integers(0, BINS, random.integers(1, 40))
        probability = (random.choice(levels, shape) + 0.5) / BINS
        sharpness = random.choice([0.5, 1, 2])
        return probability, random.random(shape) < probability**sharpness, random.random(shape) < 0.8

    return st.integers(0, 2**32 - 1).map(make)


# --- counts


def test_bins_have_their_lower_edge():
    counts = counts_of([0, 1 / 300, 0.5, np.nextafter(0.5, 0), 0.999, 1, 0.29], [0, 0, 1, 0, 1, 1, 1])
    assert np.argwhere(counts.pixels).tolist() == [[0, 0], [0, 1], [0, 149], [1, 87], [1, 150], [1, 299]]
    assert counts.pixels[1, 299] == 2 and counts.pixels.sum() == 7 and counts.pixels.dtype == np.int64
    assert counts.probability_sums[299] == 1.999 and counts.probability_sums[87] == 0.29


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_edge_belongs_to_the_bin_above(kind):
    edges = (np.arange(BINS) / BINS).astype(kind)[None]
    assert (probability_counts(edges, np.zeros(edges.shape, bool)).pixels[0] == 1).all()
    below = np.nextafter(edges[:, 1:], kind(0))
    assert (probability_counts(below, np.ones(below.shape, bool)).pixels[1] == [1] * 299 + [0]).all()


def test_counts_add_up_and_ignored_pixels_count_nowhere():
    one, other = counts_of([0.1, 0.9], [0, 1]), counts_of([0.9, 0.3], [0, 1])
    both, among_ignored = one + other, counts_of([0.1, 0.9, 0.9, 0.3, np.nan], [0, 1, 0, 1, 1], [1, 1, 1, 1, 0])
    for pooled in (sum([one, other]), among_ignored):
        np.testing.assert_array_equal(pooled.pixels, both.pixels)
        np.testing.assert_array_equal(pooled.probability_sums, both.probability_sums)
    assert both.pixels[:, 270].tolist() == [1, 1]


def test_what_is_no_probability_is_refused():
    for wrong, found in ((1.5, "1.5"), (-0.25, "-0.25"), (255.0, "255.0"), (np.nan, "nan")):
        with pytest.raises(DataError, match=f"between 0 and 1, but there are some from .*{found}"):
            counts_of([0.5, wrong], [1, 1])
    truth = np.ones((1, 2), bool)
    with pytest.raises(ValueError, match="floats of shape"):
        probability_counts(np.ones((1, 2), np.uint8), truth)
    with pytest.raises(ValueError, match="floats of shape"):
        probability_counts(np.ones((1, 3)), truth)


# --- thresholds


def test_curve_by_hand():
    # road at 0.9, 0.6 and 0.2, ground at 0.7, 0.1
    curve = precision_recall_curve(counts_of([0.9, 0.7, 0.6, 0.2, 0.1], [1, 0, 1, 1, 0]))
    at = [round(threshold * 300) for threshold in (0, 0.2, 0.5, 0.65, 0.8, 0.95)]
    np.testing.assert_allclose(curve.thresholds[at], [0, 0.2, 0.5, 0.65, 0.8, 0.95])
    np.testing.assert_allclose(curve.precision[at], [3 / 5, 3 / 4, 2 / 3, 1 / 2, 1, np.nan])
    np.testing.assert_allclose(curve.recall[at], [1, 1, 2 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(curve.f1[at], [6 / 8, 6 / 7, 4 / 6, 2 / 5, 2 / 4, 0])


def test_best_threshold_by_hand():
    # best is 6/7, from above 0.1 up to 0.2: nearest to 0.5 is 0.2
    assert best_threshold(counts_of([0.9, 0.7, 0.6, 0.2, 0.1], [1, 0, 1, 1, 0])) == 0.2
    assert best_threshold(counts_of([0.9, 0.1], [1, 0])) == 0.5  # anything above 0.1 and up to 0.9 is right
    assert best_threshold(counts_of([0.9, 0.8], [1, 0])) == 241 / 300  # the first edge above 0.8
    assert best_threshold(counts_of([0.5], [1])) == 0.5
    assert math.isnan(best_threshold(counts_of([0.9, 0.1], [0, 0])))  # no road to choose by


def test_curve_without_road_or_pixels():
    curve = precision_recall_curve(counts_of([0.5], [0]))
    # up to 0.5 a pixel is invented, above that both are empty
    np.testing.assert_array_equal(curve.f1, [0] * 151 + [np.nan] * 149)
    np.testing.assert_array_equal(curve.precision, curve.f1)
    assert np.isnan(curve.recall).all()
    assert all(np.isnan(scores).all() for scores in precision_recall_curve(counts_of([0.5], [1], [0]))[1:])


@given(cases())
@settings(max_examples=25, deadline=None)
def test_curve_is_that_of_thresholding_the_image(case):
    probability, truth, valid = case
    curve = precision_recall_curve(probability_counts(*case))
    true = truth[valid]
    for k in (0, 1, 75, 149, 150, 151, 290, 299, *(np.unique(probability * BINS).astype(int)[:20])):
        road = probability[valid] >= k / BINS
        hits = (road & true).sum()
        assert curve.thresholds[k] == k / BINS
        for score, part, whole in (
            (curve.precision, hits, road.sum()),
            (curve.recall, hits, true.sum()),
            (curve.f1, 2 * hits, road.sum() + true.sum()),
        ):
            assert score[k] == part / whole if whole else math.isnan(score[k])
    threshold = best_threshold(probability_counts(*case))
    if true.any():
        roads = [probability[valid] >= k / BINS for k in range(BINS)]
        f1 = [2 * (true & road).sum() / (true.sum() + road.sum()) for road in roads]
        equals = [k / BINS for k in range(BINS) if f1[k] == max(f1)]
        assert threshold in equals and abs(threshold - 0.5) == min(abs(k - 0.5) for k in equals)
    else:
        assert math.isnan(threshold)


# --- calibration


def test_calibration_by_hand():
    # fifths: two pixels at 0.1 and 0.15, none road; four at 0.7, three of them road; one at 1, no road
    counts = counts_of([0.1, 0.15, 0.7, 0.7, 0.7, 0.7, 1], [0, 0, 1, 1, 1, 0, 0])
    curve = calibration_curve(counts, 5)
    np.testing.assert_allclose(curve.mean_probability, [0.125, 0.7, 1])
    np.testing.assert_allclose(curve.road_share, [0, 0.75, 0])
    assert curve.pixels.tolist() == [2, 4, 1]
    # (2 * 0.125 + 4 * 0.05 + 1 * 1) / 7
    assert expected_calibration_error(counts, 5) == pytest.approx(1.45 / 7, abs=1e-15)


def test_calibration_of_sure_and_of_no_pixels():
    assert expected_calibration_error(counts_of([0, 1, 1], [0, 1, 1])) == 0
    assert expected_calibration_error(counts_of([0, 1, 1], [1, 0, 0])) == 1
    # bins of a third: 0.5 for half road is right on the whole, whatever the single pixels are
    assert expected_calibration_error(counts_of([0.4, 0.6], [1, 0]), 3) == pytest.approx(0, abs=1e-15)
    assert math.isnan(expected_calibration_error(counts_of([0.5], [1], [0])))
    assert [part.size for part in calibration_curve(counts_of([0.5], [1], [0]))] == [0, 0, 0]
    with pytest.raises(ValueError, match="300, which 7 does not"):
        calibration_curve(counts_of([0.5], [1]), 7)


@given(cases(), st.sampled_from([1, 10, 15, 20]))
@settings(max_examples=25, deadline=None)
def test_calibration_is_that_of_the_pixels(case, bins):
    probability, truth, valid = case
    p, t = probability[valid], truth[valid]
    expected = 0.0
    curve = []
    for k in range(bins):
        here = (p >= k / bins) & ((p < (k + 1) / bins) | (k == bins - 1))
        if here.any():
            curve.append((p[here].mean(), t[here].mean(), here.sum()))
            expected += here.sum() / p.size * abs(t[here].mean() - p[here].mean())
    counts = probability_counts(*case)
    np.testing.assert_allclose(np.reshape(np.transpose(calibration_curve(counts, bins)), (-1,)), np.ravel(curve))
    error = expected_calibration_error(counts, bins)
    assert error == pytest.approx(expected, abs=1e-12) if p.size else math.isnan(error)


# --- errors found


def test_errors_found_by_hand():
    # by rising |p - 0.5|: 0.45 (wrong), 0.6 (right), 0.25 (wrong), 0.9 (wrong), 0.02 (right)
    counts = counts_of([0.45, 0.6, 0.25, 0.9, 0.02], [1, 1, 1, 0, 0])
    assert [error_found(counts, n / 5) for n in range(6)] == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1, 1], abs=1e-15)
    assert error_found(counts, 0.5) == pytest.approx(1 / 3 + 1 / 6, abs=1e-15)  # half a pixel of the third


def test_pixels_as_far_from_the_half_are_shared_out():
    # 0.4017 and 0.5983 lie in the bins 120 and 179, as far below and above 0.5: four pixels as certain, two wrong
    low, high = 120.5 / 300, 179.5 / 300
    counts = counts_of([low, low, high, high, 0.99, 0.99, 0.99, 0.01], [1, 0, 0, 1, 0, 1, 1, 0])
    assert error_found(counts, 0.25) == pytest.approx((2 * 2 / 4) / 3, abs=1e-15)  # two of the four


def test_no_error_to_find():
    assert math.isnan(error_found(counts_of([0.9, 0.1], [1, 0])))
    assert math.isnan(error_found(counts_of([0.9], [0], [0])))  # all is ignored
    assert error_found(counts_of([1.0, 0.0], [0, 1])) == pytest.approx(0.1, abs=1e-15)  # sure and wrong: as by chance


@given(cases(), st.sampled_from([0.0, 0.05, 0.1, 0.37, 1.0]))
@settings(max_examples=40, deadline=None)
def test_errors_found_are_those_of_going_through_the_pixels(case, share):
    probability, truth, valid = case
    wrong = (probability[valid] >= 0.5) != truth[valid]
    found = error_found(probability_counts(*case), share)
    if not wrong.any():
        assert math.isnan(found)
        return
    uncertain = -np.abs(np.floor(probability[valid] * BINS) - 149.5)
    budget, seen = share * wrong.size, 0.0
    for level in sorted(set(uncertain), reverse=True):
        group = wrong[uncertain == level]
        looked_at = min(budget, group.size)
        seen += group.sum() * looked_at / group.size
        budget -= looked_at
    assert found == pytest.approx(seen / wrong.sum(), abs=1e-12)


# --- views of the image


@given(cases())
@settings(max_examples=20, deadline=None)
def test_counts_do_not_depend_on_where_pixels_are(case):
    counts = probability_counts(*case)
    for view, times in ((np.rot90, 1), (np.fliplr, 1), (lambda image: image.repeat(2, axis=0).repeat(2, axis=1), 4)):
        other = probability_counts(*map(view, case))
        np.testing.assert_array_equal(other.pixels, times * counts.pixels)
        np.testing.assert_allclose(other.probability_sums, times * counts.probability_sums)
        for measure in (best_threshold, expected_calibration_error, error_found):
            np.testing.assert_allclose(measure(other), measure(counts), atol=1e-12)


def test_the_truth_as_probability_is_perfect():
    truth = np.eye(6, dtype=bool)
    counts = probability_counts(truth.astype(np.float32), truth)
    assert (precision_recall_curve(counts).f1[1:] == 1).all() and best_threshold(counts) == 0.5
    assert expected_calibration_error(counts) == 0 and math.isnan(error_found(counts))


def test_a_very_wide_image():
    probability = np.full((40, 40_000), 0.25, np.float32)
    truth = np.zeros(probability.shape, bool)
    truth[:10] = True  # a quarter is road
    counts = probability_counts(probability, truth)
    assert counts.pixels[:, 75].tolist() == [1_200_000, 400_000]
    assert expected_calibration_error(counts) == 0 and error_found(counts, 0.1) == pytest.approx(0.1, abs=1e-15)


# --- entropy


def test_entropy_by_hand():
    # of 1/4: 1/4 * 2 + 3/4 * log2(4/3) = 2 - 3/4 * log2(3)
    quarter = 2 - 0.75 * math.log2(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bits = entropy(np.array([[0, 0.25, 0.5, 0.75, 1]]))
        small = entropy(np.array([[0, 1e-30, 0.25, 1]], np.float32))
    np.testing.assert_allclose(bits, [[0, quarter, 1, quarter, 0]], rtol=1e-14)
    np.testing.assert_allclose(small, [[0, 0, quarter, 0]], rtol=1e-6, atol=1e-27)
    assert small.dtype == np.float32


def test_entropy_falls_with_the_distance_from_the_half():
    probability = np.linspace(0, 1, 1001)
    bits = entropy(probability[None])[0]
    np.testing.assert_allclose(bits, bits[::-1], atol=1e-12)
    assert (np.diff(bits[:501]) > 0).all() and bits.max() == bits[500] == 1
