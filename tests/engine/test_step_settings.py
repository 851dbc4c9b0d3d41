"""Settings of speed and memory: what each changes, and that the rest stays as in the plain run."""

import copy
import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from torch import nn

from mmseg_ext.engine import evaluate_checkpoint, load_config, train
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.errors import ConfigError
from mmseg_ext.models.mscan import MSCAN

# nothing that depends on how images are grouped: no batch statistics, dropout, drop path, drawn bases or warm-up
PLAIN = {
    "model.backbone.norm_cfg": dict(type="GN", num_groups=1),
    "model.decode_head.norm_cfg": dict(type="GN", num_groups=1),
    "model.backbone.drop_path_rate": 0.0,
    "model.decode_head.dropout_ratio": 0.0,
    "model.decode_head.ham_cfg.fixed_in_training": True,
    "log_config.interval": 1,
}


def plain_config(tiny_config, lr=0.05, **options):
    cfg = load_config(str(tiny_config), {**PLAIN, **options})
    cfg.optimizer, cfg.lr_config = dict(type="SGD", lr=lr), dict(policy="fixed")
    return cfg


def run(tiny_config, folder, **options):
    train(plain_config(tiny_config, **options), str(folder), validate=False)
    return read_checkpoint(os.path.join(folder, "latest.pth"))


def weights(checkpoint):
    return torch.cat([value.flatten().double() for value in checkpoint["state_dict"].values()])


def first_weights(tiny_config, tmp_path):
    return weights(run(tiny_config, tmp_path / "untrained", lr=0.0, **{"runner.max_iters": 1}))


def assert_same_way(one, other, start):
    """Assert that two runs moved the weights from ``start`` to the same place, to 1e-5 of the way."""
    assert (one - other).abs().max() <= 1e-5 * (one - start).abs().max()


def test_accumulated_steps_are_those_of_the_larger_batch(tiny_config, tmp_path):
    start = first_weights(tiny_config, tmp_path)
    whole = run(tiny_config, tmp_path / "whole", **{"data.samples_per_gpu": 4, "runner.max_iters": 3})
    parts = run(
        tiny_config,
        tmp_path / "parts",
        **{"data.samples_per_gpu": 1, "runner.max_iters": 12, "optimizer_config.accumulate": 4},
    )
    assert whole["meta"]["draws"] == parts["meta"]["draws"] == 12
    assert_same_way(weights(whole), weights(parts), start)


def test_a_run_stopped_within_a_step_goes_on_to_the_bit(tiny_config, tmp_path):
    options = {"optimizer_config.accumulate": 4, "checkpoint_config.interval": 3, "data.samples_per_gpu": 1}
    straight = run(tiny_config, tmp_path / "straight", **options, **{"runner.max_iters": 8})
    folder = tmp_path / "broken"
    cfg = plain_config(tiny_config, **options, **{"runner.max_iters": 8})
    train(cfg, str(folder), validate=False)
    for name in ("iter_6.pth", "iter_8.pth", "latest.pth"):
        os.remove(folder / name)
    assert read_checkpoint(str(folder / "iter_3.pth"))["accumulated"] == 3
    train(copy.deepcopy(cfg), str(folder), validate=False, auto_resume=True)
    assert torch.equal(weights(straight), weights(read_checkpoint(str(folder / "iter_8.pth"))))


def test_clipping_limits_the_step(tiny_config, tmp_path):
    start = first_weights(tiny_config, tmp_path)
    clipped = run(
        tiny_config, tmp_path / "clipped", **{"optimizer_config.grad_clip": dict(max_norm=0.01), "runner.max_iters": 1}
    )
    assert (weights(clipped) - start).norm() == pytest.approx(0.05 * 0.01, rel=1e-3)
    lines = [json.loads(line) for path in (tmp_path / "clipped").glob("*.log.json") for line in path.open()]
    assert lines[-1]["grad_norm"] > 0.01


