"""The random steps of a training image."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable

import torchvision
from PIL import Image, ImageOps
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.auto_augment import NAME_TO_OP
from timm.data.loader import PrefetchLoader, fast_collate
from torch.utils.data import DataLoader

from ..datasets import ImageReading
from ..engine.distributed import Process
from ..errors import ConfigError, DataError
from .settings import Settings


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    return image if bits >= 8 else ImageOps.posterize(image, max(bits, 1))


# timm's strongest posterisation keeps no bit at all, a black image, which Pillow 13 refuses
NAME_TO_OP.update({name: _posterize for name in NAME_TO_OP if name.startswith("Posterize")})


def training_transform(settings: Settings) -> Callable:
    """Return the random steps of an image to a uint8 tensor.

    Raises:
        ConfigError: the augmentation policy is not one of timm's.
    """
    try:
        return create_transform(
            settings.image_size,
            is_training=True,
            scale=(settings.crop_scale, 1.0),
            color_jitter=settings.color_jitter or None,
            auto_augment=settings.auto_augment or None,
            interpolation="bicubic",
            use_prefetcher=True,
        )
    except (AssertionError, KeyError, ValueError, IndexError) as error:
        raise ConfigError(
            f"--auto-augment {settings.auto_augment}: is no policy of timm ({error}); leave it out for the paper's"
        ) from None


# -- pretrain.image_folder
# Images sorted into one folder per class, as ImageNet is: DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg.


def _read_rgb(path: str) -> Image.Image:
    return Image.fromarray(ImageReading().read(path)[0])


class ImageFolder(torchvision.datasets.ImageFolder):
    """One split of an image folder, checked when it is opened; an unreadable image is named when it is read.

    Args:
        root: folder with ``train`` and ``val``.
        split: ``train`` or ``val``.
        transform: applied to the RGB image.

    Raises:
        DataError: a folder is missing, has no classes, or a class has no images.
    """

    def __init__(self, root: str, split: str, transform: Callable | None = None) -> None:
        folder = os.path.join(root, split)
        for needed in (root, folder):
            if not os.path.isdir(needed):
                raise DataError(
                    f"{needed}: no such folder; the data is DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg"
                )
        try:
            super().__init__(folder, transform, loader=_read_rgb, allow_empty=True)
        except FileNotFoundError:
            raise DataError(
                f"{folder}: has no folders; put the images of each class into a folder of its name"
            ) from None
        images: Counter[int] = Counter(self.targets)
        empty = [name for name, index in self.class_to_idx.items() if not images[index]]
        if empty:
            raise DataError(
                f"{folder}: {len(empty)} of {len(self.classes)} class folders hold no image ({', '.join(empty[:3])}"
                f"{', ...' if len(empty) > 3 else ''}); fill or remove them"
            )


def check_same_classes(train: ImageFolder, val: ImageFolder) -> None:
    """Refuse splits of different classes, whose labels would not mean the same.

    Raises:
        DataError: names the first classes that one of the two lacks.
    """
    for one, other in ((train, val), (val, train)):
        lacking = sorted(set(one.classes) - set(other.classes))
        if lacking:
            raise DataError(
                f"{other.root}: lacks {len(lacking)} of the classes of {one.root} ({', '.join(lacking[:3])}"
                f"{', ...' if len(lacking) > 3 else ''}); both need the same class folders"
            )


def _start_worker(_: int) -> None:
    # Ctrl-C reaches every process of the terminal; the training process alone answers it
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def image_loader(
    dataset: ImageFolder,
    sampler: Iterable[int],
    batch_size: int,
    workers: int,
    process: Process,
    training: bool = False,
    erasing: float = 0.0,
) -> PrefetchLoader:
    """Return a loader of normalised images (B, 3, H, W) and labels (B,) on the device of ``process``.

    Workers start anew at each pass, so that their random numbers follow from the seed of the pass.

    Args:
        dataset: its transform ends in uint8 tensors.
        sampler: indices of this process.
        batch_size: images per batch.
        workers: reading processes; 0 reads in this one.
        process: this process.
        training: leave out an incomplete last batch.
        erasing: probability that a rectangle of an image is replaced by noise.
    """
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=fast_collate,
        pin_memory=process.device.type == "cuda",
        drop_last=training,
        worker_init_fn=_start_worker,
    )
    return PrefetchLoader(
        loader, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, device=process.device, re_prob=erasing, re_mode="pixel"
    )
