"""What one must know to use a network: how images are read and normalised, and what its outputs mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from mmcv import Config
from torch import nn

from .. import __version__
from ..datasets.augmentation import BandNormalize
from ..datasets.loading import to_bgr
from ..engine.checkpoint import weights_sha256
from ..engine.config import config_mistakes, step_arguments
from ..errors import ConfigError
from ..imagery.reading import ImageReading
from ..imagery.voc import ROAD_CLASSES, ROAD_PALETTE, road_labels
from ..models.folding import network_stride


@dataclass(frozen=True)
class NetworkFacts:
    """What a network was trained with, and what its outputs stand for.

    Attributes:
        classes: class names in the order of the outputs; two for a network with a single output.
        palette: one RGB colour (0-255) per class.
        mean: of each band, 0 to 255, in the order in which the network takes the bands.
        std: likewise.
        to_rgb: False where a network of three bands takes them in the order blue, green, red.
        reading: bands, scaling to 8 bits and ground sampling distance of the training images.
        stride: height and width of images are multiples of it, in pixels.
        outputs: channels of the scores; 1: the logit of road, else logits for a softmax.
        threshold: the probability from which a pixel is road, where the network has its own; else None.
        scales: sizes at which a map looks at each tile, whose probabilities it averages; 1: as the tile is.
        gsd_range_m: least and most metres per pixel of the ground that training showed; None: nobody said.
        weights_sha256: hash of the weights, as in published checkpoints.
        version: of this package.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, ...], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_rgb: bool
    reading: ImageReading
    stride: int
    outputs: int
    threshold: float | None
    weights_sha256: str
    scales: tuple[float, ...] = (1.0,)
    gsd_range_m: tuple[float, float] | None = None
    version: str = __version__

    @classmethod
    def of(cls, cfg: Config, meta: dict, network: Any) -> NetworkFacts:
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
        return cls(
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

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> NetworkFacts:
        """Return the facts that `as_metadata` wrote.

        Raises:
            KeyError, ValueError: there are others, or none.
        """
        later = ("scales", "gsd_range_m")  # files of an earlier version have none
        names = [name for name in cls.__dataclass_fields__ if name in metadata or name not in later]
        values = {name: json.loads(metadata[name]) for name in names}
        for name in ("classes", "mean", "std", *later):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        values["palette"] = tuple(map(tuple, values["palette"]))
        values["reading"] = ImageReading().with_settings(**values["reading"])
        return cls(**values)

    def as_metadata(self) -> dict[str, str]:
        """Return every fact as JSON under its name."""
        values = {**asdict(self), "reading": self.reading.as_dict()}
        return {name: json.dumps(value) for name, value in values.items()}

    @property
    def bands(self) -> int:
        """Number of bands that the network takes."""
        return len(self.mean)

    @property
    def road_labels(self) -> list[int]:
        """Indices of the classes that are road."""
        return road_labels(self.classes)

    @cached_property
    def _normalize(self) -> BandNormalize:
        return BandNormalize(list(self.mean), list(self.std), self.to_rgb)

    def normalized(self, image: np.ndarray, path: str) -> np.ndarray:
        """Return ``image`` (H, W, B), RGB first, as the network takes it, float32 (H, W, B).

        Raises:
            ConfigError: names ``path``: the number of bands is another than that of the training images.
        """
        return self._normalize(dict(img=to_bgr(image), filename=path))["img"]

    @cached_property
    def _normalized_values(self) -> torch.Tensor:
        """What each of the 256 values becomes in each band, float32 (B * 256), in the network's order of the bands."""
        values = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], self.bands, axis=2)
        return torch.from_numpy(self.normalized(values, "").transpose(2, 0, 1).flatten())

    def normalized_on(self, device: torch.device, images: np.ndarray, path: str) -> torch.Tensor:
        """Return uint8 ``images`` (N, H, W, B) as the network takes them, on ``device``: float32 (N, B, H, W).

        As `normalized`, bit for bit; on a GPU it does the work, and a quarter of the bytes are moved there.

        Raises:
            ConfigError: that of `normalized`.
        """
        if device.type == "cpu" or images.shape[3] != self.bands:
            return torch.from_numpy(np.stack([self.normalized(image, path) for image in images])).permute(0, 3, 1, 2)
        values = torch.from_numpy(images).to(device)
        if self.bands == 3 and not self.to_rgb:
            values = values.flip(3)
        first = torch.arange(0, 256 * self.bands, 256, device=device)
        return self._normalized_values.to(device)[first + values].permute(0, 3, 1, 2)

    def padded(self, pixels: np.ndarray, rows_axis: int = 0) -> np.ndarray:
        """Return ``pixels`` (..., H, W, ...) mirrored below and at the right to multiples of the stride.

        The axis of the columns follows that of the rows.
        """
        pads = [(0, 0)] * pixels.ndim
        for axis in (rows_axis, rows_axis + 1):
            pads[axis] = (0, -pixels.shape[axis] % self.stride)
        return np.pad(pixels, pads, mode="reflect")


def check_mapping(mapping: Mapping[str, Any], where: str) -> None:
    """Refuse, by a ConfigError that begins with ``where``, a config's ``mapping`` that `NetworkFacts` cannot hold."""
    scales, limits, threshold = mapping.get("scales"), mapping.get("gsd_range_m"), mapping.get("threshold")
    try:
        unknown = mapping.keys() - {"threshold", "scales", "gsd_range_m"}
        good = not unknown and (threshold is None or 0 < threshold < 1)
        good &= scales is None or (len(scales) > 0 and all(0 < scale <= 4 for scale in scales))
        good &= limits is None or (0 < limits[0] <= limits[1] and len(limits) == 2)
    except (TypeError, IndexError):
        good = False
    if not good:
        raise ConfigError(
            f"{where}: mapping={dict(mapping)}: give dict(threshold=0.3, scales=[0.5, 0.75, 1], "
            "gsd_range_m=[0.1, 1]), or some of them; a threshold from 0 to 1, scales up to 4"
        )


def _step(cfg: Config, kind: str, split: str = "test") -> dict:
    """Return the arguments of a step of a split's pipeline; none where there is no such step."""
    try:
        return {key: value for key, value in step_arguments(cfg.data[split], kind).items() if key != "type"}
    except KeyError:
        return {}


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
