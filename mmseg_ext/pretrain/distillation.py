"""Teaching an encoder by the features of a pretrained network, on unlabelled images."""

from __future__ import annotations

import atexit
import contextlib
import copy
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, cast

import cv2
import timm
import torch
from mmcv import Config
from mmcv.runner import Hook
from mmseg.models.builder import build_backbone
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from .. import __version__
from ..deploy.trained import load_trained
from ..engine.checkpoint import (
    SCHEMA_VERSION,
    check_weights,
    disk_full_error,
    latest_checkpoint,
    only_one,
    prepare_work_dir,
    read_checkpoint,
    trim_logs,
    weights_sha256,
    write_checkpoint,
    write_safetensors,
)
from ..engine.config import CONFIG_ROOT, config_mistakes, load_config, step_arguments
from ..engine.distributed import Process, agreed_precision, on_first_process, seed_everything, start_process
from ..engine.hooks import ProgressBar, SafeCheckpointHook, StopOnSignal
from ..engine.publishing import git_revision
from ..engine.runner import SafeIterRunner, training_optimizer
from ..engine.training import (
    WORK_DIRS,
    end_workers,
    register_step_hooks,
    start_log,
    training_loader,
    wrap_for_training,
)
from ..engine.weights import build_network, load_pretrained
from ..errors import CheckpointError, ConfigError
from ..models.timm_encoder import TimmEncoder
from ..runtime.facts import NetworkFacts
from .classifiers import CLASSIFIERS
from .crops import Crops, list_images, split_held_out
from .distiller import Distiller
from .settings import DistilSettings
from .soft_labels import SoftLabels

ENCODER, SEGMENTOR = "encoder.safetensors", "segmentor.pth"
_MEASURED_BATCHES = 50
_HELD_OUT_CROPS = 32
# teachers whose weights an installed package brings: the config below myconfigs/_base_/models that says where
_PACKAGED = {"tf_efficientnet_lite0": "unet_lite0.py"}
_Norm = tuple[Sequence[float], Sequence[float]]
_IMAGENET: _Norm = tuple([255 * v for v in values] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))  # type: ignore[assignment]


def _model_config(name: str) -> Config:
    return Config.fromfile(str(CONFIG_ROOT / "_base_" / "models" / name))


def _student_config(name: str, options: dict | None) -> tuple[Config, _Norm]:
    """Return the config of the student and how its images are normalised; ``name`` is a config's or an encoder's."""
    if name in CLASSIFIERS:
        cfg = _model_config(CLASSIFIERS[name])
        if others := [key for key in options or {} if not key.startswith("model.")]:
            raise ConfigError(f"--cfg-options {others[0]}: {name} has a model only; give a config for other settings")
        with config_mistakes(cfg):
            cfg.merge_from_dict(options or {})
        return cfg, _IMAGENET
    cfg = load_config(name, options)
    try:
        normalize = step_arguments(cfg.data.test, "Normalize")
    except KeyError:
        raise ConfigError(f"{cfg.filename}: data.test has no Normalize, so mean and std are unknown; add it") from None
    return cfg, (normalize["mean"], normalize["std"])


def _build_student(cfg: Config, start: str | None, whole: bool) -> nn.Module:
    """Return the encoder of ``cfg``, or the ``whole`` network, with first weights.

    Those of the encoder come from the file ``start``, if there is one.
    """
    with config_mistakes(cfg):
        if whole:
            student = build_network(cfg, pretrained=False)
        else:
            settings = copy.deepcopy(cfg.model.backbone)
            settings.init_cfg = None
            student = build_backbone(settings)
            student.init_weights()
    if start:
        load_pretrained(student.backbone if whole else student, start)  # type: ignore[arg-type]
    return student


def _load_teacher(teacher: TimmEncoder, weights: str | None) -> None:
    """Load pretrained weights: ``weights``, or those that a package of ours brings, or timm's.

    Raises:
        CheckpointError: they are missing or do not fit.
    """
    if weights is None and teacher.name in _PACKAGED:
        weights = _model_config(_PACKAGED[teacher.name]).model.backbone.init_cfg.checkpoint
    try:
        load_pretrained(teacher, weights or f"timm://{teacher.name}")
    except CheckpointError as error:
        reason = str(error).partition("; to train without it")[0]
        raise CheckpointError(f"teacher {teacher.name}: {reason}; give others with --teacher-weights") from None


