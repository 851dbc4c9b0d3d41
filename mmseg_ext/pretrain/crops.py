"""Random crops of unlabelled images, for a teacher and its student to look at alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.parallel import DataContainer
from torch.utils.data import Dataset
from tqdm import tqdm

from ..datasets.augmentation import RandomAffineCrop, RandomLook
from ..errors import DataError
from ..files import is_hidden
from ..imagery import ImageReading
from ..imagery.voc import IMAGE_SUFFIXES
from .settings import DistilSettings

HELD_OUT = 20  # every 20th image is kept for measuring
_BLACK = 4  # a collar that went through JPEG is not exactly 0
_HIDDEN = 255
_TRIES = 10
_IMAGES = 10

_draw = np.random  # the generator that the steps of the augmentation draw from, seeded for each draw


def list_images(sources: Sequence[str]) -> list[str]:
    """Return the paths of all images in ``sources``, folders with all that is below them and files, each once.

    Raises:
        DataError: one does not exist, or holds no image.
    """
    found: dict[str, None] = {}
    for source in sources:
        if os.path.isfile(source):
            images = [source] if source.lower().endswith(IMAGE_SUFFIXES) else []
        elif os.path.isdir(source):
            images = []
            for folder, inner, names in os.walk(source, followlinks=True):
                inner[:] = sorted(name for name in inner if not is_hidden(name))
                images += [
                    os.path.join(folder, name)
                    for name in sorted(names)
                    if name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)
                ]
        else:
            raise DataError(f"{source}: no such folder or image; give folders of unlabelled images")
        if not images:
            raise DataError(f"{source}: no images in it ({', '.join(IMAGE_SUFFIXES)}); give folders of images")
        found.update(dict.fromkeys(images))
    return list(found)


def split_held_out(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the images to train with, and every 20th, the last of fewer, which is held out.

    Raises:
        DataError: there is only one.
    """
    if len(paths) < 2:
        raise DataError(f"{paths[0]}: is the only image; give two at least, for one is held out to measure with")
    held_out = list(paths[HELD_OUT - 1 :: HELD_OUT]) or [paths[-1]]
    return [path for path in paths if path not in set(held_out)], held_out


def _read(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the image at ``path`` (H, W, 3), BGR, and what of it shows nothing (H, W): 255 there, else 0."""
    image, valid = ImageReading().read(path)
    nothing = image.max(axis=2) <= _BLACK
    if valid is not None:
        nothing |= ~valid
    return np.ascontiguousarray(image[:, :, ::-1]), nothing.astype(np.uint8) * _HIDDEN


class Crops(Dataset):
    """A crop of each image, anew at each draw: scaled, turned, mirrored, and in the look of another sensor or season.

    Half of the crops are turned by right angles, which leaves their pixels sharp, and half by any angle. A crop of
    which more than half is nodata (alpha 0, a black collar, or beyond the image) is drawn again, from another image
    where one has nothing else. Images are decoded once, as far as ``settings.cache_mb`` goes.

    Items are what the training loop takes: ``img``, uint8 (3, h, w), RGB, and ``img_metas`` with the ``filename``.

    Raises:
        DataError: an image cannot be read as 8-bit colours or grey.
    """

    def __init__(self, paths: Sequence[str], settings: DistilSettings) -> None:
        self.paths = list(paths)
        size, scales = (settings.crop_size, settings.crop_size), (settings.min_scale, settings.max_scale)
        self._cuts = [
            RandomAffineCrop(size, scales),
            RandomAffineCrop(size, scales, max_angle_deg=180.0, quarter_turns=False),
        ]
        self._look = RandomLook()
        self._cache: list[tuple[np.ndarray, np.ndarray]] = []
        room = settings.cache_mb * 2**20
        for path in tqdm(self.paths, desc="reading images", unit="image", leave=False, disable=None):
            image, nothing = _read(path)
            room -= image.nbytes + nothing.nbytes
            if room < 0:
                break
            self._cache.append((image, nothing))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def _image(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._cache[index] if index < len(self._cache) else _read(self.paths[index])

    def _crop(self, index: int) -> np.ndarray | None:
        """Return a crop (h, w, 3) of image ``index``, None where no try shows enough."""
        image, nothing = self._image(index)
        for _ in range(_TRIES):
            cut = self._cuts[_draw.randint(len(self._cuts))]
            results: dict[str, Any] = dict(img=image, nothing=nothing, seg_fields=["nothing"], ignore_index=_HIDDEN)
            cut(results)
            if np.count_nonzero(results["nothing"]) * 2 <= results["nothing"].size:
                return results["img"]
        return None

    def __getitem__(self, index: int) -> dict:
        """Return a crop of image ``index``, or of another.

        Raises:
            DataError: none of ten images shows anything.
        """
        for _ in range(_IMAGES):
            crop = self._crop(index)
            if crop is not None:
                crop = self._look(dict(img=crop))["img"]
                pixels = torch.from_numpy(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)).permute(2, 0, 1).contiguous()
                meta = dict(filename=self.paths[index])
                return dict(img=DataContainer(pixels, stack=True), img_metas=DataContainer(meta, cpu_only=True))
            index = int(_draw.randint(len(self.paths)))
        raise DataError(
            f"{self.paths[index]}: is nodata or black by more than half, and so are others; give images that show more"
        )
