"""The facts of a network in PyTorch, from its config and checkpoint, and images as it takes them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from mmcv import Config
from torch import nn

from ..datasets.augmentation import BandNormalize
from ..datasets.loading import to_bgr
from ..engine.checkpoint import weights_sha256
from ..engine.config import config_mistakes, step_arguments
from ..errors import ConfigError
from ..imagery.reading import ImageReading
from ..imagery.voc import ROAD_CLASSES, ROAD_PALETTE
from ..models.folding import network_stride
from ..runtime.facts import NetworkFacts, check_mapping


def facts_of(cfg: Config, meta: dict, network: Any) -> NetworkFacts:
    """Return the facts of ``network``, a segmentor with its weights.

    ``data.test`` of its config says how images are read and normalised, ``mapping`` with which ``threshold``,
    ``scales`` and ``gsd_range_m`` it maps; the checkpoint's ``meta`` is for what the config does not say.

    Raises:
        ConfigError: there is no normalisation, the numbers of classes, names and colours differ, or ``mapping`` has
            other settings or values.
    """
    test, head = cfg.data.test, network.decode_head
    normalize = _step(cfg, "Normalize")
    if not normalize:
        raise ConfigError(f"{cfg.filename}: data.test has no Normalize, so mean and std are unknown; add it")
    with config_mistakes(cfg):
        BandNormalize(**normalize)
        reading = ImageReading().with_settings(**(meta.get("image") or {}))
        reading = reading.with_settings(gsd_m=meta.get("gsd_m")).with_settings(**_step(cfg, "LoadRoadImage"))
        for scaling in (_step(cfg, "RandomAffineCrop", "train"), _step(cfg, "ScaleToGSD")):
            reading = reading.with_settings(gsd_m=scaling.get("gsd_m"))  # what the network saw
    classes = tuple(test.get("classes", meta.get("CLASSES", ROAD_CLASSES)))
    palette = tuple(map(tuple, test.get("palette", meta.get("PALETTE", ROAD_PALETTE))))
    if not len(classes) == len(palette) == head.num_classes:
        raise ConfigError(
            f"{cfg.filename}: the network has {head.num_classes} classes, but there are {len(classes)} names and "
            f"{len(palette)} colours; set classes and palette of data.test to that many"
        )
    mapping = dict(threshold=head.threshold) if head.out_channels == 1 else {}
    mapping |= cfg.get("mapping") or {}
    check_mapping(mapping, cfg.filename)
    return NetworkFacts(
        classes,
        palette,
        tuple(map(float, normalize["mean"])),
        tuple(map(float, normalize["std"])),
        normalize.get("to_rgb", True),
        reading,
        network_stride(network),
        head.out_channels,
        mapping.get("threshold"),
        weights_sha256(network.state_dict()),
        tuple(mapping.get("scales", (1.0,))),
        mapping.get("gsd_range_m") and tuple(mapping["gsd_range_m"]),
    )


def _step(cfg: Config, kind: str, split: str = "test") -> dict:
    """Return the arguments of a step of a split's pipeline; none where there is no such step."""
    try:
        return {key: value for key, value in step_arguments(cfg.data[split], kind).items() if key != "type"}
    except KeyError:
        return {}


@cache
def _normalize(facts: NetworkFacts) -> BandNormalize:
    return BandNormalize(list(facts.mean), list(facts.std), facts.to_rgb)


def normalized(facts: NetworkFacts, image: np.ndarray, path: str) -> np.ndarray:
    """Return ``image`` (H, W, B), RGB first, as the network of ``facts`` takes it, float32 (H, W, B).

    Raises:
        ConfigError: names ``path``: the number of bands is another than that of the training images.
    """
    return _normalize(facts)(dict(img=to_bgr(image), filename=path))["img"]


@cache
def _normalized_values(facts: NetworkFacts) -> torch.Tensor:
    """Return what each of the 256 values becomes in each band, float32 (B * 256), in the network's order of bands."""
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], facts.bands, axis=2)
    return torch.from_numpy(normalized(facts, values, "").transpose(2, 0, 1).flatten())


def normalized_on(facts: NetworkFacts, device: torch.device, images: np.ndarray, path: str) -> torch.Tensor:
    """Return uint8 ``images`` (N, H, W, B) as the network takes them, on ``device``: float32 (N, B, H, W).

    As `normalized`, bit for bit; on a GPU it does the work, and a quarter of the bytes are moved there.

    Raises:
        ConfigError: that of `normalized`.
    """
    if device.type == "cpu" or images.shape[3] != facts.bands:
        return torch.from_numpy(np.stack([normalized(facts, image, path) for image in images])).permute(0, 3, 1, 2)
    values = torch.from_numpy(images).to(device)
    if facts.bands == 3 and not facts.to_rgb:
        values = values.flip(3)
    first = torch.arange(0, 256 * facts.bands, 256, device=device)
    return _normalized_values(facts).to(device)[first + values].permute(0, 3, 1, 2)


def image_bands(network: Any) -> int:
    """Return the number of bands that a segmentor takes: the inputs of the first convolution that runs."""

    class Found(Exception):
        pass

    def stop(convolution: nn.Conv2d, _: object) -> None:
        raise Found(convolution.in_channels)

    hooks = [m.register_forward_pre_hook(stop) for m in network.modules() if isinstance(m, nn.Conv2d)]
    try:
        network.backbone(torch.zeros(1, 1, 256, 256))
    except Found as found:
        return found.args[0]
    finally:
        for hook in hooks:
            hook.remove()
    raise ConfigError("the network does not begin with a convolution, so its number of bands is unknown")
