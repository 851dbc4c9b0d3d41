"""How fast a network trains, and what it needs, with and without the settings of speed and memory."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from mmcv import Config
from mmcv.runner import build_optimizer

from ..errors import ConfigError
from .config import config_mistakes
from .distributed import Process, start_process, wrap
from .optimizer import DTYPES, choose_precision, training_optimizer
from .weights import build_network

PRECISIONS = ("fp32", "bf16", "fp16")
_EXTRAS = {"channels_last", "compile", "loop"}
_WARM_UP = 2


@dataclass(frozen=True)
class TrainingSpeed:
    """Speed of one network with one setting.

    Attributes:
        images_per_s: median over the rounds.
        ratio: median of each round's ratio to the first setting.
        peak_gib: most memory of the GPU during a step, None on a CPU.
    """

    images_per_s: float
    ratio: float
    peak_gib: float | None


def _stepper(cfg: Config, setting: str, crop_px: int, batch: int, process: Process) -> Callable[[], float]:
    """Return a function that takes one training step and returns its seconds."""
    parts = setting.split("+")
    precision, extras = parts[0], set(parts[1:])
    if precision not in PRECISIONS or extras - _EXTRAS:
        raise ConfigError(
            f"setting {setting}: give fp32, bf16 or fp16, and after it any of +{', +'.join(sorted(_EXTRAS))}"
        )
    cfg = copy.deepcopy(cfg)
    bands = cfg.model.backbone.get("in_channels", 3)
    with config_mistakes(cfg):
        network = build_network(cfg, pretrained=False)
    if "compile" in extras:
        network.backbone.compile()  # type: ignore[union-attr]
    dtype = DTYPES[choose_precision(precision, process.device)]
    wrapped = wrap(network, process, dtype, channels_last="channels_last" in extras).train()
    with config_mistakes(cfg):
        optimizer = (build_optimizer if "loop" in extras else training_optimizer)(network, cfg.optimizer)
    generator = torch.Generator().manual_seed(0)
    content = dict(
        img=torch.randn(batch, bands, crop_px, crop_px, generator=generator),
        img_metas=[{}] * batch,
        gt_semantic_seg=torch.randint(2, (batch, 1, crop_px, crop_px), generator=generator),
    )

    def step() -> float:
        start = time.perf_counter()
        loss = wrapped.train_step(content)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if process.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


def measure_training(
    cfg: Config, settings: Sequence[str] = ("fp32",), crop_px: int = 256, batch: int = 2, rounds: int = 5
) -> dict[str, TrainingSpeed]:
    """Measure the training step of ``cfg`` on this device with each setting, turn by turn, without any loading.

    Args:
        cfg: what `load_config` returned.
        settings: ``fp32``, ``bf16`` or ``fp16``, then ``+channels_last``, ``+compile`` and ``+loop`` (the optimizer
            updates one parameter after the other, as mmcv builds it) where wanted; ratios are to the first.
        crop_px: rows and columns of the training crops.
        batch: images of a step.
        rounds: steps that count, after two that warm up.

    Raises:
        ConfigError: an unknown setting, or the network cannot be built.
    """
    process = start_process()
    steppers = {setting: _stepper(cfg, setting, crop_px, batch, process) for setting in settings}
    seconds: dict[str, list[float]] = {setting: [] for setting in settings}
    peaks: dict[str, float] = {}
    on_gpu = process.device.type == "cuda"
    for turn in range(rounds + _WARM_UP):
        for setting, step in steppers.items():
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            taken = step()
            if turn >= _WARM_UP:
                seconds[setting].append(taken)
                peaks[setting] = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    first = seconds[settings[0]]
    return {
        setting: TrainingSpeed(
            images_per_s=batch / median(taken),
            ratio=median(a / b for a, b in zip(first, taken, strict=True)),
            peak_gib=peaks[setting] if on_gpu else None,
        )
        for setting, taken in seconds.items()
    }
