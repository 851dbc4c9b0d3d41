"""Weights in and out: safe reading, writing that cannot tear, and a report of what fits."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import CheckpointError

logger = logging.getLogger(__name__)

# numpy scalars in the meta data of older checkpoints; they hold numbers and run no code
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
_SAFE_GLOBALS: list[Any] = [
    np.dtype,
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(type(np.dtype(name)) for name in ("f8", "f4", "i8", "i4", "b1")),
]
_MIN_PRETRAINED_SHARE = 0.9


def read_checkpoint(path: str) -> dict:
    """Return the checkpoint at ``path`` as a dict with ``state_dict`` and, where present, ``meta`` and ``optimizer``.

    Reads ``.safetensors`` and PyTorch files. No code of the file is run.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint, or would need to run code.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: no such checkpoint; give the path of a .pth or .safetensors file")
    try:
        if path.endswith(".safetensors"):
            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(_SAFE_GLOBALS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can break the readers anywhere
        if isinstance(error, pickle.UnpicklingError) and re.search(r"Unsupported (global|class)|GLOBAL", str(error)):
            raise CheckpointError(
                f"{path}: holds Python objects that would run code; only plain weights are read"
            ) from None
        raise CheckpointError(f"{path}: is not a checkpoint, or is damaged; download or copy it again") from None
    checkpoint = content if isinstance(content, dict) and "state_dict" in content else dict(state_dict=content)
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: is not a checkpoint: it holds no weights")
    checkpoint["state_dict"] = {
        re.sub(r"^module\.", "", key): value for key, value in weights.items() if isinstance(value, Tensor)
    }
    return checkpoint


def write_checkpoint(content: dict, path: str) -> None:
    """Write ``content`` to ``path`` so that the file is either the old or the new one, never a torn one.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error}); older checkpoints are intact") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def point_to(path: str, link: str) -> None:
    """Make the symbolic link ``link`` point to the file ``path`` beside it, in one step."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(link) or ".") as folder:
        fresh = os.path.join(folder, "link")
        os.symlink(os.path.basename(path), fresh)
        os.replace(fresh, link)


def latest_checkpoint(work_dir: str) -> str | None:
    """Return the newest complete ``iter_N.pth`` of ``work_dir``; damaged ones are named and passed over."""
    found = {}
    for path in Path(work_dir).glob("iter_*.pth"):
        match = re.fullmatch(r"iter_(\d+)\.pth", path.name)
        if match:
            found[int(match[1])] = str(path)
    for iteration in sorted(found, reverse=True):
        try:
            if {"meta", "optimizer"} <= read_checkpoint(found[iteration]).keys():
                return found[iteration]
            logger.warning("%s: is not a training checkpoint; the one before is used", found[iteration])
        except CheckpointError as error:
            logger.warning("%s; the one before is used", error)
    return None


def remove_partial_files(work_dir: str) -> None:
    """Delete what interrupted writes left behind in ``work_dir``."""
    for path in Path(work_dir).glob(".*.pth.*.partial"):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Fit:
    """How the keys of a checkpoint fit a network.

    Attributes:
        loaded: keys that fit.
        missing: keys of the network that the checkpoint does not have.
        unexpected: keys of the checkpoint that the network does not have.
        reshaped: keys in both, with both shapes in words.
        share: elements of the network's tensors that the checkpoint fills, 0 to 1.
    """

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]
    share: float

    def summary(self) -> str:
        """Return the fit in one line, naming the first few keys of each kind."""
        parts = [f"{len(self.loaded)} loaded"]
        for kind in ("missing", "unexpected", "reshaped"):
            keys: Sequence[str] = getattr(self, kind)
            if keys:
                parts.append(f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})")
        return ", ".join(parts)


def load_fitting(model: nn.Module, state_dict: dict[str, Tensor]) -> Fit:
    """Load every tensor of ``state_dict`` that fits ``model`` and return how well it did."""
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
    total = sum(value.numel() for value in own.values())
    share = sum(own[key].numel() for key in loaded) / max(total, 1)
    return Fit(loaded, missing, unexpected, reshaped, share)


def load_weights(model: nn.Module, path: str) -> dict:
    """Load a segmentation checkpoint that must fit ``model`` completely; return its meta data.

    Raises:
        CheckpointError: keys are missing, unexpected or of another shape (the first few are named).
    """
    checkpoint = read_checkpoint(path)
    fit = load_fitting(model, checkpoint["state_dict"])
    if fit.missing or fit.unexpected or fit.reshaped:
        raise CheckpointError(f"{path}: does not fit the config: {fit.summary()}; give the config it was trained with")
    return checkpoint.get("meta") or {}


def load_start_weights(model: nn.Module, path: str) -> None:
    """Load a checkpoint to start training from; what does not fit (another classifier) keeps its first weights.

    Raises:
        CheckpointError: the file fills less than 90 % of the network.
    """
    fit = load_fitting(model, read_checkpoint(path)["state_dict"])
    if fit.share < _MIN_PRETRAINED_SHARE:
        raise CheckpointError(
            f"{path}: fills only {fit.share:.0%} of the network: {fit.summary()}; give the right config"
        )
    logger.info("%s: %s", path, fit.summary())


def load_pretrained(backbone: nn.Module, source: str) -> None:
    """Load encoder weights from a file or a web address into ``backbone``.

    Raises:
        CheckpointError: the file is missing or the address cannot be reached (with where to get it and how to
            train without), or the weights fill less than 90 % of the encoder.
    """
    without = "to train without it: --cfg-options model.backbone.init_cfg=None"
    if source.startswith(("http://", "https://")):
        path = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(source))
        if not os.path.isfile(path):
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with contextlib.redirect_stderr(io.StringIO()):
                    torch.hub.download_url_to_file(source, path, progress=False)
            except OSError as error:
                raise CheckpointError(
                    f"{source}: cannot be downloaded ({error}); fetch it elsewhere and save it as {path}; {without}"
                ) from None
    else:
        path = source
        if not os.path.isfile(path):
            raise CheckpointError(
                f"{path}: no such pretrained encoder; get it from the links at github.com/D-SegNeXt/D-SegNeXt "
                f"and save it there; {without}"
            )
    weights = read_checkpoint(path)["state_dict"]
    weights = {re.sub(r"^backbone\.", "", key): value for key, value in weights.items()}
    fit = load_fitting(backbone, weights)
    if fit.share < _MIN_PRETRAINED_SHARE:
        raise CheckpointError(f"{path}: fills only {fit.share:.0%} of the encoder: {fit.summary()}; {without}")
    logger.info("pretrained encoder %s: %s", path, fit.summary())