def test_the_average_is_kept_evaluated_and_saved(tiny_config, tmp_path):
    hook = dict(type="WeightAverageHook", momentum=0.3)
    options = {"custom_hooks": [hook], "checkpoint_config.interval": 1, "runner.max_iters": 3}
    options.update({"checkpoint_config.max_keep_ckpts": 9, "evaluation.interval": 3})
    train(plain_config(tiny_config, **options), str(tmp_path))
    saved = [read_checkpoint(str(tmp_path / f"iter_{i}.pth")) for i in (1, 2, 3)]
    key = "decode_head.conv_seg.weight"
    expected = 0.7 * saved[0]["average"][key] + 0.3 * saved[1]["state_dict"][key]
    assert torch.allclose(saved[1]["average"][key], expected, atol=1e-7)
    assert not torch.equal(saved[2]["average"][key], saved[2]["state_dict"][key])
    scores = [json.loads(line) for path in tmp_path.glob("*.log.json") for line in path.open()]
    inside = next(line for line in scores if line.get("mode") == "val")
    options["data.test.split"] = "ImageSets/Segmentation/val.txt"
    after = evaluate_checkpoint(plain_config(tiny_config, **options), str(tmp_path / "iter_3.pth"))
    assert round(after["aAcc"], 5) == inside["aAcc"]
    # a resumed run goes on with the average, too
    for name in ("iter_3.pth", "latest.pth"):
        os.remove(tmp_path / name)
    train(plain_config(tiny_config, **options), str(tmp_path), auto_resume=True)
    again = read_checkpoint(str(tmp_path / "iter_3.pth"))["average"]
    assert all(torch.equal(again[k], saved[2]["average"][k]) for k in again)
    with pytest.raises(ConfigError, match="momentum 0 must be above 0"):
        train(load_config(str(tiny_config), {"custom_hooks": [{**hook, "momentum": 0}]}), str(tmp_path / "x"))


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_recomputed_stages_have_the_same_gradients_and_statistics(norm):
    settings = dict(
        embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), mlp_ratios=(2, 2, 2, 2), drop_path_rate=0.3, drop_rate=0.1,
        gating_unit=dict(type="HDMSCA"), norm_cfg=dict(type=norm),
    )  # fmt: skip
    x = torch.rand(2, 3, 64, 64)
    results = []
    for stages in ((), (1, 2, 3, 4)):
        torch.manual_seed(0)
        network = MSCAN(**settings, recompute_stages=stages).train()
        network.init_weights()
        torch.manual_seed(1)
        sum(feature.square().mean() for feature in network(x)).backward()
        results.append(({k: p.grad for k, p in network.named_parameters()}, network.state_dict()))
    (plain, state), (anew, other) = results
    assert all(torch.allclose(plain[key], anew[key], atol=1e-7) for key in plain)
    assert all(torch.equal(state[key], other[key]) for key in state)
    assert state["block1.0.norm1.num_batches_tracked"] == 1


def test_recomputing_keeps_less():
    kept = []
    for stages in ((), (1, 2, 3, 4)):
        network = MSCAN(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), recompute_stages=stages).train()
        sizes = {}

        def remember(tensor, sizes=sizes):
            if not isinstance(tensor, nn.Parameter):
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            features = network(torch.rand(1, 3, 64, 64))
        kept.append(sum(sizes.values()))
        del features
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"channels_last": True},
        {"compile": dict(backend="aot_eager")},
        pytest.param({"compile": True}, marks=pytest.mark.slow),  # C++ compiled
        {"model.backbone.recompute_stages": (1, 2)},
        {"model.backbone.recompute_stages": (1,), "compile": dict(backend="eager")},
    ],
)
def test_settings_agree_with_the_plain_run(tiny_config, tmp_path, options, request):
    if options.get("compile") is True:
        request.getfixturevalue("compiler")
    losses = []
    for name, settings in (("plain", {}), ("set", options)):
        run(tiny_config, tmp_path / name, **settings)
        lines = [json.loads(line) for path in (tmp_path / name).glob("*.log.json") for line in path.open()]
        losses.append([line["loss"] for line in lines if line.get("mode") == "train"])
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=0.01 if "precision" in options else 1e-4)