def _teacher_norm(name: str, own: bool) -> _Norm:
    known = timm.get_pretrained_cfg(name) if own else None
    return tuple([255 * v for v in values] for values in (known.mean, known.std)) if known else _IMAGENET  # type: ignore[return-value]


def _run_config(student: Config, settings: DistilSettings) -> Config:
    """Return what runs, as a config: the student, and optimizer, schedule and logs as ``settings`` say."""
    warmup = dict(warmup="linear", warmup_iters=settings.warmup_steps, warmup_ratio=1e-3)
    content = dict(
        model=student.model.to_dict(),
        data=dict(samples_per_gpu=settings.batch_size, workers_per_gpu=settings.workers),
        optimizer=dict(
            type="AdamW",
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            paramwise_cfg=dict(
                norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(layer_scale=dict(decay_mult=0.0))
            ),
        ),
        optimizer_config=dict(grad_clip=dict(max_norm=settings.clip_grad) if settings.clip_grad else None),
        lr_config=dict(
            policy="CosineAnnealing", min_lr=0.0, by_epoch=False, **(warmup if settings.warmup_steps else {})
        ),
        channels_last=settings.channels_last,
        log_config=dict(interval=settings.log_interval, hooks=[dict(type="TextLoggerHook", by_epoch=False)]),
    )
    return Config(content, cfg_text="", filename=student.filename)


class ExplainedVarianceHook(Hook):
    """Logs how much of the teacher's features on images held out the student explains: ``explained_4`` to ``_32``.

    Attributes:
        explained: by stride, of the last measurement.
    """

    def __init__(self, images: Sequence[Tensor], interval: int) -> None:
        self.images, self.interval = images, interval
        self.explained: dict[int, float] = {}

    def after_train_iter(self, runner: SafeIterRunner) -> None:
        """Measure at the interval and after the last step; the first process does."""
        if runner.rank == 0 and (self.every_n_iters(runner, self.interval) or self.is_last_iter(runner)):
            self.explained = cast(Distiller, runner.network).explained_variance(self.images)
            runner.log_buffer.output.update({f"explained_{stride}": v for stride, v in self.explained.items()})
            runner.log_buffer.ready = True


def _batches(crops: Crops, cfg: Config, process: Process, seed: int, count: int) -> Iterator[Tensor]:
    """Yield the first ``count`` batches (B, 3, H, W) of all processes together, the same in each of them."""
    alone = Config(dict(data=dict(samples_per_gpu=cfg.data.samples_per_gpu, workers_per_gpu=0)))
    loader = training_loader(crops, alone, Process(0, 1, process.device), seed)
    for batch in itertools.islice(loader, count):
        yield batch["img"].to(process.device)


