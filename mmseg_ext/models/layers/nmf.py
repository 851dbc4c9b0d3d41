"""Non-negative matrix factorisation by multiplicative updates (Lee and Seung, NIPS 2000)."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-6


def _update_coefficients(x: Tensor, bases: Tensor, coefficients: Tensor) -> Tensor:
    """Return the coefficients (N, P, R) after one multiplicative update."""
    numerator = x.transpose(1, 2) @ bases
    denominator = coefficients @ (bases.transpose(1, 2) @ bases)
    return coefficients * numerator / (denominator + EPS)


def _update_bases(x: Tensor, bases: Tensor, coefficients: Tensor) -> Tensor:
    """Return the bases (N, D, R) after one multiplicative update."""
    numerator = x @ coefficients
    denominator = bases @ (coefficients.transpose(1, 2) @ coefficients)
    return bases * numerator / (denominator + EPS)


def nmf_reconstruct(x: Tensor, bases: Tensor, steps: int) -> Tensor:
    """Return the low-rank approximation of ``x``, computed in float32 under any autocast.

    The first coefficients are softmax(x' bases); each step updates the coefficients, then the bases;
    one more coefficient update closes. Gradients flow through all steps.

    Args:
        x: non-negative matrices (N, D, P): D channels at P positions.
        bases: start bases (1 or N, D, R).
        steps: number of updates.

    Returns:
        The product of bases and coefficients, (N, D, P), float32.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        bases = bases.float().expand(len(x), -1, -1)
        coefficients = torch.softmax(x.transpose(1, 2) @ bases, dim=-1)
        for _ in range(steps):
            coefficients = _update_coefficients(x, bases, coefficients)
            bases = _update_bases(x, bases, coefficients)
        coefficients = _update_coefficients(x, bases, coefficients)
        return bases @ coefficients.transpose(1, 2)
