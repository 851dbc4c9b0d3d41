"""Behaviour that every user relies on: determinism, sizes, precisions, gradients, first weights."""

import hashlib
import math
import subprocess
import sys

import pytest
import torch
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models import build_segmentor
from torch import nn

from mmseg_ext.models import MSCAN

SMALL = dict(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), mlp_ratios=(2, 2, 2, 2))


def small_segmentor(gating_unit="HDMSCA", num_classes=2, in_channels=3, seed=0, **backbone):
    torch.manual_seed(seed)
    network = build_segmentor(
        dict(
            type="EncoderDecoder",
            backbone=dict(
                type="MSCAN", gating_unit=dict(type=gating_unit), in_channels=in_channels, **SMALL, **backbone
            ),
            decode_head=dict(
                type="LightHamHead",
                in_channels=[16, 24, 32],
                in_index=[1, 2, 3],
                channels=32,
                ham_channels=32,
                ham_cfg=dict(rank=4),
                num_classes=num_classes,
                norm_cfg=dict(type="GN", num_groups=8),
                loss_decode=dict(type="CrossEntropyLoss"),
            ),
            test_cfg=dict(mode="whole"),
        )
    )
    network.init_weights()
    return network


@pytest.fixture(params=["MSCA", "HDMSCA"])
def network(request):
    return small_segmentor(request.param).eval()


@torch.no_grad()
def logits_of(network, images):
    return network.decode_head(network.backbone(images))


def test_same_input_gives_the_same_bits_whatever_the_global_generator(network):
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(1)
    first = logits_of(network, images)
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(logits_of(network, images), first)


def test_another_process_gives_the_same_bits():
    code = (
        "import hashlib, sys, torch; sys.path.insert(0, {path!r}); torch.set_num_threads(1)\n"
        "import importlib.util as u; s = u.spec_from_file_location('t', {file!r}); m = u.module_from_spec(s)\n"
        "s.loader.exec_module(m); n = m.small_segmentor().eval()\n"
        "x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)\n"
        "torch.manual_seed({seed}); print(hashlib.sha256(m.logits_of(n, x).numpy().tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code.format(path=".", file=__file__, seed=seed)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for seed in (1, 2)
    }
    assert len(digests) == 1
    assert len(digests.pop()) == len(hashlib.sha256().hexdigest())


def test_batch_composition_changes_nothing(network):
    images = torch.randn(4, 3, 64, 96)
    together = logits_of(network, images)
    alone = torch.cat([logits_of(network, image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-5


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 160), (101, 37), (17, 23)])
def test_any_size(network, height, width):
    features = network.backbone(torch.randn(1, 3, height, width))
    sizes = [tuple(f.shape[2:]) for f in features]
    assert sizes == [(math.ceil(height / 2**k), math.ceil(width / 2**k)) for k in (2, 3, 4, 5)]
    logits = network.decode_head(features)
    assert tuple(logits.shape[2:]) == sizes[1]
    assert logits.isfinite().all()
    assert network.encode_decode(torch.randn(1, 3, height, width), None).shape == (1, 2, height, width)


@pytest.mark.parametrize(("in_channels", "classes"), [(1, 2), (4, 5), (8, 3)])
def test_any_number_of_bands_and_classes(in_channels, classes):
    network = small_segmentor(num_classes=classes, in_channels=in_channels).eval()
    assert logits_of(network, torch.randn(1, in_channels, 64, 64)).shape == (1, classes, 8, 8)


def test_input_is_not_changed(network):
    images = torch.randn(1, 3, 64, 64)
    before = images.clone()
    features = network.backbone(images)
    kept = [f.clone() for f in features]
    network.decode_head(features)
    assert torch.equal(images, before)
    assert all(torch.equal(a, b) for a, b in zip(features, kept, strict=True))


def test_channels_last_agrees(network):
    images = torch.randn(2, 3, 65, 90)
    plain = logits_of(network, images)
    last = logits_of(network.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_agrees_within_its_precision(network, dtype):
    images = torch.randn(1, 3, 64, 64)
    plain = logits_of(network, images)
    with torch.autocast("cpu", dtype=dtype):
        low = logits_of(network, images)
    assert low.isfinite().all()
    assert (low.float() - plain).abs().max() < 0.05 * plain.abs().max()


def test_every_parameter_gets_a_gradient(network):
    network.train()
    network.decode_head.dropout = None
    losses = network.forward_train(torch.randn(2, 3, 64, 64), [{}] * 2, torch.randint(2, (2, 1, 64, 64)))
    losses["decode.loss_ce"].backward()
    # a conv's bias in front of batch norm cancels out, so its gradient is rounding
    cancelled = (
        "patch_embed1.proj.0.bias",
        "patch_embed1.proj.3.bias",
        *(f"patch_embed{i}.proj.bias" for i in (2, 3, 4)),
    )
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith(cancelled):
            assert parameter.grad.abs().max() > 0, name


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
    head = small_segmentor(seed=3).decode_head
    assert head.conv_seg.weight.std().item() == pytest.approx(0.01, rel=0.35)


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
    network = revert_sync_batchnorm(small_segmentor(norm_cfg=dict(type="SyncBN")))
    assert not [m for m in network.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert logits_of(network.eval(), torch.randn(1, 3, 64, 64)).isfinite().all()
