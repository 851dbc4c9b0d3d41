#!/usr/bin/env python
"""Training speed of networks on this device, with and without settings of speed, without any loading of images.

Example: python tools/benchmark/training.py myconfigs/dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py --crop 256

With --profile: where the time of one step goes, loading included, with the settings of the config.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from statistics import median
from typing import Any, NamedTuple

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

import torch
from timing import forget_peak, in_turns, machine_line, peak_bytes, ratio, timed
from mmcv import Config
from torch.utils.flop_counter import FlopCounterMode

from mmseg_ext.datasets.several import build_training_set, part_settings
from mmseg_ext.engine import build_network, crop_size, load_config
from mmseg_ext.engine.config import batch_settings, config_mistakes
from mmseg_ext.engine.distributed import DTYPES, choose_precision, start_process
from mmseg_ext.engine.hooks import NonFiniteGuard, StepHook, WeightAverageHook
from mmseg_ext.engine.runner import SafeIterRunner, training_optimizer
from mmseg_ext.engine.training import register_custom_hooks, register_step_hooks, training_loader, wrap_for_training
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.options import add_config_options
from mmseg_ext.report.tables import markdown_table

SETTINGS = ("fp32", "half", "half+channels_last", "half+channels_last+compile")
EXTRAS = {
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "loop": {"optimizer.fused": False, "optimizer.foreach": False},
}
PARTS = (
    *("loading", "transfer", "forward", "losses", "guard", "backward", "clip", "optimizer", "weight average"),
    *("other hooks", "rest"),
)
WARM_UP = 2
HOOK_PARTS = {StepHook: "optimizer", NonFiniteGuard: "guard", WeightAverageHook: "weight average"}


class Batches:
    """What mmcv's runner asks of a loader of batches."""

    epoch = 0

    def __init__(self, batches: Iterator[dict]) -> None:
        self.draw: Callable[[], dict] = batches.__next__

    def __next__(self) -> dict:
        return self.draw()


@dataclass(frozen=True)
class Training:
    """A runner that trains, and what it trains on."""

    runner: SafeIterRunner  # without logging, evaluation and checkpoints
    batches: Batches
    source: str  # of the images, in words
    images: int  # of a step

    def step(self) -> None:
        """Take one training step."""
        self.runner.train(self.batches)


def build_training(cfg: Config, crop_px: int | None = None, batch: int | None = None) -> Training:
    """Return the training of ``cfg`` on this device.

    The images are the config's training data; where these are not there, or ``crop_px`` is given, random numbers of so
    many rows and columns. A step has ``batch`` images; None: the config's.
    """
    process = start_process()
    cfg = copy.deepcopy(cfg)
    if batch is not None:
        cfg.merge_from_dict({"data.samples_per_gpu": batch, "data.train_dataloader.samples_per_gpu": batch})
    images = batch_settings(cfg)["samples_per_gpu"]
    torch.backends.cudnn.benchmark = bool(cfg.get("cudnn_benchmark"))  # as `train` has it
    with config_mistakes(cfg):
        precision = choose_precision(cfg.get("precision", "fp32"), process.device)
        root = next(part_settings(cfg.data.train)).get("data_root") or ""
        if crop_px is None and os.path.isdir(root):
            source = root
            draws: Iterator[dict] = iter(training_loader(build_training_set(cfg.data.train), cfg, process, seed=0))
        else:
            height, width = crop_size(cfg) if crop_px is None else (crop_px, crop_px)
            source = f"random numbers, {height} x {width} px"
            generator = torch.Generator().manual_seed(0)
            bands = cfg.model.backbone.get("in_channels", 3)
            image = torch.randn(images, bands, height, width, generator=generator)
            labels = torch.randint(2, (images, 1, height, width), generator=generator)
            if process.device.type == "cuda":
                image, labels = image.pin_memory(), labels.pin_memory()
            draws = itertools.repeat(dict(img=image, img_metas=[{}] * images, gt_semantic_seg=labels))
        network = build_network(cfg, pretrained=False)
        runner = SafeIterRunner(
            wrap_for_training(network, cfg, process, precision),
            optimizer=training_optimizer(network, cfg.optimizer),
            logger=logging.getLogger(__name__),
            meta=dict(hook_msgs={}),
            max_iters=10**6,  # more than anyone measures: none is the last one
        )
        register_step_hooks(runner, cfg, precision)
        register_custom_hooks(runner, cfg)
    runner.call_hook("before_run")
    runner.call_hook("before_epoch")
    return Training(runner, Batches(draws), source, images)


def half_precision(device: torch.device) -> str:
    """Return bf16, or fp16 on a GPU that would only emulate bf16."""
    return "fp16" if choose_precision("auto", device) == "fp16" else "bf16"


def with_setting(cfg: Config, setting: str) -> Config:
    """Return ``cfg`` with ``fp32``, ``bf16`` or ``fp16``, and after it any of the `EXTRAS`, as ``bf16+compile``.

    ``half`` is bf16, or fp16 on a GPU that would only emulate bf16.

    Raises:
        ConfigError: an unknown setting.
    """
    precision, *extras = setting.split("+")
    if precision == "half":
        precision = half_precision(start_process().device)
    if precision not in DTYPES or not EXTRAS.keys() >= set(extras):
        raise ConfigError(
            f"setting {setting}: give {', '.join(DTYPES)} or half, and after it any of +{', +'.join(EXTRAS)}"
        )
    options: dict[str, Any] = dict(precision=precision, channels_last=False, compile=False)
    for extra in extras:
        options |= EXTRAS[extra]
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(options)
    return cfg


