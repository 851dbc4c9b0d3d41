"""Ways to run a network: PyTorch, ONNX Runtime, OpenVINO, TensorRT."""

from .accelerated import accelerated
from .cache import cache_folder
from .choice import Choice, choose_backend, fast_precisions
from .pytorch import Runner
from .runner import BACKENDS, PRECISIONS, available_backends, make_runner, why_unavailable
from .selection import BackendSettings, add_backend_options, backend_settings, run_on

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "BackendSettings",
    "Choice",
    "Runner",
    "accelerated",
    "add_backend_options",
    "available_backends",
    "backend_settings",
    "cache_folder",
    "choose_backend",
    "fast_precisions",
    "make_runner",
    "run_on",
    "why_unavailable",
]
