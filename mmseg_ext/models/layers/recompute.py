"""Memory for time: activations that the backward pass computes anew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the batch norms of ``module`` from counting the same batch twice."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Return ``module(x)`` and keep only ``x`` for the backward pass, with the same gradients and statistics."""
    return checkpoint(
        module, x, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), _frozen_statistics(module))
    )
