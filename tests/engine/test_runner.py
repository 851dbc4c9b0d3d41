"""The optimizer, whose state dicts are as mmcv's, and exact resume: a killed and resumed run is the straight one."""

import copy
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from mmcv.runner import build_optimizer
from torch import nn

from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.engine.runner import training_optimizer

ADAMW = dict(
    type="AdamW",
    lr=0.01,
    weight_decay=0.1,
    paramwise_cfg=dict(custom_keys={"1": dict(decay_mult=0.0), "2": dict(lr_mult=10.0)}),
)


def network(channels_last=False):
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3))
    return made.to(memory_format=torch.channels_last) if channels_last else made


def take_steps(made, optimizer, first, last):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for parameter in made.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()


def assert_same_weights(one, other):
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("settings", [ADAMW, dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.01)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_steps_are_those_of_mmcvs_optimizer(settings, channels_last):
    ours, theirs = network(channels_last), network(channels_last)
    optimizer = training_optimizer(ours, settings)
    take_steps(ours, optimizer, 0, 4)
    take_steps(theirs, build_optimizer(theirs, settings), 0, 4)
    assert_same_weights(ours, theirs)
    assert optimizer.defaults["fused"] is True


def test_equal_settings_make_one_group_and_the_first_keeps_its_rate():
    optimizer = training_optimizer(network(), ADAMW)
    found = [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    assert found == [(0.01, 0.1, 2), (0.01, 0.0, 2), (0.1, 0.1, 2)]


@pytest.mark.parametrize("own", [dict(fused=False), dict(foreach=True), dict(foreach=False)])
def test_what_the_config_says_wins(own):
    optimizer = training_optimizer(network(), {**ADAMW, **own})
    assert not optimizer.defaults["fused"]
    assert optimizer.defaults["foreach"] is own.get("foreach")


def test_optimizers_without_a_fused_step_are_built_as_they_are():
    made = network()
    optimizer = training_optimizer(made, dict(type="RMSprop", lr=0.01))
    take_steps(made, optimizer, 0, 1)
    assert type(optimizer) is torch.optim.RMSprop


def test_the_state_dict_is_the_one_of_mmcvs_optimizer():
    ours, theirs = network(), network()
    optimizer, plain = training_optimizer(ours, ADAMW), build_optimizer(theirs, ADAMW)
    take_steps(ours, optimizer, 0, 2)
    take_steps(theirs, plain, 0, 2)
    found, expected = optimizer.state_dict(), plain.state_dict()
    assert found["state"].keys() == expected["state"].keys()
    for number, moments in expected["state"].items():
        for name, value in moments.items():
            torch.testing.assert_close(found["state"][number][name], value)
    for group, other in zip(found["param_groups"], expected["param_groups"], strict=True):
        assert {**group, "fused": None} == other


@pytest.mark.parametrize("saved_by", ["mmcv", "mmcv without groups", "us"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_saved_state_goes_on_whatever_grouped_it(saved_by, channels_last):
    straight = network()
    take_steps(straight, build_optimizer(straight, ADAMW), 0, 5)
    broken = network()
    first = (training_optimizer if saved_by == "us" else build_optimizer)(broken, ADAMW)
    take_steps(broken, first, 0, 2)
    saved = copy.deepcopy(first.state_dict())
    if saved_by == "mmcv without groups":
        numbers = [number for group in saved["param_groups"] for number in group["params"]]
        saved["param_groups"] = [{**saved["param_groups"][0], "params": numbers}]
    resumed = network(channels_last)
    resumed.load_state_dict(broken.state_dict())
    optimizer = training_optimizer(resumed, ADAMW)
    rates = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    assert all(group["fused"] for group in optimizer.param_groups)
    # the runner puts the config's settings back in the same way
    for group, (lr, weight_decay) in zip(optimizer.param_groups, rates, strict=True):
        group["lr"], group["weight_decay"] = lr, weight_decay
    take_steps(resumed, optimizer, 2, 5)
    assert_same_weights(resumed, straight)


def test_a_state_of_other_parameters_is_refused():
    saved = build_optimizer(nn.Conv2d(3, 4, 3), ADAMW).state_dict()
    with pytest.raises(ValueError, match="parameter group"):
        training_optimizer(network(), ADAMW).load_state_dict(saved)


def start(root, config, work_dir, processes, *options):
    tool = ["tools/train.py"] if processes == 1 else ["-m", "mmseg_ext.engine.launch", str(processes), "tools/train.py"]
    command = [
        *(sys.executable, *tool, str(config), "--work-dir", str(work_dir), "--seed", "5", "--auto-resume"),
        *("--cfg-options", "data.workers_per_gpu=1", "checkpoint_config.interval=10", "evaluation.interval=10"),
        *("log_config.interval=7", "model.decode_head.dropout_ratio=0.3", *options),
    ]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        command, cwd=root, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process):
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def kill_all(process):
    """Kill -9 the process and all that it started."""
    import psutil

    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            pass
    process.communicate()


def lines(work_dir):
    found = [json.loads(line) for path in sorted(work_dir.glob("*.log.json")) for line in path.open()]
    return [
        {k: v for k, v in line.items() if k not in ("time", "data_time", "memory", "epoch")}
        for line in found
        if "mode" in line
    ]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_is_straight_to_the_bit(processes, tiny_config, tmp_path, root):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    finish(start(root, tiny_config, straight, processes, "runner.max_iters=40"))
    process = start(root, tiny_config, broken, processes, "runner.max_iters=40")
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (broken / "iter_20.pth").exists():
        time.sleep(0.01)
    kill_all(process)
    assert not (broken / "iter_40.pth").exists()
    finish(start(root, tiny_config, broken, processes, "runner.max_iters=40"))
    one, other = (read_checkpoint(str(folder / "iter_40.pth")) for folder in (straight, broken))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
    for key, state in one["optimizer"]["state"].items():
        found = other["optimizer"]["state"][key]
        assert all(torch.equal(torch.as_tensor(state[k]), torch.as_tensor(found[k])) for k in state)
    assert [line["iter"] for line in lines(broken)] == [7, 10, 14, 20, 21, 28, 30, 35, 40]
    assert lines(broken) == lines(straight)
