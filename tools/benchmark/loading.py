#!/usr/bin/env python
"""Measure the loading of training images: ``python tools/benchmark/loading.py CONFIG`` or ``... --synthetic``.

Compares the config's pipeline with MMSegmentation's own, and with RandomAffineCrop, in the same run, turn by turn: in
one process, step by step, and with the workers of training. The loader must outrun training (training.py).
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import mmseg_ext  # noqa: F401  isort: skip  before what is slow to import, for an early Ctrl-C

import cv2
import torch
from timing import in_turns, machine_line, ratio, timed
from mmcv import Config
from mmseg.datasets import build_dataset
from mmseg.datasets.pipelines import Compose
from PIL import Image

from mmseg_ext.converters import write_synthetic_mines
from mmseg_ext.datasets import RoadDataset
from mmseg_ext.engine import load_config
from mmseg_ext.engine.config import batch_settings, config_mistakes, step_arguments
from mmseg_ext.engine.distributed import Process, seed_everything
from mmseg_ext.engine.training import training_loader
from mmseg_ext.errors import ConfigError, run_tool
from mmseg_ext.imagery.voc import IMAGES
from mmseg_ext.options import add_config_options
from mmseg_ext.report.tables import markdown_table

DEFAULT = Path(__file__).resolve().parents[2] / "myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py"
PLAIN, OURS, AFFINE = "MMSegmentation", "this config", "RandomAffineCrop"
AHEAD = 2  # batches that a worker of torch's loader prepares before they are asked for


def write_tiles(root: str, jpeg: bool, tile_px: int, count: int = 4) -> None:
    """Write generated mines as a data set, with images as PNG or as JPEG."""
    write_synthetic_mines(root, range(count), [], [], tile_px, tile_px, gsd_m=max(1.0, 256 / tile_px), overwrite=True)
    for path in sorted(Path(root, IMAGES).iterdir()) if jpeg else ():
        Image.open(path).save(path.with_suffix(".jpg"), quality=92)
        path.unlink()


def compared_datasets(cfg: Config) -> dict[str, RoadDataset]:
    """Return the training data of ``cfg`` three times.

    In the pipeline of the config (`OURS`), in MMSegmentation's classes and loading steps with the same sizes
    (`PLAIN`, first; not for images of other than three bands, which they cannot read), and cropped by one affine
    warp (`AFFINE`).

    Raises:
        ConfigError: the pipeline crops nothing, or a setting does not fit.
        DataError: the data set is not there.
    """
    with config_mistakes(cfg):
        ours = build_dataset(cfg.data.train)

    def arguments(step: str) -> dict:
        try:
            return {name: value for name, value in step_arguments(cfg.data.train, step).items() if name != "type"}
        except KeyError:
            return {}

    def with_pipeline(*steps: dict) -> RoadDataset:
        other = copy.copy(ours)
        other.pipeline = Compose(steps)
        return other

    crop = arguments("RandomCrop") or arguments("RandomAffineCrop")
    if "crop_size" not in crop:
        raise ConfigError(f"{cfg.filename}: the training pipeline has no RandomCrop; nothing to compare it with")
    size = tuple(crop["crop_size"])
    resize = arguments("Resize") or dict(img_scale=tuple(side * 5 // 4 for side in size), ratio_range=(0.5, 2.0))
    normalize = arguments("Normalize")
    last = dict(type="DefaultFormatBundle"), dict(type="Collect", keys=["img", "gt_semantic_seg"])
    found = {}
    if len(normalize.get("mean", (0, 0, 0))) == 3:
        found[PLAIN] = with_pipeline(
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="Resize", **resize),
            dict(type="RandomCrop", crop_size=size, cat_max_ratio=crop.get("cat_max_ratio", 0.75)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="Normalize", **normalize),
            dict(type="Pad", size=size, pad_val=0, seg_pad_val=255),
            *last,
        )
    found[OURS] = ours
    found[AFFINE] = with_pipeline(
        dict(type="LoadRoadImage", **arguments("LoadRoadImage")),
        dict(type="LoadRoadMask"),
        dict(type="RandomAffineCrop", crop_size=size, max_angle_deg=15, road_probability=0.5),
        dict(type="BandDistortion"),
        dict(type="BandNormalize", **normalize),
        *last,
    )
    return found


def step_seconds(datasets: dict[str, RoadDataset], images: int, rounds: int) -> dict[str, list[Counter[str]]]:
    """Return the seconds of each step for ``images`` images together, in one process, by pipeline and round."""

    def load(dataset: RoadDataset, seeds: Iterator[int]) -> Counter[str]:
        seed_everything(next(seeds))  # the same for every pipeline of a round
        seconds: Counter[str] = Counter()
        for index in itertools.islice(itertools.cycle(range(len(dataset))), images):
            sample = dict(img_info=dataset.img_infos[index], ann_info=dataset.get_ann_info(index))
            dataset.pre_pipeline(sample)
            for step in dataset.pipeline.transforms:
                start = time.perf_counter()
                sample = step(sample)
                seconds[type(step).__name__] += time.perf_counter() - start  # type: ignore[assignment]
        return seconds

    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as in training
    try:
        return in_turns({name: partial(load, one, itertools.count()) for name, one in datasets.items()}, rounds)
    finally:
        cv2.setNumThreads(threads)


def loader_seconds(
    datasets: dict[str, RoadDataset], cfg: Config, workers: int, batches: int, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of training's loader for ``batches`` batches, by pipeline and round.

    The start of its workers, and what they load ahead, does not count; give several times as many batches as
    ``workers``.
    """
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict({"data.workers_per_gpu": workers, "data.train_dataloader.workers_per_gpu": workers})
    process = Process(0, 1, torch.device("cpu"))

    def load(dataset: RoadDataset, seeds: Iterator[int]) -> float:
        draws = iter(training_loader(dataset, cfg, process, next(seeds)))
        deque(itertools.islice(draws, AHEAD * workers), maxlen=0)
        return timed(lambda: deque(itertools.islice(draws, batches), maxlen=0))()

    return in_turns({name: partial(load, one, itertools.count()) for name, one in datasets.items()}, rounds, warm_up=0)