def test_the_learning_rate_follows_the_batch_only_when_asked(tiny_config, tmp_path):
    rates = {}
    for name, options in (("as it is", {}), ("scaled", {"lr_of_batch": 8, "optimizer_config.accumulate": 2})):
        run(tiny_config, tmp_path / name, **options, **{"runner.max_iters": 1})
        lines = [json.loads(line) for path in (tmp_path / name).glob("*.log.json") for line in path.open()]
        rates[name] = lines[-1]["lr"]
    assert rates == {"as it is": 0.05, "scaled": 0.05 * 2 * 2 / 8}
    with pytest.raises(ConfigError, match="lr_of_batch='x' is not a number of images"):
        run(tiny_config, tmp_path / "x", lr_of_batch="x")


@pytest.mark.slow
def test_two_nodes_of_two_processes_step_like_one_process(tiny_config, tmp_path, root):
    start = first_weights(tiny_config, tmp_path)
    one = run(tiny_config, tmp_path / "one", **{"data.samples_per_gpu": 4, "runner.max_iters": 2})
    config = tmp_path / "plain.py"
    plain_config(tiny_config, **{"data.samples_per_gpu": 1, "runner.max_iters": 2}).dump(str(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "NNODES": "2", "MASTER_ADDR": "127.0.0.1", "PORT": str(port)}
    nodes = [
        subprocess.Popen(
            ["bash", "tools/dist_train.sh", str(config), "2", "--no-validate", "--work-dir", str(tmp_path / "four")],
            cwd=root, env={**environ, "NODE_RANK": str(rank), "PYTHON": sys.executable},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [node.communicate(timeout=600)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    four = read_checkpoint(str(tmp_path / "four" / "latest.pth"))
    assert one["meta"]["draws"] == four["meta"]["draws"] == 8
    assert_same_way(weights(one), weights(four), start)


TWO_PROCESSES = """
import os, sys
from pathlib import Path
from mmcv import Config
from mmcv.runner import HOOKS, Hook
from torch import distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from mmseg_ext.engine import train

@HOOKS.register_module()
class Exchanges(Hook):
    def before_run(self, runner):
        self.at = []
        def exchange(state, bucket):
            self.at.append(runner.iter + 1)
            return allreduce_hook(None, bucket)
        runner.model.register_comm_hook(None, exchange)

    def after_run(self, runner):
        sys.stdout.write(f"{sorted(set(self.at))} ")

config, folder, rank, port = sys.argv[1:]
os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                  MASTER_PORT=port)
cfg = Config.fromfile(config)
train(cfg, folder, validate=False)
if rank == "0":
    Path(folder, "iter_8.pth").rename(folder + ".pth")
    for name in ("iter_6.pth", "latest.pth"):
        Path(folder, name).unlink()
dist.barrier()
train(cfg, folder, validate=False, auto_resume=True)
"""


def test_two_processes_exchange_gradients_once_a_step_and_resume_within_one(tiny_config, tmp_path, root):
    start = first_weights(tiny_config, tmp_path)
    options = {"optimizer_config.accumulate": 4, "checkpoint_config.interval": 3, "runner.max_iters": 8}
    one = run(tiny_config, tmp_path / "one", **options, **{"data.samples_per_gpu": 2})
    cfg = plain_config(tiny_config, **options, **{"data.samples_per_gpu": 1})
    cfg.custom_hooks = [dict(type="Exchanges")]
    cfg.dump(str(tmp_path / "two.py"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path / "two.py"), str(tmp_path / "two")]
    pair = [
        subprocess.Popen(
            [*command, rank, str(port)], cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    outputs = [process.communicate(timeout=600) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert [said.endswith("[4, 8] [4, 8] ") for said, _ in outputs] == [True, True], outputs
    two, resumed = (weights(read_checkpoint(str(tmp_path / name))) for name in ("two.pth", "two/iter_8.pth"))
    assert_same_way(weights(one), two, start)
    assert torch.equal(two, resumed)
