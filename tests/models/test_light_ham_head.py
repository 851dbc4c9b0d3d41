"""The Hamburger: its matrix factorisation against a second one and autograd, its bases, its groups."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmseg_ext.models import light_ham_head as nmf
from mmseg_ext.models.light_ham_head import Hamburger, nmf_reconstruct


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


def nmf_by_autograd(x, bases, steps):
    """The plain path, whose every operation autograd records."""
    bases, coefficients = nmf.factorise(x.transpose(1, 2), bases, steps)
    return bases @ coefficients.transpose(1, 2)


def bytes_kept(function, x, *args):
    """Return the bytes that autograd keeps for the backward pass, without those of ``x``."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function(x, *args)
    kept.pop(x.untyped_storage().data_ptr(), None)
    del result
    return sum(kept.values())


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_the_backward_of_nmf_is_that_of_finite_differences_and_of_autograd(steps):
    generator = torch.Generator().manual_seed(steps)
    x = torch.rand(2, 5, 9, dtype=torch.float64, generator=generator).requires_grad_()
    bases = torch.rand(2, 5, 3, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, bases: nmf._Reconstruction.apply(x, bases, steps), (x, bases))
    weights = torch.rand(2, 5, 9, dtype=torch.float64, generator=generator)
    ours = torch.autograd.grad((nmf._Reconstruction.apply(x, bases, steps) * weights).sum(), (x, bases))
    plain = torch.autograd.grad((nmf_by_autograd(x, bases, steps) * weights).sum(), (x, bases))
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_nmf_in_training_gives_the_bits_of_evaluation_and_autograds_gradient():
    torch.manual_seed(0)
    x, bases = torch.rand(2, 16, 60).relu().requires_grad_(), F.normalize(torch.rand(1, 16, 4), dim=1).requires_grad_()
    rebuilt = nmf_reconstruct(x, bases, 6)
    with torch.no_grad():
        assert torch.equal(rebuilt, nmf_reconstruct(x, bases, 6))
    ours = torch.autograd.grad(rebuilt.square().sum(), (x, bases))
    plain = torch.autograd.grad(nmf_by_autograd(x, bases.expand(2, -1, -1), 6).square().sum(), (x, bases))
    for one, other in zip(ours, plain, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_nmf_trains_under_autocast_with_the_gradient_of_float32():
    torch.manual_seed(0)
    half = torch.rand(2, 16, 60).bfloat16().requires_grad_()
    single = half.detach().float().requires_grad_()
    bases = F.normalize(torch.rand(1, 16, 4), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nmf_reconstruct(half, bases, 6).square().sum().backward()
    nmf_reconstruct(single, bases, 6).square().sum().backward()
    assert torch.equal(half.grad, single.grad.bfloat16())


def test_nmf_keeps_little_more_than_half_for_the_backward_pass():
    bases = F.normalize(torch.rand(1, 32, 8), dim=1)
    x = torch.rand(1, 32, 1024).requires_grad_()
    plain, ours = (bytes_kept(function, x, bases, 6) for function in (nmf_by_autograd, nmf_reconstruct))
    assert ours < 0.55 * plain
    # coefficients before and after each of 7 updates, and the numerators between: 15 matrices, and small ones
    assert 15 * 4 * 1024 * 8 <= ours < 16 * 4 * 1024 * 8
    # half precision: the matrix is kept as it came, not in float32
    assert bytes_kept(nmf_reconstruct, x.detach().bfloat16().requires_grad_(), bases, 6) == ours


def test_nmf_is_one_graph_for_torch_compile():
    torch.manual_seed(0)
    x, bases = torch.rand(2, 5, 9).requires_grad_(), torch.rand(1, 5, 3)
    compiled = torch.compile(nmf_reconstruct, fullgraph=True, backend="aot_eager")
    (ours,) = torch.autograd.grad(compiled(x, bases, 2).square().sum(), x)
    (plain,) = torch.autograd.grad(nmf_reconstruct(x, bases, 2).square().sum(), x)
    torch.testing.assert_close(ours, plain)
