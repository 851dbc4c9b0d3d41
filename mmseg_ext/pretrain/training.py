"""Pre-training and evaluation of a classifier on an image folder, in one or several processes, on CPU or GPU."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import os
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.utils import get_logger
from timm.data import Mixup
from timm.data.loader import PrefetchLoader
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler
from tqdm import tqdm

from .. import __version__
from ..engine.checkpoint import write_checkpoint
from ..engine.distributed import (
    DTYPES,
    Process,
    agreed_precision,
    on_first_process,
    seed_everything,
    share_batch_norm_statistics,
    start_process,
)
from ..engine.training import WORK_DIRS
from ..engine.weights import load_fitting
from ..errors import CheckpointError, ConfigError
from ..files import remove_partial_files, writing
from .classifiers import check_name, create_classifier, load_classifier
from .image_folder import (
    ImageFolder,
    image_loader,
    open_splits,
    training_transform,
    validation_loader,
    validation_transform,
)
from .settings import PAPER_TOTAL_BATCH, PretrainSettings

logger = logging.getLogger(__name__)

LAST, BEST, LOG = "last.pth", "best.pth", "log.json"


@torch.no_grad()
def measure_accuracy(
    model: nn.Module, loader: PrefetchLoader, process: Process, autocast: contextlib.AbstractContextManager
) -> dict[str, float]:
    """Return ``top1`` and ``top5``, 0 to 1, over the images of all processes, in every process."""
    model.eval()
    correct = torch.zeros(2, dtype=torch.int64, device=process.device)
    hidden = None if process.rank == 0 else True
    for images, labels in tqdm(loader, desc="evaluating", unit="batch", disable=hidden, leave=False):
        with autocast:
            logits = model(images)
        hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        correct += torch.stack((hits[:, 0].sum(), hits.sum()))
    if dist.is_initialized():
        dist.all_reduce(correct)
    top1, top5 = (correct.double() / len(loader.dataset)).tolist()
    return dict(top1=top1, top5=top5)


def evaluate_classifier(
    data: str,
    name: str,
    checkpoint: str,
    settings: PretrainSettings | None = None,
    model_options: dict | None = None,
    gpu_id: int = 0,
) -> dict[str, float]:
    """Evaluate ``checkpoint``, ours or published, on ``data/val``: ``top1`` and ``top5``, 0 to 1, in every process.

    Of the settings, image size, batch size, precision and workers are used; the rest is as in `pretrain`.

    Raises:
        UserError: data, weights or machine do not fit; the message says what to do.
    """
    check_name(name)
    settings = settings or PretrainSettings()
    process = start_process(gpu_id)
    autocast = _autocast(agreed_precision(settings.precision, process), process)
    dataset = ImageFolder(data, "val")
    model = create_classifier(name, len(dataset.classes), model_options)
    load_classifier(model, name, checkpoint)
    dataset.transform = validation_transform(model, settings.image_size)
    loader = validation_loader(dataset, settings, process)
    return measure_accuracy(model.to(process.device), loader, process, autocast)


def _autocast(precision: str, process: Process) -> torch.autocast:
    dtype = DTYPES[precision]
    return torch.autocast(process.device.type, dtype=dtype, enabled=dtype is not None)


class _Training:
    """One run: everything that changes from step to step, and what a checkpoint holds of it."""

    def __init__(
        self,
        name: str,
        settings: PretrainSettings,
        train: ImageFolder,
        val: ImageFolder,
        process: Process,
        model_options: dict | None,
    ) -> None:
        self.settings, self.process = settings, process
        facts = dict(model_options=model_options or {}, classes=train.classes, settings=asdict(settings))
        self.meta = dict(mmseg_ext_version=__version__, architecture=name, **facts)
        precision = agreed_precision(settings.precision, process)
        self.autocast = _autocast(precision, process)
        self.scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")

        seed_everything(settings.seed)
        model = create_classifier(name, len(train.classes), model_options, drop_path_rate=settings.drop_path)
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(process.device).to(memory_format=self.layout)
        self.averaged = None
        if settings.ema_decay:
            self.averaged = ModelEmaV3(self.model, decay=settings.ema_decay, use_warmup=True)
        self.parallel: nn.Module = self.model
        if dist.is_initialized():
            devices = [process.device] if process.device.type == "cuda" else None
            self.parallel = DistributedDataParallel(self.model, device_ids=devices, broadcast_buffers=False)

        train.transform = training_transform(settings)
        val.transform = validation_transform(model, settings.image_size)
        self.sampler: DistributedSampler = DistributedSampler(
            train, process.world_size, process.rank, seed=settings.seed, drop_last=True
        )
        self.train_loader = image_loader(train, self.sampler, settings, process, training=True)
        self.val_loader = validation_loader(val, settings, process)
        self.steps = len(self.train_loader)

        alphas, smoothing = (settings.mixup, settings.cutmix), settings.smoothing
        self.mixup, self.criterion = None, nn.CrossEntropyLoss(label_smoothing=smoothing)
        if any(alphas):  # mixup smooths the labels itself
            self.mixup = Mixup(*alphas, label_smoothing=smoothing, num_classes=model.num_classes)
            self.criterion = nn.CrossEntropyLoss()
        self.optimizer = create_optimizer_v2(self.model, "adamw", settings.lr, settings.weight_decay)
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=settings.epochs * self.steps,
            lr_min=settings.min_lr,
            warmup_t=settings.warmup_epochs * self.steps,
            warmup_lr_init=settings.warmup_lr,
            t_in_epochs=False,
        )
        self.epoch, self.best = 0, -1.0
        self.steps_here, self.started = 0, time.monotonic()

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are evaluated and become ``best.pth``."""
        return self.averaged.module if self.averaged else self.model

    def resume(self, path: str) -> None:
        """Continue after the last complete epoch.

        Raises:
            CheckpointError: the file is damaged, holds no training state, or is of another model or data.
        """
        name = self.meta["architecture"]
        checkpoint = load_classifier(self.model, name, path)
        if not {"meta", "optimizer", "epoch", "best"} <= checkpoint.keys():
            raise CheckpointError(f"{path}: holds weights but no training state; choose another --work-dir")
        if self.averaged:
            load_fitting(self.averaged.module, checkpoint.get("averaged") or checkpoint["state_dict"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        self.epoch, self.best = checkpoint["epoch"], checkpoint["best"]
        before, now = checkpoint["meta"]["settings"], self.meta["settings"]
        logger.info("resumed from %s after epoch %d", path, self.epoch)
        if changed := [f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key]]:
            logger.warning("settings that differ from the run so far: %s", ", ".join(changed))

    def train_epoch(self) -> float:
        """Train one pass over the images and return its mean loss over all processes; a ConfigError if not finite.

        All random numbers follow from seed, epoch and rank: a resumed run repeats what a run at a stretch does.
        """
        place = [self.settings.seed, self.epoch, self.process.rank]
        seed_everything(int(np.random.SeedSequence(place).generate_state(1)[0]))
        self.sampler.set_epoch(self.epoch)
        self.parallel.train()
        total = torch.zeros((), device=self.process.device)
        for step, (images, labels) in enumerate(self.train_loader, start=1):
            total += self._step(images, labels, self.epoch * self.steps + step - 1)
            if step % self.settings.log_interval == 0 or step == self.steps:
                self._say(step, float(total) / step)
        if dist.is_initialized():
            dist.all_reduce(total)
        loss = float(total) / self.steps / self.process.world_size
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss became {loss} in epoch {self.epoch + 1}; give a lower --lr or --clip-grad 5, and "
                "--auto-resume to continue from the epoch before"
            )
        self.epoch += 1
        return loss

    def _step(self, images: Tensor, labels: Tensor, done: int) -> Tensor:
        """Train one batch after ``done`` steps and return its loss."""
        self.scheduler.step_update(done)
        if self.mixup:
            images, labels = self.mixup(images, labels)
        with self.autocast:
            loss = self.criterion(self.parallel(images.contiguous(memory_format=self.layout)), labels)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.settings.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad)
        scale = self.scaler.get_scale() if self.averaged else 1.0
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged and self.scaler.get_scale() >= scale:  # no step was taken where the gradients overflowed
            self.averaged.update(self.model, step=done + 1)
        self.steps_here += 1
        return loss.detach()

    def _say(self, step: int, loss: float) -> None:
        seconds = (time.monotonic() - self.started) / self.steps_here
        left = (self.settings.epochs - self.epoch) * self.steps - step
        eta, lr = datetime.timedelta(seconds=int(seconds * left)), self.optimizer.param_groups[0]["lr"]
        logger.info(
            f"epoch {self.epoch + 1}/{self.settings.epochs}, step {step}/{self.steps}, lr: {lr:.3e}, eta: {eta}, "
            f"time: {seconds:.3f}, loss: {loss:.4f}"
        )

    def evaluate(self) -> dict[str, float]:
        """Return the accuracy of the weights that the checkpoints hold."""
        share_batch_norm_statistics(self.model)
        share_batch_norm_statistics(self.evaluated)
        return measure_accuracy(self.evaluated, self.val_loader, self.process, self.autocast)

    def save(self, work_dir: str, loss: float, scores: dict[str, float]) -> None:
        """Write the checkpoints of the epoch just done and its line in the log."""
        weights = "averaged" if self.averaged else "last"
        if scores["top1"] > self.best:
            self.best = scores["top1"]
            meta = {**self.meta, **scores, "epoch": self.epoch, "weights": weights}
            write_checkpoint(dict(meta=meta, state_dict=self.evaluated.state_dict()), os.path.join(work_dir, BEST))
        content: dict[str, Any] = dict(
            meta=self.meta,
            state_dict=self.model.state_dict(),
            averaged=self.averaged.module.state_dict() if self.averaged else None,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            epoch=self.epoch,
            best=self.best,
        )
        write_checkpoint(content, os.path.join(work_dir, LAST))
        line = dict(epoch=self.epoch, lr=self.optimizer.param_groups[0]["lr"], loss=loss, **scores, best=self.best)
        path = os.path.join(work_dir, LOG)
        with writing(path, "checkpoints are intact"), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        top1, top5, best = (f"{100 * share:.2f} %" for share in (scores["top1"], scores["top5"], self.best))
        logger.info(
            f"epoch {self.epoch}: loss {loss:.4f}, top-1 {top1}, top-5 {top5} ({weights} weights), best top-1 {best}"
        )


