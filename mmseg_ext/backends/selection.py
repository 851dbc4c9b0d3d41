"""What a user asks for, and the network that runs so."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from ..engine.checkpoint import weights_sha256
from ..errors import ConfigError
from ..export.facts import read_facts, read_metadata
from .accelerated import accelerated
from .choice import choose_backend, fast_precisions
from .runner import BACKENDS, PRECISIONS, possible_precisions

_RUN_BY = {".onnx": ("onnxruntime", "openvino", "tensorrt"), ".xml": ("openvino",)}


@dataclass(frozen=True)
class BackendSettings:
    """How a network is to run.

    Attributes:
        backend: of `BACKENDS`, or ``auto``: the fastest that is installed, by measurement.
        precision: of `PRECISIONS`, or ``auto``: what the hardware does best; None: the config's.
        exported: an exported file of the same weights to run, which int8 needs.
    """

    backend: str = "torch"
    precision: str | None = None
    exported: str | None = None


def add_backend_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add --backend, --precision and --exported to a tool; `backend_settings` reads them."""
    names = ("auto", *BACKENDS)
    text = "how the network runs; auto: the fastest that is installed, measured once on this machine"
    parser.add_argument("--backend", choices=names, default=default, help=f"{text} (default: {default or 'eager'})")
    text = "auto: what the hardware does best (default: the config's, else fp32)"
    parser.add_argument("--precision", choices=[*PRECISIONS, "auto"], help=text)
    parser.add_argument("--exported", metavar="FILE", help="a file of tools/export.py to run, .onnx or .xml; int8")


def backend_settings(args: argparse.Namespace) -> BackendSettings:
    """Return what the command line says."""
    return BackendSettings(args.backend or ("auto" if args.exported else "torch"), args.precision, args.exported)


def run_on(
    network: nn.Module, settings: BackendSettings, configured: str, device: torch.device, shape: Sequence[int]
) -> tuple[nn.Module, str, str]:
    """Return a segmentor that runs as ``settings`` say, the backend and the precision.

    Args:
        network: the segmentor with its weights; moved to ``device``.
        settings: what the user wants.
        configured: the precision that the config asks for.
        device: where images come from.
        shape: (N, C, H, W) of what is to be predicted, for ``auto``.

    Raises:
        UserError: the machine, the packages or the file do not fit.
    """
    network = network.to(device).eval()
    backend, precision = settings.backend, settings.precision or configured
    if settings.exported is not None:
        backend, precision = _of_file(settings, network)
    elif backend == "auto":
        precisions = fast_precisions(device) if precision == "auto" else (precision,)
        backend, precision = _chosen(network, shape, precisions, device)
    elif precision == "auto":
        precision = [one for one in fast_precisions(device) if one in possible_precisions(backend, device)][-1]
    return accelerated(network, backend, precision, device, model_file=settings.exported), backend, precision


def _chosen(
    network: nn.Module, shape: Sequence[int], precisions: Sequence[str], device: torch.device
) -> tuple[str, str]:
    """Return backend and precision; of several processes the first measures."""
    found: list[Any] = [None]
    if not dist.is_initialized() or dist.get_rank() == 0:
        choice = choose_backend(network, shape, precisions, device)
        found = [(choice.backend, choice.precision)]
    if dist.is_initialized():
        dist.broadcast_object_list(found)
    return found[0]


def _of_file(settings: BackendSettings, network: nn.Module) -> tuple[str, str]:
    """Return backend and precision for an exported file.

    Raises:
        ConfigError: it is of other weights or of another precision, or no file that the backend runs.
    """
    path = str(settings.exported)
    suffix = os.path.splitext(path)[1]
    if suffix not in _RUN_BY:
        raise ConfigError(f"--exported {path}: give a .onnx or .xml file that tools/export.py wrote")
    if read_facts(path).weights_sha256 != weights_sha256(network.state_dict()):
        raise ConfigError(f"--exported {path}: was made from other weights; export this checkpoint")
    backend = _RUN_BY[suffix][0] if settings.backend == "auto" else settings.backend
    if backend not in _RUN_BY[suffix]:
        raise ConfigError(f"--exported {path}: runs on {' or '.join(_RUN_BY[suffix])}, not on --backend {backend}")
    stored, wanted = json.loads(read_metadata(path)["precision"]), settings.precision
    if wanted in (None, "auto"):
        return backend, "fp32" if (backend, stored) == ("openvino", "fp16") else stored
    if wanted != stored and (backend == "onnxruntime" or "int8" in (wanted, stored)):
        raise ConfigError(f"--exported {path}: is in {stored}, not in {wanted}; leave --precision out, or export it so")
    return backend, wanted
