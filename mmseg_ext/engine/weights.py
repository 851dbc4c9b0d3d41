"""Weights of a checkpoint into a network, with a report of what fits."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision
from mmcv import Config
from mmseg.datasets.custom import CustomDataset
from mmseg.models import build_segmentor
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from .checkpoint import fitting_config, read_checkpoint, refuse_encoder, refuse_what_is_no_weights_file

logger = logging.getLogger(__name__)

MIN_SHARE = 0.9
_WORTH_IT = 0.3
_TORCHVISION = "torchvision://"
_WITHOUT = "to train without it: --cfg-options model.backbone.init_cfg=None optimizer.lr=6e-4"


@dataclass(frozen=True)
class Fit:
    """How the keys of a checkpoint fit a network.

    Attributes:
        loaded: keys that fit.
        missing: keys of the network that the checkpoint does not have.
        unexpected: keys of the checkpoint that the network does not have.
        reshaped: keys in both, with both shapes in words.
        share: elements of the network's counted tensors that the checkpoint fills, 0 to 1.
    """

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]
    share: float

    @property
    def complete(self) -> bool:
        """Whether network and checkpoint have the same keys and shapes."""
        return not (self.missing or self.unexpected or self.reshaped)

    def summary(self) -> str:
        """Return the fit in one line, naming the first few keys of each kind."""
        parts = [f"{len(self.loaded)} loaded"]
        for kind in ("missing", "unexpected", "reshaped"):
            keys: Sequence[str] = getattr(self, kind)
            if keys:
                parts.append(f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
        return ", ".join(parts)


def load_fitting(model: nn.Module, state_dict: dict[str, Tensor], counted: tuple[str, ...] = ("",)) -> Fit:
    """Load every tensor of ``state_dict`` that fits ``model`` and return how well it did.

    Args:
        model: takes the weights.
        state_dict: weights by key; published keys are brought into the model's form first.
        counted: beginnings of the keys whose elements make up the share; all by default.
    """
    weights = dict(state_dict)
    for name, module in model.named_modules():
        if hasattr(module, "adapt_published_keys"):
            module.adapt_published_keys(weights, f"{name}." if name else "")
    own = model.state_dict()
    loaded = [key for key in own if key in weights and weights[key].shape == own[key].shape]
    reshaped = [
        f"{key}: {tuple(weights[key].shape)} in the file, {tuple(own[key].shape)} in the network"
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in own]
    model.load_state_dict({key: weights[key] for key in loaded}, strict=False)
    filled = sum(own[key].numel() for key in loaded if key.startswith(counted))
    total = sum(value.numel() for key, value in own.items() if key.startswith(counted))
    return Fit(loaded, missing, unexpected, reshaped, filled / max(total, 1))


def _advice(state_dict: dict[str, Tensor], otherwise: str) -> str:
    """Return which config the weights are for, or ``otherwise``."""
    config = fitting_config(state_dict)
    return f"the weights fit the model of {config}" if config else otherwise


def _anyway(fit: Fit) -> str:
    """Return how to start from weights that fill only a part, where that part is worth it."""
    return "; to start from it all the same: --cfg-options min_loaded_share=0" if fit.share >= _WORTH_IT else ""


def _weights_to_use(checkpoint: dict) -> dict[str, Tensor]:
    """Return the moving average of the weights where a checkpoint has one, which is what was evaluated."""
    return checkpoint.get("average") or checkpoint["state_dict"]


def load_weights(model: nn.Module, path: str) -> dict:
    """Load a segmentation checkpoint that must fit ``model`` completely; return its meta data.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape (the first few are named, and the config
            that the weights are for, if there is one).
    """
    checkpoint = read_checkpoint(path)
    fit = load_fitting(model, _weights_to_use(checkpoint))
    if not fit.complete:
        refuse_encoder(checkpoint["state_dict"], path)
        advice = _advice(checkpoint["state_dict"], "give the config it was trained with")
        raise CheckpointError(f"{path}: does not fit the config; {advice}; {fit.summary()}")
    logger.info("%s: %s", path, fit.summary())
    return checkpoint.get("meta") or {}


def load_start_weights(model: nn.Module, path: str, min_share: float = MIN_SHARE) -> None:
    """Load a checkpoint to start training from; what does not fit (another classifier) keeps its first weights.

    Raises:
        CheckpointError: the file fills less than ``min_share`` of the backbone.
    """
    weights = _weights_to_use(read_checkpoint(path))
    fit = load_fitting(model, weights, counted=("backbone.",))
    if fit.share < min_share:
        advice = _advice(weights, "give the right config")
        raise CheckpointError(
            f"{path}: fills only {fit.share:.0%} of the backbone; {advice}{_anyway(fit)}; {fit.summary()}"
        )
    logger.info("%s: %s", path, fit.summary())


def _torchvision_address(source: str, backbone: nn.Module) -> str:
    """Return where torchvision keeps the weights ``torchvision://ENUM.MEMBER``.

    Raises:
        CheckpointError: there are no such weights, or they are of another encoder.
    """
    name = source.removeprefix(_TORCHVISION)
    wanted = getattr(backbone, "imagenet_weights", None)
    kind = type(backbone).__name__
    if wanted is None:
        raise CheckpointError(f"{source}: {kind} has no encoder in torchvision; {_WITHOUT}")
    try:
        if name.partition(".")[0] != wanted:
            raise ValueError
        return torchvision.models.get_weight(name).url
    except (ValueError, KeyError, AttributeError):
        members = ", ".join(
            f"{_TORCHVISION}{member}" for member in torchvision.models.get_weight(f"{wanted}.DEFAULT").__class__
        )
        raise CheckpointError(f"{source}: no weights for {kind}; take {members}; {_WITHOUT}") from None


def _downloaded(address: str) -> str:
    """Return the local path of the file at ``address``, fetched at the first time.

    Raises:
        CheckpointError: it cannot be reached, or a web page answers in its place.
    """
    path = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(address))
    if os.path.isfile(path):
        return path
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.redirect_stderr(io.StringIO()):
            torch.hub.download_url_to_file(address, path, progress=False)
    except OSError as error:
        raise CheckpointError(
            f"{address}: cannot be downloaded ({error}); fetch it elsewhere and save it as {path}; {_WITHOUT}"
        ) from None
    try:
        refuse_what_is_no_weights_file(path)
    except CheckpointError as error:
        os.unlink(path)
        raise CheckpointError(f"{address}: {str(error).removeprefix(f'{path}: ')} and save it as {path}") from None
    return path


def load_pretrained(backbone: nn.Module, source: str, min_share: float = MIN_SHARE) -> None:
    """Load encoder weights into ``backbone``.

    Args:
        backbone: a network whose ``encoder_prefixes``, where it has them, name the keys of its encoder.
        source: a file; a web address; or ``torchvision://ENUM.MEMBER``, a member of torchvision's weights enums.
        min_share: least share of the encoder's elements that the weights must fill.

    Raises:
        CheckpointError: the file is missing or the address cannot be reached (with where to get it and how to
            train without), or the weights fill less than ``min_share`` of the encoder.
    """
    address = _torchvision_address(source, backbone) if source.startswith(_TORCHVISION) else source
    if address.startswith(("http://", "https://")):
        path = _downloaded(address)
    else:
        path = source
        if not os.path.isfile(path):
            published = os.path.basename(path).startswith("AttentionModuleK5D1259Cat")
            get = (
                "get it from the links at github.com/D-SegNeXt/D-SegNeXt"
                if published
                else "train it: tools/pretrain.py"
            )
            raise CheckpointError(f"{path}: no such pretrained encoder; {get} and save it there; {_WITHOUT}")
    weights = read_checkpoint(path)["state_dict"]
    encoder = {re.sub(r"^backbone\.", "", key): value for key, value in weights.items() if "decode_head." not in key}
    fit = load_fitting(backbone, encoder, counted=getattr(backbone, "encoder_prefixes", ("",)))
    if fit.share < min_share:
        advice = _advice(weights, _WITHOUT)
        raise CheckpointError(
            f"{path}: fills only {fit.share:.0%} of the encoder; {advice}{_anyway(fit)}; {fit.summary()}"
        )
    logger.info("pretrained encoder %s: %s", path, fit.summary())


# -- engine.network
# From a config to a network with its first weights.


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
