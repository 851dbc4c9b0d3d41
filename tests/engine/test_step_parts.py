"""The parts of a training step that are ours."""

from types import SimpleNamespace

import torch
from mmseg.models.segmentors.base import BaseSegmentor
from torch import nn

from mmseg_ext.engine import load_config
from mmseg_ext.engine.distributed import total_loss
from mmseg_ext.engine.hooks import WeightAverageHook
from mmseg_ext.engine.training import collate_plainly


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
    runner = SimpleNamespace(network=network, average=None, accumulated=0)
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
    runner.accumulated = 1
    with torch.no_grad():
        network[0].weight.zero_()
    hook.after_train_iter(runner)
    assert torch.equal(runner.average["0.weight"], expected["0.weight"])
