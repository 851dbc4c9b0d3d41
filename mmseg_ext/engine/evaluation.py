"""Evaluation of a network on a data set, in any number of processes: predictions, region scores, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmcv import Config
from mmcv.parallel import collate
from mmcv.utils import print_log
from mmseg.core import EvalHook as MMSegEvalHook
from mmseg.datasets import build_dataset
from mmseg.datasets.custom import CustomDataset
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..checks.doctor import check_datasets
from ..errors import ConfigError
from ..files import writing
from ..report.pictures import panel, save_picture
from .checkpoint import point_to
from .config import config_mistakes
from .distributed import (
    DTYPES,
    DistributedSegmentor,
    LocalSegmentor,
    Process,
    agreed_precision,
    gather_by_index,
    gpu_memory,
    on_first_process,
    share_batch_norm_statistics,
    start_process,
    wrap,
)
from .runner import SafeIterRunner
from .weights import build_network, check_classes, load_weights

if TYPE_CHECKING:
    from .road_scorer import RoadScorer

_TINY = torch.finfo(torch.float32).tiny
EVALUATED_WHOLE = (
    "an image was evaluated as a whole; evaluate it in parts: --cfg-options model.test_cfg.mode=slide "
    "model.test_cfg.crop_size=[1024,1024] model.test_cfg.stride=[768,768]"
)
METRICS = ("mIoU", "mDice", "mFscore", "road")


def evaluation_loader(dataset: CustomDataset, process: Process, workers: int) -> DataLoader:
    """Return a loader of single images: process ``rank`` reads every ``world_size``-th, none twice."""
    return DataLoader(
        dataset,
        batch_size=1,
        sampler=range(process.rank, len(dataset), process.world_size),
        num_workers=workers,
        collate_fn=partial(collate, samples_per_gpu=1),
        pin_memory=process.device.type == "cuda",
    )


@dataclass(frozen=True)
class Prediction:
    """The prediction of a network for one image.

    Attributes:
        index: of the image in its data set.
        labels: class indices (H, W).
        probabilities: of each class (classes, H, W), on the network's device; of the one class above the background
            where the network has a single output.
    """

    index: int
    labels: np.ndarray
    probabilities: torch.Tensor


def predict_dataset(
    model: LocalSegmentor | DistributedSegmentor, loader: DataLoader, quarter_turns: Sequence[int] = (0,)
) -> Iterator[Prediction]:
    """Yield the prediction of every image that ``loader`` reads in this process.

    Args:
        model: the wrapped network.
        loader: what `evaluation_loader` returned.
        quarter_turns: rotations to average over, in steps of 90 degrees.
    """
    model.eval()
    shown = tqdm(loader, desc="evaluating", unit="image", disable=None, leave=False)
    for index, batch in zip(loader.sampler, shown, strict=True):
        found = model.probabilities(batch, quarter_turns)
        labels = found[0] > model.module.decode_head.threshold if len(found) == 1 else found.argmax(dim=0)
        yield Prediction(index, labels.cpu().numpy(), found)


def evaluate_dataset(
    model: LocalSegmentor | DistributedSegmentor,
    loader: DataLoader,
    on_prediction: Callable[[Prediction], None] | None = None,
    quarter_turns: Sequence[int] = (0,),
) -> list:
    """Return the areas per class of every image of the data set, in its order, in every process.

    Sums over them do not depend on the number of processes. ``on_prediction`` sees the images of this process; for the
    rest see `predict_dataset`.
    """
    areas = {}
    dataset: CustomDataset = loader.dataset
    for found in predict_dataset(model, loader, quarter_turns):
        (areas[found.index],) = dataset.pre_eval([found.labels], [found.index])
        if on_prediction is not None:
            on_prediction(found)
    return gather_by_index(areas)


@torch.no_grad()
def validation_loss(head: Any, dataset: CustomDataset, found: Prediction) -> float:
    """Return the loss of a prediction as the decode head computes it in training; nan where all is ignored.

    Without augmentation the logarithm of the probabilities is the scores, up to what a softmax does not see.
    """
    truth = torch.from_numpy(dataset.get_gt_seg_map_by_idx(found.index)).to(found.probabilities.device).long()
    if (truth == dataset.ignore_index).all():
        return float("nan")
    chances = found.probabilities.float()
    scores = chances.logit(eps=1e-6) if len(chances) == 1 else chances.clamp_min(_TINY).log()
    losses = head.losses(scores[None], truth[None, None])
    return sum(float(value) for name, value in losses.items() if "loss" in name)


class EvalHook(MMSegEvalHook):
    """Evaluates at an interval and at the end, in all processes together, and keeps the best checkpoint.

    Runs before the checkpoint hook, so that a checkpoint knows the best score of its own iteration.

    Args:
        loss: log the mean of the decode head's loss over the validation images too, as ``loss``.
        args: of MMSegmentation's hook, as ``kwargs``.
        kwargs: likewise.

    Attributes:
        on_prediction: called with the prediction of each image of this process.
        scores: of the last evaluation; in the first process.
        evaluated_iter: iteration of the last evaluation, from 0.
    """

    on_prediction: Callable[[Prediction], None] | None = None

    def __init__(self, *args: Any, loss: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss = loss
        self.scores: dict[str, float] = {}
        self.evaluated_iter = -1

    def _should_evaluate(self, runner: SafeIterRunner) -> bool:
        return super()._should_evaluate(runner) or self.is_last_iter(runner)

    def _do_evaluate(self, runner: SafeIterRunner) -> None:
        if not self._should_evaluate(runner):
            return
        runner.share_gradients()
        tuned = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = False  # images of any size: each would be tuned anew
        with runner.evaluated_weights():
            share_batch_norm_statistics(runner.network)
            local = LocalSegmentor(runner.network, runner.model.device_used, runner.model.autocast_dtype)
            losses: dict[int, float] = {}

            def visit(found: Prediction) -> None:
                if self.loss:
                    losses[found.index] = validation_loss(runner.network.decode_head, self.dataloader.dataset, found)
                if self.on_prediction is not None:
                    self.on_prediction(found)

            results = evaluate_dataset(local, self.dataloader, visit)
        torch.backends.cudnn.benchmark = tuned
        runner.model.train()
        means = gather_by_index(losses)
        self.evaluated_iter = runner.iter
        if runner.rank == 0:
            runner.log_buffer.output["eval_iter_num"] = runner.iter + 1
            score = self.evaluate(runner, results)
            if means:
                runner.log_buffer.output["loss"] = float(np.nanmean(means))
            self.scores = {k: v for k, v in runner.log_buffer.output.items() if isinstance(v, float)}
            if self.save_best and score is not None and not runner.skipped_in_a_row:
                self._save_ckpt(runner, score)

    def _save_ckpt(self, runner: SafeIterRunner, key_score: float) -> None:
        notes = runner.meta["hook_msgs"]
        if "best_score" in notes and not self.compare_func(key_score, notes["best_score"]):
            return
        previous = notes.get("best_ckpt")
        name = f"best_{self.key_indicator}_iter_{runner.iter + 1}.pth"
        notes["best_score"] = float(key_score)
        notes["best_ckpt"] = os.path.join(self.out_dir, name)
        runner.save_checkpoint(self.out_dir, filename_tmpl=name, create_symlink=False)
        point_to(notes["best_ckpt"], os.path.join(self.out_dir, "best.pth"))
        if previous and previous != notes["best_ckpt"] and os.path.isfile(previous):
            os.remove(previous)
        runner.logger.info("best %s so far: %.4f, saved as %s", self.key_indicator, key_score, name)


def image_name(dataset: CustomDataset, index: int) -> str:
    """Return the name of an image's files, without suffix."""
    return os.path.splitext(dataset.img_infos[index]["filename"])[0]


