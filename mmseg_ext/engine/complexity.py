"""Parameters and multiply-accumulates of a network, by the two counters that the paper's table mixes."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import torch
from mmcv import Config
from mmcv.cnn import get_model_complexity_info
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models import build_segmentor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchprofile import profile_macs

MMSEG_BACKBONES = ("MSCAN", "MixVisionTransformer")


@dataclass(frozen=True)
class Complexity:
    """What one network costs for one image.

    Attributes:
        params: number of parameters that are built.
        imagenet_head_params: parameters of the ImageNet classifier that published D-SegNeXt checkpoints
            carry along and the published Params include; 0 for other networks.
        mmcv_macs: multiply-accumulates by mmcv's counter (SyncBN is not counted, activations only as modules).
        torchprofile_macs: multiply-accumulates by torchprofile (every traced operator it knows).
        paper_counter: the counter behind the paper's figure for this network, ``mmcv`` or ``torchprofile``.
    """

    params: int
    imagenet_head_params: int
    mmcv_macs: int
    torchprofile_macs: int
    paper_counter: str


def measure_complexity(cfg: Config, height: int, width: int) -> Complexity:
    """Count parameters and multiply-accumulates of ``cfg.model`` for one image of ``height`` x ``width`` px."""
    model_cfg = copy.deepcopy(cfg.model)
    model_cfg.backbone.init_cfg = None
    model = build_segmentor(model_cfg).eval()
    model.forward = model.forward_dummy
    channels = model_cfg.backbone.get("in_channels", 3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        with FakeTensorMode(allow_non_fake_inputs=True):  # shapes suffice: nothing is computed
            mmcv_macs, params = get_model_complexity_info(
                model, (channels, height, width), print_per_layer_stat=False, as_strings=False
            )
        plain = revert_sync_batchnorm(model)
        torchprofile_macs = profile_macs(plain, torch.zeros(1, channels, height, width))
    carries_head = model_cfg.backbone.get("gating_unit", {}).get("type") == "HDMSCA"
    return Complexity(
        params=params,
        imagenet_head_params=model.backbone.imagenet_head_params if carries_head else 0,
        mmcv_macs=int(mmcv_macs),
        torchprofile_macs=int(torchprofile_macs),
        paper_counter="mmcv" if model_cfg.backbone.type in MMSEG_BACKBONES else "torchprofile",
    )
