"""The random steps of a training image."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.auto_augment import NAME_TO_OP

from ..errors import ConfigError
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
