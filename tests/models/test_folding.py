"""A folded network gives the scores of the network it came from, in every form that runs it."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmseg_ext.engine import build_network, load_config
from mmseg_ext.models.folding import PaddedFirstConv, Scores, folded

TINY = "dsegnext/tiny/Dsegnext.tiny.1024x1024.DP.20k.py"
CONFIGS = Path(__file__).resolve().parents[2] / "myconfigs"
# every network once, the large ones and their ablations in the slow suite; others differ in data or start weights
NETWORKS = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.OPM.*k*.py")
    if not path.name.endswith((".scratch.py", ".wo_pretrain.py"))
)
LARGE = re.compile(r".*\.(small|base|large|b[12])\..*k(\.wo_dilated_conv|\.wo_multi_scale)?\.py")


@pytest.fixture(scope="module")
def lively():
    """Return a function: config path -> network whose norms, layer scales and biases are not trivial."""

    def make(path, **options):
        torch.manual_seed(0)
        network = build_network(load_config(str(CONFIGS / path), options), pretrained=False).eval()
        for name, parameter in network.named_parameters():
            if "layer_scale" in name:
                nn.init.uniform_(parameter, 0.01, 0.06)
            elif name.endswith("bias"):
                nn.init.normal_(parameter, 0, 0.1)
        for norm in network.modules():
            if isinstance(norm, _BatchNorm):
                nn.init.normal_(norm.running_mean, 0, 0.2)
                nn.init.uniform_(norm.running_var, 0.7, 1.5)
                nn.init.uniform_(norm.weight, 0.5, 1.0)
        return network.requires_grad_(False)

    return make


@pytest.fixture(scope="module")
def tiny(lively):
    return lively(TINY)


def scores(network, images):
    with torch.no_grad():
        return Scores(network)(images)


def error(found, wanted):
    """Return the largest difference over the largest score."""
    assert torch.isfinite(wanted).all() and wanted.std() > 1e-3  # neither broken nor constant
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize(
    "path", [pytest.param(path, marks=[pytest.mark.slow] if LARGE.fullmatch(path) else []) for path in NETWORKS]
)
def test_scores_are_those_of_the_plain_network(lively, path):
    network = lively(path)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    images = torch.randn(2, 3, 64, 96)
    plain = scores(network, images)
    fast = folded(network)
    assert error(scores(fast, images), plain) < 1e-4
    fast = fast.to(memory_format=torch.channels_last)
    assert error(scores(fast, images.contiguous(memory_format=torch.channels_last)), plain) < 1e-4
    assert not any(isinstance(module, _BatchNorm) for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(scores(network, images), plain)


@pytest.mark.parametrize(("target", "convolutions", "padded"), [("cpu", 379, 26), ("cuda", 181, 0)])
def test_each_target_gets_its_form_wherever_the_network_is(tiny, target, convolutions, padded):
    fast, images = folded(tiny, target), torch.randn(1, 3, 64, 96)
    kinds = [type(module) for module in fast.modules() if isinstance(module, nn.Conv2d)]
    assert (len(kinds), kinds.count(PaddedFirstConv)) == (convolutions, padded)
    assert error(scores(fast, images), scores(tiny, images)) < 1e-4


def test_a_network_in_training_mode_is_folded_for_evaluation(tiny):
    training = copy.deepcopy(tiny).train()
    images = torch.randn(1, 3, 64, 64)
    assert error(scores(folded(training), images), scores(tiny, images)) < 1e-4
    assert training.training


def test_a_block_with_another_norm_stays_as_it_is(lively):
    network = lively(TINY, **{"model.backbone.norm_cfg": dict(type="GN", num_groups=8)})
    images = torch.randn(1, 3, 64, 64)
    assert error(scores(folded(network), images), scores(network, images)) < 1e-4


@pytest.mark.parametrize("groups", [1, 4])
def test_hamburger_in_groups(tiny, groups):
    network = copy.deepcopy(tiny)
    hamburger = network.decode_head.hamburger
    hamburger.groups = groups
    hamburger.fixed_bases = nn.functional.normalize(torch.rand(1, 256 // groups, 16), dim=1)
    x = torch.rand(2, 256, 5, 7)
    with torch.no_grad():
        wanted = hamburger(x)
        found = folded(network).decode_head.hamburger(x)
    assert error(found, wanted) < 1e-5


def test_random_bases_are_still_drawn_anew(tiny):
    network = copy.deepcopy(tiny)
    network.decode_head.hamburger.random_bases = True
    fast, images = folded(network), torch.randn(1, 3, 64, 64)
    torch.manual_seed(3)
    wanted = scores(network, images)
    torch.manual_seed(3)
    assert error(scores(fast, images), wanted) < 1e-4
    assert not torch.equal(scores(fast, images), scores(fast, images))


@pytest.mark.parametrize("way", ["autocast", "cast"])
def test_bf16_is_as_good_as_that_of_the_plain_network(tiny, way):
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    exact = scores(tiny, images)

    def in_bf16(network):
        if way == "cast":
            return scores(copy.deepcopy(network).bfloat16(), images.bfloat16()).float()
        with torch.autocast("cpu", torch.bfloat16):
            return scores(network, images).float()

    plain = (in_bf16(tiny) - exact).square().mean().sqrt()
    fast = (in_bf16(folded(tiny)) - exact).square().mean().sqrt()
    assert plain > 0 and fast < 1.3 * plain


def test_nmf_is_float32_under_bf16(tiny, monkeypatch):
    seen = []
    fast = folded(tiny).bfloat16()
    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: seen.append((a.dtype, b.dtype)) or matmul(a, b))
    scores(fast, torch.randn(1, 3, 64, 64).bfloat16())
    assert seen and set(seen) == {(torch.float32, torch.float32)}


@pytest.mark.slow
def test_exported_program_takes_other_batches_and_sizes(tiny):
    fast = Scores(folded(tiny))
    fast.forward = lambda image: fast.network.encode_decode(image, [{}])
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    program = torch.export.export(fast, (torch.randn(2, 3, 96, 128),), dynamic_shapes=(dynamic,)).module()
    images = torch.randn(3, 3, 64, 160)
    with torch.no_grad():
        assert error(program(images), fast(images)) < 1e-5


def test_traced_network_takes_another_size(tiny):
    fast = Scores(folded(tiny))
    with torch.no_grad():
        traced = torch.jit.trace(fast, torch.randn(1, 3, 64, 96))
        images = torch.randn(1, 3, 128, 64)
        assert error(traced(images), fast(images)) < 1e-5