class Speed(NamedTuple):
    """What was measured of a setting; medians."""

    images_per_s: float
    times: float  # as fast as the first setting
    gib: float | None  # on a GPU
    gflop_per_s: float | None  # without what is computed anew for the backward pass


def step_operations(training: Training) -> float:
    """Return the floating-point operations of a step.

    They are those of a forward pass, three times: the backward pass has two products for each one of it. (torch's
    counter takes the backward pass of a depthwise convolution for that of a dense one.)
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        training.runner.model.train_step(training.batches.draw())
    return 3 * counted.get_total_flops()


def training_speeds(cfg: Config, settings: Sequence[str], crop_px: int, batch: int, rounds: int) -> dict[str, Speed]:
    """Return the speed of each setting.

    Each takes ``rounds`` steps of ``batch`` images of random numbers, after two that warm up; see `with_setting`. The
    memory is that of the second one, without what the settings before hold.
    """
    works, gib, operations = {}, {}, None
    for setting in settings:
        held = torch.cuda.memory_allocated()
        training = build_training(with_setting(cfg, setting), crop_px, batch)
        if operations is None and "compile" not in setting:  # what is compiled is not counted
            operations = step_operations(training)
        for _ in range(WARM_UP):
            forget_peak()
            training.step()
        peak = peak_bytes()
        gib[setting] = None if peak is None else (peak - held) / 2**30
        works[setting] = timed(training.step)
    turns = in_turns(works, rounds, warm_up=0)
    first = turns[settings[0]]
    return {
        setting: Speed(
            batch / median(seconds),
            ratio(first, seconds),
            gib[setting],
            operations and operations / median(seconds) / 1e9,
        )
        for setting, seconds in turns.items()
    }


def cell(speed: Speed) -> str:
    """Return ``speed`` as the table has it."""
    words = [f"{speed.images_per_s:.2f} ({speed.times:.2f})"]
    words += [f"{speed.gib:.1f} GiB"] if speed.gib else []
    words += [f"{speed.gflop_per_s:.0f} GFLOP/s"] if speed.gflop_per_s else []
    return ", ".join(words)


class Laps:
    """Seconds of each part; waits for the device between parts, so that its work counts where it began."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._last = time.perf_counter()

    def lap(self, part: str) -> None:
        """Give the time since the last lap to ``part``."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[part] += now - self._last  # type: ignore[assignment]
        self._last = now

    def watch(self, owner: Any, name: str, part: str, before: str = "rest") -> None:
        """Count the calls of ``owner``'s method to ``part``, and what came before them to ``before``."""
        method = getattr(owner, name)

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.lap(before)
            result = method(*args, **kwargs)
            self.lap(part)
            return result

        setattr(owner, name, call)


def training_profile(training: Training, steps: int) -> dict[str, float]:
    """Return the milliseconds of those of `PARTS` that a step of ``training`` has, and of the ``step``; medians."""
    laps, runner = Laps(), training.runner
    laps.watch(training.batches, "draw", "loading")
    laps.watch(runner.model, "train_step", "losses")
    laps.watch(runner.model, "_prepare", "transfer")
    laps.watch(runner.model, "forward", "forward")
    laps.watch(runner.optimizer, "step", "optimizer", before="backward")
    for hook in runner.hooks:
        part = HOOK_PARTS.get(type(hook), "other hooks")
        laps.watch(hook, "before_train_iter", part)
        laps.watch(hook, "after_train_iter", part)
        if isinstance(hook, StepHook):
            laps.watch(hook, "clip_grads", "clip", before="backward")

    def step() -> Counter[str]:
        laps.seconds = Counter()
        training.step()
        laps.lap("rest")
        return laps.seconds

    found = in_turns({"": step}, steps, WARM_UP)[""]
    parts = {part: 1000 * median(one[part] for one in found) for part in PARTS if any(one[part] for one in found)}
    return {**parts, "step": 1000 * median(one.total() for one in found)}


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("configs", nargs="+", metavar="CONFIG", help="leaves below myconfigs/, or your own")
    add("--settings", nargs="+", default=SETTINGS, help=f"ratios are to the first (default: {' '.join(SETTINGS)})")
    add("--profile", action="store_true", help="milliseconds of the parts of a step (median) and their shares")
    add("--crop", type=int, help="sides of random crops, pixels (default: 256; with --profile: the config's data)")
    add("--batch", type=int, help="images of a step (default: 2; with --profile: the config's)")
    add("--rounds", type=int, default=5, help="steps of each setting, after two (default: 5)")
    add_config_options(parser)
    args = parser.parse_args()

    crop, batch = args.crop or 256, args.batch or 2
    sys.stdout.write(f"{machine_line()}\n\n")
    rows = []
    for path in args.configs:
        cfg, name = load_config(path, args.cfg_options), os.path.basename(path).removesuffix(".py")
        if args.profile:
            training = build_training(cfg, args.crop, args.batch)
            times = training_profile(training, args.rounds)
            table = [[part, f"{ms:.1f}", f"{100 * ms / times['step']:.1f}"] for part, ms in times.items()]
            sys.stdout.write(f"{name}: {training.images} images of {training.source}\n\n")
            sys.stdout.write(markdown_table(["part", "ms", "% of the step"], table) + "\n\n")
        else:
            speeds = training_speeds(cfg, args.settings, crop, batch, args.rounds).values()
            rows.append([name, *map(cell, speeds)])
    if rows:
        header = [f"images/s (times as fast), {batch} x {crop} px", *args.settings]
        sys.stdout.write(markdown_table(header, rows) + "\n")


if __name__ == "__main__":
    run_tool(main)
