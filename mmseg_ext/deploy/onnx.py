"""ONNX: a network as a file, and that file in ONNX Runtime (CPU and CUDA) and TensorRT."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ConfigError, require
from .exportable import exported_program
from .int8 import quantized

_OPSET = 18
_ONE_FILE_BYTES = 2**31  # protobuf's limit
_CPU = torch.device("cpu")


def export_onnx(
    network: nn.Module,
    path: str,
    precision: str = "fp32",
    metadata: Mapping[str, str] | None = None,
    calibration: Sequence[np.ndarray] = (),
    target: str = "cpu",
) -> None:
    """Write ``network`` as an ONNX file; more than 2 GB of weights go to ``path`` + ``.data``.

    It runs anywhere, but is folded for the device type ``target``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: int8 without calibration images.
    """
    import onnx

    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's exporter uses what PyTorch deprecates
        program = torch.onnx.export(
            exported_program(network, precision, target),
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


class OnnxRuntimeSession:
    """A file that `export_onnx` wrote in ONNX Runtime, with its ``metadata``; on a GPU, images and scores stay there.

    ``preferred`` are providers to take before CUDA, on a GPU.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ConfigError: a provider for the GPU does not start.
    """

    def __init__(self, path: str, device: torch.device = _CPU, preferred: Sequence[tuple[str, dict]] = ()) -> None:
        require(["onnxruntime"], "deploy", "reading and running ONNX files")
        import onnxruntime

        self.device = device
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        # threads that wait busily between images take the processor from PyTorch's
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # tiny numbers, of which the NMF makes many, take a hundred times the time of others
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        on_gpu: list[tuple[str, dict]] = []
        if device.type == "cuda":
            on_gpu = [*preferred, ("CUDAExecutionProvider", {"device_id": device.index or 0})]
        self.session = onnxruntime.InferenceSession(path, options, providers=[*on_gpu, "CPUExecutionProvider"])
        started = self.session.get_providers()  # without those whose libraries it cannot load
        if missing := [name for name, _ in on_gpu if name not in started]:
            raise ConfigError(
                f"ONNX Runtime cannot start its {missing[0]}: libraries are missing, or of another version than it was "
                "built for (its documentation names them); take --backend torch"
            )
        self.channels = self.session.get_outputs()[0].shape[1]
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)

    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W), float32, of normalised images (N, C, H, W)."""
        image = image.contiguous()
        if self.device.type == "cpu":
            return torch.from_numpy(self.session.run(["scores"], {"image": image.numpy()})[0])
        scores = torch.empty((len(image), self.channels, *image.shape[2:]), device=self.device)
        binding = self.session.io_binding()
        for bind, name, tensor in ((binding.bind_input, "image", image), (binding.bind_output, "scores", scores)):
            bind(name, "cuda", self.device.index or 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
        torch.cuda.current_stream(self.device).synchronize()  # ONNX Runtime has its own stream
        self.session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return scores


class TensorRTSession(OnnxRuntimeSession):
    """The ONNX file at ``path`` in TensorRT, through ONNX Runtime's provider, in ``precision``."""

    def __init__(self, path: str, device: torch.device, precision: str) -> None:
        types = {} if precision == "fp32" else {f"trt_{precision}_enable": True}  # an older one does not know bf16
        super().__init__(path, device, [("TensorrtExecutionProvider", {"device_id": device.index or 0, **types})])
