"""A loss that is no number: what is said, what stays, what is left out."""

import logging
import os
import subprocess
import sys

import pytest
import torch
from mmcv.runner import HOOKS, Hook
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmseg_ext.engine import load_config, train
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.engine.non_finite_guard import _Activations, check_weights
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
    assert "the images themselves hold nan" in said
    assert "since the step before" not in said
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
    with _Activations(network) as activations, torch.no_grad():
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
    assert "iteration 2 left out: decode.loss_ce is nan, loss is nan; 1 in a row, 1 in this run" in caplog.text
    assert "iteration 3 left out: decode.loss_ce is nan, loss is nan; 2 in a row, 2 in this run" in caplog.text
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
    with pytest.raises(TrainingError, match="iter_1.pth: not written, because backbone.* holds nan or infinity; lower"):
        train(config(tiny_config, **broken), str(tmp_path / "run"), validate=False)
    assert contents(tmp_path / "run") == {}
    broken["checkpoint_config.interval"] = 2
    with pytest.raises(TrainingError, match="^iteration 2: .*; backbone.* holds nan or infinity since the step before"):
        train(config(tiny_config, **broken), str(tmp_path / "run"), validate=False)
    assert contents(tmp_path / "run") == {}
    check_weights(dict(a=torch.zeros(2), n=torch.tensor(3)), "iter_1.pth")
    with pytest.raises(TrainingError, match="^iter_1.pth: not written, because b holds nan"):
        check_weights(dict(a=torch.zeros(2), b=torch.tensor([0, float("inf")])), "iter_1.pth")


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
    import socket

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
    outputs = [process.communicate(timeout=240) for process in pair]
    assert [process.returncode for process in pair] == [2, 2], outputs
    said = [(tmp_path / f"said{rank}").read_text() for rank in "01"]
    assert "iteration 5: " in said[0]
    assert said[0].split('"timestamp"')[0] == said[1].split('"timestamp"')[0]
    assert f"images {outputs[1][0].strip()}; the images themselves hold nan" in said[0]
    log = (next((tmp_path / "run").glob("*.log"))).read_text()
    assert "iteration 2 left out" in log
    assert "iteration 4 left out" in log
    assert "1 in a row, 2 in this run" in log
