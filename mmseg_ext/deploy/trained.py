"""A trained network as a function of a raster's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmcv import Config

from ..engine.config import config_for, config_mistakes
from ..engine.distributed import gpu_memory, start_process
from ..engine.weights import build_network, load_weights
from ..runtime.facts import NetworkFacts
from .choice import run_on
from .facts import facts_of, normalized_on
from .formats import file_sha256
from .options import BackendSettings

_SMALLER = "give --batch 1, a smaller --tile, or --precision auto"


def load_trained(
    checkpoint: str, config: str | None = None, options: dict | None = None
) -> tuple[Config, Any, NetworkFacts]:
    """Return the config, the segmentor and the facts of a checkpoint (.pth or .safetensors).

    Without a ``config`` it is the one inside the checkpoint; ``options`` are dotted keys to merge over it.

    Raises:
        UserError: checkpoint and config do not fit; the message says what to do.
    """
    cfg = config_for(config, checkpoint, options)
    with config_mistakes(cfg):
        network = build_network(cfg, initialise=False)
    meta = load_weights(network, checkpoint)
    return cfg, network, facts_of(cfg, meta, network)


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, ready to predict; a `MapModel`.

    Attributes:
        model: segmentor in evaluation mode; its ``encode_decode`` runs on the backend.
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
        device: torch.device | None = None,
        tile_px: int = 1024,
        batch: int = 1,
    ) -> TrainedNetwork:
        """Return the network of ``checkpoint``; see `load_trained`.

        By default it runs on this process's device, through PyTorch in its fastest form, in the config's precision.
        The backend ``auto`` measures batches of ``batch`` images of ``tile_px`` rows and columns.

        Raises:
            UserError: checkpoint, config or machine do not fit; the message says what to do.
        """
        cfg, network, facts = load_trained(checkpoint, config, options)
        device, settings = device or start_process().device, settings or BackendSettings()
        shape = (batch, facts.bands, tile_px, tile_px)
        with gpu_memory(_SMALLER):
            model, backend, precision = run_on(network, settings, cfg.get("precision", "fp32"), device, shape)
        return cls(model, facts, device, backend, precision, settings.exported and file_sha256(settings.exported))

    @property
    def execution(self) -> dict[str, Any]:
        """All that the last bits of a prediction depend on besides weights and image; the order is part of map keys."""
        return dict(
            backend=self.backend,
            precision=self.precision,
            exported_sha256=self.exported_sha256,
            threads=torch.get_num_threads(),  # others sum in another order
            **({} if self.device.type == "cpu" else {"device": self.device.type}),  # so do GPUs
        )

    @property
    def software(self) -> dict[str, str]:
        """Versions of what computes."""
        return dict(torch=str(torch.__version__))

    @gpu_memory(_SMALLER)
    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities (N, classes, h, w) of images (h, w, B), as `MapModel` says.

        Raises:
            ConfigError: the number of bands differs from that of the training images, or the GPU's memory ran out.
        """
        height, width = images[0].shape[:2]
        facts = self.facts
        padded = np.stack([facts.padded(image) for image in images])
        pixels = normalized_on(facts, self.device, padded, "the image to predict")
        scores = self.model.encode_decode(pixels, [{}] * len(images))
        scores = scores[:, :, :height, :width].float()
        if scores.shape[1] == 1:
            road = scores.sigmoid()
            return torch.cat([1 - road, road], dim=1).cpu().numpy()
        return scores.softmax(dim=1).cpu().numpy()
