"""Networks as files of PyTorch that need none of this package's code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping

import torch
from torch import nn

from .exportable import check_precision, example_image, exportable, exported_program
from .facts import EXTRA_FILE

_PRECISIONS = ("fp32", "fp16")


def export_torch(
    network: nn.Module, path: str, precision: str = "fp32", metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``network`` as PyTorch's ``ExportedProgram``: ``torch.export.load(path).module()(image)``.

    Image (N, C, H, W) and scores (N, K, H, W) are float32; N, H and W are free, H and W multiples of the network's
    stride, two at least.

    Args:
        network: segmentor with its weights; it stays as it is.
        path: the file to write, .pt2.
        precision: ``fp32`` or ``fp16``.
        metadata: what the file says of itself, as the JSON file ``metadata.json`` in it.

    Raises:
        ConfigError: another precision.
    """
    check_precision(precision, _PRECISIONS, "torch")
    program = exported_program(network, precision)
    torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(dict(metadata or {}))})


@torch.no_grad()
def export_torchscript(
    network: nn.Module, path: str, precision: str = "fp32", metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``network`` as TorchScript: ``torch.jit.load(path)(image)``; PyTorch calls this format deprecated.

    Image (N, C, H, W) and scores (N, K, H, W) are float32; N, H and W are free, H and W multiples of the network's
    stride (others give an error or scores of another size).

    Args:
        network: segmentor with its weights; it stays as it is.
        path: the file to write, .pt.
        precision: ``fp32`` or ``fp16``.
        metadata: what the file says of itself, as the JSON file ``metadata.json`` in it.

    Raises:
        ConfigError: another precision.
    """
    check_precision(precision, _PRECISIONS, "torchscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation, and branches on sizes, which all multiples of the stride share
        traced = torch.jit.trace(exportable(network, precision), example_image(network), check_trace=False)
        torch.jit.save(traced, path, _extra_files={EXTRA_FILE: json.dumps(dict(metadata or {}))})
