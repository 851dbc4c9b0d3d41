import numpy as np
import pytest

from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.scoring.comparison import compare_runs, comparison_table

ROAD = ("true_positive", "false_positive", "false_negative")


def content(hits, of=100, apls=None):
    """A run whose image i finds ``hits[i]`` of ``of`` road pixels and nothing else."""
    images = [
        dict(
            name=str(i),
            counts=dict(true_positive=hit, false_positive=0, false_negative=of - hit),
            scores=dict(APLS_spacenet=None if apls is None else apls[i]),
        )
        for i, hit in enumerate(hits)
    ]
    return dict(images=images, road=dict(IoU={}, APLS_spacenet={}))


def test_a_constant_gain_is_significant_and_its_interval_a_point():
    runs = {"old": content([50, 60, 70, 80]), "new": content([52, 62, 72, 82])}
    old, new = compare_runs(runs, ["IoU"])
    assert (old.difference, old.low, old.high) == (0, 0, 0) and not old.is_significant
    assert new.value == pytest.approx(0.67) and new.difference == pytest.approx(0.02)
    assert (new.low, new.high) == pytest.approx((0.02, 0.02)) and new.is_significant and new.images == 4
    table = comparison_table([old, new])
    # of the sums of four draws from 50, 60, 70, 80
    assert old.interval == pytest.approx((0.55, 0.75), abs=0.011)
    assert "| IoU (pooled) | old | 65.00 | 55.00 to 75.00 |  |  |  |" in table
    assert "| IoU (pooled) | new | 67.00 | 57.00 to 77.00 | +2.00 | +2.00 to +2.00 | better |" in table


def test_a_gain_that_hangs_on_one_image_is_not_significant():
    runs = {"old": content([50] * 10), "new": content([90] + [49] * 9)}
    new = compare_runs(runs, ["IoU"])[1]
    assert new.difference == pytest.approx((40 - 9) / 1000)
    # an image is missing from a resample with (9/10)^10 = 35 %: the lower end is all nine losses
    assert new.low == pytest.approx(-0.01) and new.high > new.difference and not new.is_significant


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    random = np.random.default_rng(0)
    first = random.uniform(0.2, 0.8, 400)
    second = first + random.normal(0.01, 0.05, 400)
    runs = {"a": content([1] * 400, apls=first.tolist()), "b": content([1] * 400, apls=second.tolist())}
    b = compare_runs(runs, ["APLS_spacenet"])[1]
    differences = second - first
    error = differences.std() / 20
    spread = 1.96 * second.std() / 20
    assert b.interval == pytest.approx((second.mean() - spread, second.mean() + spread), abs=0.1 * spread)
    assert b.difference == pytest.approx(differences.mean())
    assert (b.low, b.high) == pytest.approx(
        (differences.mean() - 1.96 * error, differences.mean() + 1.96 * error), abs=0.1 * error
    )


def test_images_without_a_score_in_either_run_are_left_out():
    runs = {"a": content([1] * 3, apls=[0.5, None, 0.7]), "b": content([1] * 3, apls=[0.6, 0.9, None])}
    b = compare_runs(runs, ["APLS_spacenet"])[1]
    assert b.images == 1 and b.value == 0.6 and b.difference == pytest.approx(0.1)
    assert np.isnan([b.low, b.high]).all() and not b.is_significant  # one image has no spread
    a = compare_runs(runs, ["APLS_spacenet"])[0]
    assert "| b | 60.00 | - to - | +10.00 | - to - | not significant |" in comparison_table([a, b])


def test_resamples_without_any_road_are_left_out():
    # a quarter of the resamples draws the empty image twice and has no IoU; all others have the same gain
    runs = {"a": content([50, 0]), "b": content([60, 0])}
    for run in runs.values():
        run["images"][1]["counts"] = dict.fromkeys(ROAD, 0)
    b = compare_runs(runs, ["IoU"])[1]
    assert (b.difference, b.low, b.high) == pytest.approx((0.1, 0.1, 0.1)) and b.is_significant


def test_the_same_seed_draws_the_same_images():
    runs = {"a": content([50, 60, 70, 80]), "b": content([60, 40, 90, 85])}
    one, same, other = (compare_runs(runs, ["IoU"], seed=seed, resamples=99)[1] for seed in (0, 0, 1))
    assert one == same and one != other


def test_one_run_gets_the_intervals_of_its_scores():
    (one,) = compare_runs({"a": content([50, 60, 70, 80])}, ["IoU"])
    assert comparison_table([one]).splitlines() == [
        "| score | run | value | 95 % interval |",
        "| --- | --- | --- | --- |",
        "| IoU (pooled) | a | 65.00 | 55.00 to 75.00 |",
    ]


def test_what_does_not_compare_is_refused():
    run = content([50, 60])
    with pytest.raises(ConfigError, match="a confidence of 95; give a number between 0 and 1"):
        compare_runs({"a": run}, confidence=95)
    with pytest.raises(ConfigError, match="nonsense: no such score; take some of IoU"):
        compare_runs({"a": run, "b": run}, ["nonsense"])
    with pytest.raises(DataError, match="b: image 2 is in only one of it and a; compare runs of one split"):
        compare_runs({"a": run, "b": content([50, 60, 70])})
    assert compare_runs({"a": run, "b": run}, ["clDice"]) == []
    with pytest.raises(DataError, match="b: was scored with tolerance_px=20, a with 3; score both alike"):
        compare_runs({"a": {**run, "settings": {"tolerance_px": 3}}, "b": {**run, "settings": {"tolerance_px": 20}}})
    other = {**run, "settings": {"threshold": 0.4}}  # another threshold is what one may want to compare
    assert len(compare_runs({"a": {**run, "settings": {"threshold": 0.5}}, "b": other}, ["IoU"])) == 2


def test_runs_on_other_ground_do_not_compare():
    whole, part, other = (content([50, 60], of) for of in (100, 100, 90))
    for run, pixels in ((whole, 1000), (part, 600), (other, 1000)):
        for image in run["images"]:
            image["counts"]["pixels"] = pixels
    assert compare_runs({"a": whole, "b": whole}, ["IoU"])[1].difference == 0
    for run in (part, other):
        with pytest.raises(DataError, match="b: image 0 was scored on other pixels or another truth than in a; score"):
            compare_runs({"a": whole, "b": run}, ["IoU"])
