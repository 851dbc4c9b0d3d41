"""Predictions, their probabilities and their uncertainty as pictures."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from ..errors import ConfigError
from ..metrics.probability import entropy

KINDS = ("labels", "probability", "entropy")


class MapWriter:
    """Keeps label, probability and entropy of each image as 8-bit PNGs, ``labels/NAME.png`` and so on.

    255 is probability 1, and an entropy of 1 bit (probability 0.5).

    Args:
        folder: where to write; made if it is not there.

    Raises:
        ConfigError: it cannot be made.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        for kind in KINDS:
            try:
                os.makedirs(os.path.join(folder, kind), exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from None

    def write(self, name: str, probability: np.ndarray, labels: np.ndarray) -> None:
        """Write the maps of image ``name``: ``probability`` of road (H, W) in 0..1, and class indices (H, W)."""
        parts = (labels, np.rint(probability * 255), np.rint(entropy(probability) * 255))
        for kind, values in zip(KINDS, parts, strict=True):
            Image.fromarray(values.astype(np.uint8)).save(self._path(kind, name))

    def read(self, kind: str, name: str) -> np.ndarray:
        """Return the map (H, W) uint8 of ``kind`` (of `KINDS`) of image ``name``."""
        with Image.open(self._path(kind, name)) as image:
            return np.array(image)

    def _path(self, kind: str, name: str) -> str:
        return os.path.join(self.folder, kind, f"{name}.png")
