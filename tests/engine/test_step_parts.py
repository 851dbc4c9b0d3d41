"""The parts of a training step that are ours."""

import logging
import signal
from types import SimpleNamespace

import pytest
import torch
from mmseg.models.segmentors.base import BaseSegmentor
from torch import distributed as dist
from torch import nn

from mmseg_ext.engine import load_config
from mmseg_ext.engine.distributed import LocalSegmentor, total_loss
from mmseg_ext.engine.hooks import StepHook, StopOnSignal, WeightAverageHook
from mmseg_ext.engine.runner import SafeIterRunner
from mmseg_ext.engine.training import collate_plainly
from mmseg_ext.errors import ConfigError, Stopped


def test_total_loss_is_mmsegmentations():
    torch.manual_seed(0)
    terms = {
        "decode.loss_ce": torch.rand(3, requires_grad=True),
        "decode.acc_seg": torch.tensor([50.0]),
        "aux.loss": [torch.rand(2), torch.rand(())],
    }
    loss, logged = total_loss(terms)
    expected, expected_log = BaseSegmentor._parse_losses(terms)
    assert loss.item() == expected.item()
    assert logged == dict(expected_log)
    assert list(logged) == list(expected_log)
    loss.backward()
    assert torch.equal(terms["decode.loss_ce"].grad, torch.full((3,), 1 / 3))


def test_the_losses_of_two_processes_are_one_message(monkeypatch):
    def other(message):
        assert message.shape == (64,)  # else two processes with different losses would wait for each other
        message += torch.nn.functional.pad(torch.tensor(others), (0, 64 - len(others)))

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "all_reduce", other)
    others = [2.0, 1.5, 1.5]  # number of values, then halves of the means
    assert total_loss({"loss_ce": torch.tensor(1.0)})[1] == {"loss_ce": 2.0, "loss": 2.0}
    others = [3.0, 1.5, 1.5, 1.5]
    with pytest.raises(ConfigError, match="process 0 has the losses loss_ce, loss, another has others"):
        total_loss({"loss_ce": torch.tensor(1.0)})


def test_batches_have_no_containers(one_config):
    from mmseg.datasets import build_dataset

    dataset = build_dataset(load_config(str(one_config)).data.train)
    samples = [dataset[0], dataset[1]]
    batch = collate_plainly(samples)
    assert torch.equal(batch["img"], torch.stack([sample["img"].data for sample in samples]))
    labels = torch.stack([sample["gt_semantic_seg"].data for sample in samples])
    assert torch.equal(batch["gt_semantic_seg"], labels)
    assert [meta["filename"] for meta in batch["img_metas"]] == [s["img_metas"].data["filename"] for s in samples]


def test_the_average_is_the_loop_over_tensors_to_the_bit():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)).to(
        memory_format=torch.channels_last
    )
    runner = SimpleNamespace(
        network=network, average=None, accumulated=0, skipped_in_a_row=0, scaler=torch.amp.GradScaler(enabled=False)
    )
    hook = WeightAverageHook(momentum=0.3)
    hook.before_run(runner)
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    for _ in range(3):
        network(torch.rand(2, 3, 9, 9))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        hook.after_train_iter(runner)
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                expected[key].lerp_(value, 0.3)
            else:
                expected[key].copy_(value)
    assert expected["1.num_batches_tracked"] == 3
    assert all(torch.equal(runner.average[key], value) for key, value in expected.items())
    with torch.no_grad():
        network[0].weight.zero_()
    for waiting in ("accumulated", "skipped_in_a_row"):
        vars(runner)[waiting] = 1
        hook.after_train_iter(runner)
        assert torch.equal(runner.average["0.weight"], expected["0.weight"])
        vars(runner)[waiting] = 0


def test_a_step_whose_gradients_overflow_moves_nothing_and_is_not_logged():
    network = nn.Linear(1, 1, bias=False)
    runner = SafeIterRunner(
        LocalSegmentor(network, torch.device("cpu"), None),
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        logger=logging.getLogger(__name__),
        meta=dict(hook_msgs={}),
        max_iters=9,
    )
    runner.register_hook(StepHook(grad_clip=dict(max_norm=1e9), scaled=True))
    runner.register_hook(WeightAverageHook(momentum=0.5))
    runner.call_hook("before_run")
    weights, averages = [network.weight.item()], [network.weight.item()]
    for gradient in (3.0, 1e36, 4.0):  # times the first scale, 2^16, the second one is more than float32 has
        runner.outputs = dict(loss=network.weight.sum() * gradient, num_samples=1)
        runner.call_hook("after_train_iter")
        weights.append(network.weight.item())
        averages.append(runner.average["weight"].item())
    assert weights[2] == weights[1] and averages[2] == averages[1]
    assert weights[1:] == pytest.approx([weights[0] - 0.3, weights[0] - 0.3, weights[0] - 0.7])
    assert averages[3] == pytest.approx((averages[2] + weights[3]) / 2)
    assert runner.log_buffer.val_history["grad_norm"] == [3, 4]
    assert runner.scaler.get_scale() == 2**15


def test_several_processes_stop_where_their_gradients_are_the_same(monkeypatch, tmp_path):
    hook, saved = StopOnSignal(), []
    runner = SimpleNamespace(rank=0, iter=4, accumulated=1, work_dir=str(tmp_path), save_checkpoint=saved.append)
    runner.logger = logging.getLogger(__name__)
    monkeypatch.setattr(hook, "_agreed", lambda: signal.SIGTERM)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr("mmseg_ext.engine.hooks.gathered", lambda mine: [mine])
    hook.after_train_iter(runner)
    assert saved == []
    runner.accumulated = 0
    with pytest.raises(Stopped):
        hook.after_train_iter(runner)
    assert saved == [str(tmp_path)]
