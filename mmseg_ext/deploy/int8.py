"""int8 by post-training quantisation: the images to calibrate with, and the quantised model."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv import Config
from mmseg.datasets import build_dataset

from ..datasets.several import part_settings
from ..engine.config import config_mistakes, load_config
from ..errors import ConfigError, DataError, UserError
from ..imagery.voc import IMAGE_SUFFIXES
from ..models.light_ham_head import Hamburger
from ..runtime.facts import NetworkFacts
from .facts import normalized

_MAX_IMAGES = 128
_MAX_SIDE_PX = 1024


def calibration_images(source: str | None, cfg: Config, facts: NetworkFacts) -> list[np.ndarray]:
    """Return at most `_MAX_IMAGES` normalised images (1, C, H, W) such as the network will see, padded to its stride.

    ``source`` is a folder of images, or a config whose training images are taken; None takes those of the network's.

    Raises:
        UserError: there are none, or they do not fit.
    """
    images = _of_config(source, cfg) if source is None or source.endswith(".py") else _of_folder(source, facts)
    fitted = [facts.padded(image).transpose(2, 0, 1)[None] for image in images]
    return [np.ascontiguousarray(image, dtype=np.float32) for image in fitted]


def _of_config(source: str | None, cfg: Config) -> list[np.ndarray]:
    data = load_config(source) if source else cfg
    split = copy.deepcopy(data.data.val)
    training = next(part_settings(data.data.train))
    split.update({key: training[key] for key in ("data_root", "split") if key in training})
    try:
        with config_mistakes(data):
            dataset = build_dataset(split, dict(test_mode=True))
    except UserError as error:
        if source:
            raise
        raise DataError(f"int8 needs images to calibrate with, and {error}; or give --calibration FOLDER") from None
    return [dataset[i]["img"][0].permute(1, 2, 0).numpy() for i in _spread(range(len(dataset)))]


def _of_folder(folder: str, facts: NetworkFacts) -> list[np.ndarray]:
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; --calibration takes a folder of images or a config")
    paths = sorted(str(path) for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: no images in it ({', '.join(IMAGE_SUFFIXES)}); give a folder of images")
    read = ((path, facts.reading.read(path)[0]) for path in _spread(paths))
    return [normalized(facts, image[:_MAX_SIDE_PX, :_MAX_SIDE_PX], path) for path, image in read]


def _spread(items: Sequence) -> list:
    """Return at most `_MAX_IMAGES` of ``items``, evenly spread."""
    count = min(len(items), _MAX_IMAGES)
    return [items[i * len(items) // count] for i in range(count)]


def quantized(model: Any, network: Any, calibration: Sequence[np.ndarray]) -> Any:
    """Return ``model``, OpenVINO's or ONNX's of the segmentor ``network``, with int8 convolutions; the NMF stays float.

    Raises:
        ConfigError: there are no images.
    """
    if not len(calibration):
        raise ConfigError("int8 needs images to calibrate with; give --calibration, a folder or a config")
    import nncf

    nncf.set_log_level(logging.ERROR)
    # all matrix products of a network with a Hamburger are those of its NMF
    nmf = any(isinstance(module, Hamburger) for module in network.modules())
    return nncf.quantize(
        model,
        nncf.Dataset(calibration, lambda image: {"image": image}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(types=["MatMul", "Divide", "Div"], validate=False) if nmf else None,
    )
