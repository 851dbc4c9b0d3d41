"""Networks as ONNX files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from ..errors import require
from .exportable import check_precision, exported_program
from .quantization import quantized

logger = logging.getLogger(__name__)

_OPSET = 18
_ONE_FILE_BYTES = 2**31  # protobuf's limit


def export_onnx(
    network: nn.Module,
    path: str,
    precision: str = "fp32",
    metadata: Mapping[str, str] | None = None,
    calibration: Sequence[np.ndarray] = (),
) -> None:
    """Write ``network`` as an ONNX file with the input ``image`` (N, C, H, W) and the output ``scores`` (N, K, H, W).

    Both are float32; N, H and W are free, H and W multiples of the network's stride. Weights are inside the file, or
    in ``path`` + ``.data`` where there are more than 2 GB of them.

    Args:
        network: segmentor with its weights; it stays as it is.
        path: the file to write, .onnx.
        precision: ``fp32``, ``fp16`` or ``int8``.
        metadata: what the file says of itself.
        calibration: normalised images (N, C, H, W) for int8.

    Raises:
        ConfigError: another precision, or int8 without calibration images.
        MissingExtraError: packages of the extra 'export' are not installed.
    """
    check_precision(precision, what="ONNX", calibration=calibration)
    require(["onnx", "onnxscript"], "export", "exporting to ONNX")
    import onnx
    import torch

    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    program = torch.onnx.export(
        exported_program(network, precision),
        dynamo=True,
        opset_version=_OPSET,
        input_names=["image"],
        output_names=["scores"],
        verbose=False,
    )
    assert program is not None
    model: Any = program.model_proto
    del model.graph.value_info[:]  # sizes of inner tensors, in names that only PyTorch knows
    for tensor in (*model.graph.input, *model.graph.output):
        for axis, name in ((0, "N"), (2, "H"), (3, "W")):
            tensor.type.tensor_type.shape.dim[axis].dim_param = name
    if precision == "int8":
        model = quantized(model, network, calibration)
    onnx.helper.set_model_props(model, dict(metadata or {}))
    large = model.ByteSize() >= _ONE_FILE_BYTES
    onnx.save(model, path, save_as_external_data=large, location=f"{path.rpartition('/')[2]}.data" if large else None)
