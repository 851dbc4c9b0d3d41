"""Checkpoint files, and the work dir, which belongs to one training that resumes as its config says."""

import errno
import json
import logging
import os
import pickle
import signal
import stat
import subprocess
import sys

import pytest
import torch
from mmcv.runner import HOOKS, Hook
from safetensors.torch import save_file
from torch import nn

from mmseg_ext.engine import load_config, train
from mmseg_ext.engine.checkpoint import (
    check_weights,
    disk_full_error,
    latest_checkpoint,
    only_one,
    point_to,
    read_checkpoint,
    trim_logs,
    weights_sha256,
    write_checkpoint,
    write_safetensors,
)
from mmseg_ext.errors import CheckpointError, ConfigError, Stopped, TrainingError


def small(width=4, extra=False):
    layers = [nn.Conv2d(3, width, 1), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, *([nn.Conv2d(width, 1, 1)] if extra else []))


def state_file(path, network, **more):
    torch.save(dict(state_dict=network.state_dict(), meta=dict(iter=3), **more), path)
    return str(path)


def test_what_is_written_is_read(tmp_path):
    network = small()
    path = str(tmp_path / "a.pth")
    write_checkpoint(dict(state_dict=network.state_dict(), meta=dict(iter=7, CLASSES=["a"])), path)
    read = read_checkpoint(path)
    assert read["meta"] == dict(iter=7, CLASSES=["a"])
    assert all(torch.equal(read["state_dict"][k], v) for k, v in network.state_dict().items())
    assert os.listdir(tmp_path) == ["a.pth"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~umask


def test_safetensors_and_bare_state_dicts_and_ddp_prefixes_are_read(tmp_path):
    state = {k: v.contiguous() for k, v in small().state_dict().items()}
    save_file(state, str(tmp_path / "a.safetensors"))
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        read = read_checkpoint(str(tmp_path / name))["state_dict"]
        assert read.keys() == state.keys()
        assert torch.equal(read["0.weight"], state["0.weight"])


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    target = str(tmp_path / "was_run")
    torch.save(dict(state_dict=small().state_dict(), extra=Payload(target)), tmp_path / "evil.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Payload(target)))
    for name in ("evil.pth", "plain.pkl"):
        with pytest.raises(CheckpointError):
            read_checkpoint(str(tmp_path / name))
    assert not os.path.exists(target)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("page.pth", b"<!DOCTYPE html><html>login</html>", "is a web page, not a checkpoint: a login or an error page"),
        ("page.safetensors", b"\n  <HTML>", "is a web page"),
        ("pointer.pth", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("empty.pth", b"", "the file is empty"),
        ("x.safetensors", b"\x00" * 20, "is truncated or damaged"),
        ("text.pth", b"hello" * 100, "is not a checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as error:
        read_checkpoint(str(tmp_path / name))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_checkpoint_a_missing_one_and_one_without_weights_are_named(tmp_path):
    path = tmp_path / "torn.pth"
    state_file(path, small(64))
    path.write_bytes(path.read_bytes()[:-200])
    torch.save(dict(epoch=3), tmp_path / "none.pth")
    for name, words in (("torn", "is truncated or damaged"), ("missing", "no such"), ("none", "contains no weights")):
        with pytest.raises(CheckpointError, match=f"{name}.pth: .*{words}"):
            read_checkpoint(str(tmp_path / f"{name}.pth"))


def test_safetensors_carry_meta_data_and_a_hash_of_their_weights(tmp_path):
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.ones(2, dtype=torch.bfloat16)}
    meta = dict(schema_version=1, CLASSES=["road"], weights_sha256=weights_sha256(weights))
    path = str(tmp_path / "a.safetensors")
    write_safetensors(weights, meta, path)
    assert read_checkpoint(path)["meta"] == meta
    assert weights_sha256(read_checkpoint(path)["state_dict"]) == meta["weights_sha256"]
    assert os.listdir(tmp_path) == ["a.safetensors"]
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x41")
    with pytest.raises(CheckpointError, match="its weights do not match their SHA-256"):
        read_checkpoint(path)
    write_safetensors(weights, {**meta, "schema_version": 99}, path)
    with pytest.raises(CheckpointError, match="schema 99, this version knows 1; update mmseg_ext"):
        read_checkpoint(path)


def test_the_hash_knows_names_types_shapes_and_values_but_no_order():
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.zeros(8)[::2]}
    assert weights_sha256(base) == weights_sha256(same)
    others = [
        {"c": base["a"], "b": base["b"]},
        {**base, "a": torch.zeros(4, dtype=torch.float64)},
        {**base, "a": torch.zeros(2, 2)},
        {**base, "b": torch.tensor([1.0, 2.0])},
    ]
    assert len({weights_sha256(weights) for weights in (base, *others)}) == 5


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = str(tmp_path / "a.pth")
    write_checkpoint(dict(state_dict=small().state_dict(), meta=dict(iter=1)), path)

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_checkpoint(dict(meta=dict(iter=2)), path)
    assert read_checkpoint(path)["meta"]["iter"] == 1
    assert os.listdir(tmp_path) == ["a.pth"]


def test_non_finite_weights_are_not_written():
    check_weights(dict(a=torch.zeros(2), n=torch.tensor(3)), "iter_1.pth")
    with pytest.raises(TrainingError, match="^iter_1.pth: not written, because b contains NaN"):
        check_weights(dict(a=torch.zeros(2), b=torch.tensor([0, float("inf")])), "iter_1.pth")


def test_the_newest_complete_checkpoint_is_found(tmp_path):
    for n in (2, 10, 9):
        state_file(tmp_path / f"iter_{n}.pth", small(), optimizer={})
    (tmp_path / "iter_30.pth").write_bytes(b"torn")
    torch.save(dict(state_dict=small().state_dict()), tmp_path / "iter_20.pth")
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / "iter_10.pth")
    assert latest_checkpoint(str(tmp_path / "nowhere")) is None


def test_a_link_is_moved_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        point_to(str(tmp_path / name), str(tmp_path / "latest"))
        assert (tmp_path / "latest").read_text() == name
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "latest"]


def test_logs_are_cut_where_a_run_goes_on(tmp_path):
    entries = [dict(seed=0), *(dict(mode="train", iter=i) for i in (1, 2, 3))]
    text = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    (tmp_path / "a.log.json").write_text(f'{text}{{"mode": "train", "it')
    trim_logs(str(tmp_path), 2)
    assert [json.loads(line) for line in (tmp_path / "a.log.json").open()] == entries[:3]


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
    with pytest.raises(ConfigError, match="already contains a run, up to iter_2.pth; give --auto-resume to resume it"):
        train(config(tiny_config), str(tmp_path), validate=False)
    assert (tmp_path / "iter_2.pth").read_bytes() == before
    (tmp_path / "iter_2.pth").write_bytes(before[:1000])
    with pytest.raises(CheckpointError, match=r"none of its 1 checkpoint\(s\) is complete; move them away"):
        train(config(tiny_config), str(tmp_path), validate=False, auto_resume=True)


def test_two_trainings_at_once_do_not_share_a_folder(tmp_path, root):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom mmseg_ext.engine.checkpoint import only_one\n"
         "with only_one(sys.argv[1]): print('held', flush=True); sys.stdin.read()", str(tmp_path)],
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
        with disk_full_error("run"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError), disk_full_error("run"):
        open(tmp_path / "none")
