"""Networks as files that run without this package."""

from .exporting import FORMATS, export_checkpoint
from .facts import NetworkFacts, read_facts, read_metadata
from .onnx_file import export_onnx
from .openvino_file import export_openvino
from .torch_file import export_torch, export_torchscript

__all__ = [
    "FORMATS",
    "NetworkFacts",
    "export_checkpoint",
    "export_onnx",
    "export_openvino",
    "export_torch",
    "export_torchscript",
    "read_facts",
    "read_metadata",
]