def tables(cfg: Config, workers: int, images: int, rounds: int) -> str:
    """Return images a second of every pipeline, and milliseconds of every step, as Markdown."""
    datasets = compared_datasets(cfg)
    steps = step_seconds(datasets, images, rounds)
    totals: dict[str, list[float]] = {name: [one.total() for one in own] for name, own in steps.items()}
    columns = {"one process": (images, totals)}
    if workers:
        batch = batch_settings(cfg)["samples_per_gpu"]
        batches = max(4 * workers, images // batch)
        columns[f"{workers} workers"] = batches * batch, loader_seconds(datasets, cfg, workers, batches, rounds)
    header, rows = ["pipeline"], [[name] for name in datasets]
    for title, (count, seconds) in columns.items():
        header += [f"images/s, {title}", "ratio"]
        first = next(iter(seconds.values()))
        for row, own in zip(rows, seconds.values(), strict=True):
            row += [f"{count / median(own):.1f}", f"{ratio(first, own):.2f}"]

    def milliseconds(step: str, rounds: list[Counter[str]]) -> str:
        return f"{1000 * median(one[step] for one in rounds) / images:.2f}" if step in rounds[0] else ""

    names = dict.fromkeys(step for own in steps.values() for step in own[0])
    times = [[step, *(milliseconds(step, own) for own in steps.values())] for step in names]
    return f"{markdown_table(header, rows)}\n\n{markdown_table(['ms per image', *datasets], times)}"


def main() -> None:
    """Measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("config", nargs="?", help="a leaf below myconfigs/ (default: the paper's 1024 px crops)")
    add("--synthetic", action="store_true", help="generated tiles, as PNG and as JPEG, not the config's")
    add("--tile-px", type=int, default=1024, help="size of the generated tiles (default: 1024)")
    add("--images", type=int, default=16, help="images a round (default: 16)")
    add("--rounds", type=int, default=5, help="rounds, of which medians are taken (default: 5)")
    add("--workers", type=int, help="processes that load; 0: leave that out (default: the config's)")
    add_config_options(parser)
    args = parser.parse_args()

    if args.config is None and not args.synthetic:
        raise ConfigError("nothing to measure; give a config, or --synthetic for generated tiles")
    if min(args.images, args.rounds) < 1 or args.tile_px < 64 or (args.workers or 0) < 0:
        raise ConfigError("--images and --rounds take 1 or more, --tile-px 64 or more, --workers 0 or more")

    def show(title: str, options: dict) -> None:
        cfg = load_config(args.config or str(DEFAULT), {**options, **(args.cfg_options or {})})
        workers = cfg.data.workers_per_gpu if args.workers is None else args.workers
        sys.stdout.write(f"## {title}\n\n{tables(cfg, workers, args.images, args.rounds)}\n\n")

    sys.stdout.write(f"{machine_line()}\n\n")
    if not args.synthetic:
        show(args.config, {})
        return
    for kind in ("PNG", "JPEG"):
        with tempfile.TemporaryDirectory() as root:
            write_tiles(root, kind == "JPEG", args.tile_px)
            show(f"{kind} tiles, {args.tile_px} px", {"data.train.data_root": root})


if __name__ == "__main__":
    run_tool(main)
