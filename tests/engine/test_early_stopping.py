"""The validation loss in the log, and runs that end when a score does not improve."""

import json

import numpy as np
import pytest
import torch
from mmcv.parallel import collate
from mmseg.datasets import build_dataset

from mmseg_ext.engine import build_network, load_config, train
from mmseg_ext.engine.checkpoint import checkpoints_by_iteration, read_checkpoint
from mmseg_ext.engine.distributed import to_device
from mmseg_ext.engine.weights import load_weights
from mmseg_ext.errors import ConfigError


def logged(folder, mode):
    (path,) = folder.glob("*.log.json")
    return [line for line in map(json.loads, path.read_text().splitlines()) if line.get("mode") == mode]


@pytest.mark.parametrize("one_output", [False, True])
def test_the_loss_is_that_of_the_head_on_the_validation_images(tiny_config, tmp_path, one_output):
    cfg = load_config(str(tiny_config), {"evaluation.loss": True, "evaluation.interval": 4})
    losses = [dict(type="CrossEntropyLoss", use_sigmoid=one_output), dict(type="SoftClDiceLoss", max_width_px=8)]
    cfg.model.decode_head.loss_decode = losses
    if one_output:
        cfg.model.decode_head.out_channels = 1
    train(cfg, str(tmp_path / "run"))
    (line,) = logged(tmp_path / "run", "val")
    network = build_network(cfg, initialise=False).eval()
    load_weights(network, str(tmp_path / "run" / "latest.pth"))
    dataset = build_dataset(cfg.data.val, dict(test_mode=True))
    expected = []
    for index in range(len(dataset)):
        image = to_device(collate([dataset[index]], 1), torch.device("cpu"))["img"][0]
        truth = torch.from_numpy(dataset.get_gt_seg_map_by_idx(index)).long()[None, None]
        with torch.no_grad():
            parts = network.decode_head.losses(network.encode_decode(image, [{}]), truth)
        expected.append(sum(float(value) for name, value in parts.items() if "loss" in name))
    assert line["loss"] == pytest.approx(np.mean(expected), abs=2e-5)
    assert "mIoU" in line


def stopping(path, **settings):
    cfg = load_config(str(path), {"runner.max_iters": 40, "evaluation.interval": 2, "optimizer.lr": 0.0})
    cfg.early_stopping = settings
    cfg.checkpoint_config.update(interval=3, max_keep_ckpts=9)
    return cfg


def test_a_run_without_progress_ends_with_a_checkpoint_and_stays_ended(tiny_config, tmp_path):
    none = dict(min_delta=2.0)  # no score can rise by that much
    train(stopping(tiny_config, patience=2, **none), str(tmp_path / "run"))
    assert max(checkpoints_by_iteration(str(tmp_path / "run"))) == 6
    notes = read_checkpoint(str(tmp_path / "run" / "latest.pth"))["meta"]["hook_msgs"]["early_stopping"]
    assert notes["waited"] == 2 and notes["best"] == pytest.approx(logged(tmp_path / "run", "val")[0]["mIoU"], abs=1e-5)
    train(stopping(tiny_config, patience=2, **none), str(tmp_path / "run"), auto_resume=True)
    assert max(checkpoints_by_iteration(str(tmp_path / "run"))) == 6
    # more patience goes on from there, and counts what was waited
    train(stopping(tiny_config, patience=4, **none), str(tmp_path / "run"), auto_resume=True)
    assert max(checkpoints_by_iteration(str(tmp_path / "run"))) == 10


def test_progress_goes_on(tiny_config, tmp_path):
    cfg = stopping(tiny_config, metric="loss", patience=1, min_delta=-1e9)  # every value counts as better
    cfg.evaluation.loss = True
    cfg.runner.max_iters = 6
    train(cfg, str(tmp_path / "run"))
    assert max(checkpoints_by_iteration(str(tmp_path / "run"))) == 6


@pytest.mark.parametrize(
    ("settings", "validate", "words"),
    [
        (dict(patience=0), True, "early_stopping.patience=0: give a number of evaluations"),
        (dict(metric="mIuO"), True, "early_stopping.metric='mIuO': the evaluation has aAcc, mIoU, .*; choose one"),
        (dict(), False, "early_stopping needs the evaluation"),
    ],
)
def test_mistakes(tiny_config, tmp_path, settings, validate, words):
    cfg = stopping(tiny_config, **dict(dict(patience=3), **settings))
    with pytest.raises(ConfigError, match=words):
        train(cfg, str(tmp_path / "run"), validate=validate)


def test_two_processes_stop_together(tiny_config, tmp_path, run_tool):
    options = ["runner.max_iters=40", "evaluation.interval=2", "early_stopping.patience=1"]
    options.append("early_stopping.min_delta=2.0")
    done = run_tool("dist_train.sh", tiny_config, 2, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    assert done.returncode == 0, done.stderr
    assert max(checkpoints_by_iteration(str(tmp_path / "run"))) == 4
