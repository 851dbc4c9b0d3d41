"""OpenVINO: a network as a file, and that file or an ONNX file on a CPU."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import require
from .exportable import example_image, exportable
from .facts import image_bands
from .int8 import quantized

_GROUP = "mmseg_ext"  # of the file's runtime information
_SHAPES = 4


@cache
def openvino_core() -> Any:
    """Return the `openvino.Core` of this process, which stays to its end.

    The CPU plugin of each core gives signal handlers a stack of their own. When a core other than the youngest goes,
    they keep a stack that no longer exists, and the next signal, even Ctrl-C, kills the process (OpenVINO 2026.4).
    The plugin does without AMX, with which a network in int8 ends the process by a segmentation fault (2026.4 too).

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    require(["openvino"], "deploy", "reading and running OpenVINO files")
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")  # all but AMX; read when the plugin first computes
    import openvino

    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, before any other core can
    return core


def export_openvino(
    network: nn.Module,
    path: str,
    precision: str,
    metadata: Mapping[str, str],
    calibration: Sequence[np.ndarray] = (),
) -> None:
    """Write ``network`` as OpenVINO's ``path`` (.xml) and, beside it, the weights in .bin.

    ``fp16`` only halves the file: the precision to compute in is chosen where the file is loaded, and is bf16 by
    default on hardware that has it. ``metadata`` is the group ``mmseg_ext`` of the file's runtime information.

    Raises:
        ConfigError: int8 without calibration images.
    """
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
    for name, value in metadata.items():
        model.set_rt_info(value, [_GROUP, name])
    openvino.save_model(model, path, compress_to_fp16=precision == "fp16")


@cache
def has_bf16() -> bool:
    """Return whether OpenVINO computes bf16 on this CPU."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compile_settings(precision: str) -> dict[str, Any]:
    """Return OpenVINO's settings for ``precision``: ``fp32``, ``bf16``, or ``int8``, which is that of the file."""
    bf16 = precision == "bf16" or (precision == "int8" and has_bf16())
    return {
        # OpenVINO's own choice where the hardware has bf16 is bf16
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


class OpenVinoSession:
    """The ONNX or OpenVINO file at ``path`` on a CPU.

    The first ``shapes`` shapes of images get a model compiled for them, which is faster than one for any shape; one
    for any shape serves the rest. Precisions are those of `compile_settings`.
    """

    def __init__(self, path: str, precision: str = "fp32", shapes: int = _SHAPES) -> None:
        self.model = openvino_core().read_model(path)
        self.settings = compile_settings(precision)
        self.shapes = shapes
        self.requests: dict[tuple[int, ...], Any] = {}

    @property
    def metadata(self) -> dict[str, str]:
        """What an OpenVINO file says about itself."""
        return dict(self.model.get_rt_info([_GROUP]).value)

    def _request(self, shape: tuple[int, ...]) -> Any:
        key = shape if shape in self.requests or len(self.requests) < self.shapes else ()
        if key not in self.requests:
            fitted = self.model.clone()
            if key:
                fitted.reshape(list(key))
            self.requests[key] = openvino_core().compile_model(fitted, "CPU", self.settings).create_infer_request()
        return self.requests[key]

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W), float32, of normalised images (N, C, H, W)."""
        request = self._request(tuple(image.shape))
        found = request.infer({"image": image.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(found["scores"])