class PredictionWriter:
    """Writes each prediction as a label PNG, as a picture beside image and truth, or both.

    Args:
        mask_dir: folder for label PNGs, or None.
        show_dir: folder for pictures, or None.
        opacity: of the tint in the pictures, 0 to 1.

    Raises:
        ConfigError: a folder cannot be made.
    """

    def __init__(self, mask_dir: str | None, show_dir: str | None, opacity: float = 0.6) -> None:
        self.mask_dir, self.show_dir, self.opacity = mask_dir, show_dir, opacity
        for folder in filter(None, (mask_dir, show_dir)):
            with writing(folder, "choose another folder"):
                os.makedirs(folder, exist_ok=True)

    def __call__(self, dataset: CustomDataset, found: Prediction) -> None:
        """Write the prediction of one image."""
        index = found.index
        stem = image_name(dataset, index)
        labels = np.asarray(found.labels, np.uint8)
        if self.mask_dir:
            picture = Image.fromarray(labels).convert("P")
            picture.putpalette(np.asarray(dataset.PALETTE, np.uint8).tobytes())
            path = os.path.join(self.mask_dir, f"{stem}.png")
            with writing(path):
                picture.save(path)
        if self.show_dir:
            truth = dataset.get_gt_seg_map_by_idx(index) if dataset.ann_dir else None
            image = dataset.picture(index)
            path = os.path.join(self.show_dir, f"{stem}.png")
            save_picture(path, panel(image, labels, truth, dataset.PALETTE, self.opacity))


