"""A trained network that takes images as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmcv import Config

from ..datasets.image_reading import ImageReading
from ..datasets.pipelines.band_normalize import BandNormalize
from ..datasets.pipelines.load_road_image import to_bgr
from ..datasets.road_dataset import ROAD_CLASSES, ROAD_PALETTE
from ..engine.checkpoint import weights_sha256
from ..engine.config import config_mistakes, step_arguments
from ..engine.distributed import DistributedSegmentor, LocalSegmentor, start_process, wrap
from ..engine.embedded_config import config_for
from ..engine.network import build_network
from ..engine.precision import DTYPES, choose_precision
from ..engine.weights import load_weights
from ..errors import ConfigError
from ..models.scores import network_stride


def _normalize(cfg: Config) -> BandNormalize:
    """Return the normalisation of the test pipeline.

    Raises:
        ConfigError: it has none.
    """
    try:
        arguments = step_arguments(cfg.data.test, "Normalize")
    except KeyError:
        raise ConfigError(f"{cfg.filename}: data.test has no Normalize, so mean and std are unknown; add it") from None
    with config_mistakes(cfg):
        return BandNormalize(**{key: value for key, value in arguments.items() if key != "type"})


def _image_reading(cfg: Config, meta: dict) -> ImageReading:
    """Return how the training images were read: what the checkpoint says, and above that the config's LoadRoadImage."""
    try:
        step = step_arguments(cfg.data.test, "LoadRoadImage")
    except KeyError:
        step = {}
    settings = {key: value for key, value in step.items() if key != "type"}
    with config_mistakes(cfg):
        reading = ImageReading().with_settings(**(meta.get("image") or {})).with_settings(gsd_m=meta.get("gsd_m"))
        return reading.with_settings(**settings)


@dataclass(frozen=True)
class RoadNetwork:
    """A network with its weights, ready to predict.

    Attributes:
        model: the wrapped segmentor, in evaluation mode.
        normalize: the test pipeline's step.
        classes: class names in the order of the probabilities.
        palette: one RGB colour (0-255) per class.
        reading: bands, scaling to 8 bits and ground sampling distance of the images it was trained on.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        channels_last: memory format of the network.
        threshold: of networks with a single output, the probability above which a pixel is road; None where the
            class with the highest probability is taken.
        weights_sha256: hash of the weights, that of published checkpoints.
    """

    model: LocalSegmentor | DistributedSegmentor
    normalize: BandNormalize
    classes: tuple[str, ...]
    palette: tuple[tuple[int, ...], ...]
    reading: ImageReading
    precision: str
    channels_last: bool
    threshold: float | None
    weights_sha256: str

    @classmethod
    def load(
        cls,
        checkpoint: str,
        config: str | None = None,
        options: dict | None = None,
        precision: str | None = None,
        gpu_id: int = 0,
        channels_last: bool | None = None,
    ) -> RoadNetwork:
        """Return the network of ``checkpoint`` on this process's device.

        Args:
            checkpoint: weights of a segmentation network (.pth or .safetensors).
            config: the config they fit; None takes the one inside ``checkpoint``.
            options: dotted keys to merge over the config.
            precision: ``fp32``, ``bf16``, ``fp16`` or ``auto``; None takes the config's.
            gpu_id: the GPU of a single process.
            channels_last: memory format of the network; None takes the config's.

        Raises:
            UserError: checkpoint, config or machine do not fit; the message says what to do.
        """
        cfg = config_for(config, checkpoint, options)
        normalize = _normalize(cfg)
        process = start_process(gpu_id)
        chosen = choose_precision(precision or cfg.get("precision", "fp32"), process.device)
        if channels_last is None:
            channels_last = cfg.get("channels_last", False)
        with config_mistakes(cfg):
            network = build_network(cfg, initialise=False)
        meta = load_weights(network, checkpoint)
        digest = weights_sha256(network.state_dict())
        head: Any = network.decode_head
        classes = tuple(cfg.data.test.get("classes", meta.get("CLASSES", ROAD_CLASSES)))
        palette = tuple(map(tuple, cfg.data.test.get("palette", meta.get("PALETTE", ROAD_PALETTE))))
        if not len(classes) == len(palette) == head.num_classes:
            raise ConfigError(
                f"{cfg.filename}: the network has {head.num_classes} classes, but there are {len(classes)} names and "
                f"{len(palette)} colours; give as many as classes and palette of data.test"
            )
        return cls(
            wrap(network, process, DTYPES[chosen], channels_last).eval(),
            normalize,
            classes,
            palette,
            _image_reading(cfg, meta),
            chosen,
            channels_last,
            head.threshold if head.out_channels == 1 else None,
            digest,
        )

    @property
    def stride(self) -> int:
        """Pixels of the image, in each direction, that the network's coarsest features stand for."""
        return network_stride(self.model.module)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.model.device_used

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
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        batch = stacked.contiguous(memory_format=layout).to(self.device)
        dtype = DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            scores = self.model.module.encode_decode(batch, [{}] * len(images))
        scores = scores[:, :, :height, :width].float()
        if scores.shape[1] == 1:
            road = scores.sigmoid()
            return torch.cat([1 - road, road], dim=1).cpu().numpy()
        return scores.softmax(dim=1).cpu().numpy()
