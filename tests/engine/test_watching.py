"""What is shown while a run runs: samples in TensorBoard, a bar in a terminal."""

import io
import logging
import multiprocessing
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmseg_ext.engine import ProgressBar, load_config, train
from mmseg_ext.engine.hooks import PredictionSamplesHook


def images(run):
    board = EventAccumulator(str(run / "tf_logs"), size_guidance=dict(images=0))
    board.Reload()
    return {tag: board.Images(tag) for tag in board.Tags()["images"]}


def test_the_same_few_predictions_at_every_evaluation(tiny_config, tmp_path, mine_data):
    options = {"sample_predictions.count": 2, "data.workers_per_gpu": 1}
    train(load_config(str(tiny_config), options), str(tmp_path / "run"))
    assert multiprocessing.active_children() == []  # no hook keeps the loader's workers
    shown = images(tmp_path / "run")
    stems = (mine_data / "ImageSets/Segmentation/val.txt").read_text().split()
    assert set(shown) == {f"predictions/{stems[0]}", f"predictions/{stems[-1]}"}
    for events in shown.values():
        assert [event.step for event in events] == [2, 4]
        assert (events[0].width, events[0].height) == (3 * 64 + 2 * 8, 64 + 28)
    stem = stems[0]
    sheet = cv2.imdecode(
        np.frombuffer(shown[f"predictions/{stem}"][0].encoded_image_string, np.uint8), cv2.IMREAD_COLOR
    )[:, :, ::-1]
    image = cv2.imread(str(mine_data / "JPEGImages" / f"{stem}.png"))[:, :, ::-1]
    truth = cv2.imread(str(mine_data / "SegmentationClass" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    assert (sheet[28:, :64] == image).all()
    painted = (sheet[28:, 72:136] != image).any(-1)
    assert (painted[truth == 0] == 0).all()
    assert painted[truth == 1].mean() > 0.9


def test_no_samples_without_tensorboard_or_with_a_count_of_none(tiny_config, tmp_path):
    train(load_config(str(tiny_config), {"sample_predictions.count": 0, "runner.max_iters": 2}), str(tmp_path / "none"))
    assert images(tmp_path / "none") == {}
    runner = SimpleNamespace(hooks=[], rank=0)
    PredictionSamplesHook().before_run(runner)


def test_large_samples_are_scaled_down():
    hook = PredictionSamplesHook(max_size_px=100)
    labels = np.zeros((300, 400), np.uint8)
    labels[100:200] = 1
    small = hook._smaller(labels, cv2.INTER_NEAREST)
    assert small.shape == (75, 100)
    assert small.mean() == pytest.approx(1 / 3, abs=0.01)
    assert hook._smaller(labels[:60, :80], cv2.INTER_NEAREST).shape == (60, 80)


class Terminal(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_is_for_terminals(is_terminal, monkeypatch):
    screen = Terminal(is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    logger = logging.getLogger("test-progress-bar")
    logger.setLevel("INFO")
    logger.propagate = False
    file = io.StringIO()
    logger.handlers = [logging.StreamHandler(screen), logging.StreamHandler(file)]
    handlers = logger.handlers
    log_vars = dict(loss=0.5)
    runner = SimpleNamespace(
        rank=0, iter=3, max_iters=10, work_dir="work_dirs/mine/", logger=logger, outputs=dict(log_vars=log_vars)
    )
    bar = ProgressBar()
    bar.before_run(runner)
    for _ in range(4):
        bar.after_train_iter(runner)
    logger.info("Iter [7/10]")
    bar.close()
    logger.info("after")
    assert file.getvalue() == "Iter [7/10]\nafter\n"
    assert logger.handlers is handlers
    if is_terminal:
        assert "mine:" in screen.getvalue()
        assert "7/10" in screen.getvalue().replace("[7/10]", "")
        assert "loss=0.5000" in screen.getvalue()
        assert "Iter [7/10]\n" in screen.getvalue()
        assert screen.getvalue().endswith("\nafter\n")
    else:
        assert screen.getvalue() == "Iter [7/10]\nafter\n"
    # the other processes draw none
    other = ProgressBar()
    other.before_run(SimpleNamespace(rank=1))
    other.after_train_iter(runner)
    other.close()
