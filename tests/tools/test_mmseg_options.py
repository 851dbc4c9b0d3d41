"""Commands as people have them for MMSegmentation 0.30: they work, or one line names what replaces an option."""

import subprocess
import sys

import pytest
import torch

from mmseg_ext.engine import load_config
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.errors import ConfigError


@pytest.fixture()
def parsed(load_tool, monkeypatch):
    """Return a function: (tool, *arguments) -> the parsed command line."""

    def parse(name, *arguments):
        tool = load_tool(name)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        return tool.parse_args()

    return parse


TEST = ("test", "c.py", "w.pth", "--eval", "mIoU")


def test_what_works_as_it_did(parsed, monkeypatch):
    for tool in (TEST, ("train", "c.py")):
        assert parsed(*tool, "--options", "a.b=1", "--cfg-options", "c=[1,2]").cfg_options == {"a.b": 1, "c": [1, 2]}
        assert parsed(*tool, "--cfg-options", "a=1", "--cfg-options", "b=2").cfg_options == dict(a=1, b=2)
        assert parsed(*tool, "--gpu-ids", 3).gpu_id == 3
        assert parsed(*tool, "--gpu-id", 2, "--gpus", 1, "--launcher", "none").gpu_id == 2
    args = parsed(*TEST, "--aug-test", "--show-dir", "shown", "--opacity", 0.3, "--gpu-collect", "--tmpdir", "x")
    assert (args.aug_test, args.show_dir, args.opacity) == (True, "shown", 0.3)
    monkeypatch.setenv("RANK", "0")
    for option in ("--local_rank", "--local-rank"):
        assert parsed("train", f"{option}=1", "c.py", "--launcher", "pytorch").config == "c.py"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*TEST, "--show"), "--show: no window opens here; give --show-dir DIR"),
        ((*TEST, "--format-only"), "--format-only: give --mask-dir DIR"),
        ((*TEST, "--eval-options", "efficient_test=True"), "--eval-options: leave it out"),
        ((*TEST, "--work-dir", "runs"), "--work-dir: give --out FILE.json"),
        ((*TEST, "--out", "x.pkl"), "--out x.pkl: has the metrics, as .json; --mask-dir DIR"),
        (("train", "c.py", "--diff_seed"), "--diff_seed: leave it out"),
        (("train", "c.py", "--gpus", 4), "--gpus 4: .*tools/dist_train.sh CONFIG 4"),
        (
            ("train", "c.py", "--gpu-ids", 0, 2),
            "--gpu-ids 0 2: .*CUDA_VISIBLE_DEVICES=0,2 tools/dist_train",
        ),
        (
            ("train", "c.py", "--launcher", "pytorch"),
            "--launcher pytorch: no launcher started this process",
        ),
        (("train", "c.py", "--launcher", "slurm"), "--launcher slurm: start it with tools/slurm_train.sh"),
        (("train", "c.py", "--launcher", "mpi"), "--launcher mpi: start it with tools/dist_train.sh"),
        (("train", "c.py", "--launcher", "ray"), "--launcher ray: choose none, pytorch, slurm or mpi"),
    ],
)
def test_what_is_replaced_is_named_in_one_line(parsed, monkeypatch, arguments, words):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match=words) as refused:
        parsed(*arguments)
    assert "\n" not in str(refused.value)


def test_the_old_launcher_trains_with_two_processes(tiny_config, tmp_path, root):
    command = [
        *(sys.executable, "-m", "torch.distributed.launch", "--nproc_per_node=2", "--master_port=29713"),
        *("tools/train.py", str(tiny_config), "--launcher", "pytorch", "--work-dir", str(tmp_path / "run")),
        *("--no-validate", "--options", "runner.max_iters=2", "checkpoint_config.interval=2"),
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    content = read_checkpoint(str(tmp_path / "run" / "latest.pth"))
    assert content["meta"]["draws"] == 2 * 2 * load_config(str(tiny_config)).data.samples_per_gpu
    assert all(torch.isfinite(value).all() for value in content["state_dict"].values() if value.is_floating_point())
