"""Training of a config, in one or several processes, on CPU or GPU."""

from __future__ import annotations

import atexit
import contextlib
import copy
import logging
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from functools import partial
from types import TracebackType

import cv2
import torch
from mmcv import Config
from mmcv.parallel import collate
from mmcv.runner import build_runner
from mmseg.datasets import build_dataset
from mmseg.datasets.builder import worker_init_fn
from mmseg.datasets.custom import CustomDataset
from mmseg.utils import get_root_logger
from torch import nn
from torch.utils.data import DataLoader

from .. import __version__
from ..checks.doctor import check_datasets
from ..datasets.several import build_training_set, common_reading
from ..errors import ConfigError
from ..imagery import ImageReading
from .checkpoint import disk_full_error, latest_checkpoint, only_one, prepare_work_dir, trim_logs
from .complexity import memory_advice
from .config import batch_settings, config_mistakes
from .distributed import (
    DTYPES,
    DistributedSegmentor,
    InfiniteSampler,
    LocalSegmentor,
    Process,
    SeededDraws,
    agreed_precision,
    on_first_process,
    seed_everything,
    start_process,
    to_device,
    wrap,
)
from .evaluation import EvalHook, evaluation_loader
from .hooks import (
    SIGNALS,
    EarlyStopping,
    NonFiniteGuard,
    PredictionSamplesHook,
    ProgressBar,
    SafeCheckpointHook,
    StopOnSignal,
)
from .loggers import check_loggers
from .runner import SafeIterRunner, training_optimizer
from .weights import MIN_SHARE, build_network, check_classes, check_losses, load_start_weights

WORK_DIRS = "work_dirs"


