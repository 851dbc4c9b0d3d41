"""Images sorted into one folder per class, as ImageNet is: DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence

import torchvision
from PIL import Image, ImageOps
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform, resolve_data_config
from timm.data.auto_augment import NAME_TO_OP
from timm.data.loader import PrefetchLoader, fast_collate
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..engine.distributed import Process
from ..errors import ConfigError, DataError
from ..files import is_hidden
from ..imagery import ImageReading
from .settings import PretrainSettings


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


class ImageFolder(torchvision.datasets.ImageFolder):
    """``root/train`` or ``root/val``, checked when it is opened; an unreadable image is named when it is read.

    Raises:
        DataError: a folder is missing, has no classes, or a class has no images.
    """

    def __init__(self, root: str, split: str) -> None:
        folder = os.path.join(root, split)
        for needed in (root, folder):
            if not os.path.isdir(needed):
                raise DataError(f"{needed}: no such folder; the data is DATA/{{train,val}}/CLASS/*.jpg")
        try:
            super().__init__(folder, loader=_read_rgb, is_valid_file=_is_image, allow_empty=True)
        except FileNotFoundError:
            raise DataError(f"{folder}: no class folders; put the images of each class into one folder") from None
        filled = set(self.targets)
        empty = [name for name, index in self.class_to_idx.items() if index not in filled]
        if empty:
            raise DataError(
                f"{folder}: {len(empty)} of {len(self.classes)} class folders hold no image ({_few(empty)}); "
                "fill or remove them"
            )

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """Return the folders that are not hidden, and their labels."""
        classes = [name for name in super().find_classes(directory)[0] if not is_hidden(name)]
        return classes, {name: label for label, name in enumerate(classes)}


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMG_EXTENSIONS) and not is_hidden(os.path.basename(path))


def _read_rgb(path: str) -> Image.Image:
    return Image.fromarray(ImageReading().read(path)[0])


def open_splits(root: str) -> tuple[ImageFolder, ImageFolder]:
    """Return the training and the validation images of ``root``.

    Raises:
        DataError: a split cannot be used, or one lacks classes of the other, so that labels would not mean the same.
    """
    train, val = ImageFolder(root, "train"), ImageFolder(root, "val")
    for one, other in ((train, val), (val, train)):
        lacking = sorted(set(one.classes) - set(other.classes))
        if lacking:
            raise DataError(
                f"{other.root}: lacks {len(lacking)} of the classes of {one.root} ({_few(lacking)}); "
                "both need the same class folders"
            )
    return train, val


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    return image if bits >= 8 else ImageOps.posterize(image, max(bits, 1))


# timm's strongest posterisation keeps no bit at all, a black image, which Pillow 13 refuses
NAME_TO_OP.update({name: _posterize for name in NAME_TO_OP if name.startswith("Posterize")})


def training_transform(settings: PretrainSettings) -> Callable:
    """Return the random steps of an image to a uint8 tensor; a `ConfigError` where timm lacks the augmentation."""
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
            f"--auto-augment {settings.auto_augment}: is not a policy of timm ({error}); leave it out for the paper's"
        ) from None


def validation_transform(model: nn.Module, image_size: int) -> Callable:
    """Return the steps of an image to a uint8 tensor: shorter side to ``image_size`` / crop_pct, centre crop."""
    config = {**resolve_data_config({}, model=model), "input_size": (3, image_size, image_size)}
    return create_transform(**config, use_prefetcher=True)


def image_loader(
    dataset: ImageFolder, sampler: Iterable[int], settings: PretrainSettings, process: Process, training: bool
) -> PrefetchLoader:
    """Return a loader of normalised images (B, 3, H, W) and labels (B,) on the device of ``process``.

    ``sampler`` names the images of this process; the transform of ``dataset`` ends in uint8 tensors. In training an
    incomplete last batch is left out and rectangles are erased at random. Workers start anew at each pass, so that
    their random numbers follow from the seed of the pass.
    """
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=settings.batch_size,
        sampler=sampler,
        num_workers=settings.workers,
        collate_fn=fast_collate,
        pin_memory=process.device.type == "cuda",
        drop_last=training,
        worker_init_fn=_start_worker,
    )
    return PrefetchLoader(
        loader,
        IMAGENET_DEFAULT_MEAN,
        IMAGENET_DEFAULT_STD,
        device=process.device,
        re_prob=settings.erasing if training else 0.0,
        re_mode="pixel",
    )


def validation_loader(dataset: ImageFolder, settings: PretrainSettings, process: Process) -> PrefetchLoader:
    """Return this process's loader: it reads every ``world_size``-th image, none twice."""
    images = range(process.rank, len(dataset), process.world_size)
    return image_loader(dataset, images, settings, process, training=False)


def _start_worker(_: int) -> None:
    # Ctrl-C reaches every process of the terminal; only the training process handles it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
