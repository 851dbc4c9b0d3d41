"""The networks that are measured, by name: ours from their configs, and peers as their users build them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mmseg
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.models import build_segmentor
from torch import nn

from mmseg_ext.deploy.options import BACKENDS, PRECISIONS
from mmseg_ext.engine import build_network, leaf_configs, load_config
from mmseg_ext.engine.config import CONFIG_ROOT
from mmseg_ext.engine.distributed import seed_everything
from mmseg_ext.engine.weights import load_weights
from mmseg_ext.errors import ConfigError, require
from mmseg_ext.models.folding import Scores, network_stride

AUTO = "auto"
CLASSES = 2
_PATTERN = re.compile(r"(?P<method>[^@]+)(@(?P<backend>[^@+]+)([+](?P<precision>[^@+]+))?)?")
_SEGFORMER_B0 = "mmseg:segformer-b0"
_SMP = "smp:"


@dataclass(frozen=True)
class Contender:
    """A method on a backend."""

    method: str  # short name, config path or peer
    backend: str  # of `BACKENDS`, or ``auto``
    precision: str | None = None  # of `PRECISIONS`; None: float32, or with ``auto`` the fastest on this hardware

    def __str__(self) -> str:
        precision = "" if self.precision is None else f"+{self.precision}"
        return f"{self.method}@{self.backend}{precision}"


@dataclass(frozen=True)
class Method:
    """A network with its weights, in evaluation mode."""

    network: Any  # MMSegmentation's segmentor; of a peer a module from images to scores
    bands: int = 3  # of the images it takes
    stride: int = 32  # height and width are multiples of it, in pixels
    cfg: Config | None = None  # that it was built from; None for a peer


def parse_contender(text: str) -> Contender:
    """Return what ``METHOD[@BACKEND[+PRECISION]]`` says; without a backend ``auto``, for a peer ``plain``.

    Raises:
        ConfigError: unknown method, backend or precision, or a peer on another backend than its users'.
        MissingExtraError: the peer's library is not installed.
    """
    found = _PATTERN.fullmatch(text)
    if not found:
        raise ConfigError(f"{text}: write METHOD[@BACKEND[+PRECISION]], such as dsegnext-t@openvino+bf16")
    method, precision = found["method"], found["precision"]
    backend = found["backend"] or ("plain" if is_peer(method) else AUTO)
    if backend not in (*BACKENDS, AUTO):
        raise ConfigError(f"{text}: no backend is called {backend}; take one of {', '.join((*BACKENDS, AUTO))}")
    if precision not in (*PRECISIONS, None):
        raise ConfigError(f"{text}: no precision is called {precision}; take one of {', '.join(PRECISIONS)}")
    if is_peer(method) and (backend, precision or "fp32") != ("plain", "fp32"):
        raise ConfigError(f"{text}: a peer runs as its users run it, eager in float32; write {method}")
    _check(method)
    return Contender(method, backend, precision)


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


def _check(method: str) -> None:
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
    seed_everything(0)
    if is_peer(method):
        return Method(_peer(method).eval())
    cfg = load_config(method_configs().get(method, method))
    network = revert_sync_batchnorm(build_network(cfg, initialise=checkpoint is None, pretrained=False)).eval()
    if checkpoint is not None:
        load_weights(network, checkpoint)
    return Method(network, cfg.model.backbone.get("in_channels", 3), network_stride(network), cfg)


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
