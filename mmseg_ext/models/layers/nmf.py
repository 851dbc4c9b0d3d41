"""Non-negative matrix factorisation by multiplicative updates (Lee and Seung, NIPS 2000)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-6


def _update(factor: Tensor, other: Tensor, numerator: Tensor) -> Tensor:
    """Return one of the two factors after one multiplicative update; ``numerator`` is the matrix times ``other``."""
    denominator = factor @ (other.transpose(1, 2) @ other)
    return factor * numerator / (denominator + EPS)


def _update_backward(
    grad: Tensor, factor: Tensor, other: Tensor, numerator: Tensor, updated: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `_update` for ``factor``, ``other`` and ``numerator``."""
    gram = other.transpose(1, 2) @ other
    ratio = grad / (factor @ gram).add_(EPS)
    grad_denominator = (ratio * updated).neg_()
    grad_gram = factor.transpose(1, 2) @ grad_denominator
    grad_factor = torch.baddbmm(ratio * numerator, grad_denominator, gram)
    return grad_factor, other @ (grad_gram + grad_gram.transpose(1, 2)), ratio * factor


def _factorise(x: Tensor, bases: Tensor, steps: int, kept: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Return bases (N, D, R) and coefficients (N, P, R) of ``x`` (N, D, P).

    ``kept`` takes in what the backward pass needs: for every step the coefficients, their numerator, the bases and
    their numerator (none for the last), then the last coefficients.
    """
    coefficients = torch.softmax(x.transpose(1, 2) @ bases, dim=-1)
    for step in range(steps + 1):
        numerator = x.transpose(1, 2) @ bases
        if kept is not None:
            kept += [coefficients, numerator, bases]
        coefficients = _update(coefficients, bases, numerator)
        if step < steps:
            numerator = x @ coefficients
            if kept is not None:
                kept += [numerator]
            bases = _update(bases, coefficients, numerator)
    if kept is not None:
        kept += [coefficients]
    return bases, coefficients


class _Reconstruction(torch.autograd.Function):
    """`nmf_reconstruct` with a backward pass that keeps half of what autograd would.

    The products with the small Gram matrices are computed anew, and the gradients of ``x`` from all steps are summed
    by one product of matrices.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bases: Tensor, steps: int) -> Tensor:
        kept: list[Tensor] = []
        bases, coefficients = _factorise(x.to(bases.dtype), bases, steps, kept)
        # x as it came: the layer before keeps it anyway
        ctx.save_for_backward(x, *kept)
        ctx.steps = steps
        return bases @ coefficients.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        given, *kept, last = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            coefficients, numerators, bases, bases_numerators = [*kept[::4], last], kept[1::4], kept[2::4], kept[3::4]
            x = given.to(grad.dtype)
            grad_coefficients = grad.transpose(1, 2) @ bases[-1]
            grad_bases = grad @ coefficients[-1]
            lefts, rights = [], []  # the gradient of x is the sum of left @ right'
            for step in range(ctx.steps, -1, -1):
                grad_coefficients, from_gram, grad_numerator = _update_backward(
                    grad_coefficients, coefficients[step], bases[step], numerators[step], coefficients[step + 1]
                )
                if step == 0:
                    start = coefficients[0]
                    inner = (grad_coefficients * start).sum(-1, keepdim=True)
                    grad_numerator += start * (grad_coefficients - inner)
                lefts.append(bases[step])
                rights.append(grad_numerator)
                if step or ctx.needs_input_grad[1]:
                    grad_bases = torch.baddbmm(grad_bases + from_gram, x, grad_numerator)
                if step:
                    grad_bases, from_gram, grad_numerator = _update_backward(
                        grad_bases, bases[step - 1], coefficients[step], bases_numerators[step - 1], bases[step]
                    )
                    grad_coefficients += torch.baddbmm(from_gram, x.transpose(1, 2), grad_numerator)
                    lefts.append(grad_numerator)
                    rights.append(coefficients[step])
            grad_x = torch.cat(lefts, dim=2) @ torch.cat(rights, dim=2).transpose(1, 2)
        return grad_x.to(given.dtype), grad_bases if ctx.needs_input_grad[1] else None, None


def nmf_reconstruct(x: Tensor, bases: Tensor, steps: int) -> Tensor:
    """Return the low-rank approximation of ``x``, computed in float32 under any autocast.

    The first coefficients are softmax(x' bases); each step updates the coefficients, then the bases;
    one more coefficient update closes. Gradients flow through all steps, once: they have no gradients themselves.

    Args:
        x: non-negative matrices (N, D, P): D channels at P positions.
        bases: start bases (1 or N, D, R).
        steps: number of updates.

    Returns:
        The product of bases and coefficients, (N, D, P), float32.
    """
    with torch.autocast(x.device.type, enabled=False):
        bases = bases.float().expand(len(x), -1, -1)
        if torch.is_grad_enabled() and (x.requires_grad or bases.requires_grad):
            return _Reconstruction.apply(x, bases, steps)
        bases, coefficients = _factorise(x.float(), bases, steps)
        return bases @ coefficients.transpose(1, 2)
