import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.errors import ConfigError
from mmseg_ext.scoring import ScoringSettings, score_image, summarise
from mmseg_ext.scoring.image_scores import graphs_of, half_road_width
from mmseg_ext.scoring.measures import MEASURES
from mmseg_ext.scoring.results import image_values

JOINT = ("IoU", "F1", "boundary_IoU", "relaxed_F1", "quality", "clDice", "APLS_spacenet", "TOPO_F1")


def crossing(size=200):
    """Two roads of 10 px that cross in the middle."""
    road = np.zeros((size, size), bool)
    road[size // 2 - 5 : size // 2 + 5] = True
    road[:, size // 2 - 5 : size // 2 + 5] = True
    return road


def values(prediction, truth, **options):
    given = {key: options.pop(key) for key in ("valid", "probability") if key in options}
    return image_values(score_image("a", prediction, truth, ScoringSettings(**options), **given))


def ramp():
    """A haul road of 12 px that winds down in five rows, about 4,800 px long."""
    road = np.zeros((1024, 1024), bool)
    for i in range(5):
        road[100 + 200 * i : 112 + 200 * i, 100:912] = True
        if i < 4:
            end = slice(900, 912) if i % 2 == 0 else slice(100, 112)
            road[100 + 200 * i : 312 + 200 * i, end] = True
    return road


def test_a_gap_of_three_pixels_costs_no_iou_and_cuts_the_network():
    truth = ramp()
    prediction = truth.copy()
    prediction[500:512, 504:507] = False  # in the middle of the road
    whole, cut = values(truth, truth), values(prediction, truth)
    assert whole["IoU"] == 1 and 1 - cut["IoU"] == pytest.approx(36 / truth.sum())
    assert 1 - cut["IoU"] < 0.001  # less than 0.1 points
    assert (whole["gaps"], cut["gaps"]) == (0, 1)
    assert (whole["components_prediction"], cut["components_prediction"]) == (1, 2)
    assert whole["pairs_kept"] == pytest.approx(1)
    assert cut["pairs_kept"] == pytest.approx(0.5, abs=0.01)  # two halves: (1/2)^2 + (1/2)^2
    assert whole["APLS_spacenet"] == pytest.approx(1) and whole["APLS_sat2graph"] == pytest.approx(1)
    # the table of docs/evaluate.md
    shares = "IoU", "relaxed_F1", "clDice", "pairs_kept", "APLS_spacenet", "APLS_sat2graph"
    row = [f"{100 * cut[key]:.2f}" for key in shares] + [f"{cut['gaps']:.0f}"]
    document = (Path(__file__).resolve().parents[2] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    assert f"\n| {' | '.join(row)} |\n" in document


def test_a_gap_at_the_rim_of_a_dense_network_costs_what_hangs_on_it():
    truth = np.zeros((1024, 1024), bool)
    for at in range(100, 1024, 200):
        truth[at : at + 24] = True
        truth[:, at : at + 24] = True
    prediction = truth.copy()
    prediction[100:124, 50:53] = False
    cut = values(prediction, truth)
    assert cut["gaps"] == 1 and 1 - cut["IoU"] < 0.001
    # 25 junctions and 20 dead ends have 45 * 44 / 2 = 990 paths, and 44 of them end at the one that is cut off; from
    # prediction to truth every path is there: 2 * (946 / 990) / (1 + 946 / 990)
    assert cut["APLS_spacenet"] == pytest.approx(0.9773, abs=0.001)


def test_scores_by_hand():
    truth = np.zeros((60, 60), bool)
    truth[20:30, :] = True  # 600 pixels
    prediction = np.zeros((60, 60), bool)
    prediction[22:32, :30] = True  # 300 pixels, 2 rows too low: 240 of them true
    found = values(prediction, truth, tolerance_px=2)
    assert found["IoU"] == pytest.approx(240 / 660)
    assert found["F1"] == pytest.approx(2 * 240 / 900)
    assert found["precision"] == pytest.approx(0.8) and found["recall"] == pytest.approx(0.4)
    assert found["accuracy"] == pytest.approx(1 - 420 / 3600)
    assert found["relaxed_precision"] == 1  # the 60 false ones are 1 or 2 rows off
    # all 10 rows have a predicted pixel within 2 px up to column 29; the next two columns reach round the corner:
    # column 30 is 1 off: rows 21 to 29 (9, as sqrt(1 + 1) <= 2, sqrt(1 + 4) > 2); column 31 is 2 off: rows 22 to 29
    assert found["relaxed_recall"] == pytest.approx((300 + 9 + 8) / 600)
    assert found["completeness"] == pytest.approx(0.5, abs=0.1)  # the buffer, 5 px, reaches beyond the end
    assert found["correctness"] == pytest.approx(1)


def test_nothing_to_score_is_said_and_one_side_empty_is_the_worst():
    road, none = crossing(60), np.zeros((60, 60), bool)
    empty = values(none, none, probability=np.zeros((60, 60)))
    assert all(math.isnan(empty[key]) for key in JOINT)
    assert empty["accuracy"] == 1 and empty["gaps"] == 0 and "gaps_per_km" not in empty
    assert math.isnan(values(none, none, gsd_m=1.0)["gaps_per_km"])
    for prediction, truth, undefined in ((road, none, "recall"), (none, road, "precision")):
        found = values(prediction, truth)
        assert all(found[key] == 0 for key in JOINT), found
        assert math.isnan(found[undefined])
    full = values(~none, ~none)
    assert full["IoU"] == 1 and full["relaxed_F1"] == 1


def shapes():
    rows, columns = np.mgrid[:200, :200] - 100
    away = np.hypot(rows, columns)
    roads = {
        "single pixel": (rows == 0) & (columns == 0),
        "along the border": columns < -94,
        "closed ring": np.abs(away - 60) < 5,
        "roundabout": (np.abs(away - 30) < 5) | ((away > 30) & ((np.abs(rows) < 5) | (np.abs(columns) < 5))),
        "two carriageways": (np.abs(rows - 10) < 4) | (np.abs(rows + 10) < 4),
        "full": away >= 0,
    }
    wide = np.zeros((40, 40_000), bool)
    wide[15:25] = True
    return {**roads, "40,000 px wide": wide}


@pytest.mark.parametrize(("name", "road"), shapes().items())
def test_every_shape_scores_one_against_itself_and_zero_against_nothing(name, road):
    same, missed = values(road, road), values(~road & road, road)
    # a point has no length; a full image has no edge, and its road is shorter than a step
    undefined = {
        "single pixel": {"completeness", "correctness", "quality", "pairs_kept"}
        | {"APLS_spacenet", "APLS_sat2graph", "TOPO_F1", "TOPO_precision", "TOPO_recall"},
        "full": {"boundary_IoU", "APLS_spacenet", "APLS_sat2graph", "TOPO_F1", "TOPO_precision", "TOPO_recall"},
    }.get(name, set())
    ones = {m.key for m in MEASURES if m.unit == "%" and m.group != "Uncertainty"}
    assert {key for key, value in same.items() if math.isnan(value)} == undefined
    assert {key: same[key] for key in ones - undefined} == pytest.approx(dict.fromkeys(ones - undefined, 1))
    assert same["gaps"] == 0 and same["components_prediction"] == same["components_truth"]
    assert same["components_truth"] == (2 if name == "two carriageways" else 1)
    assert missed["IoU"] == missed["recall"] == missed["relaxed_F1"] == missed["clDice"] == 0
    assert missed["components_prediction"] == 0 and (missed["pairs_kept"] == 0 or name == "single pixel")


def test_ignored_pixels_are_no_road_anywhere():
    truth = crossing(100)
    valid = np.ones((100, 100), bool)
    valid[:, 60:] = False
    worse = truth.copy()
    worse[:, 60:] ^= True
    assert values(worse, truth, valid=valid) == pytest.approx(values(truth, truth, valid=valid), nan_ok=True)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.booleans())
def test_turned_and_mirrored_images_score_alike(seed, turns, flip):
    random = np.random.default_rng(seed)
    truth, prediction = np.zeros((80, 80), bool), np.zeros((80, 80), bool)
    row, column = random.integers(10, 60, 2)
    truth[row : row + 9] = True
    truth[:, column : column + 7] = True
    prediction[row + 1 : row + 10, 10:] = True
    prediction[:60, column : column + 7] = True

    def moved(mask):
        return np.rot90(np.fliplr(mask) if flip else mask, turns)

    straight, other = values(prediction, truth), values(moved(prediction), moved(truth))
    for key in ("IoU", "boundary_IoU", "relaxed_F1", "gaps", "components_prediction", "components_truth"):
        assert other[key] == pytest.approx(straight[key])
    for key in ("completeness", "correctness", "clDice"):  # thinning takes one side first
        assert other[key] == pytest.approx(straight[key], abs=0.1)


def test_the_buffer_is_half_the_width_of_the_true_roads():
    truth = np.zeros((100, 100), bool)
    truth[40:61] = True  # 21 px wide
    _, true, buffer = graphs_of(truth, truth, ScoringSettings())
    assert half_road_width(true) == buffer == 10.5
    assert graphs_of(truth, truth, ScoringSettings(buffer_px=2))[2] == 2
    assert graphs_of(truth, truth, ScoringSettings(tolerance_px=20))[2] == 20
    assert half_road_width(graphs_of(~truth & truth, truth, ScoringSettings())[0]) == 0


def test_metres_need_the_ground_sampling_distance():
    assert ScoringSettings(tolerance_m=3, gsd_m=0.5).tolerance == 6
    assert ScoringSettings(tolerance_px=2, gsd_m=0.5).tolerance == 2
    with pytest.raises(ConfigError, match="a tolerance of 3 m needs the ground sampling distance"):
        ScoringSettings(tolerance_m=3).tolerance  # noqa: B018
    with pytest.raises(ConfigError, match="gsd_m is 0; it must be above 0"):
        ScoringSettings(gsd_m=0)
    with pytest.raises(ConfigError, match="threshold is 1; it must lie between"):
        ScoringSettings(threshold=1)
    assert ScoringSettings(tolerance_m=3).at(0.5).tolerance == ScoringSettings(tolerance_m=3, gsd_m=0.5).at(9).tolerance
    truth = crossing()
    # in metres of 0.2 px the roads are 40 m long: too short for Sat2Graph's paths of 100 m
    assert math.isnan(values(truth, truth, gsd_m=0.2)["APLS_sat2graph"])
    assert values(truth, truth, gsd_m=2)["APLS_sat2graph"] == pytest.approx(1)


def test_every_measure_has_a_definition_and_one_way_to_be_made():
    assert len({measure.key for measure in MEASURES}) == len(MEASURES)
    for measure in MEASURES:
        assert measure.definition.endswith(".") and measure.group
        assert measure.of is None or measure.of_probability is None


def test_a_data_set_is_pooled_and_averaged_and_counts_what_is_undefined():
    truth, none = crossing(60), np.zeros((60, 60), bool)
    half = truth.copy()
    half[:, :30] = False
    images = [
        score_image(str(i), prediction, true, ScoringSettings(), probability=prediction * 0.6 + 0.2)
        for i, (prediction, true) in enumerate([(truth, truth), (half, truth), (none, none)])
    ]
    found = {total.measure.key: total for total in summarise(images)}
    road, part = truth.sum(), half.sum()
    assert found["IoU"].pooled == pytest.approx((road + part) / (2 * road))
    assert found["IoU"].mean == pytest.approx((1 + part / road) / 2) and found["IoU"].undefined == 1
    assert found["accuracy"].undefined == 0
    assert found["APLS_spacenet"].pooled is None and found["APLS_spacenet"].undefined == 1
    assert found["APLS_spacenet"].value == found["APLS_spacenet"].mean
    assert found["gaps"].pooled == 0 and found["components_truth"].pooled == 2
    assert found["calibration_error"].pooled == pytest.approx(
        # of the 3 x 3600 pixels those at 0.8 are road, of those at 0.2 the missed ones
        0.2 * (road + part) / 10800 + abs((road - part) / (10800 - road - part) - 0.2) * (10800 - road - part) / 10800
    )
