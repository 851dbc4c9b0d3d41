"""A segmentor as one function from an image to scores, for whatever runs networks."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

_STRIDE = 32


def network_stride(network: Any) -> int:
    """Return the pixels that the coarsest features stand for; sides of images are best multiples of it."""
    return getattr(network.backbone, "stride", _STRIDE)


class Scores(nn.Module):
    """The scores that a segmentor gives to every pixel.

    Args:
        network: MMSegmentation's ``EncoderDecoder``.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W) of a normalised image (N, C, H, W)."""
        return self.network.encode_decode(image, [{}])  # no network reads the metadata