def train(
    cfg: Config,
    work_dir: str | None = None,
    seed: int = 0,
    deterministic: bool = False,
    validate: bool = True,
    auto_resume: bool = False,
    gpu_id: int = 0,
) -> str:
    """Train the network of ``cfg`` and return the work dir with its checkpoints and logs.

    Args:
        cfg: what `load_config` returned. ``resume_from`` continues a run, ``load_from`` starts from weights.
        work_dir: where checkpoints and logs go; ``work_dirs/<config name>`` when None.
        seed: seed of weights, data order, augmentation and NMF bases.
        deterministic: ask torch, cuDNN and cuBLAS for reproducible algorithms on a GPU; what has none warns.
        validate: evaluate at the config's interval and keep the best checkpoint.
        auto_resume: continue from the newest complete checkpoint of ``work_dir``, if there is one.
        gpu_id: the GPU of a single process.

    Raises:
        UserError: data, config, weights or machine do not fit; the message says what to do.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when a GPU is first used
    process = start_process(gpu_id)
    atexit.register(end_workers)
    name = os.path.splitext(os.path.basename(cfg.filename))[0]
    work_dir = work_dir or cfg.get("work_dir") or os.path.join(WORK_DIRS, name)
    with contextlib.ExitStack() as held:
        with config_mistakes(cfg):
            runner, loader = _prepare(cfg, process, work_dir, seed, deterministic, validate, auto_resume, held)
        if runner.iter >= runner.max_iters:
            runner.logger.info("%s: all %d iterations are done already", work_dir, runner.max_iters)
        else:
            with disk_full_error(work_dir), memory_advice(cfg, runner):
                runner.run([loader], [("train", 1)])
    return work_dir


def _prepare(
    cfg: Config,
    process: Process,
    work_dir: str,
    seed: int,
    deterministic: bool,
    validate: bool,
    auto_resume: bool,
    held: contextlib.ExitStack,
) -> tuple[SafeIterRunner, DataLoader]:
    """Return the runner with everything registered, and the training loader; ``held`` keeps the lock."""
    for switch in ("channels_last", "find_unused_parameters"):
        if not isinstance(cfg.get(switch, False), bool):
            raise ConfigError(f"{switch}={cfg[switch]!r} is neither True nor False")
    check_loggers(cfg)
    precision = agreed_precision(cfg.get("precision", "fp32"), process)
    cv2.setNumThreads(0)
    torch.backends.cudnn.benchmark = bool(cfg.get("cudnn_benchmark")) and not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)

    dataset = build_training_set(cfg.data.train)
    reading = common_reading(dataset)
    val_dataset = build_dataset(cfg.data.val, dict(test_mode=True)) if validate else None
    check_classes(cfg, dataset)
    check_losses(cfg)

    def check_and_prepare() -> None:
        check_datasets(train=dataset, val=val_dataset)
        held.enter_context(only_one(work_dir))
        prepare_work_dir(work_dir, cfg, resumes=auto_resume or bool(cfg.get("resume_from")))

    on_first_process(process, check_and_prepare)
    timestamp = time.strftime("%Y%m%d_%H%M%S")
    logger = start_log(os.path.join(work_dir, f"{timestamp}.log"), cfg.get("log_level", "INFO"))
    further = [words for key, words in (("channels_last", "channels last"), ("compile", "compiled")) if cfg.get(key)]
    how = [f"{process.world_size} process(es) on {process.device.type}", precision, *further, f"seed {seed}"]
    images = f"{len(dataset)} training and {'no' if val_dataset is None else len(val_dataset)} validation images"
    logger.info("%s: %s, %s, work dir %s", os.path.basename(cfg.filename), ", ".join(how), images, work_dir)

    resume_from = cfg.get("resume_from") or (latest_checkpoint(work_dir) if auto_resume else None)
    if auto_resume and not resume_from:
        logger.info("%s: no complete checkpoint yet, starting from the first iteration", work_dir)
    seed_everything(seed)
    model = build_network(cfg, pretrained=not (resume_from or cfg.get("load_from")))
    if cfg.get("load_from") and not resume_from:
        load_start_weights(model, cfg.load_from, cfg.get("min_loaded_share", MIN_SHARE))
    model.CLASSES, model.PALETTE = dataset.CLASSES, dataset.PALETTE
    wrapped = wrap_for_training(model, cfg, process, precision)
    runner = build_runner(
        cfg.runner,
        dict(
            model=wrapped,
            optimizer=training_optimizer(model, _optimizer_settings(cfg, process, logger)),
            work_dir=work_dir,
            logger=logger,
            meta=_checkpoint_meta(cfg, dataset, reading, seed),
        ),
    )
    runner.timestamp, runner.seed = timestamp, seed
    runner.draws_per_iter = batch_settings(cfg)["samples_per_gpu"] * process.world_size
    register_step_hooks(runner, cfg, precision, cfg.log_config)
    if val_dataset is not None:
        val_loader = evaluation_loader(val_dataset, process, cfg.data.workers_per_gpu)
        runner.register_hook(EvalHook(val_loader, **{**cfg.evaluation, "by_epoch": False}), priority="LOW")
        runner.register_hook(PredictionSamplesHook(**cfg.get("sample_predictions", {})))
    if cfg.get("early_stopping"):
        if val_dataset is None:
            raise ConfigError("early_stopping needs the evaluation during the training; leave out --no-validate")
        runner.register_hook(EarlyStopping(**cfg.early_stopping), priority=80)  # before the last checkpoint
    runner.register_hook(ProgressBar())
    # after the evaluation, whose best score a checkpoint knows, and after the loggers, whose lines of this iteration a
    # resumed run will not write again
    runner.register_hook(SafeCheckpointHook(**cfg.checkpoint_config), priority=95)
    if threading.current_thread() is threading.main_thread():
        # last of all, so that the iteration is logged, evaluated and saved as usual first
        runner.register_hook(StopOnSignal(), priority="LOWEST")
    register_custom_hooks(runner, cfg)
    if resume_from:
        runner.resume(resume_from)
        on_first_process(process, lambda: trim_logs(work_dir, runner.iter))
    if not isinstance(runner.max_iters, int):
        raise ConfigError(f"runner.max_iters={runner.max_iters!r} is not an integer")
    return runner, training_loader(dataset, cfg, process, runner.seed, runner.draws)


def start_log(path: str, level: str) -> logging.Logger:
    """Return MMSegmentation's logger, which writes to the terminal and to ``path``, with ours joined to it."""
    logger = get_root_logger(path, level)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            # a full disk is reported once, by what stops the run
            handler.handleError = lambda record: None  # type: ignore[method-assign]
    logging.getLogger("mmseg_ext").handlers = logger.handlers
    logging.getLogger("mmseg_ext").setLevel(logger.level)
    return logger


def _optimizer_settings(cfg: Config, process: Process, logger: logging.Logger) -> dict:
    """Return the config's optimizer; the batch changes its learning rate only where ``lr_of_batch`` asks for it."""
    settings = copy.deepcopy(cfg.optimizer)
    images = batch_settings(cfg)["samples_per_gpu"]
    accumulated = dict(cfg.get("optimizer_config") or {}).get("accumulate", 1)
    batch = images * process.world_size * accumulated
    lr_of_batch, origin = cfg.get("lr_of_batch"), "as the config says"
    if lr_of_batch is not None:
        if not isinstance(lr_of_batch, (int, float)) or lr_of_batch <= 0:
            raise ConfigError(f"lr_of_batch={lr_of_batch!r} is not a number of images")
        settings["lr"] = settings["lr"] * batch / lr_of_batch
        origin = f"scaled from {cfg.optimizer['lr']:.4g} for {lr_of_batch}"
    parts = f"{images} x {process.world_size} processes x {accumulated} iterations"
    logger.info("%d images make one step (%s); learning rate %.4g, %s", batch, parts, settings["lr"], origin)
    return settings


