"""The networks that are measured, by name: ours from their configs, and peers as their users build them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mmseg
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models import build_segmentor
from torch import nn

from ..engine import build_network, leaf_configs, load_config
from ..engine.config import CONFIG_ROOT
from ..engine.distributed import seed_everything
from ..engine.weights import load_weights
from ..errors import ConfigError, require
from ..models.folding import Scores, network_stride

CLASSES = 2
_SEGFORMER_B0 = "mmseg:segformer-b0"
_SMP = "smp:"
_PEER_STRIDE = 32


@dataclass(frozen=True)
class Method:
    """A network with its weights, in evaluation mode.

    Attributes:
        network: MMSegmentation's segmentor; of a peer a module from images to scores.
        bands: of the images it takes.
        stride: of which height and width are multiples.
    """

    network: Any
    bands: int
    stride: int


@cache
def method_configs() -> dict[str, str]:
    """Return the paths of the paper's configs by short name: ``dsegnext-t``, ``segformer-b0``, ``nllinknet``, ..."""
    configs: dict[str, str] = {}
    for leaf in leaf_configs():
        family, size = os.path.basename(leaf).casefold().split(".")[:2]
        if ".1024x1024.OPM." in leaf and "/ablation/" not in leaf:
            name = family.replace("_", "").removesuffix("34")
            if not size[0].isdigit():
                name += f"-{size if size[1:].isdigit() else size[0]}"
            configs.setdefault(name, str(CONFIG_ROOT.parent / leaf))
    return configs


def is_peer(method: str) -> bool:
    """Return whether ``method`` names a network of another library."""
    return method.startswith(_SMP) or method == _SEGFORMER_B0


def check_method(method: str) -> None:
    """Refuse a method that cannot be built.

    Raises:
        ConfigError: it is neither a short name nor a config file nor a peer.
        MissingExtraError: the peer's library is not installed.
    """
    if method.startswith(_SMP):
        require(["segmentation_models_pytorch"], "peers", method)
        if "-" not in method:
            raise ConfigError(f"{method}: write smp:ARCHITECTURE-ENCODER, such as smp:unet-resnet34")
    elif not (is_peer(method) or method in method_configs() or os.path.isfile(method)):
        raise ConfigError(
            f"{method}: no such method; give a config file, {_SEGFORMER_B0}, {_SMP}ARCHITECTURE-ENCODER, or one of "
            + ", ".join(method_configs())
        )


def build_method(method: str, checkpoint: str | None = None) -> Method:
    """Return the network of ``method``, with the weights of ``checkpoint`` or random ones, always the same.

    Raises:
        UserError: it cannot be built, or the weights do not fit.
    """
    check_method(method)
    seed_everything(0)
    if is_peer(method):
        return Method(_peer(method).eval(), 3, _PEER_STRIDE)
    cfg = load_config(method_configs().get(method, method))
    network = revert_sync_batchnorm(build_network(cfg, initialise=checkpoint is None, pretrained=False)).eval()
    if checkpoint is not None:
        load_weights(network, checkpoint)
    return Method(network, cfg.model.backbone.get("in_channels", 3), network_stride(network))


def _peer(method: str) -> nn.Module:
    if method == _SEGFORMER_B0:
        path = Path(mmseg.__file__).parent / ".mim" / "configs" / "_base_" / "models" / "segformer_mit-b0.py"
        model = Config.fromfile(str(path)).model
        model.decode_head.num_classes = CLASSES
        network = build_segmentor(model)
        network.init_weights()
        return Scores(revert_sync_batchnorm(network))
    import segmentation_models_pytorch as smp

    architecture, encoder = method.removeprefix(_SMP).split("-", 1)
    try:
        return smp.create_model(architecture, encoder, encoder_weights=None, classes=CLASSES)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{method}: segmentation_models_pytorch cannot build it ({reason})") from None
