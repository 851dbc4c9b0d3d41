"""From a config to a network with its first weights."""

from __future__ import annotations

import copy

from mmcv import Config
from mmseg.datasets.custom import CustomDataset
from mmseg.models import build_segmentor
from torch import nn

from ..errors import ConfigError
from .weights import MIN_SHARE, load_pretrained


def build_network(cfg: Config, initialise: bool = True, pretrained: bool = True) -> nn.Module:
    """Return the segmentor of ``cfg`` with its first weights.

    Args:
        cfg: config with ``model``; ``model.backbone.init_cfg`` may name pretrained encoder weights, which must fill
            at least the share ``min_loaded_share`` of the encoder.
        initialise: draw first weights; False where a checkpoint fills every tensor afterwards.
        pretrained: load those encoder weights; False where a checkpoint follows.

    Raises:
        CheckpointError: the pretrained weights cannot be had or do not fit.
    """
    model_cfg = copy.deepcopy(cfg.model)
    init_cfg = model_cfg.backbone.get("init_cfg")
    start = (
        init_cfg.get("checkpoint")
        if isinstance(init_cfg, dict) and init_cfg.get("type", "Pretrained") == "Pretrained"
        else None
    )
    if start:
        model_cfg.backbone.init_cfg = None
    model = build_segmentor(model_cfg)
    if not initialise:
        return model
    model.init_weights()
    if start and pretrained:
        load_pretrained(model.backbone, start, cfg.get("min_loaded_share", MIN_SHARE))
    return model


def check_classes(cfg: Config, dataset: CustomDataset) -> None:
    """Refuse a decode head whose number of classes is not the data set's.

    Raises:
        ConfigError: names both numbers.
    """
    heads = [cfg.model.decode_head, *([cfg.model.auxiliary_head] if cfg.model.get("auxiliary_head") else [])]
    for head in heads:
        for one in head if isinstance(head, (list, tuple)) else [head]:
            if one.num_classes != len(dataset.CLASSES):
                raise ConfigError(
                    f"num_classes={one.num_classes} in {one.type}, but the data set has {len(dataset.CLASSES)} classes "
                    f"({', '.join(dataset.CLASSES)}); make them equal"
                )
