"""Exported files against the network that they were made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import ConfigError
from ..models.scores import Scores
from .openvino_core import openvino_core

Run = Callable[[np.ndarray], np.ndarray]

MAX_DIFFERENCE = 1e-3
MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.995, "int8": 0.9}


@dataclass(frozen=True)
class Parity:
    """How an exported file and the network in PyTorch, plain and in float32, agree.

    Attributes:
        max_difference: largest difference of two logits.
        class_agreement: share of pixels with the same class.
        shapes: of the image batches that were compared.
    """

    max_difference: float
    class_agreement: float
    shapes: tuple[tuple[int, ...], ...]

    def check(self, path: str, precision: str) -> None:
        """Refuse a file that does not agree: its classes, and in ``fp32`` its logits.

        Raises:
            ConfigError: says how far off it is.
        """
        wrong = self.class_agreement < MIN_AGREEMENT[precision]
        if precision == "fp32":
            wrong |= not self.max_difference < MAX_DIFFERENCE
        if wrong:
            raise ConfigError(
                f"{path}: differs from the network in PyTorch ({precision}: logits by up to {self.max_difference:.2g}, "
                f"classes agree on {self.class_agreement:.2%} of the pixels), so it was not kept; "
                + ("please report it" if precision == "fp32" else "take --precision fp32")
            )


def compare(network: nn.Module, run: Run, batches: Sequence[np.ndarray]) -> Parity:
    """Return how ``run`` agrees with ``network``.

    Args:
        network: segmentor with its weights, in evaluation mode on the CPU.
        run: an exported file, see `runner_of`.
        batches: normalised images (N, C, H, W).
    """
    differences, agreements = [], []
    head: Any = network.decode_head
    for batch in batches:
        with torch.no_grad():
            wanted = Scores(network)(torch.from_numpy(batch)).numpy()
        found = run(batch)
        differences.append(float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf"))
        if found.shape == wanted.shape:
            agreements.append(float((_classes(found, head) == _classes(wanted, head)).mean()))
        else:
            agreements.append(0.0)
    shapes = tuple(batch.shape for batch in batches)
    return Parity(max(differences), float(np.mean(agreements)), shapes)


def _classes(scores: np.ndarray, head: Any) -> np.ndarray:
    """Return class indices (N, H, W) of logits (N, K, H, W)."""
    if scores.shape[1] == 1:
        return 1 / (1 + np.exp(-scores[:, 0])) > head.threshold
    return scores.argmax(axis=1)


def runner_of(path: str) -> Run:
    """Return the exported file at ``path`` as a function of images, on the CPU, computing in float32 what it can."""
    return _RUNNERS[os.path.splitext(path)[1]](path)


def _onnx(path: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["scores"], {"image": image})[0]


def _openvino(path: str) -> Run:
    # where the hardware has bf16, OpenVINO's default is bf16
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino_core().compile_model(path, "CPU", settings)
    return lambda image: model({"image": image})["scores"]


def _torch(path: str) -> Run:
    return _without_gradients(torch.export.load(path).module())


def _torchscript(path: str) -> Run:
    return _without_gradients(torch.jit.load(path, map_location="cpu"))


def _without_gradients(module: Any) -> Run:
    @torch.no_grad()
    def run(image: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(image)).numpy()

    return run


_RUNNERS: dict[str, Callable[[str], Run]] = {".onnx": _onnx, ".xml": _openvino, ".pt2": _torch, ".pt": _torchscript}
