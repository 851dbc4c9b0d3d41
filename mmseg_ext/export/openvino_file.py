"""Networks as OpenVINO files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ..errors import require
from .exportable import check_precision, example_image, exportable
from .facts import GROUP, image_bands
from .openvino_core import openvino_core
from .quantization import quantized


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
