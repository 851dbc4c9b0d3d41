"""A trained network that takes images as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..datasets.augmentation import BandNormalize
from ..datasets.loading import to_bgr
from ..datasets.reading import ImageReading
from ..deploy import BackendSettings, run_on
from ..deploy.facts import NetworkFacts, file_sha256
from ..engine.config import config_for, config_mistakes
from ..engine.distributed import start_process
from ..engine.weights import build_network, load_weights


@dataclass(frozen=True)
class RoadNetwork:
    """A network with its weights, ready to predict.

    Attributes:
        model: the segmentor, in evaluation mode; its ``encode_decode`` runs on the backend.
        facts: classes, normalisation, how images are read, hash of the weights.
        device: where the images go.
        backend: what runs the network.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        exported_sha256: hash of the exported file that runs, None where the weights themselves do.
    """

    model: Any
    facts: NetworkFacts
    device: torch.device
    backend: str
    precision: str
    exported_sha256: str | None = None

    @classmethod
    def load(
        cls,
        checkpoint: str,
        config: str | None = None,
        options: dict | None = None,
        settings: BackendSettings | None = None,
        gpu_id: int = 0,
        tile_px: int = 1024,
        batch: int = 1,
    ) -> RoadNetwork:
        """Return the network of ``checkpoint`` on this process's device.

        Args:
            checkpoint: weights of a segmentation network (.pth or .safetensors).
            config: the config they fit; None takes the one inside ``checkpoint``.
            options: dotted keys to merge over the config.
            settings: backend and precision; None: PyTorch in its fastest form, with the config's precision.
            gpu_id: the GPU of a single process.
            tile_px: rows and columns of the images to come, for the backend ``auto``, which measures.
            batch: how many of them at a time, likewise.

        Raises:
            UserError: checkpoint, config or machine do not fit; the message says what to do.
        """
        cfg = config_for(config, checkpoint, options)
        device = start_process(gpu_id).device
        with config_mistakes(cfg):
            network = build_network(cfg, initialise=False)
        meta = load_weights(network, checkpoint)
        facts = NetworkFacts.of(cfg, meta, network)
        shape = (batch, len(facts.mean), tile_px, tile_px)
        settings = settings or BackendSettings()
        model, backend, precision = run_on(network, settings, cfg.get("precision", "fp32"), device, shape)
        file = settings.exported and file_sha256(settings.exported)
        return cls(model, facts, device, backend, precision, file)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.facts.classes

    @property
    def palette(self) -> tuple[tuple[int, ...], ...]:
        """One RGB colour (0-255) per class."""
        return self.facts.palette

    @property
    def reading(self) -> ImageReading:
        """Bands, scaling to 8 bits and ground sampling distance of the images it was trained on."""
        return self.facts.reading

    @property
    def threshold(self) -> float | None:
        """Of networks with a single output, the probability above which a pixel is road."""
        return self.facts.threshold

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights, that of published checkpoints."""
        return self.facts.weights_sha256

    @property
    def stride(self) -> int:
        """Pixels of the image, in each direction, that the network's coarsest features stand for."""
        return self.facts.stride

    @cached_property
    def normalize(self) -> BandNormalize:
        """The test pipeline's step."""
        return self.facts.normalize()

    def _input(self, image: np.ndarray) -> np.ndarray:
        """Return ``image`` as the network takes it: normalised as in training, mirrored to a multiple of its stride."""
        height, width = image.shape[:2]
        padded = np.pad(image, ((0, -height % self.stride), (0, -width % self.stride), (0, 0)), mode="reflect")
        return self.normalize(dict(img=to_bgr(padded), filename="the image to predict"))["img"]

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the probabilities of each class at every pixel, from one forward pass.

        Images are mirrored at their lower and right border to a multiple of `stride`; nothing is resized
        or cut in windows.

        Args:
            images: uint8 (h, w, B) each, all of one size, bands as `reading` selects and scales them (RGB first).

        Returns:
            (N, classes, h, w) float32; with a single output, 1 - p and p.

        Raises:
            ConfigError: the images have not the bands that the network was trained on.
        """
        height, width = images[0].shape[:2]
        stacked = torch.from_numpy(np.stack([self._input(image) for image in images])).permute(0, 3, 1, 2)
        scores = self.model.encode_decode(stacked.to(self.device), [{}] * len(images))
        scores = scores[:, :, :height, :width].float()
        if scores.shape[1] == 1:
            road = scores.sigmoid()
            return torch.cat([1 - road, road], dim=1).cpu().numpy()
        return scores.softmax(dim=1).cpu().numpy()
