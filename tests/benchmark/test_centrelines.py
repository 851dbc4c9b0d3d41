import numpy as np
import pytest
from centrelines import drawn, figures, measured, mines, ragged
from PIL import Image

PIXELS, SMOOTHED = "as the pixels (--smooth 0)", "smoothed (default)"


def test_figures_of_a_zigzag_beside_a_straight_road():
    zigzag = np.array([[0.0, 0], [1, 1], [2, 0], [3, 1], [4, 0]])
    found = figures([zigzag], [np.array([[0.0, 0], [4, 0]])])
    assert found["turning"] == pytest.approx(3 * 90 / (4 * np.sqrt(2)))
    assert found["distance"] == pytest.approx(0.5) and found["missed"] < found["distance"]
    assert (found["length"], found["true_length"], found["points"]) == (pytest.approx(4 * np.sqrt(2)), 4, 5)


# from roads of 40 pixels to roads of 6
@pytest.mark.parametrize(("gsd_m", "seeds"), [(0.5, 2), (1.0, 3), (3.0, 4)])
@pytest.mark.parametrize("off_m", [0, 1])
def test_smoothed_lines_turn_less_and_are_no_farther_from_the_true_roads(gsd_m, seeds, off_m):
    found = measured(mines(gsd_m, seeds, off_m))
    before, after = found[PIXELS], found[SMOOTHED]
    assert after["turning"] < before["turning"]
    assert after["distance"] <= before["distance"] and after["missed"] <= before["missed"]
    wrong = [abs(one["length"] / one["true_length"] - 1) for one in (before, after)]
    assert wrong[1] <= max(wrong[0], 0.01)
    if off_m and gsd_m <= 1:  # more than steps of pixels
        assert after["turning"] < 0.6 * before["turning"] and after["distance"] < 0.9 * before["distance"]


def test_drawn_masks_are_found_again(tmp_path):
    rows, columns = np.mgrid[:300, :300]
    mask = np.abs(rows - 150 - 60 * np.sin(columns / 50)) < 12
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    found = measured(drawn([str(tmp_path / "mask.png")], 0.5, 1.0))
    assert found[SMOOTHED]["turning"] < found[PIXELS]["turning"]
    assert found[SMOOTHED]["distance"] < found[PIXELS]["distance"]


def test_ragged_edges_are_off_as_far_as_asked():
    mask = np.zeros((400, 400), bool)
    mask[100:300] = True
    edge = ragged(mask, 0.5, 0, off_m=2.0)[:200].argmax(axis=0)
    assert np.abs(edge - 100).mean() == pytest.approx(2.0 / 0.5 * np.sqrt(2 / np.pi), rel=0.4)
