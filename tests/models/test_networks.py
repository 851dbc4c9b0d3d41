"""What users rely on, for every network: determinism, sizes, bands, precisions, first weights. A row a network."""

import copy
import functools
import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmcv.cnn.bricks.registry import ATTENTION
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models.builder import MODELS

from mmseg_ext.engine import build_network, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "myconfigs"
SMALL = {
    "model.backbone.embed_dims": (8, 16, 24, 32),
    "model.backbone.depths": (1, 2, 1, 1),
    "model.backbone.mlp_ratios": (2, 2, 2, 2),
    "model.decode_head": dict(in_channels=[16, 24, 32], channels=32, ham_channels=32, ham_cfg=dict(rank=4)),
}
# name -> its config and what makes it small
NETWORKS = {
    "segnext": ("segnext/tiny/segnext.tiny.1024x1024.OPM.20k.py", SMALL),
    "dsegnext": ("dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py", SMALL),
    **{
        name: (f"linknets/{name}.1024x1024.OPM.20k.py", {})
        for name in ("linknet34", "dlinknet34", "nl_linknet34", "unet", "dunet")
    },
    "unet_lite0": ("timm/unet_lite0.256x256.DUBAI.2.5k.py", {}),
}


@functools.cache
def make(name, in_channels=3, num_classes=2):
    path, small = NETWORKS[name]
    sizes = {"model.backbone.in_channels": in_channels, "model.decode_head.num_classes": num_classes}
    torch.manual_seed(0)
    network = build_network(load_config(str(CONFIGS / path), {**small, **sizes}), pretrained=False)
    return revert_sync_batchnorm(network).eval()


@pytest.fixture(params=NETWORKS)
def network(request):
    return make(request.param)


@torch.no_grad()
def logits_of(network, images):
    return network.decode_head(network.backbone(images))


def close(found, wanted, share):
    """Tell whether ``found`` is finite and differs by no more than ``share`` of the largest score."""
    return found.isfinite().all() and (found.float() - wanted).abs().max() < share * wanted.abs().max()


def test_the_table_has_every_network_and_every_gating_unit():
    def ours(registry):
        return {kind for kind, cls in registry.module_dict.items() if cls.__module__.startswith("mmseg_ext.")}

    units = {make(name).backbone.block1[0].attn.spatial_gating_unit for name in ("segnext", "dsegnext")}
    assert {type(unit).__name__ for unit in units} == ours(ATTENTION)
    found = {type(part).__name__ for name in NETWORKS for part in make(name).modules()}
    networks = {kind for kind in ours(MODELS) if hasattr(MODELS.get(kind), "init_weights")}
    assert len(networks) == 9 and networks <= found  # seven encoders and two heads


def test_same_input_gives_the_same_bits_whatever_the_global_generator(network):
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(1)
    first = logits_of(network, images)
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(logits_of(network, images), first)


def test_another_process_gives_the_same_bits():
    code = (
        "import hashlib, sys, torch, mmseg_ext; torch.set_num_threads(1)\n"
        "import importlib.util as u; s = u.spec_from_file_location('t', {file!r}); m = u.module_from_spec(s)\n"
        "s.loader.exec_module(m); n = m.make('dsegnext')\n"
        "x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)\n"
        "torch.manual_seed({seed}); print(hashlib.sha256(m.logits_of(n, x).numpy().tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code.format(file=__file__, seed=seed)],
            capture_output=True,
            text=True,
            check=True,
            cwd=CONFIGS.parent,
        ).stdout.split()[-1]
        for seed in (1, 2)
    }
    assert len(digests) == 1
    assert len(digests.pop()) == len(hashlib.sha256().hexdigest())


def test_batch_composition_changes_nothing(network):
    images = torch.randn(4, 3, 64, 96)
    alone = torch.cat([logits_of(network, image[None]) for image in images])
    assert close(logits_of(network, images), alone, 1e-4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 160), (101, 37), (17, 23)])
def test_any_size(network, height, width):
    images = torch.randn(1, 3, height, width)
    with torch.no_grad():
        logits = network.encode_decode(images, None)
        features = network.backbone(images)
        head = network.decode_head(features)
    assert logits.shape == (1, 2, height, width)
    assert logits.isfinite().all()
    if len(features) == 4:  # stages at H/4 to H/32, of which the head sees the last three and scores at H/8
        sizes = [(math.ceil(height / 2**k), math.ceil(width / 2**k)) for k in (2, 3, 4, 5)]
        assert [tuple(feature.shape[2:]) for feature in features] == sizes
        assert head.shape == (1, 2, *sizes[1])


@pytest.mark.parametrize(("in_channels", "classes"), [(1, 2), (4, 5), (8, 3)])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_number_of_bands_and_classes_and_every_band_counts(name, in_channels, classes):
    network, images = make(name, in_channels, classes), torch.randn(1, in_channels, 33, 35)
    logits = logits_of(network, images)
    assert logits.shape[:2] == (1, classes)
    images[:, -1] += 1
    assert not torch.equal(logits_of(network, images), logits)


def test_input_is_not_changed(network):
    images = torch.randn(1, 3, 64, 64)
    before = images.clone()
    with torch.no_grad():
        features = network.backbone(images)
        kept = [f.clone() for f in features]
        network.decode_head(features)
    assert torch.equal(images, before)
    assert all(torch.equal(a, b) for a, b in zip(features, kept, strict=True))


def test_channels_last_agrees(network):
    images = torch.randn(2, 3, 65, 90)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    assert close(logits_of(last, images.to(memory_format=torch.channels_last)), logits_of(network, images), 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_agrees_within_its_precision(network, dtype):
    images = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", dtype=dtype):
        low = logits_of(network, images)
    assert close(low, logits_of(network, images), 0.05)


def test_first_weights_of_the_classifier_are_small(network):
    weight = network.decode_head.conv_seg.weight
    assert weight.std().item() == pytest.approx(0.01, rel=0.35)
