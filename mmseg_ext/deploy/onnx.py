"""Networks as ONNX files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, require
from .exportable import check_precision, exported_program, quantized
from .pytorch import Runner

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


# -- backends.onnx_runtime
# Networks in ONNX Runtime, on its CPU, CUDA and TensorRT providers.


def onnx_runner(path: str, channels: int, device: torch.device, tensorrt: str | None = None) -> Runner:
    """Return a runner of the ONNX file at ``path``.

    Args:
        path: a file with the input ``image`` and the output ``scores``.
        channels: of the output.
        device: a CPU, or a GPU where ONNX Runtime has its CUDA provider.
        tensorrt: a precision to run TensorRT in; None leaves TensorRT out.

    Raises:
        ConfigError: this ONNX Runtime has no CUDA provider.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    # threads that wait busily between images take the processor from PyTorch's
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # tiny numbers, of which the NMF makes many, take a hundred times the time of others
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    session = onnxruntime.InferenceSession(path, options, providers=_providers(device, tensorrt))
    if device.type == "cpu":
        return lambda image: torch.from_numpy(session.run(["scores"], {"image": image.contiguous().numpy()})[0])
    if "CUDAExecutionProvider" not in session.get_providers():
        raise ConfigError(
            "--backend onnxruntime on a GPU needs the package onnxruntime-gpu; install it, or take --backend torch"
        )
    return _gpu_runner(session, channels, device)


def _providers(device: torch.device, tensorrt: str | None) -> list[Any]:
    if device.type == "cpu":
        return ["CPUExecutionProvider"]
    gpu = {"device_id": device.index or 0}
    providers: list[Any] = [("CUDAExecutionProvider", gpu), "CPUExecutionProvider"]
    if tensorrt is not None:
        types = {"trt_fp16_enable": tensorrt == "fp16", "trt_bf16_enable": tensorrt == "bf16"}
        providers.insert(0, ("TensorrtExecutionProvider", {**gpu, **types}))
    return providers


def _gpu_runner(session: Any, channels: int, device: torch.device) -> Runner:
    """Return a runner whose image and scores stay on the GPU."""

    def run(image: Tensor) -> Tensor:
        image = image.contiguous()
        scores = torch.empty((len(image), channels, *image.shape[2:]), device=device)
        binding = session.io_binding()
        for bind, name, tensor in ((binding.bind_input, "image", image), (binding.bind_output, "scores", scores)):
            bind(name, "cuda", device.index or 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
        torch.cuda.current_stream(device).synchronize()  # ONNX Runtime has its own stream
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return scores

    return run
