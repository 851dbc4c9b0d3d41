"""Writes the VOC layout, complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
from types import TracebackType

import numpy as np
from PIL import Image

from ..errors import DataError

SPLITS = ("train", "val", "test")


class VocWriter:
    """Collects image and mask pairs in a folder beside ``dest``, which takes its place when all are written.

    Use as a context manager; an error inside leaves nothing behind and an existing ``dest`` untouched.

    Args:
        dest: root folder of the new data set.
        overwrite: replace an existing ``dest``.

    Raises:
        DataError: ``dest`` exists and is not to be replaced, or cannot be written.
    """

    def __init__(self, dest: str, overwrite: bool = False) -> None:
        self.dest = os.path.abspath(dest)
        if os.path.lexists(self.dest) and not overwrite:
            raise DataError(f"{dest}: exists already; choose another folder or give --overwrite")
        self._partial = f"{self.dest}.partial-{os.getpid()}"
        self._stems: dict[str, list[str]] = {split: [] for split in SPLITS}
        self._pixels = 0
        self._sum = np.zeros(3)
        self._sum_of_squares = np.zeros(3)

    def __enter__(self) -> VocWriter:
        """Create the folders."""
        try:
            for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
                os.makedirs(os.path.join(self._partial, folder))
        except OSError as error:
            raise DataError(f"{self.dest}: cannot be written ({error.strerror}); choose another folder") from None
        return self

    def add(self, stem: str, image: np.ndarray, mask: np.ndarray, split: str, source: str | None = None) -> None:
        """Write one pair.

        Args:
            stem: name without suffix, unique.
            image: RGB uint8 (H, W, 3); its statistics count where ``split`` is train.
            mask: uint8 labels (H, W).
            split: one of train, val, test.
            source: image file to copy instead of encoding ``image``.
        """
        if split == "train":
            flat = image.reshape(-1, 3).astype(np.float64)
            self._pixels += len(flat)
            self._sum += flat.sum(0)
            self._sum_of_squares += (flat**2).sum(0)
        images = os.path.join(self._partial, "JPEGImages")
        if source is None:
            Image.fromarray(image).save(os.path.join(images, f"{stem}.png"))
        else:
            shutil.copyfile(source, os.path.join(images, stem + os.path.splitext(source)[1].lower()))
        Image.fromarray(mask).save(os.path.join(self._partial, "SegmentationClass", f"{stem}.png"))
        self._stems[split].append(stem)

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of the training images, RGB, 0 to 255."""
        pixels = max(self._pixels, 1)
        mean = self._sum / pixels
        std = np.sqrt(np.maximum(self._sum_of_squares / pixels - mean**2, 0))
        return [round(float(v), 2) for v in mean], [round(float(v), 2) for v in std]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the split files and put the folder in place, or clear it away after an error."""
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        mean, std = self.statistics()
        for split in SPLITS:
            stems = self._stems[split] or (self._stems["val"] if split == "test" else [])
            with open(os.path.join(self._partial, "ImageSets", "Segmentation", f"{split}.txt"), "w") as lines:
                lines.writelines(f"{stem}\n" for stem in stems)
        with open(os.path.join(self._partial, "dataset.json"), "w") as file:
            json.dump(dict(images={s: len(self._stems[s]) for s in SPLITS}, mean_rgb=mean, std_rgb=std), file, indent=1)
        if os.path.islink(self.dest) or os.path.isfile(self.dest):
            os.remove(self.dest)
        elif os.path.isdir(self.dest):
            shutil.rmtree(self.dest)
        os.replace(self._partial, self.dest)
