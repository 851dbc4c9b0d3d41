"""The gating units by their definitions; the encoder's sizes, first weights, ablations and published keys."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.utils import revert_sync_batchnorm
from torch import nn

from mmseg_ext.models.mscan import HDMSCA, MSCA, MSCAN

SMALL = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), mlp_ratios=(2, 2, 2, 2))


def test_hdmsca_is_its_definition():
    unit = HDMSCA(4, kernel_size=5, dilations=(1, 2, 5, 9))
    x = torch.randn(2, 4, 30, 33)
    scales, y = [], x
    for i, dilation in enumerate((1, 2, 5, 9), start=1):
        conv = getattr(unit, f"conv1_{i}")
        y = F.conv2d(y, conv.weight, conv.bias, padding=2 * dilation, dilation=dilation, groups=4)
        scales.append(y)
    mixed = F.conv2d(torch.cat(scales, 1), unit.conv2.weight, unit.conv2.bias)
    torch.testing.assert_close(unit(x), mixed * x)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (dict(gate=False), {"conv1_1", "conv1_2", "conv1_3", "conv1_4", "conv2"}),
        (dict(dilations=(1, 1, 1, 1)), {"conv1_1", "conv1_2", "conv1_3", "conv1_4", "conv2"}),
        (dict(multi_scale=False), {"conv1_1"}),
    ],
)
def test_ablations_keep_the_convs_that_the_paper_keeps(settings, keys):
    assert {key.split(".")[0] for key in HDMSCA(4, **settings).state_dict()} == keys


def test_without_gate_the_context_is_returned():
    torch.manual_seed(0)
    gated = HDMSCA(4)
    plain = HDMSCA(4, gate=False)
    plain.load_state_dict(gated.state_dict())
    x = torch.randn(1, 4, 20, 20)
    torch.testing.assert_close(gated(x), plain(x) * x)


def test_msca_is_its_definition():
    unit = MSCA(3)
    x = torch.randn(1, 3, 25, 31)
    local = F.conv2d(x, unit.conv0.weight, unit.conv0.bias, padding=2, groups=3)
    total = local.clone()
    for i, length in enumerate((7, 11, 21)):
        row, column = getattr(unit, f"conv{i}_1"), getattr(unit, f"conv{i}_2")
        y = F.conv2d(local, row.weight, row.bias, padding=(0, length // 2), groups=3)
        total += F.conv2d(y, column.weight, column.bias, padding=(length // 2, 0), groups=3)
    torch.testing.assert_close(unit(x), F.conv2d(total, unit.conv3.weight, unit.conv3.bias) * x)


@pytest.mark.parametrize("unit", ["MSCA", "HDMSCA"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 160), (101, 37), (17, 23)])
def test_stages_halve_the_size_and_round_up(unit, height, width):
    features = MSCAN(**SMALL, gating_unit=dict(type=unit)).eval()(torch.randn(1, 3, height, width))
    sizes = [(math.ceil(height / 2**k), math.ceil(width / 2**k)) for k in (2, 3, 4, 5)]
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (channels, *size) for channels, size in zip(SMALL["embed_dims"], sizes, strict=True)
    ]


def test_first_weights_are_the_published_ones():
    backbone = MSCAN(embed_dims=(64, 128, 160, 256), gating_unit=dict(type="HDMSCA"))
    torch.manual_seed(0)
    backbone.init_weights()
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.08), name
            assert not module.bias.any(), name
    assert torch.equal(backbone.block1[0].layer_scale_1, torch.full((64,), 0.01))


def test_drop_path_rises_linearly():
    blocks = [b for i in range(1, 5) for b in getattr(MSCAN(drop_path_rate=0.3), f"block{i}")]
    rates = [getattr(b.drop_path, "drop_prob", 0.0) for b in blocks]
    assert rates == pytest.approx([0.3 * i / 12 for i in range(13)])


def test_without_residual_the_attention_input_is_not_added():
    torch.manual_seed(0)
    with_it, without = (MSCAN(**SMALL, attention_residual=r).block1[0].attn.eval() for r in (True, False))
    without.load_state_dict(with_it.state_dict())
    x = torch.randn(1, 8, 16, 16)
    torch.testing.assert_close(with_it(x), without(x) + x)


def test_openmmlabs_keys_and_the_imagenet_head_load_strictly():
    backbone = MSCAN(**SMALL)
    state = {
        k.replace("mlp.dwconv.dwconv.", "mlp.dwconv."): torch.full_like(v, 2) for k, v in backbone.state_dict().items()
    }
    state.update({"head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)})
    backbone.load_state_dict(state, strict=True)
    assert backbone.block2[1].mlp.dwconv.dwconv.weight.unique().tolist() == [2.0]
    assert not [name for name, _ in backbone.named_parameters() if name.startswith("head")]
    assert backbone.imagenet_head_params == 33 * 1000


def test_sync_bn_can_be_reverted():
    encoder = revert_sync_batchnorm(MSCAN(**SMALL, norm_cfg=dict(type="SyncBN")))
    assert not [module for module in encoder.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert all(feature.isfinite().all() for feature in encoder.eval()(torch.randn(1, 3, 64, 64)))
