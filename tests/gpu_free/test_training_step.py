"""A training step in fp16 as GPUs take it, alone and as one of two processes: devices, types, and the host's reads."""

import logging
from collections import Counter

import pytest
import torch
from fake_gpu import CONFIGS, GPU, MSCAN, NETWORKS, fake_gpu
from mmcv import Config
from torch._subclasses.fake_tensor import unset_fake_temporarily

from mmseg_ext.engine import build_network, distributed, load_config
from mmseg_ext.engine.distributed import LocalSegmentor, Process
from mmseg_ext.engine.runner import SafeIterRunner, training_optimizer
from mmseg_ext.engine.training import register_custom_hooks, register_step_hooks, wrap_for_training


class Batches:
    """A loader of two images."""

    epoch = 0

    def __next__(self):
        labels = torch.empty(2, 1, 64, 64, dtype=torch.long)
        return dict(img=torch.empty(2, 3, 64, 64), img_metas=[{}, {}], gt_semantic_seg=labels)


def start_training(cfg, processes, patch):
    """Return a runner with everything that can be on: clipping, accumulation, scaler, average; and its network."""
    # the gradients' exchange is C++ and needs data
    patch.setattr(distributed, "DistributedSegmentor", lambda *args, **options: LocalSegmentor(*args))
    cfg.optimizer_config = dict(grad_clip=dict(max_norm=1.0), accumulate=2)
    cfg.custom_hooks = [dict(type="WeightAverageHook")]
    with unset_fake_temporarily():
        network = build_network(cfg, initialise=False)
    wrapped = wrap_for_training(network, cfg, Process(0, processes, GPU), "fp16")
    runner = SafeIterRunner(
        wrapped,
        optimizer=training_optimizer(wrapped.module, cfg.optimizer),
        logger=logging.getLogger(__name__),
        meta=dict(hook_msgs={}),
        max_iters=99,
    )
    register_step_hooks(runner, cfg, "fp16")
    register_custom_hooks(runner, cfg)
    runner.call_hook("before_run")
    runner.call_hook("before_epoch")
    return runner, wrapped.module


def check_step(cfg, processes, patch):
    """Take a step of two iterations, assert devices and types, and return the host's reads."""
    with fake_gpu(patch, processes) as reads:
        runner, network = start_training(cfg, processes, patch)
        scores, gradients, exchanged = [], [], []
        network.decode_head.conv_seg.register_forward_hook(lambda module, given, found: scores.append(found.dtype))
        runner.optimizer.register_step_pre_hook(lambda *_: gradients.extend(p.grad for p in network.parameters()))
        for _ in range(2):
            runner.train(Batches())
            exchanged.append(runner.model.require_backward_grad_sync)
    assert exchanged == [False, True]
    assert scores == [torch.float16] * 2
    moments = [value for state in runner.optimizer.state.values() for value in state.values() if value.dim()]
    assert len(moments) == 2 * len(gradients) == 2 * len(list(network.parameters()))
    for tensor in (*network.parameters(), *gradients, *moments):
        assert tensor.device == GPU and tensor.dtype == torch.float32
    assert all(value.device == GPU for value in runner.average.values())
    assert runner.optimizer.defaults["fused"] and runner.scaler.is_enabled()
    return Counter(reads)


# in each iteration the losses, and twice MMSegmentation's accuracy; in each step the norm and the average's scale;
# SyncBN and the number of the losses need none. These numbers may only fall
BUDGET = Counter(numbers=2, nonzero=2 * 2, number=2)

# MMSegmentation's losses that look for classes and for pixels
FURTHER_READS = {"ce_lovasz": Counter(nonzero=8, number=8), "ohem": Counter(nonzero=6, number=2)}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("path", NETWORKS)
def test_every_network_steps_and_the_host_reads_little(monkeypatch, path, processes):
    assert check_step(load_config(str(CONFIGS / path), NETWORKS[path]), processes, monkeypatch) == BUDGET


@pytest.mark.parametrize("options", [{"channels_last": True}, {"model.backbone.recompute_stages": (1, 2, 3, 4)}])
def test_settings_of_memory_and_speed_read_no_more(monkeypatch, options):
    cfg = load_config(str(CONFIGS / "dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py"), {**MSCAN, **options})
    assert check_step(cfg, 2, monkeypatch) == BUDGET


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("loss", sorted(path.stem for path in (CONFIGS / "_base_/losses").glob("*.py")))
def test_every_loss_steps(monkeypatch, loss, processes):
    cfg = load_config(str(CONFIGS / "linknets/unet.1024x1024.OPM.20k.py"))
    losses = Config.fromfile(str(CONFIGS / f"_base_/losses/{loss}.py"))
    cfg.model.decode_head.update(losses._cfg_dict)
    assert check_step(cfg, processes, monkeypatch) == BUDGET + FURTHER_READS.get(loss, Counter())
