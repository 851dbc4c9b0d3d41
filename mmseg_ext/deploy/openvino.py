"""Networks as OpenVINO files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import require
from .exportable import check_precision, example_image, exportable, quantized
from .facts import GROUP, image_bands, openvino_core
from .pytorch import Runner


def export_openvino(
    network: nn.Module,
    path: str,
    precision: str = "fp32",
    metadata: Mapping[str, str] | None = None,
    calibration: Sequence[np.ndarray] = (),
) -> None:
    """Write ``network`` as OpenVINO's ``path`` and, beside it, the weights in .bin.

    Input ``image`` (N, C, H, W) and output ``scores`` (N, K, H, W) are float32; N, H and W are free, H and W multiples
    of the network's stride. ``fp16`` halves the file and stands for nothing else: in what precision the network runs
    is said where it is loaded, and is bf16 by default on hardware that has it.

    Args:
        network: segmentor with its weights; it stays as it is.
        path: the file to write, .xml.
        precision: ``fp32``, ``fp16`` or ``int8``.
        metadata: what the file says of itself, in the group ``mmseg_ext`` of its runtime information.
        calibration: normalised images (N, C, H, W) for int8.

    Raises:
        ConfigError: another precision, or int8 without calibration images.
        MissingExtraError: packages of the extra 'export' are not installed.
    """
    check_precision(precision, what="OpenVINO", calibration=calibration)
    require(["openvino"], "export", "exporting to OpenVINO")
    openvino_core()  # outlives those that NNCF makes
    import openvino

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, which OpenVINO reads in a third of the time
        traced = torch.jit.trace(exportable(network), example_image(network), check_trace=False)
    free = openvino.PartialShape([-1, image_bands(network), -1, -1])
    model = openvino.convert_model(traced, input=[("image", free)])
    model.inputs[0].set_names({"image"})
    model.outputs[0].set_names({"scores"})
    if precision == "int8":
        model = quantized(model, network, calibration)
    for name, value in (metadata or {}).items():
        model.set_rt_info(value, [GROUP, name])
    openvino.save_model(model, path, compress_to_fp16=precision == "fp16")


# -- backends.openvino_cpu
# Networks in OpenVINO, on a CPU.

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
