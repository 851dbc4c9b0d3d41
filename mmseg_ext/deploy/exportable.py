"""Networks in the form in which they can be traced for any batch and any size."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models.backbones.mit import EfficientMultiheadAttention
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..errors import ConfigError, require
from ..models.folding import Scores, folded, network_stride
from ..models.light_ham_head import Hamburger
from .facts import image_bands

PRECISIONS = ("fp32", "fp16", "int8")


class ExportableAttention(nn.Module):
    """SegFormer's attention without PyTorch's ``MultiheadAttention``, whose trace is bound to one batch size.

    Args:
        plain: its parts are used, not copied.
    """

    def __init__(self, plain: EfficientMultiheadAttention) -> None:
        super().__init__()
        self.plain = plain

    def forward(self, x: Tensor, hw_shape: Sequence[int], identity: Tensor) -> Tensor:
        """Return ``identity`` plus the attended ``x``, both (N, H * W, C)."""
        plain, attention = self.plain, self.plain.attn
        reduced = x
        if plain.sr_ratio > 1:
            image = x.transpose(1, 2).unflatten(2, tuple(hw_shape))
            reduced = plain.norm(plain.sr(image).flatten(2).transpose(1, 2))
        channels = [x.shape[2], 2 * x.shape[2]]
        query_weight, other_weight = attention.in_proj_weight.split(channels)
        query_bias, other_bias = attention.in_proj_bias.split(channels)
        key, value = F.linear(reduced, other_weight, other_bias).chunk(2, dim=2)
        query = F.linear(x, query_weight, query_bias)
        split = [y.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for y in (query, key, value)]
        attended = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return identity + attention.out_proj(attended)


class HalfScores(nn.Module):
    """A network in float16 between a float32 image and float32 scores."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self.half_scores = scores.half()

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of a normalised image (N, C, H, W)."""
        return self.half_scores(image.half()).float()


def exportable(network: nn.Module, precision: str = "fp32") -> nn.Module:
    """Return a module from images (N, C, H, W) to logits (N, K, H, W), float32 both, in evaluation mode on the CPU.

    Args:
        network: segmentor with its weights; it stays as it is.
        precision: ``fp16`` computes in float16, but for the NMF.
    """
    copied = folded(revert_sync_batchnorm(copy.deepcopy(network)).cpu())
    for module in list(copied.modules()):
        for name, child in module.named_children():
            if isinstance(child, EfficientMultiheadAttention):
                setattr(module, name, ExportableAttention(child))
    scores = Scores(copied).eval()
    return HalfScores(scores) if precision == "fp16" else scores


def example_image(network: nn.Module) -> Tensor:
    """Return an image batch (2, C, H, W) whose sides differ, to trace with."""
    stride = network_stride(network)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, image_bands(network), 3 * stride, 2 * stride, generator=generator)


@torch.no_grad()
def exported_program(network: nn.Module, precision: str = "fp32") -> ExportedProgram:
    """Return the graph of ``network``, for any batch and for sides that are multiples of its stride, two at least."""
    # a free dimension of which PyTorch finds the rules itself takes a third of the time of one that is stride * n
    free = Dim.DYNAMIC
    module = exportable(network, precision)
    return torch.export.export(module, (example_image(network),), dynamic_shapes=({0: free, 2: free, 3: free},))


def check_precision(
    precision: str, allowed: Sequence[str] = PRECISIONS, what: str = "export", calibration: Sequence | None = None
) -> None:
    """Refuse a precision that a format has not, and int8 with an empty ``calibration``.

    Raises:
        ConfigError: says what to do.
    """
    if precision not in allowed:
        hint = "; bf16 is chosen where an fp32 file is run" if precision == "bf16" else ""
        raise ConfigError(f"{what}: --precision {precision} is not possible, take {' or '.join(allowed)}{hint}")
    if precision == "int8" and calibration is not None and not len(calibration):
        raise ConfigError("int8 needs images to calibrate with; give --calibration, a folder or a config")


# -- export.quantization
# int8 by post-training quantisation.


def quantized(model: Any, network: Any, calibration: Sequence[np.ndarray]) -> Any:
    """Return ``model`` with int8 convolutions; the NMF stays in float.

    Args:
        model: OpenVINO or ONNX model of ``network``.
        network: the segmentor.
        calibration: normalised images (N, C, H, W) like those that the network will see.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    require(["nncf"], "export", "int8")
    import nncf

    nncf.set_log_level(logging.ERROR)
    # all matrix products of a network with a Hamburger are those of its NMF
    nmf = any(isinstance(module, Hamburger) for module in network.modules())
    return nncf.quantize(
        model,
        nncf.Dataset(calibration, lambda image: {"image": image}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(types=["MatMul", "Divide", "Div"], validate=False) if nmf else None,
    )
