"""A split of a data set, as the checks see it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ..datasets import ImageReading
from ..datasets.road_dataset import ROAD_CLASSES
from .pair import Pair


@dataclass(frozen=True)
class Split:
    """Pairs that train, validate or test together.

    Attributes:
        name: ``train``, ``val``, ``test``, or ``pairs`` for folders without splits.
        pairs: in the order of the split file; what is missing is left out.
        images_dir: folder of the images.
        masks_dir: folder of the masks, None without masks.
        reading: how the images become what a network sees.
        classes: class names in the order of their labels.
        ignore_index: label that counts nowhere.
        split_file: file that lists the pairs, None without one.
        normalize: mean and standard deviation (0 to 255) in the order of the read bands, None where no config says.
        raw: masks may be of any kind that the converters understand.
    """

    name: str
    pairs: tuple[Pair, ...]
    images_dir: str
    masks_dir: str | None
    reading: ImageReading = field(default_factory=ImageReading)
    classes: tuple[str, ...] = ROAD_CLASSES
    ignore_index: int = 255
    split_file: str | None = None
    normalize: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    raw: bool = False

    @property
    def trains(self) -> bool:
        """Whether a network learns from it."""
        return self.name == "train"

    @property
    def place(self) -> str:
        """What to name where the whole split is meant."""
        return self.split_file or self.images_dir

    def contents(self) -> frozenset[tuple[str, str]]:
        """Return what tells the images apart: real folder and file name."""
        folder = os.path.realpath(self.images_dir)
        return frozenset((folder, os.path.basename(pair.image)) for pair in self.pairs)
