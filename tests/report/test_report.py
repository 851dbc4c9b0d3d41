import json

import cv2
import numpy as np

from mmseg_ext.report import save_metrics, save_panel


def test_panel_shows_image_truth_and_prediction(tmp_path):
    image = np.full((40, 50, 3), 100, np.uint8)
    truth, prediction = np.zeros((40, 50), int), np.zeros((40, 50), int)
    truth[:20], prediction[20:] = 1, 1
    truth[30:, :5] = 255
    path = str(tmp_path / "sub" / "panel.png")
    save_panel(path, image, prediction, truth, palette=[[0, 0, 0], [200, 0, 0]], opacity=0.5)
    sheet = cv2.imread(path)[:, :, ::-1]
    assert sheet.shape == (68, 166, 3)
    first, second, third = (sheet[28:, left : left + 50] for left in (0, 58, 116))
    assert (first == 100).all()
    assert (second[:20] == [150, 50, 50]).all()
    assert (second[20:] == 100).all()  # ignore is not painted
    assert (third[20:] == [150, 50, 50]).all()
    assert (third[:20] == 100).all()
    save_panel(path, image, prediction)
    assert cv2.imread(path).shape == (68, 108, 3)


def test_metrics_file_is_json_with_null_for_undefined(tmp_path):
    path = str(tmp_path / "m.json")
    save_metrics(path, dict(mIoU=0.5, F=float("nan")), config="c.py")
    assert json.loads((tmp_path / "m.json").read_text()) == dict(config="c.py", metrics=dict(mIoU=0.5, F=None))
