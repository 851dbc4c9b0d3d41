"""Networks in ONNX Runtime, on its CPU, CUDA and TensorRT providers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from .pytorch import Runner


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
