"""Hooks: the guard against non-finite losses, and what is shown while a run runs."""

import errno
import io
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.runner import HOOKS, Hook
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

from mmseg_ext.engine import load_config, train
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.engine.hooks import Activations, PredictionSamplesHook, ProgressBar, ResumableTensorboardHook
from mmseg_ext.engine.runner import SafeIterRunner
from mmseg_ext.errors import TrainingError


@HOOKS.register_module(force=True)
class SpoilImages(Hook):
    """Fills the images of iterations ``at`` with nan."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner):
        if runner.iter + 1 in self.at:
            runner.data_batch["img"].fill_(float("nan"))
            self.names = [meta["ori_filename"] for meta in runner.data_batch["img_metas"]]
            type(self).last = self


def config(path, at=(), **options):
    cfg = load_config(str(path), {"checkpoint_config.interval": 1, "checkpoint_config.max_keep_ckpts": 9, **options})
    cfg.custom_hooks = [dict(type="SpoilImages", at=list(at))]
    return cfg


def contents(folder):
    return {name: (folder / name).stat().st_mtime_ns for name in os.listdir(folder) if name.endswith(".pth")}


def test_the_run_stops_with_iteration_images_and_layers(tiny_config, tmp_path):
    with pytest.raises(TrainingError) as stopped:
        train(config(tiny_config, at=[3]), str(tmp_path / "run"), validate=False)
    said = str(stopped.value)
    assert "\n" not in said
    assert said.startswith("iteration 3: decode.loss_ce is nan, loss is nan; images ")
    assert len(set(SpoilImages.last.names)) == 2
    assert ", ".join(SpoilImages.last.names) in said
    assert "the images themselves contain NaN" in said
    assert "since the previous step" not in said
    assert "the first layer with nan is backbone.patch_embed1.proj.0" in said
    assert "lower optimizer.lr" in said
    assert set(contents(tmp_path / "run")) == {"iter_1.pth", "iter_2.pth", "latest.pth"}
    assert os.readlink(tmp_path / "run" / "latest.pth") == "iter_2.pth"
    # curves are on the disk too, and it goes on from there
    board = EventAccumulator(str(tmp_path / "run" / "tf_logs"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2]
    train(config(tiny_config), str(tmp_path / "run"), validate=False, auto_resume=True)
    assert read_checkpoint(str(tmp_path / "run" / "latest.pth"))["meta"]["iter"] == 4


def test_a_learning_rate_too_high_is_told_from_bad_images(tiny_config, tmp_path):
    options = {"optimizer.lr": 1e30, "lr_config.warmup": None}
    with pytest.raises(TrainingError) as stopped:
        train(config(tiny_config, **options), str(tmp_path), validate=False)
    said = str(stopped.value)
    assert said.startswith("iteration 2: ")
    assert "images themselves" not in said
    first, largest = said.split("the first layer with ")[1].split("; largest activations: ")
    assert first.split(" is ")[0] in ("inf", "nan")
    sizes = [float(part.split()[1]) for part in largest.split(";")[0].split(", ")]
    assert 1 <= len(sizes) <= 3
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1e20
    # what was written before holds numbers
    weights = read_checkpoint(str(tmp_path / "latest.pth"))["state_dict"]
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())


def test_layers_are_named_by_their_largest_activations():
    layers = [torch.nn.Linear(1, 1, bias=False) for _ in range(5)]
    for layer, factor in zip(layers, (2, -10, 0.25, 4, 1e38), strict=True):
        layer.weight.data.fill_(factor)
    network = torch.nn.Sequential(*layers[:4], torch.nn.Sequential(layers[4]))
    with Activations(network) as activations, torch.no_grad():
        network(torch.tensor([[1.0], [-3.0]]))
    # layer 3 puts out 60 as layer 1 did: told once, as what the container of the last layer passes on is
    assert activations.words() == ["the first layer with inf is 4.0", "largest activations: 1 60, 2 15, 0 6"]
    assert not any(module._forward_hooks for module in network.modules())


def test_a_skipped_step_leaves_no_trace_but_its_count(tiny_config, tmp_path, caplog, monkeypatch):
    states, step = {}, SafeIterRunner.train

    def recording(runner, *args, **kwargs):
        step(runner, *args, **kwargs)
        states[runner.iter] = {key: value.clone() for key, value in runner.network.state_dict().items()}

    monkeypatch.setattr(SafeIterRunner, "train", recording)
    with caplog.at_level(logging.WARNING):
        logging.getLogger("mmseg").propagate = True
        cfg = config(tiny_config, at=[2, 3], **{"non_finite.skip": True, "runner.max_iters": 5})
        train(cfg, str(tmp_path), validate=False)
    assert "iteration 2 skipped: decode.loss_ce is nan, loss is nan; 1 in a row, 1 in this run" in caplog.text
    assert "iteration 3 skipped: decode.loss_ce is nan, loss is nan; 2 in a row, 2 in this run" in caplog.text
    saved = {number: read_checkpoint(str(tmp_path / f"iter_{number}.pth")) for number in (1, 4, 5)}
    assert not (tmp_path / "iter_2.pth").exists() and not (tmp_path / "iter_3.pth").exists()
    first, third, fourth = (states[number] for number in (1, 3, 4))
    assert any("running_mean" in key for key in first)
    assert all(torch.equal(first[key], third[key]) for key in first)
    assert not torch.equal(first["decode_head.conv_seg.weight"], fourth["decode_head.conv_seg.weight"])
    assert all(value.isfinite().all() for value in saved[5]["state_dict"].values())
    steps = {float(state["step"]) for state in saved[5]["optimizer"]["state"].values()}
    assert steps == {3}
    assert [saved[number]["meta"]["hook_msgs"].get("skipped_steps", 0) for number in saved] == [0, 2, 2]
    (log,) = tmp_path.glob("*.log.json")
    assert "NaN" not in log.read_text()


def test_too_many_skips_in_a_row_stop_the_run(tiny_config, tmp_path):
    options = {"non_finite.skip": True, "non_finite.max_skips": 2, "runner.max_iters": 9}
    with pytest.raises(TrainingError, match="^iteration 6: .* after 2 skipped steps in a row; images "):
        train(config(tiny_config, at=[1, 2, 4, 5, 6], **options), str(tmp_path), validate=False)


@pytest.mark.parametrize("skip", [False, True])
def test_weights_that_are_no_numbers_are_told_and_not_written(tiny_config, tmp_path, skip):
    broken = {"optimizer.lr": float("inf"), "lr_config.warmup": None, "non_finite.skip": skip}
    with pytest.raises(TrainingError, match="iter_1.pth: not written, because backbone.* contains NaN or Inf; lower"):
        train(config(tiny_config, **broken), str(tmp_path / "run"), validate=False)
    assert contents(tmp_path / "run") == {}
    broken["checkpoint_config.interval"] = 2
    with pytest.raises(TrainingError, match="^iteration 2: .*; backbone.* contains NaN or Inf since the previous step"):
        train(config(tiny_config, **broken), str(tmp_path / "run"), validate=False)
    assert contents(tmp_path / "run") == {}


TWO_PROCESSES = """
import os, sys
from mmcv.runner import HOOKS, Hook
from mmseg_ext.engine import load_config, train
from mmseg_ext.errors import run_tool

