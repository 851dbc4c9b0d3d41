"""The class probabilities of a trained network as labels for a student (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..runtime.facts import NetworkFacts


class SoftLabels(nn.Module):
    """A decode head and the network whose probabilities it learns, which is no part of the state dict.

    Args:
        head: the student's decode head.
        network: trained segmentor, on the device to train on.
        facts: of the network.
        path: of its checkpoint, for messages.

    Raises:
        ConfigError: head and network have other classes, or the network takes other images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, head: Any, network: Any, facts: NetworkFacts, path: str) -> None:
        super().__init__()
        if len(facts.classes) != head.num_classes:
            raise ConfigError(
                f"{path}: knows {len(facts.classes)} classes, the student's head {head.num_classes}; make them equal"
            )
        if facts.bands != 3:
            raise ConfigError(f"{path}: takes {facts.bands} bands, but the crops have 3; give a network of three bands")
        self.head = head
        self._network = (network.eval().requires_grad_(False),)
        self.facts = facts
        for name, values in (("mean", facts.mean), ("std", facts.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    @torch.no_grad()
    def labels(self, image: Tensor) -> Tensor:
        """Return the probabilities (B, classes, H, W) of ``image``, uint8 (B, 3, H, W), RGB."""
        bands = image if self.facts.to_rgb else image.flip(1)
        scores = self._network[0].encode_decode((bands.float() - self.mean) / self.std, None).float()
        if scores.shape[1] > 1:
            return scores.softmax(1)
        road = scores.sigmoid()
        return torch.cat([1 - road, road], dim=1)

    def forward(self, features: Sequence[Tensor], image: Tensor) -> Tensor:
        """Return the cross entropy of the head's classes, from the student's ``features``, to the labels."""
        scores = F.interpolate(
            self.head(features).float(), image.shape[2:], mode="bilinear", align_corners=self.head.align_corners
        )
        labels = self.labels(image)
        if scores.shape[1] > 1:
            return F.cross_entropy(scores, labels)
        return F.binary_cross_entropy_with_logits(scores, labels[:, 1:])