def _prepare_work_dir(work_dir: str, auto_resume: bool) -> None:
    if not auto_resume and os.path.exists(os.path.join(work_dir, LAST)):
        raise ConfigError(f"{work_dir}: holds a run; give --auto-resume to continue it, or another --work-dir")
    with writing(work_dir, "choose another --work-dir"):
        os.makedirs(work_dir, exist_ok=True)
        if not auto_resume:
            Path(work_dir, LOG).unlink(missing_ok=True)
    remove_partial_files(work_dir)


def pretrain(
    data: str,
    name: str,
    settings: PretrainSettings | None = None,
    work_dir: str | None = None,
    auto_resume: bool = False,
    model_options: dict | None = None,
    gpu_id: int = 0,
) -> str:
    """Train the classifier ``name`` on an image folder and return the work dir.

    ``best.pth`` in it holds the weights of the best epoch: `load_pretrained` reads it, so it goes into
    ``model.backbone.init_cfg.checkpoint`` of a segmentation config. ``last.pth`` holds the whole state after the last
    complete epoch, ``log.json`` a line per epoch.

    Args:
        data: folder with ``train`` and ``val``, one folder per class in each.
        name: of `mmseg_ext.pretrain.CLASSIFIERS`.
        settings: the paper's when None.
        work_dir: where the results go; ``work_dirs/pretrain/<name>`` when None.
        auto_resume: continue after the last complete epoch of ``work_dir``, if there is one.
        model_options: arguments of `MSCAN` that differ from the config, dotted keys allowed.
        gpu_id: the GPU of a single process.

    Raises:
        UserError: data, settings, checkpoint or machine do not fit; the message says what to do.
    """
    check_name(name)
    settings = settings or PretrainSettings()
    process = start_process(gpu_id)
    work_dir = work_dir or os.path.join(WORK_DIRS, "pretrain", name)
    train, val = open_splits(data)
    total = settings.batch_size * process.world_size
    if total > len(train):
        raise ConfigError(
            f"--batch-size {settings.batch_size} x {process.world_size} process(es) is more than the {len(train)} "
            f"training images of {data}; give {len(train) // process.world_size // 2 * 2} or fewer"
        )
    torch.backends.cudnn.benchmark = True
    run = _Training(name, settings, train, val, process, model_options)
    on_first_process(process, lambda: _prepare_work_dir(work_dir, auto_resume))
    shown = get_logger("pretrain", os.path.join(work_dir, f"{time.strftime('%Y%m%d_%H%M%S')}.log"))
    logging.getLogger("mmseg_ext").handlers = shown.handlers
    logging.getLogger("mmseg_ext").setLevel(shown.level)
    logger.info(
        f"{name}: {process.world_size} process(es) on {process.device.type}, {len(train)} training and {len(val)} "
        f"validation images of {len(train.classes)} classes, work dir {work_dir}"
    )
    if total != PAPER_TOTAL_BATCH:
        logger.info(
            f"total batch {total}, not the paper's {PAPER_TOTAL_BATCH}: the learning rate stays {settings.lr:g}; "
            f"scaled linearly it would be --lr {settings.lr * total / PAPER_TOTAL_BATCH:.3g}"
        )
    last = os.path.join(work_dir, LAST)
    if auto_resume and os.path.exists(last):
        run.resume(last)
    if run.epoch >= settings.epochs:
        logger.info("%s: all %d epochs are done already", work_dir, settings.epochs)
    while run.epoch < settings.epochs:
        loss = run.train_epoch()
        scores = run.evaluate()
        on_first_process(process, partial(run.save, work_dir, loss, scores))
    return work_dir
