import cv2
import numpy as np
import pytest

from mmseg_ext.report.pictures import paint_labels, panel, save_picture

PALETTE = ((0, 0, 0), (200, 0, 0), (0, 0, 200))
COLOUR = (10, 120, 60)
IMAGE = np.full((40, 60, 3), COLOUR, np.uint8)


def test_labels_are_tinted_and_the_rest_is_left_alone():
    labels = np.zeros((40, 60), np.uint8)
    labels[:10], labels[10:20] = 1, 2
    painted = paint_labels(IMAGE, labels, PALETTE)
    assert (painted[20:] == COLOUR).all()
    assert (painted[:10] == (105, 60, 30)).all()  # half of the class colour
    assert (painted[10:20] == (5, 60, 130)).all()


def test_ignored_pixels_are_hatched_in_grey():
    labels = np.full((40, 60), 255, np.uint8)
    labels[30:] = 0
    painted = paint_labels(IMAGE, labels, PALETTE)
    assert (painted[30:] == COLOUR).all()
    assert (painted[:30] == painted[:30, :, :1]).all()
    assert set(np.unique(painted[:30])) == {95, 225}
    assert (painted[0] == np.roll(painted[1], 1, axis=0))[1:-1].all()  # diagonal stripes
    assert (paint_labels(IMAGE, labels, PALETTE, ignore_index=7) == COLOUR).all()


def test_a_road_of_one_pixel_survives_shrinking():
    labels = np.zeros((400, 600), np.uint8)
    labels[:, 301] = 1
    painted = paint_labels(np.full((400, 600, 3), COLOUR, np.uint8), labels, PALETTE, longest=60)
    assert painted.shape == (40, 60, 3)
    changed = (painted != COLOUR).any(axis=2)
    assert changed[:, 30].all() and changed.sum() == 40
    assert painted[0, 30] == pytest.approx((10 + 190 * 0.05, 120 - 120 * 0.05, 60 - 60 * 0.05), abs=0.6)


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        paint_labels(IMAGE, np.zeros((60, 40)), PALETTE)


def test_panel_shows_image_truth_and_prediction(tmp_path):
    image = np.full((40, 50, 3), 100, np.uint8)
    truth, prediction = np.zeros((40, 50), int), np.zeros((40, 50), int)
    truth[:20], prediction[20:] = 1, 1
    truth[30:, :5] = 255
    path = str(tmp_path / "sub" / "panel.png")
    save_picture(path, panel(image, prediction, truth, palette=[[0, 0, 0], [200, 0, 0]], opacity=0.5))
    sheet = cv2.imread(path)[:, :, ::-1]
    assert sheet.shape == (68, 166, 3)
    first, second, third = (sheet[28:, left : left + 50] for left in (0, 58, 116))
    assert (first == 100).all()
    assert (second[:20] == [150, 50, 50]).all()
    assert (second[20:] == 100).all()  # ignore is not painted
    assert (third[20:] == [150, 50, 50]).all()
    assert (third[:20] == 100).all()
    assert panel(image, prediction).shape == (68, 108, 3)
