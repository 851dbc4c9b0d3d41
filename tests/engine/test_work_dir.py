"""The folder of a run: what it holds belongs to one training, which goes on as its config says."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys

import pytest
import torch
from mmcv.runner import HOOKS, Hook

from mmseg_ext.engine import load_config, train
from mmseg_ext.engine.checkpoint import read_checkpoint, write_checkpoint
from mmseg_ext.engine.work_dir import full_disk_told, only_one
from mmseg_ext.errors import CheckpointError, ConfigError, Stopped


@HOOKS.register_module(force=True)
class InterruptAt(Hook):
    """Sends this process a Ctrl-C in iteration ``at``."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner):
        if runner.iter + 1 == self.at:
            os.kill(os.getpid(), signal.SIGINT)


def config(path, **options):
    return load_config(str(path), {"checkpoint_config.interval": 100, "log_config.interval": 5, **options})


def logged(folder):
    found = [json.loads(line) for path in sorted(folder.glob("*.log.json")) for line in path.open()]
    timeless = [{k: v for k, v in line.items() if k not in ("time", "data_time", "memory")} for line in found]
    return [line for line in timeless if line.get("mode") == "train"]


def test_an_interrupted_log_window_is_finished(tiny_config, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(config(tiny_config, **{"runner.max_iters": 10}), str(whole), validate=False)
    cfg = config(tiny_config, **{"runner.max_iters": 10})
    cfg.custom_hooks = [dict(type="InterruptAt", at=7)]
    with pytest.raises(Stopped):
        train(cfg, str(broken), validate=False)
    assert (broken / "iter_7.pth").exists() and [line["iter"] for line in logged(broken)] == [5]
    train(config(tiny_config, **{"runner.max_iters": 10}), str(broken), validate=False, auto_resume=True)
    assert [line["iter"] for line in logged(broken)] == [5, 10]
    assert logged(broken) == logged(whole)  # the mean of 6 to 10, of which 6 and 7 were before the stop


def test_a_changed_learning_rate_counts_from_the_resumption_on(tiny_config, tmp_path, caplog):
    options = {"runner.max_iters": 4, "log_config.interval": 1, "checkpoint_config.interval": 2, "optimizer.lr": 0.05}
    train(config(tiny_config, **options), str(tmp_path), validate=False)
    again = {**options, "runner.max_iters": 6, "optimizer.lr": 0.001, "optimizer.weight_decay": 0.5}
    logging.getLogger("mmseg").propagate = True
    with caplog.at_level(logging.INFO):
        train(config(tiny_config, **again), str(tmp_path), validate=False, auto_resume=True)
    assert "the config changed the optimizer: initial_lr 0.05 -> 0.001" in caplog.text
    assert "weight_decay 0.01 -> 0.5" in caplog.text
    state = read_checkpoint(str(tmp_path / "iter_6.pth"))["optimizer"]["param_groups"]
    assert {group["initial_lr"] for group in state} == {0.001, 0.01}  # the head learns ten times as fast
    assert max(group["weight_decay"] for group in state) == 0.5
    assert 0 < logged(tmp_path)[-1]["lr"] < 0.001


def test_another_run_in_the_folder_is_neither_mixed_nor_overwritten(tiny_config, tmp_path):
    train(config(tiny_config, **{"runner.max_iters": 2}), str(tmp_path), validate=False)
    before = (tmp_path / "iter_2.pth").read_bytes()
    with pytest.raises(ConfigError, match="holds a run, up to iter_2.pth; give --auto-resume to continue it"):
        train(config(tiny_config), str(tmp_path), validate=False)
    assert (tmp_path / "iter_2.pth").read_bytes() == before
    (tmp_path / "iter_2.pth").write_bytes(before[:1000])
    with pytest.raises(CheckpointError, match=r"none of its 1 checkpoint\(s\) is complete; move them away"):
        train(config(tiny_config), str(tmp_path), validate=False, auto_resume=True)


def test_two_trainings_at_once_do_not_share_a_folder(tmp_path, root):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom mmseg_ext.engine.work_dir import only_one\nwith only_one(sys.argv[1]):"
         " print('held', flush=True); sys.stdin.read()", str(tmp_path)],
        cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match="another training runs there; give another --work-dir"), only_one(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with only_one(tmp_path):  # the lock ended with its process
        pass


def test_settings_that_do_not_exist_are_refused(tiny_config, tmp_path, run_tool):
    with pytest.raises(ConfigError, match="--cfg-options channel_last: no such setting; did you mean channels_last?"):
        load_config(str(tiny_config), {"channel_last": True})
    with pytest.raises(ConfigError, match="channels_last='yes' is neither True nor False"):
        train(config(tiny_config, channels_last="yes"), str(tmp_path), validate=False)
    for option in ("optimizer_config=dict(accumulate=4)", "custom_hooks=[dict(type='WeightAverageHook')]"):
        done = run_tool("train.py", tiny_config, "--cfg-options", option)
        assert done.returncode == 2 and "cannot be read; give" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_no_checkpoint_is_written_while_steps_are_left_out(tiny_config, tmp_path):
    cfg = load_config(
        str(tiny_config), {"checkpoint_config.interval": 1, "optimizer.lr": 1e30, "non_finite.skip": True}
    )
    train(cfg, str(tmp_path), validate=True)  # 4 iterations: huge weights after the first, and no step after it
    kept = sorted(path.name for path in tmp_path.glob("*iter_*.pth"))
    assert kept == ["iter_1.pth"]
    assert all(torch.isfinite(value).all() for value in read_checkpoint(str(tmp_path / kept[0]))["state_dict"].values())


def test_what_a_checkpoint_is_after_is_in_the_log_when_it_is_written(tiny_config, tmp_path, monkeypatch):
    """A run that is killed right after a checkpoint resumes behind these lines and never writes them again."""
    seen = []

    def write(content, path):
        lines = [json.loads(line) for log in tmp_path.glob("*.log.json") for line in log.open()]
        seen.append((content["meta"]["iter"], [(line["mode"], line["iter"]) for line in lines if "mode" in line][-2:]))
        write_checkpoint(content, path)

    monkeypatch.setattr("mmseg_ext.engine.runner.write_checkpoint", write)
    options = {"runner.max_iters": 4, "checkpoint_config.interval": 2, "evaluation.interval": 2}
    cfg = load_config(str(tiny_config), {**options, "log_config.interval": 1})
    cfg.evaluation.pop("save_best", None)  # whose file is written by the evaluation, before it is logged
    train(cfg, str(tmp_path))
    assert seen == [(2, [("train", 2), ("val", 2)]), (4, [("train", 4), ("val", 4)])]


def test_a_full_disk_is_one_line_wherever_it_shows(tmp_path):
    with pytest.raises(ConfigError, match=r"run: cannot be written \(No space left on device\); what was saved stays"):
        with full_disk_told("run"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), full_disk_told("run"):
        open(tmp_path / "none")
