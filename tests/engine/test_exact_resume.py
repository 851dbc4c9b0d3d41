"""A run that was killed and resumed ends like one that never was: to the bit, log lines included."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mmseg_ext.engine.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


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
    _, errors = process.communicate(timeout=240)
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


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_is_straight_to_the_bit(processes, tiny_config, tmp_path, root):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    finish(start(root, tiny_config, straight, processes, "runner.max_iters=40"))
    process = start(root, tiny_config, broken, processes, "runner.max_iters=40")
    deadline = time.monotonic() + 200
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