@gpu_memory(EVALUATED_WHOLE)
def evaluate_checkpoint(
    cfg: Config,
    checkpoint: str,
    metrics: Sequence[str] = ("mIoU",),
    gpu_id: int = 0,
    on_prediction: Callable[[CustomDataset, Prediction], None] | None = None,
    road_scorer: RoadScorer | None = None,
    facts: Mapping[str, object] | None = None,
    prepare: Callable[[nn.Module, torch.device], nn.Module] | None = None,
) -> dict[str, float]:
    """Evaluate ``checkpoint`` on the test split of ``cfg`` and return the metrics, 0 to 1, in every process.

    Args:
        cfg: what `load_config` returned.
        checkpoint: weights that fit ``cfg`` (.pth or .safetensors).
        metrics: of `METRICS`; empty to predict only (the split then needs no masks).
        gpu_id: the GPU of a single process.
        on_prediction: called with the data set and the prediction of each image of this process.
        road_scorer: used if ``road`` is among ``metrics``; scores and report go to its folder. Default: one without.
        facts: what the files in that folder say beside the scores.
        prepare: called with the network and the device, returns a segmentor that predicts on a backend, which then
            decides the precision; None: eager, as in training.

    Raises:
        UserError: data, config, weights or machine do not fit; the message says what to do.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise ConfigError(f"--eval {metric}: unknown metric; choose from {', '.join(METRICS)}")
    process = start_process(gpu_id)
    precision = agreed_precision(cfg.get("precision", "fp32"), process)
    with config_mistakes(cfg):
        dataset = build_dataset(cfg.data.test, dict(test_mode=True))
    check_classes(cfg, dataset)
    if metrics:
        on_first_process(process, lambda: check_datasets(test=dataset))
    with config_mistakes(cfg):
        model = build_network(cfg, initialise=False)
    load_weights(model, checkpoint)
    if prepare is not None:
        model, precision = prepare(model, process.device), "fp32"
    model = wrap(model, process, DTYPES[precision], channels_last=cfg.get("channels_last", False))
    loader = evaluation_loader(dataset, process, cfg.data.workers_per_gpu)

    turns = cfg.get("test_rotations", (0,))
    scorer = road_scorer if "road" in metrics else None
    if "road" in metrics and scorer is None:
        from .road_scorer import RoadScorer

        scorer = RoadScorer()
    if scorer is not None:
        scorer.take_threshold_of(model.module.decode_head)

    def visit(found: Prediction) -> None:
        if scorer is not None:
            scorer(dataset, found)
        if on_prediction is not None:
            on_prediction(dataset, found)

    if not metrics:
        for found in predict_dataset(model, loader, turns):
            visit(found)
        return {}
    if process.rank == 0:
        print_log(f"{checkpoint}: {len(dataset)} image(s) of {dataset.split}")
    results = evaluate_dataset(model, loader, visit, turns)
    logger = None if process.rank == 0 else "silent"
    region = [metric for metric in metrics if metric != "road"]
    scores = dataset.evaluate(results, region, logger=logger) if region else {}
    if scorer is not None:
        images = scorer.gather()
        if scorer.folder is not None:
            on_first_process(process, lambda: scorer.write(dataset, images, facts or {}))
        road, table = scorer.total(images)
        print_log("\n" + table, logger=logger)
        scores |= road
    return scores