def _checkpoint_meta(cfg: Config, dataset: CustomDataset, reading: ImageReading | None, seed: int) -> dict:
    """Return what a checkpoint tells of its origin; plain values only, so that reading it runs no code."""
    return dict(
        mmseg_ext_version=__version__,
        torch_version=str(torch.__version__),
        host=platform.node(),
        seed=seed,
        exp_name=os.path.basename(cfg.filename),
        config=cfg.pretty_text,
        CLASSES=list(dataset.CLASSES),
        PALETTE=[list(map(int, colour)) for colour in dataset.PALETTE],
        hook_msgs={},
        image=None if reading is None else reading.as_dict(),
    )


def wrap_for_training(
    model: nn.Module, cfg: Config, process: Process, precision: str
) -> LocalSegmentor | DistributedSegmentor:
    """Return ``model`` on this process's device, compiled where ``cfg`` asks for it, and ready to train."""
    if cfg.get("compile"):
        encoder: nn.Module = model.backbone  # type: ignore[assignment]
        encoder.compile(**(cfg.compile if isinstance(cfg.compile, dict) else {}))
    return wrap(
        model,
        process,
        DTYPES[precision],
        channels_last=cfg.get("channels_last", False),
        training=True,
        find_unused_parameters=cfg.get("find_unused_parameters", False),
    )


def register_step_hooks(runner: SafeIterRunner, cfg: Config, precision: str, log_config: dict | None = None) -> None:
    """Register what makes a step: learning rate, guard, backward pass, optimizer, and the loggers of ``log_config``."""
    optimizer_config = dict(cfg.get("optimizer_config") or {})
    optimizer_config.setdefault("type", "StepHook")
    if precision == "fp16" and optimizer_config["type"] == "StepHook":
        optimizer_config["scaled"] = True
    runner.register_training_hooks(copy.deepcopy(cfg.lr_config), optimizer_config, None, log_config)
    # before the optimizer takes its step
    runner.register_hook(NonFiniteGuard(**cfg.get("non_finite", {})), priority="HIGH")


def register_custom_hooks(runner: SafeIterRunner, cfg: Config) -> None:
    """Register the config's ``custom_hooks``."""
    for hook_cfg in cfg.get("custom_hooks") or []:
        runner.register_hook_from_cfg(hook_cfg)


def training_loader(dataset: CustomDataset, cfg: Config, process: Process, seed: int, draws: int = 0) -> DataLoader:
    """Return the endless loader of this process's training batches after ``draws`` images of all processes."""
    settings = batch_settings(cfg)
    batch_size, workers = settings["samples_per_gpu"], settings["workers_per_gpu"]
    shares = cfg.data.get("shares")
    sizes = [len(part) for part in getattr(dataset, "datasets", [dataset])]
    if shares is not None and (len(shares) != len(sizes) or min(shares) < 0 or sum(shares) <= 0):
        raise ConfigError(f"data.shares={list(shares)}: data.train has {len(sizes)} data set(s); give a share of each")
    return DataLoader(
        SeededDraws(dataset, seed),
        batch_size=batch_size,
        sampler=InfiniteSampler(sizes, seed, process.rank, process.world_size, start=draws, shares=shares),
        num_workers=workers,
        collate_fn=collate_plainly,
        pin_memory=process.device.type == "cuda",
        worker_init_fn=partial(_start_worker, num_workers=workers, rank=process.rank, seed=seed),
        persistent_workers=workers > 0,
    )


def collate_plainly(samples: list[dict]) -> dict:
    """Return one batch without mmcv's containers, whose memory torch's loader would not pin."""
    return to_device(collate(samples, samples_per_gpu=len(samples)), torch.device("cpu"))


def _start_worker(worker_id: int, num_workers: int, rank: int, seed: int) -> None:
    # a terminal or Slurm signals every process; the training process alone answers
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _say_unless_alone
    worker_init_fn(worker_id, num_workers=num_workers, rank=rank, seed=seed)


def _say_unless_alone(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of a loading process, but not that its training process is gone, which others report."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def end_workers() -> None:
    """Kill loading processes that are left at the end: Python would await them after a SIGTERM that they ignore."""
    for worker in multiprocessing.active_children():
        worker.kill()
