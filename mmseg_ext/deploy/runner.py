"""One switch for all ways to run a network."""

from __future__ import annotations

import copy
import importlib.util
import logging
import os
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.distributed import choose_precision
from ..errors import ConfigError, MissingExtraError, require
from ..models.folding import network_stride
from .cache import network_identity, through_cache
from .onnx import OnnxRuntimeSession, TensorRTSession, export_onnx
from .openvino import OpenVinoSession, has_bf16
from .options import BACKENDS, PRECISIONS
from .pytorch import Runner, has_compiler, plain_session, torch_session

_PACKAGES = {
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "tensorrt": ("onnx", "onnxscript", "onnxruntime", "tensorrt"),
}
_PROVIDERS = {"onnxruntime": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_PRECISIONS_ON: dict[str, dict[str, tuple[str, ...]]] = {
    "plain": {"cpu": ("fp32",), "cuda": ("fp32",)},
    "torch": {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")},
    "compile": {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")},
    "onnxruntime": {"cpu": ("fp32", "int8"), "cuda": ("fp32", "fp16")},
    "openvino": {"cpu": ("fp32", "bf16", "int8")},
    "tensorrt": {"cuda": ("fp32", "bf16", "fp16")},
}
_CPU = torch.device("cpu")
logger = logging.getLogger(__name__)


def why_unavailable(backend: str, device: torch.device) -> str | None:
    """Return in a few words why ``backend`` cannot run on ``device``, or None where it can."""
    if device.type not in _PRECISIONS_ON[backend]:
        return "it runs on an NVIDIA GPU only" if backend == "tensorrt" else "it runs on a CPU only"
    if missing := [name for name in _PACKAGES.get(backend, ()) if importlib.util.find_spec(name) is None]:
        return f"{', '.join(missing)} not installed"
    if backend == "compile" and not has_compiler():
        return "there is no C++ compiler (install g++, or name yours in CXX)"
    if device.type == "cuda" and backend in _PROVIDERS:
        import onnxruntime

        if _PROVIDERS[backend] not in onnxruntime.get_available_providers():
            return f"this ONNX Runtime has no {_PROVIDERS[backend]}; onnxruntime-gpu has"
    return None


def available_backends(device: torch.device = _CPU) -> tuple[str, ...]:
    """Return those of `BACKENDS` that can run on ``device``."""
    return tuple(backend for backend in BACKENDS if why_unavailable(backend, device) is None)


def possible_precisions(backend: str, device: torch.device) -> tuple[str, ...]:
    """Return those of `PRECISIONS` that ``backend``, which is available, computes on ``device``."""
    found = _PRECISIONS_ON[backend][device.type]
    if backend == "openvino" and not has_bf16():
        return tuple(precision for precision in found if precision != "bf16")
    return found


def make_runner(
    network: nn.Module,
    backend: str,
    precision: str = "fp32",
    device: torch.device = _CPU,
    model_file: str | None = None,
) -> Runner:
    """Return ``network`` as a function of images.

    Images whose sides are no multiples of the network's stride do not fit exported networks; they run through the
    torch backend, which takes any size that the network itself takes.

    Args:
        network: segmentor with its weights; it is not changed.
        backend: one of `BACKENDS`. ``plain`` is the network as it is, eager, NCHW, float32.
        precision: one of `PRECISIONS`.
        device: where images come from and scores go to. On a CPU all backends follow PyTorch's number of threads.
        model_file: exported network (.onnx, or .xml for OpenVINO) to run instead of exporting ``network``.

    Returns:
        A function of images (N, C, H, W), float32 and normalised, to logits (N, K, H, W), float32.

    Raises:
        ConfigError: an unknown name, or what this machine or backend cannot do.
        MissingExtraError: the backend's packages are not installed.
    """
    _check(backend, precision, device, model_file)
    if backend == "plain":
        return plain_session(network, device)
    if backend in ("torch", "compile"):
        return torch_session(network, precision, device, backend == "compile")

    def read(path: str) -> Runner:
        if backend == "openvino":
            return OpenVinoSession(path, precision)
        if backend == "tensorrt":
            return TensorRTSession(path, device, precision)
        return OnnxRuntimeSession(path, device)

    if model_file is not None:
        run = read(model_file)
    else:
        stored = "fp16" if (backend, precision) == ("onnxruntime", "fp16") else "fp32"  # others convert as they load
        facts = {**network_identity(network), "format": "onnx", "precision": stored, "target": device.type}

        def write(path: str) -> None:
            logger.info("%s: exporting the network to ONNX, once for these weights", backend)
            export_onnx(network, path, stored, target=device.type)

        run = through_cache(facts, "network.onnx", write, read)
    return _any_size(run, network, "fp32" if precision == "int8" else precision, device)


def _check(backend: str, precision: str, device: torch.device, model_file: str | None) -> None:
    """Refuse what cannot run, and say what to take instead."""
    if backend not in BACKENDS:
        raise ConfigError(f"--backend {backend}: unknown; take one of {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision {precision}: unknown; take one of {', '.join(PRECISIONS)}")
    if backend == "tensorrt" and importlib.util.find_spec("tensorrt") is None:  # no extra brings it
        raise MissingExtraError("--backend tensorrt needs tensorrt; pip install onnxruntime-gpu tensorrt")
    require(_PACKAGES.get(backend, ()), "deploy", f"--backend {backend}")
    if reason := why_unavailable(backend, device):
        raise ConfigError(
            f"--backend {backend} cannot run here: {reason}; take one of {', '.join(available_backends(device))}"
        )
    possible = possible_precisions(backend, device)
    if precision not in possible:
        raise ConfigError(
            f"--backend {backend} --precision {precision}: not possible on {device.type}; take {' or '.join(possible)}"
        )
    if precision in ("bf16", "fp16"):
        choose_precision(precision, device)
    if model_file is None and precision == "int8":
        raise ConfigError(
            "int8 needs the file of a quantised network: make one with tools/export.py --precision int8, and give it "
            "as --exported"
        )
    if model_file is not None and backend not in _PACKAGES:
        raise ConfigError(f"{model_file}: --backend {backend} runs no exported file; take onnxruntime or openvino")
    if model_file is not None and not os.path.isfile(model_file):
        raise ConfigError(f"{model_file}: no such file; make it with tools/export.py")


def _any_size(run: Runner, network: nn.Module, precision: str, device: torch.device) -> Runner:
    """Return ``run`` of an exported network, which leaves sizes that do not fit it to the torch backend."""
    stride = network_stride(network)
    other: Runner | None = None

    def sized(image: Tensor) -> Tensor:
        nonlocal other
        height, width = image.shape[2:]
        if height % stride == 0 == width % stride:
            return run(image)
        if other is None:
            text = "images of %d x %d px are no multiples of %d px; such images run through the torch backend"
            logger.warning(text, width, height, stride)
            other = torch_session(network, precision, device)
        return other(image)

    return sized


def segmentor_on(network: nn.Module, run: Runner) -> nn.Module:
    """Return a segmentor whose ``encode_decode`` is ``run``; all else, such as sliding windows, stays.

    It shares modules and weights with ``network``, which keeps its own ``encode_decode``.
    """
    fast: Any = copy.copy(network)
    fast.encode_decode = lambda image, _metas: run(image)
    return fast


def accelerated(network: nn.Module, *arguments: Any, **options: Any) -> nn.Module:
    """Return a segmentor whose ``encode_decode`` is `make_runner`'s function of the same arguments.

    It runs the weights of this moment. Do not autocast around it; the runner's precision decides.
    """
    return segmentor_on(network, make_runner(network, *arguments, **options))
