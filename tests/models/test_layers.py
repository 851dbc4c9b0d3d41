import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_ext.models.layers import HDMSCA, MSCA, Hamburger, nmf_reconstruct


def nmf_in_numpy(x, bases, steps):
    """A second implementation, one matrix at a time, in float64."""
    scores = x.T @ bases
    coefficients = np.exp(scores - scores.max(1, keepdims=True))
    coefficients /= coefficients.sum(1, keepdims=True)
    for step in range(steps + 1):
        coefficients = coefficients * (x.T @ bases) / (coefficients @ bases.T @ bases + 1e-6)
        if step < steps:
            bases = bases * (x @ coefficients) / (bases @ coefficients.T @ coefficients + 1e-6)
    return bases @ coefficients.T


@pytest.mark.parametrize("steps", [0, 1, 6, 7])
def test_nmf_equals_a_second_implementation(steps):
    rng = np.random.default_rng(3)
    x, bases = rng.random((2, 6, 20)), rng.random((2, 6, 3))
    ours = nmf_reconstruct(torch.tensor(x).float(), torch.tensor(bases).float(), steps).numpy()
    theirs = np.stack([nmf_in_numpy(a, b, steps) for a, b in zip(x, bases, strict=True)])
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)


def test_nmf_comes_closer_with_every_step():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(1, 16, 3, generator=rng) @ torch.rand(1, 3, 50, generator=rng)
    bases = torch.rand(1, 16, 4, generator=rng)
    errors = [float((nmf_reconstruct(x, bases, n) - x).norm()) for n in (0, 2, 8, 32, 200)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * errors[0]


def test_nmf_stays_in_float32_under_autocast():
    x, bases = torch.rand(1, 8, 30), torch.rand(1, 8, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nmf_reconstruct(x, bases, 6)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, nmf_reconstruct(x, bases, 6))


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


@pytest.fixture()
def hamburger():
    torch.manual_seed(0)
    return Hamburger(32, rank=4, norm_cfg=dict(type="GN", num_groups=4)).eval()


def test_bases_are_in_no_state_dict(hamburger):
    assert set(hamburger.state_dict()) == {
        "ham_in.conv.weight",
        "ham_in.conv.bias",
        "ham_out.conv.weight",
        "ham_out.gn.weight",
        "ham_out.gn.bias",
    }


def test_given_bases_are_shared_or_one_per_image(hamburger):
    x = torch.randn(3, 32, 5, 6)
    bases = F.normalize(torch.rand(1, 32, 4), dim=1)
    torch.testing.assert_close(hamburger(x, bases), hamburger(x, bases.expand(3, -1, -1)))
    other = hamburger(x, F.normalize(torch.rand(1, 32, 4), dim=1))
    assert (hamburger(x, bases) - other).abs().max() > 1e-4


def test_fixed_bases_ignore_the_global_generator_and_random_ones_do_not(hamburger):
    x = torch.randn(1, 32, 8, 8)
    torch.manual_seed(1)
    first = hamburger(x)
    torch.manual_seed(2)
    assert torch.equal(hamburger(x), first)
    hamburger.random_bases = True
    assert not torch.equal(hamburger(x), hamburger(x))


def test_training_draws_bases_from_torchs_generator(hamburger):
    x = torch.randn(2, 32, 8, 8)
    hamburger.train()
    torch.manual_seed(5)
    first = hamburger(x)
    assert not torch.equal(hamburger(x), first)
    torch.manual_seed(5)
    assert torch.equal(hamburger(x), first)


def test_groups_decompose_the_channels_apart():
    torch.manual_seed(0)
    unit = Hamburger(32, rank=4, groups=2, norm_cfg=dict(type="GN", num_groups=4)).eval()
    bases = F.normalize(torch.rand(4, 16, 4), dim=1)
    assert unit(torch.randn(2, 32, 6, 6), bases).shape == (2, 32, 6, 6)
    assert unit.fixed_bases.shape == (1, 16, 4)