@HOOKS.register_module()
class SpoilOne(Hook):
    def before_train_iter(self, runner):
        if runner.rank == 1 and runner.iter in (1, 3, 4):
            runner.data_batch["img"].fill_(float("nan"))
        if runner.iter == 4:
            names = [meta["ori_filename"] for meta in runner.data_batch["img_metas"]]
            sys.stdout.write(f"{', '.join(names)}\\n")

cfg = load_config(sys.argv[1], {"non_finite.skip": True, "non_finite.max_skips": 1, "runner.max_iters": 6})
cfg.custom_hooks = [dict(type="SpoilOne")]
os.environ.update(RANK=sys.argv[3], LOCAL_RANK=sys.argv[3], WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
                  MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[4], TORCHELASTIC_ERROR_FILE=sys.argv[5] + sys.argv[3])
run_tool(lambda: train(cfg, sys.argv[2], validate=False))
"""


def test_two_processes_skip_and_stop_together(tiny_config, tmp_path, root):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", TWO_PROCESSES, str(tiny_config), str(tmp_path / "run")]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    pair = [
        subprocess.Popen(
            [*command, rank, str(port), str(tmp_path / "said")],
            cwd=root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    outputs = [process.communicate(timeout=600) for process in pair]
    assert [process.returncode for process in pair] == [2, 2], outputs
    said = [(tmp_path / f"said{rank}").read_text() for rank in "01"]
    assert "iteration 5: " in said[0]
    assert said[0].split('"timestamp"')[0] == said[1].split('"timestamp"')[0]
    assert f"images {outputs[1][0].strip()}; the images themselves contain NaN" in said[0]
    log = (next((tmp_path / "run").glob("*.log"))).read_text()
    assert "iteration 2 skipped" in log
    assert "iteration 4 skipped" in log
    assert "1 in a row, 2 in this run" in log


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


def test_a_full_disk_stops_the_curves_with_one_error_and_no_second_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    hook = ResumableTensorboardHook()
    hook.before_run(SimpleNamespace(rank=0, work_dir=str(tmp_path), iter=0))
    hook.writer.add_scalar("loss", 1.0, 1)
    hook.writer.flush()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalFileSystem, "append", full)
    with pytest.raises(OSError, match="No space left"):
        for step in range(1000):
            hook.writer.add_scalar("loss", 1.0, step)
            hook.writer.flush()
            time.sleep(0.01)
    assert "Traceback" not in capsys.readouterr().err
    threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError("told"), None, None)))
    assert "ValueError: told" in capsys.readouterr().err
