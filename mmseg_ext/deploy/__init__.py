"""A network as a file, and as a function of images: PyTorch, ONNX Runtime, OpenVINO, TensorRT."""

from .cache import cache_folder
from .choice import (
    BackendSettings,
    Choice,
    add_backend_options,
    backend_settings,
    choose_backend,
    fast_precisions,
    run_on,
)
from .exporting import FORMATS, export_checkpoint
from .facts import NetworkFacts, read_facts, read_metadata
from .onnx import export_onnx
from .openvino import export_openvino
from .pytorch import Runner, export_torch, export_torchscript
from .runner import BACKENDS, PRECISIONS, accelerated, available_backends, make_runner, why_unavailable

__all__ = [
    "BACKENDS",
    "FORMATS",
    "PRECISIONS",
    "BackendSettings",
    "Choice",
    "NetworkFacts",
    "Runner",
    "accelerated",
    "add_backend_options",
    "available_backends",
    "backend_settings",
    "cache_folder",
    "choose_backend",
    "export_checkpoint",
    "export_onnx",
    "export_openvino",
    "export_torch",
    "export_torchscript",
    "fast_precisions",
    "make_runner",
    "read_facts",
    "read_metadata",
    "run_on",
    "why_unavailable",
]
