"""What one must know to use a network, what a map asks of it, and how it looks at an image in several sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from .. import __version__
from ..errors import ConfigError
from ..imagery.reading import ImageReading
from ..imagery.voc import road_labels


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


class MapModel(Protocol):
    """What maps; a trained network, an exported file, or anything that does as they do."""

    @property
    def facts(self) -> NetworkFacts:
        """Classes, and how images are read."""

    @property
    def execution(self) -> dict[str, Any]:
        """What the last bits of a map depend on: ``backend``, ``precision``, ``exported_sha256`` and ``threads``.

        Elsewhere than on a CPU, ``device`` too.
        """

    @property
    def software(self) -> dict[str, str]:
        """Versions of what computes."""

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Return the probabilities of each class at every pixel, from one run of the network.

        Images are mirrored below and at the right to multiples of the stride; nothing is resized or cut into windows.
        They are uint8 (h, w, B), all of one size, bands as the facts' ``reading`` selects and scales them (RGB first).

        Returns:
            (N, classes, h, w) float32, 0 to 1; with a single output, 1 - p and p.

        Raises:
            ConfigError: the number of bands differs from that of the training images.
        """


def predict_at_scales(network: MapModel, images: Sequence[np.ndarray], scales: Sequence[float]) -> np.ndarray:
    """Return the mean of the probabilities that ``network`` gives for images shown at each of ``scales``.

    Small scales show more ground at once, so a road too wide for the network becomes one that it knows.

    Args:
        network: predicts (N, classes, h, w).
        images: uint8 (h, w, B) of one size.
        scales: factors of height and width; with 1 alone the network's own probabilities are returned.

    Returns:
        (N, classes, h, w) float32, 0 to 1, at the size of the images.
    """
    height, width = images[0].shape[:2]
    shown = []
    for scale in scales:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        if size == (width, height):
            shown.append(network.predict(images))
            continue
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = [cv2.resize(image, size, interpolation=method).reshape(*size[::-1], -1) for image in images]
        found = network.predict(resized)
        back = [[cv2.resize(plane, (width, height)) for plane in planes] for planes in found]
        shown.append(np.array(back, np.float32))
    return shown[0] if len(shown) == 1 else np.stack(shown).mean(axis=0)
