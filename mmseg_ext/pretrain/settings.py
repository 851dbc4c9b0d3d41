"""The settings of both kinds of pre-training: as a classifier, with the paper's defaults, and by a teacher."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from typing import Any, Self

from ..errors import ConfigError
from ..options import DottedOptions

PAPER_TOTAL_BATCH = 2048
LARGEST_STRIDE = 32  # of every encoder here


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata=dict(help=help))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class _Options:
    """Settings that are options of a tool, which shows their meaning; what makes no sense is a `ConfigError`."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, int | float) and value < 0:
                raise ConfigError(f"{_option(item.name)} {value} is negative; give 0 or more")

    def _refuse_zero(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name):
                raise ConfigError(f"{_option(name)} 0 trains nothing; give more")

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Add an option for each setting to the parser of a tool."""
        for item in fields(cls):
            text = item.metadata["help"]
            if item.default is False:
                parser.add_argument(_option(item.name), action="store_true", help=text)
            else:
                text = f"{text} (default: {item.default})"
                parser.add_argument(_option(item.name), type=type(item.default), default=item.default, help=text)

    @classmethod
    def from_options(cls, args: argparse.Namespace) -> Self:
        """Return the settings of a command line whose parser went through `add_options`."""
        return cls(**{item.name: getattr(args, item.name) for item in fields(cls)})


@dataclass(frozen=True)
class PretrainSettings(_Options):
    """Each is an option of tools/pretrain.py, which shows its meaning; what cannot be trained is a `ConfigError`."""

    epochs: int = _setting(300, "passes over the training images")
    warmup_epochs: int = _setting(5, "epochs in which the learning rate rises linearly")
    batch_size: int = _setting(256, "images per process")
    lr: float = _setting(
        1e-3, f"highest learning rate, for a total batch of {PAPER_TOTAL_BATCH}; never scaled silently"
    )
    min_lr: float = _setting(1e-5, "learning rate at the end of the cosine")
    warmup_lr: float = _setting(1e-6, "learning rate of the first step")
    weight_decay: float = _setting(0.05, "of matrices and kernels; norms, biases and layer scales have none")
    clip_grad: float = _setting(0.0, "largest norm of the gradient; 0: no limit")
    drop_path: float = _setting(0.1, "drop-path rate of the last block")
    mixup: float = _setting(0.8, "alpha of mixup; 0: none")
    cutmix: float = _setting(1.0, "alpha of CutMix; 0: none")
    smoothing: float = _setting(0.1, "label smoothing")
    auto_augment: str = _setting("rand-m9-mstd0.5-inc1", "timm's name of an augmentation policy; '': none")
    color_jitter: float = _setting(0.4, "strength of colour jitter, where there is no policy")
    crop_scale: float = _setting(0.08, "smallest share of an image that a training crop covers")
    erasing: float = _setting(0.25, "probability of random erasing")
    ema_decay: float = _setting(0.9999, "largest decay of the averaged weights, which are evaluated; 0: no averaging")
    image_size: int = _setting(224, "side of training and validation crops in px")
    precision: str = _setting("fp32", "fp32, bf16, fp16 or auto: what the hardware does best")
    channels_last: bool = _setting(False, "store images channels last, faster on recent GPUs")
    workers: int = _setting(8, "reading processes per process")
    seed: int = _setting(0, "seed of weights, data order and augmentation")
    log_interval: int = _setting(50, "steps between two lines of progress")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_zero("epochs", "batch_size", "lr", "log_interval")
        for name in ("drop_path", "smoothing", "erasing", "ema_decay"):
            if getattr(self, name) >= 1:
                raise ConfigError(f"{_option(name)} {getattr(self, name)} is not a share; give less than 1")
        if not 0 < self.crop_scale <= 1:
            raise ConfigError(f"--crop-scale {self.crop_scale} is not a share; give more than 0 and at most 1")
        if self.image_size < LARGEST_STRIDE:
            raise ConfigError(f"--image-size {self.image_size} is less than the encoder's stride; give 32 or more")
        if self.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"--warmup-epochs {self.warmup_epochs} leaves nothing of --epochs {self.epochs}; "
                f"give --warmup-epochs {(self.epochs - 1) // 4}"
            )
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ConfigError(
                f"--batch-size {self.batch_size} is odd, but mixup and CutMix mix pairs; "
                f"give {self.batch_size + 1}, or --mixup 0 --cutmix 0"
            )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--model-options key.sub=value ...`` to the parser of a tool."""
    text = "arguments of the encoder that differ from its config: gating_unit.gate=False"
    parser.add_argument("--model-options", nargs="+", action=DottedOptions, help=text)


@dataclass(frozen=True)
class DistilSettings(_Options):
    """Each is an option of ``tools/pretrain.py --teacher``; what cannot be trained is a `ConfigError`."""

    steps: int = _setting(7000, "steps of the optimizer")
    warmup_steps: int = _setting(300, "steps in which the learning rate rises linearly; a cosine follows")
    batch_size: int = _setting(4, "crops per step and process")
    crop_size: int = _setting(192, f"side of a crop in px, a multiple of {LARGEST_STRIDE}")
    min_scale: float = _setting(0.4, "smallest scale of an image when a crop is cut")
    max_scale: float = _setting(2.0, "largest scale")
    lr: float = _setting(1.5e-3, "highest learning rate of AdamW")
    weight_decay: float = _setting(0.05, "of matrices and kernels; norms, biases and layer scales have none")
    clip_grad: float = _setting(1.0, "largest norm of the gradient; 0: no limit")
    precision: str = _setting("fp32", "fp32, bf16, fp16 or auto: what the hardware does best")
    channels_last: bool = _setting(False, "store images channels last: a quarter faster on a CPU")
    cache_mb: int = _setting(4096, "memory for decoded images; those beyond are decoded at each draw")
    workers: int = _setting(2, "cropping processes per process; 0: none, for a machine with few cores")
    seed: int = _setting(0, "seed of weights, order and augmentation")
    log_interval: int = _setting(50, "steps between two lines of progress")
    eval_interval: int = _setting(250, "steps between two measurements on the images held out")
    save_interval: int = _setting(250, "steps between two checkpoints")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_zero("steps", "batch_size", "crop_size", "lr", "log_interval", "eval_interval", "save_interval")
        if self.crop_size % LARGEST_STRIDE:
            near = max(round(self.crop_size / LARGEST_STRIDE), 1) * LARGEST_STRIDE
            raise ConfigError(f"--crop-size {self.crop_size} is no multiple of {LARGEST_STRIDE}; give {near}")
        if not 0 < self.min_scale <= self.max_scale:
            raise ConfigError(
                f"--min-scale {self.min_scale} --max-scale {self.max_scale}: give two scales, the smaller first"
            )
        if self.warmup_steps >= self.steps:
            raise ConfigError(
                f"--warmup-steps {self.warmup_steps} leaves nothing of --steps {self.steps}; "
                f"give --warmup-steps {self.steps // 20}"
            )
