"""Where the time of a training step goes."""

from __future__ import annotations

import copy
import itertools
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from statistics import median
from typing import Any

import torch
from mmcv import Config
from mmseg.datasets import build_dataset

from .complexity import crop_size
from .config import config_mistakes
from .distributed import Process, start_process
from .hooks import StepHook, WeightAverageHook
from .non_finite_guard import NonFiniteGuard
from .optimizer import choose_precision, training_optimizer
from .runner import SafeIterRunner
from .training import register_custom_hooks, register_step_hooks, training_loader, wrap_for_training
from .weights import build_network

PARTS = (
    *("loading", "transfer", "forward", "losses", "guard", "backward", "clip", "optimizer", "weight average"),
    *("other hooks", "rest"),
)
_WARM_UP = 2


@dataclass(frozen=True)
class TrainingProfile:
    """Times of the parts of a training step.

    Attributes:
        source: where the images came from, in words.
        batch: images of a step.
        part_ms: milliseconds of those of `PARTS` that the step has, medians over the steps.
        step_ms: milliseconds of a step, median.
    """

    source: str
    batch: int
    part_ms: dict[str, float]
    step_ms: float


class _Laps:
    """Seconds of each part; waits for the device between parts, so that its work counts where it began."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Give the time since the last lap to ``part``."""
        if self._on_gpu:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def timed(self, owner: Any, name: str, part: str, before: str = "rest") -> None:
        """Count the calls of ``owner``'s method to ``part``, and what came before them to ``before``."""
        method = getattr(owner, name)

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.lap(before)
            result = method(*args, **kwargs)
            self.lap(part)
            return result

        setattr(owner, name, call)


class _Batches:
    """What mmcv's runner asks of a loader of batches."""

    epoch = 0

    def __init__(self, batches: Iterator[dict]) -> None:
        self.draw: Callable[[], dict] = batches.__next__

    def __next__(self) -> dict:
        return self.draw()


def _random_batches(cfg: Config, batch: int, height: int, width: int, process: Process) -> Iterator[dict]:
    """Return the same batch of random images and labels over and over."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, cfg.model.backbone.get("in_channels", 3), height, width, generator=generator)
    labels = torch.randint(2, (batch, 1, height, width), generator=generator)
    if process.device.type == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    return itertools.repeat(dict(img=images, img_metas=[{}] * batch, gt_semantic_seg=labels))


def _watch(runner: SafeIterRunner, batches: _Batches, laps: _Laps) -> None:
    """Let ``laps`` take the times of the parts of the runner's iterations."""
    laps.timed(batches, "draw", "loading")
    laps.timed(runner.model, "train_step", "losses")
    laps.timed(runner.model, "_prepare", "transfer")
    laps.timed(runner.model, "forward", "forward")
    laps.timed(runner.optimizer, "step", "optimizer", before="backward")
    parts = {StepHook: "optimizer", NonFiniteGuard: "guard", WeightAverageHook: "weight average"}
    for hook in runner.hooks:
        part = parts.get(type(hook), "other hooks")
        laps.timed(hook, "before_train_iter", part)
        laps.timed(hook, "after_train_iter", part)
        if isinstance(hook, StepHook):
            laps.timed(hook, "clip_grads", "clip", before="backward")


def profile_training(
    cfg: Config, crop_px: int | None = None, batch: int | None = None, steps: int = 10
) -> TrainingProfile:
    """Measure the parts of a training step on this device, in the runner that trains.

    The images are the config's training data; where these are not there, or ``crop_px`` is given, random numbers.
    Logging, evaluation and checkpoints are left out.

    Args:
        cfg: what `load_config` returned; its settings of speed and memory count.
        crop_px: rows and columns of random images.
        batch: images of a step; the config's when None.
        steps: steps that count, after two that warm up.

    Raises:
        UserError: the config or its data do not fit.
    """
    process = start_process()
    precision = choose_precision(cfg.get("precision", "fp32"), process.device)
    cfg = copy.deepcopy(cfg)
    if batch is not None:
        cfg.merge_from_dict({"data.samples_per_gpu": batch, "data.train_dataloader.samples_per_gpu": batch})
    batch = {**cfg.data, **cfg.data.get("train_dataloader", {})}["samples_per_gpu"]
    with config_mistakes(cfg):
        if crop_px is None and os.path.isdir(cfg.data.train.get("data_root") or ""):
            source = cfg.data.train.data_root
            draws: Iterator[dict] = iter(training_loader(build_dataset(cfg.data.train), cfg, process, seed=0))
        else:
            height, width = crop_size(cfg) if crop_px is None else (crop_px, crop_px)
            source = f"random numbers, {height} x {width} px"
            draws = _random_batches(cfg, batch, height, width, process)
        network = build_network(cfg, pretrained=False)
        wrapped = wrap_for_training(network, cfg, process, precision)
        runner = SafeIterRunner(
            wrapped,
            optimizer=training_optimizer(network, cfg.optimizer),
            logger=logging.getLogger(__name__),
            meta=dict(hook_msgs={}),
            max_iters=cfg.runner.max_iters,
        )
        register_step_hooks(runner, cfg, precision)
        register_custom_hooks(runner, cfg)
    runner.call_hook("before_run")
    runner.call_hook("before_epoch")
    batches, laps = _Batches(draws), _Laps(process.device)
    _watch(runner, batches, laps)
    found = []
    for _ in range(steps + _WARM_UP):
        laps.seconds.clear()
        runner.train(batches)
        laps.lap("rest")
        found.append(dict(laps.seconds))
    found = found[_WARM_UP:]
    parts = {part: 1000 * median(one.get(part, 0.0) for one in found) for part in PARTS}
    step_ms = 1000 * median(sum(one.values()) for one in found)
    return TrainingProfile(source, batch, {part: ms for part, ms in parts.items() if ms}, step_ms)
