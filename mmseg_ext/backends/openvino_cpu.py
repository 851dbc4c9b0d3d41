"""Networks in OpenVINO, on a CPU."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..export.openvino_core import openvino_core
from .pytorch import Runner

_SHAPES = 4
_ELEMENT_TYPES = {"fp32": "f32", "bf16": "bf16"}


@cache
def has_bf16() -> bool:
    """Return whether OpenVINO computes bf16 on this CPU."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _element_type(precision: str) -> str:
    """Return OpenVINO's name of the type; int8 is in the file, and this is that of the rest."""
    if precision == "int8":
        return "bf16" if has_bf16() else "f32"
    return _ELEMENT_TYPES[precision]


def compile_settings(precision: str) -> dict[str, Any]:
    """Return what OpenVINO is told when it compiles a network for ``precision`` (``fp32``, ``bf16`` or ``int8``)."""
    return {
        # OpenVINO's own choice where the hardware has bf16 is bf16
        "INFERENCE_PRECISION_HINT": _element_type(precision),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def openvino_runner(path: str, precision: str) -> Runner:
    """Return a runner of the ONNX or OpenVINO file at ``path``.

    The first `_SHAPES` shapes of images get a model compiled for them, which is faster than one for any shape; such a
    one serves all further shapes.

    Args:
        path: a file with the input ``image`` and the output ``scores``.
        precision: ``fp32``, ``bf16`` or ``int8``.
    """
    core = openvino_core()
    model = core.read_model(path)
    settings = compile_settings(precision)
    requests: dict[tuple[int, ...], Any] = {}

    def request(shape: tuple[int, ...]) -> Any:
        key = shape if shape in requests or len(requests) < _SHAPES else ()
        if key not in requests:
            fitted = model.clone()
            if key:
                fitted.reshape(list(shape))
            requests[key] = core.compile_model(fitted, "CPU", settings).create_infer_request()
        return requests[key]

    def run(image: Tensor) -> Tensor:
        found = request(tuple(image.shape)).infer({"image": image.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(found["scores"])

    return run
