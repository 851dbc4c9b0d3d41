"""How fast training images are loaded, against MMSegmentation's own pipeline and against training itself."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import cv2
import torch
from mmcv import Config
from mmseg.datasets import build_dataset
from mmseg.datasets.pipelines import Compose
from PIL import Image

from ..datasets import RoadDataset, generate_mine
from ..errors import ConfigError
from .config import config_mistakes, step_arguments
from .distributed import Process, seed_everything
from .training import training_loader

PLAIN = "MMSegmentation"
OURS = "this config"
AFFINE = "RandomAffineCrop"
_AHEAD = 2  # batches that a worker of torch's loader prepares before they are asked for


@dataclass
class LoadingSpeed:
    """Speed of one pipeline.

    Attributes:
        images_per_s: in one process, median of all rounds.
        ratio: ``images_per_s`` over that of the first pipeline, median of each round's ratio.
        step_ms: milliseconds per image of each step, median of all rounds.
    """

    images_per_s: float
    ratio: float
    step_ms: dict[str, float] = field(default_factory=dict)


def write_tiles(root: str, suffix: str, count: int = 4, size_px: int = 1024) -> None:
    """Write generated mines as a data set in the VOC layout whose training split lists them all.

    Args:
        root: new folder.
        suffix: ``.png`` or ``.jpg``, of the images.
        count: number of tiles.
        size_px: rows and columns of a tile.
    """
    folders = [os.path.join(root, name) for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")]
    for folder in folders:
        os.makedirs(folder, exist_ok=True)
    for seed in range(count):
        mine = generate_mine(seed, size_px, gsd_m=max(1.0, 256 / size_px))
        Image.fromarray(mine.image).save(os.path.join(folders[0], f"mine{seed}{suffix}"), quality=92)
        Image.fromarray(mine.mask).save(os.path.join(folders[1], f"mine{seed}.png"))
    with open(os.path.join(folders[2], "train.txt"), "w", encoding="utf-8") as lines:
        lines.writelines(f"mine{seed}\n" for seed in range(count))


def _arguments(cfg: Config, step_type: str) -> dict:
    """Return the arguments of a training step without its type, empty where the pipeline has no such step."""
    try:
        found = dict(step_arguments(cfg.data.train, step_type))
    except KeyError:
        return {}
    found.pop("type")
    return found


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
    crop = _arguments(cfg, "RandomCrop") or _arguments(cfg, "RandomAffineCrop")
    if "crop_size" not in crop:
        raise ConfigError(f"{cfg.filename}: the training pipeline has no RandomCrop; nothing to compare it with")
    size = tuple(crop["crop_size"])
    resize = _arguments(cfg, "Resize") or dict(img_scale=tuple(side * 5 // 4 for side in size), ratio_range=(0.5, 2.0))
    normalize = dict(type="Normalize", **_arguments(cfg, "Normalize"))
    last: list[dict] = [dict(type="DefaultFormatBundle"), dict(type="Collect", keys=["img", "gt_semantic_seg"])]
    plain: list[dict] = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations"),
        dict(type="Resize", **resize),
        dict(type="RandomCrop", crop_size=size, cat_max_ratio=crop.get("cat_max_ratio", 0.75)),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        normalize,
        dict(type="Pad", size=size, pad_val=0, seg_pad_val=255),
        *last,
    ]
    affine: list[dict] = [
        dict(type="LoadRoadImage", **_arguments(cfg, "LoadRoadImage")),
        dict(type="LoadRoadMask"),
        dict(type="RandomAffineCrop", crop_size=size, max_angle_deg=15, road_probability=0.5),
        dict(type="BandDistortion"),
        {**normalize, "type": "BandNormalize"},
        *last,
    ]
    three_bands = len(normalize.get("mean", (0, 0, 0))) == 3
    found = {PLAIN: _with_pipeline(ours, plain)} if three_bands else {}
    return {**found, OURS: ours, AFFINE: _with_pipeline(ours, affine)}


def _with_pipeline(dataset: RoadDataset, steps: Sequence[dict]) -> RoadDataset:
    """Return ``dataset`` with another pipeline, whose types are taken as they are named."""
    other = copy.copy(dataset)
    other.pipeline = Compose(steps)
    return other


def measure_loading(
    datasets: dict[str, RoadDataset], images: int = 16, rounds: int = 5, seed: int = 0
) -> dict[str, LoadingSpeed]:
    """Measure pipelines in this process, turn by turn, so that a busy machine slows all of them alike.

    Args:
        datasets: training data sets by name; ratios are to the first.
        images: images that each pipeline loads in a round.
        rounds: rounds; the first further round warms up and does not count.
        seed: of the augmentation, the same for every pipeline of a round.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # as in training
    times: dict[str, list[dict[str, float]]] = {name: [] for name in datasets}
    try:
        for turn in range(rounds + 1):
            for name, dataset in datasets.items():
                seed_everything(seed + turn)
                seconds = _seconds_by_step(dataset, images)
                if turn:
                    times[name].append(seconds)
    finally:
        cv2.setNumThreads(threads)
    rates = {name: [images / sum(seconds.values()) for seconds in times[name]] for name in datasets}
    first = next(iter(rates.values()))
    return {
        name: LoadingSpeed(
            images_per_s=median(rates[name]),
            ratio=median(rate / other for rate, other in zip(rates[name], first, strict=True)),
            step_ms={step: median(1e3 * s[step] / images for s in times[name]) for step in times[name][0]},
        )
        for name in datasets
    }


def _seconds_by_step(dataset: RoadDataset, images: int) -> dict[str, float]:
    """Return the seconds that each step takes for ``images`` images together."""
    seconds: dict[str, float] = {}
    for number in range(images):
        index = number % len(dataset)
        results = dict(img_info=dataset.img_infos[index], ann_info=dataset.get_ann_info(index))
        dataset.pre_pipeline(results)
        for step in dataset.pipeline.transforms:
            start = time.perf_counter()
            results = step(results)
            name = type(step).__name__
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
    return seconds


def measure_workers(
    datasets: dict[str, RoadDataset], cfg: Config, workers: int, batches: int = 16, rounds: int = 3, seed: int = 0
) -> dict[str, LoadingSpeed]:
    """Measure the loader of training, turn by turn; the start of its workers does not count.

    Args:
        datasets: training data sets by name; ratios are to the first.
        cfg: config with the batch size.
        workers: processes that load.
        batches: batches that each loader hands over in a round, after those that were loaded ahead; give several
            times ``workers``.
        rounds: rounds.
        seed: of order and augmentation.
    """
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict({"data.workers_per_gpu": workers, "data.train_dataloader.workers_per_gpu": workers})
    images = batches * {**cfg.data, **cfg.data.train_dataloader}["samples_per_gpu"]
    process = Process(0, 1, torch.device("cpu"))
    rates: dict[str, list[float]] = {name: [] for name in datasets}
    for turn in range(rounds):
        for name, dataset in datasets.items():
            draws = iter(training_loader(dataset, cfg, process, seed + turn))
            _draw(draws, max(1, _AHEAD * workers))
            rates[name].append(images / _draw(draws, batches))
    first = next(iter(rates.values()))
    return {
        name: LoadingSpeed(median(own), median(rate / other for rate, other in zip(own, first, strict=True)))
        for name, own in rates.items()
    }


def _draw(batches: Iterator, count: int) -> float:
    """Return the seconds until ``count`` batches have come."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - start