def distil(
    config: str,
    images: Sequence[str],
    teacher: str,
    settings: DistilSettings | None = None,
    work_dir: str | None = None,
    auto_resume: bool = False,
    teacher_weights: str | None = None,
    own_norm: bool = False,
    start: str | None = None,
    soft_labels: str | None = None,
    options: dict | None = None,
    gpu_id: int = 0,
) -> str:
    """Teach the encoder of ``config`` the features of ``teacher`` and return the work dir.

    ``encoder.safetensors`` in it, written after the last step, holds the encoder in fp16 for
    ``model.backbone.init_cfg.checkpoint``; ``iter_N.pth`` the whole state after N steps.

    Args:
        config: a config, or an encoder of `mmseg_ext.pretrain.CLASSIFIERS`.
        images: folders of unlabelled images, with all that is below them, or image files.
        teacher: timm's name of a network with features at strides 4, 8, 16 and 32.
        settings: the usual ones when None.
        work_dir: where the results go; ``work_dirs/distil/<name of the config>`` when None.
        auto_resume: continue from the newest checkpoint of ``work_dir``, if there is one.
        teacher_weights: as `load_pretrained` takes them; None: of an installed package where we know one, else timm's.
        own_norm: normalise the teacher's images as timm says of it, instead of with ImageNet's mean and deviation.
        start: encoder weights that the student begins with; None: random ones, whatever the config names.
        soft_labels: checkpoint of a segmentor with its config inside, whose probabilities the student's decode head
            learns beside; then ``segmentor.pth`` holds the whole network. ``config`` must be a config then.
        options: dotted keys that differ from the config.
        gpu_id: the GPU of a single process.

    Raises:
        UserError: images, networks, weights or machine do not fit; the message says what to do.
    """
    settings = settings or DistilSettings()
    if soft_labels and config in CLASSIFIERS:
        raise ConfigError(f"--soft-labels: {config} is an encoder without a head; give a config")
    cfg, student_norm = _student_config(config, options)
    paths, held_out = split_held_out(list_images(images))
    process = start_process(gpu_id)
    atexit.register(end_workers)
    precision = agreed_precision(settings.precision, process)
    cv2.setNumThreads(0)
    torch.backends.cudnn.benchmark = True
    name = os.path.basename(config).removesuffix(".py")
    work_dir = work_dir or os.path.join(WORK_DIRS, "distil", name)

    seed_everything(settings.seed)
    network = _build_student(cfg, start, whole=bool(soft_labels)).to(process.device)
    student: Any = network
    labels = None
    if soft_labels:
        student = network.backbone
        _, trained, known = load_trained(soft_labels)
        labels = SoftLabels(network.decode_head, trained.to(process.device), known, soft_labels)
    guide = TimmEncoder(teacher, frozen=True).to(process.device)
    teacher_norm = _teacher_norm(teacher, own_norm)
    distiller = Distiller(student, guide, student_norm, teacher_norm, settings.crop_size, labels)
    _load_teacher(guide, teacher_weights)
    if settings.channels_last:
        guide.to(memory_format=torch.channels_last)
    run = _run_config(cfg, settings)
    with contextlib.ExitStack() as held:

        def prepare() -> None:
            held.enter_context(only_one(work_dir))
            prepare_work_dir(work_dir, run, resumes=auto_resume)

        on_first_process(process, prepare)
        timestamp = time.strftime("%Y%m%d_%H%M%S")
        logger = start_log(os.path.join(work_dir, f"{timestamp}.log"), "INFO")
        logger.info(
            f"{name} learns from {teacher}: {process.world_size} process(es) on {process.device.type}, {precision}, "
            f"seed {settings.seed}, {len(paths)} images and {len(held_out)} held out, work dir {work_dir}"
        )
        facts = dict(
            teacher=teacher,
            teacher_weights=teacher_weights,
            teacher_norm=[list(values) for values in teacher_norm],
            soft_labels=labels and labels.facts.weights_sha256,
            start=start and os.path.basename(start),
            images=len(paths),
            images_sha256=_sha256("\n".join(os.path.basename(path) for path in paths)),
            config=os.path.basename(cfg.filename),
            config_sha256=_sha256(Config(dict(model=cfg.model.to_dict())).pretty_text),
            **asdict(settings),
        )
        wrapped = wrap_for_training(distiller, run, process, precision)
        optimizer = training_optimizer(distiller, run.optimizer)
        meta = dict(mmseg_ext_version=__version__, seed=settings.seed, distillation=facts, hook_msgs={})
        runner = SafeIterRunner(
            wrapped, optimizer=optimizer, work_dir=work_dir, logger=logger, meta=meta, max_iters=settings.steps
        )
        runner.timestamp, runner.seed = timestamp, settings.seed
        runner.draws_per_iter = settings.batch_size * process.world_size
        register_step_hooks(runner, run, precision, run.log_config)
        crops, others = Crops(paths, settings), Crops(held_out, settings)
        measured = -(-_HELD_OUT_CROPS // settings.batch_size)
        hook = ExplainedVarianceHook(
            list(_batches(others, run, process, settings.seed, measured)), settings.eval_interval
        )
        runner.register_hook(hook, priority="LOW")
        runner.register_hook(ProgressBar())
        saved = SafeCheckpointHook(interval=settings.save_interval, by_epoch=False, max_keep_ckpts=2)
        runner.register_hook(saved, priority=95)
        if threading.current_thread() is threading.main_thread():
            runner.register_hook(StopOnSignal(), priority="LOWEST")
        newest = latest_checkpoint(work_dir) if auto_resume else None
        if newest:
            _resume(runner, newest, facts)
            on_first_process(process, lambda: trim_logs(work_dir, runner.iter))
        else:
            distiller.measure(_batches(crops, run, process, settings.seed, _MEASURED_BATCHES))
        if runner.iter < runner.max_iters:
            with disk_full_error(work_dir):
                runner.run([training_loader(crops, run, process, runner.seed, runner.draws)], [("train", 1)])
        else:
            logger.info("%s: all %d steps are done already", work_dir, runner.max_iters)
        explained = hook.explained or distiller.explained_variance(hook.images)
        facts = {
            **facts,
            "seed": runner.seed,
            "explained_variance": {str(k): round(v, 4) for k, v in explained.items()},
        }
        on_first_process(process, lambda: _write_encoder(distiller.student, facts, os.path.join(work_dir, ENCODER)))
        logger.info("%s: the encoder, for model.backbone.init_cfg.checkpoint", os.path.join(work_dir, ENCODER))
        if labels:
            meta = {**_segmentor_meta(cfg, labels.facts), "distillation": facts}
            path = os.path.join(work_dir, SEGMENTOR)
            content = dict(meta=meta, state_dict={key: v.detach().cpu() for key, v in network.state_dict().items()})
            on_first_process(process, lambda: write_checkpoint(content, path))
            logger.info("%s: the whole network, for tools/predict.py and tools/test.py", path)
    return work_dir


def _segmentor_meta(cfg: Config, facts: NetworkFacts) -> dict:
    """Return what a checkpoint says of a network of ``cfg`` that gives the classes of ``facts``."""
    plain = Config(copy.deepcopy(cfg._cfg_dict.to_dict()))
    plain.model.backbone.init_cfg = None
    return dict(
        config=plain.pretty_text,
        CLASSES=list(facts.classes),
        PALETTE=[list(colour) for colour in facts.palette],
        image=facts.reading.as_dict(),
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _resume(runner: SafeIterRunner, path: str, facts: dict) -> None:
    """Continue from ``path``, with a warning where its run was set up otherwise.

    Raises:
        CheckpointError: it is of another kind of training, or of another teacher or student.
    """
    before = (read_checkpoint(path).get("meta") or {}).get("distillation")
    if before is None:
        raise CheckpointError(f"{path}: is of a training without a teacher; give another --work-dir")
    if before["teacher"] != facts["teacher"]:
        raise CheckpointError(
            f"{path}: learned from {before['teacher']}, not {facts['teacher']}; give --teacher {before['teacher']} or "
            "another --work-dir"
        )
    runner.resume(path)
    if changed := [f"{key} {before.get(key)} -> {facts[key]}" for key in facts if before.get(key) != facts[key]]:
        runner.logger.warning("settings that differ from the run so far: %s", ", ".join(changed))


def _half(value: Tensor) -> Tensor:
    """Return ``value`` in fp16, unless it is no floating-point tensor or has numbers that are too large for that."""
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if half.isfinite().all() else value


def _write_encoder(student: nn.Module, facts: dict, path: str) -> None:
    """Write the weights of ``student`` in fp16 to ``path``, with ``facts`` as meta data."""
    weights = {key: _half(value.detach().cpu()) for key, value in student.state_dict().items()}
    check_weights(weights, path)
    meta = dict(
        schema_version=SCHEMA_VERSION,
        distillation=facts,
        git_revision=git_revision(),
        mmseg_ext_version=__version__,
        weights_sha256=weights_sha256(weights),
    )
    write_safetensors(weights, meta, path)
