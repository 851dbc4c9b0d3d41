"""The paper's pipelines as lists for a config, with the statistics and sizes of a data set filled in.

A config file imports `training_steps` and `evaluation_steps`, so that it is right for whoever reads it with
``mmcv.Config.fromfile``, MMSegmentation's Python API included. ``step_args`` in a split of a config are for changes to
steps that it inherits; `mmseg_ext.engine.load_config` fills them in the same way.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigError

_SCALE = (1280, 1280)
_CROP = (1024, 1024)
_NORMALIZE = dict(type="Normalize", mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True)
_TRAINING = (
    dict(type="LoadRoadImage"),
    dict(type="LoadRoadMask"),
    dict(type="Resize", img_scale=_SCALE, ratio_range=(0.5, 2.0)),
    dict(type="RandomCrop", crop_size=_CROP, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    _NORMALIZE,
    dict(type="Pad", size=_CROP, pad_val=0, seg_pad_val=255),
    dict(type="DefaultFormatBundle"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
)
_EVALUATION = (
    dict(type="LoadRoadImage"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=_SCALE,
        flip=False,
        transforms=[
            dict(type="Resize", keep_ratio=True),
            dict(type="ResizeToMultiple", size_divisor=32),
            dict(type="RandomFlip"),
            _NORMALIZE,
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
)


def training_steps(**step_args: Mapping[str, Any]) -> list[dict]:
    """Return the paper's training pipeline; ``step_args`` are arguments by the type of their step."""
    return with_step_args(_TRAINING, step_args)


def evaluation_steps(**step_args: Mapping[str, Any]) -> list[dict]:
    """Return the paper's pipeline for whole images; ``step_args`` are arguments by the type of their step."""
    return with_step_args(_EVALUATION, step_args)


def nested_steps(pipeline: Iterable[dict]) -> Iterator[dict]:
    """Yield every step of a pipeline, each before the steps inside it."""
    for step in pipeline:
        yield step
        yield from nested_steps(step.get("transforms", []))


def refuse_reduced_labels(settings: Mapping[str, Any]) -> None:
    """Refuse ``reduce_zero_label=True`` in a split's settings or in a step of its ``pipeline``, by a ConfigError."""
    if any(part.get("reduce_zero_label") for part in [settings, *nested_steps(settings.get("pipeline", []))]):
        raise ConfigError(
            "reduce_zero_label=True: is for data sets such as ADE20K, whose label 0 is no class; here 0 is background, "
            "and road would be told from nothing; leave reduce_zero_label out"
        )


def with_step_args(pipeline: Sequence[dict], step_args: Mapping[str, Mapping[str, Any]]) -> list[dict]:
    """Return a copy of ``pipeline`` with ``step_args[type]`` merged into every step of that type.

    Raises:
        ConfigError: the pipeline has no step of a type that ``step_args`` names.
    """
    merged = copy.deepcopy(list(pipeline))
    types = []
    for step in nested_steps(merged):
        types.append(step["type"])
        step.update(copy.deepcopy(dict(step_args.get(step["type"], {}))))
    if unused := sorted(set(step_args) - set(types)):
        raise ConfigError(
            f"step_args names {', '.join(unused)}, but the pipeline has only {', '.join(dict.fromkeys(types))}"
        )
    return merged
