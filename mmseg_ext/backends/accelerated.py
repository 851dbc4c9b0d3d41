"""MMSegmentation's own inference on any backend."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .runner import make_runner


def accelerated(
    network: nn.Module,
    backend: str,
    precision: str = "fp32",
    device: torch.device | None = None,
    threads: int | None = None,
    model_file: str | None = None,
) -> nn.Module:
    """Return a segmentor whose ``encode_decode`` runs on ``backend``; all else, such as sliding windows, stays.

    It shares modules and weights with ``network``, which keeps its own ``encode_decode``, but what runs are the weights
    of this moment. Nothing is to be autocast around it; ``precision`` says all.

    Args:
        network: MMSegmentation's ``EncoderDecoder`` with its weights.
        backend: see `make_runner`, as the other arguments.
        precision: of the backend.
        device: where images come from.
        threads: on a CPU.
        model_file: exported network.

    Raises:
        UserError: as `make_runner`.
    """
    run = make_runner(network, backend, precision, device, threads, model_file)
    fast: Any = copy.copy(network)

    def encode_decode(image: Tensor, _metas: list[dict] | None) -> Tensor:
        return run(image)

    fast.encode_decode = encode_decode
    return fast
