"""Mean IoU of an exported file on the validation images of a config."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmcv import Config
from mmseg.datasets import build_dataset
from torch import Tensor, nn

from ..engine.config import config_mistakes
from ..engine.distributed import LocalSegmentor, Process
from ..engine.evaluation import evaluate_dataset, evaluation_loader
from ..engine.network import check_classes
from ..errors import DataError
from ..models.scores import network_stride
from .images import padded_to
from .parity import Run


def validation_split(cfg: Config) -> Any | None:
    """Return the validation data set of ``cfg``, None where it is not on this machine."""
    try:
        with config_mistakes(cfg):
            dataset = build_dataset(cfg.data.val, dict(test_mode=True))
    except DataError:
        return None
    check_classes(cfg, dataset)
    return dataset


def mean_iou(network: nn.Module, dataset: Any, run: Run | None = None) -> float:
    """Return the mean IoU, 0 to 1, on ``dataset``.

    Args:
        network: segmentor with its weights.
        dataset: what `validation_split` returned.
        run: stands for the network where it is given; images are mirrored to multiples of the stride.
    """
    device = torch.device("cpu")
    measured: Any = copy.deepcopy(network)
    stride = network_stride(network)

    def encode_decode(image: Tensor, _: object) -> Tensor:
        height, width = image.shape[2:]
        scores = run(padded_to(image.numpy(), stride))  # type: ignore[misc]
        return torch.from_numpy(scores[:, :, :height, :width])

    if run is not None:
        measured.encode_decode = encode_decode
    loader = evaluation_loader(dataset, Process(0, 1, device), workers=0)
    areas = evaluate_dataset(LocalSegmentor(measured, device, None), loader)
    return dataset.evaluate(areas, ["mIoU"], logger="silent")["mIoU"]
