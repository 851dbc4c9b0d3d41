"""The fastest backend of this machine, by measurement, and a network that runs as the user asks."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..engine.checkpoint import weights_sha256
from ..engine.distributed import gathered, is_first_process
from ..errors import ConfigError
from ..models.folding import network_stride
from .cache import architecture_sha256, software, through_cache
from .formats import read_metadata
from .options import BackendSettings
from .pytorch import Runner
from .runner import accelerated, available_backends, make_runner, possible_precisions

_ROUNDS = (3, 7)
_SECONDS_EACH = 3.0
_CPU = torch.device("cpu")
_RUN_BY = {".onnx": ("onnxruntime", "tensorrt"), ".xml": ("openvino",)}
logger = logging.getLogger(__name__)


def run_on(
    network: nn.Module, settings: BackendSettings, configured: str, device: torch.device, shape: Sequence[int]
) -> tuple[nn.Module, str, str]:
    """Return a segmentor that runs as ``settings`` say, the backend and the precision.

    The ``network`` is moved to ``device``, where images come from. ``configured`` is the precision that the config asks
    for; ``shape``, (N, C, H, W) of what is to be predicted, is for ``auto``.

    Raises:
        UserError: the machine, the packages or the file do not fit.
    """
    network = network.to(device).eval()
    backend, precision = settings.backend, settings.precision or configured
    if settings.exported is not None:
        backend, precision = _of_file(settings.exported, settings, network)
    elif backend == "auto":
        precisions = _common_precisions(device) if precision == "auto" else (precision,)
        backend, precision = _chosen(network, shape, precisions, device)
    elif precision == "auto":
        precision = [one for one in _common_precisions(device) if one in possible_precisions(backend, device)][-1]
    return accelerated(network, backend, precision, device, model_file=settings.exported), backend, precision


def _of_file(path: str, settings: BackendSettings, network: nn.Module) -> tuple[str, str]:
    """Return backend and precision for an exported file, which must be of these weights and of this precision."""
    suffix = os.path.splitext(path)[1]
    if suffix not in _RUN_BY:
        raise ConfigError(f"--exported {path}: give a .onnx or .xml file that tools/export.py wrote")
    facts = {name: json.loads(value) for name, value in read_metadata(path).items()}
    if facts["weights_sha256"] != weights_sha256(network.state_dict()):
        raise ConfigError(f"--exported {path}: was made from other weights; export this checkpoint")
    backend = _RUN_BY[suffix][0] if settings.backend == "auto" else settings.backend
    if backend not in _RUN_BY[suffix]:
        raise ConfigError(f"--exported {path}: runs on {' or '.join(_RUN_BY[suffix])}, not on --backend {backend}")
    stored, wanted = facts["precision"], settings.precision
    if wanted in (None, "auto"):
        return backend, "fp32" if (backend, stored) == ("openvino", "fp16") else stored
    if wanted != stored and (backend == "onnxruntime" or "int8" in (wanted, stored)):
        raise ConfigError(f"--exported {path}: is in {stored}, not in {wanted}; leave --precision out, or export it so")
    return backend, wanted


def _chosen(
    network: nn.Module, shape: Sequence[int], precisions: Sequence[str], device: torch.device
) -> tuple[str, str]:
    """Return backend and precision; of several processes the first measures."""
    choice = choose_backend(network, shape, precisions, device) if is_first_process() else None
    first = gathered(choice)[0]
    assert first is not None
    return first.backend, first.precision


def fast_precisions(device: torch.device) -> tuple[str, ...]:
    """Return float32 and the shorter floating-point type that the hardware computes natively, if any."""
    if device.type == "cuda":
        return ("fp32", "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16")
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return ("fp32", "bf16") if native else ("fp32",)


def _common_precisions(device: torch.device) -> tuple[str, ...]:
    """Return `fast_precisions` for all processes; where they differ, those that every device computes."""
    first, *others = gathered(fast_precisions(device))
    if all(found == first for found in others):
        return first
    return ("fp32", "fp16") if device.type == "cuda" else ("fp32",)  # GPUs with bf16 compute fp16 too


@dataclass(frozen=True)
class Choice:
    """What `choose_backend` found.

    Attributes:
        backend: the fastest.
        precision: the one it was fastest with.
        seconds: median time of one batch, by "backend precision", the fastest first.
    """

    backend: str
    precision: str
    seconds: dict[str, float]

    @classmethod
    def read(cls, path: str) -> Choice:
        """Return the choice in the file at ``path``; anything else in it raises."""
        measured = json.loads(Path(path).read_text("utf-8"))["seconds"].items()
        seconds = {str(name): float(value) for name, value in measured}
        backend, precision = min(seconds, key=lambda name: seconds[name]).split()
        return cls(backend, precision, seconds)


def choose_backend(
    network: nn.Module,
    shape: Sequence[int],
    precisions: Sequence[str] = ("fp32",),
    device: torch.device = _CPU,
) -> Choice:
    """Return the fastest installed way to run ``network`` on images of ``shape`` (N, C, H, W).

    The backends are measured once for each machine, number of threads, versions, architecture, shape and precisions;
    the result is kept in the cache folder. ``compile`` is measured only on a GPU: on a CPU it compiles for about a
    minute in every process. Sides are rounded up to multiples of the network's stride. ``precisions`` are the ones to
    measure, without int8; `fast_precisions` returns those that the hardware computes natively.

    Raises:
        ConfigError: the cache folder cannot be written.
    """
    stride = network_stride(network)
    fitted = (*shape[:2], *(math.ceil(side / stride) * stride for side in shape[2:]))
    left_out = ("plain",) if device.type == "cuda" else ("plain", "compile")
    candidates = [
        (backend, precision)
        for backend in available_backends(device)
        if backend not in left_out
        for precision in possible_precisions(backend, device)
        if precision in precisions
    ]
    facts = {
        "machine": _machine(device),
        "software": software(),
        "architecture": architecture_sha256(network),
        "shape": fitted,
        "precisions": sorted(precisions),
        "candidates": candidates,
    }
    measured = ["before"]

    def measure(path: str) -> None:
        measured[0] = "now"
        logger.info("measuring %s, once on this machine", ", ".join(map(" ".join, candidates)))
        image = torch.randn(fitted, device=device)
        seconds = _medians(_runners(network, candidates, image), image)
        Path(path).write_text(json.dumps({**facts, "seconds": seconds}, indent=1), encoding="utf-8")

    choice = through_cache(facts, "choice.json", measure, Choice.read)
    figures = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in choice.seconds.items())
    size = "x".join(map(str, fitted))
    logger.info("fastest for %s, measured %s: %s %s (%s)", size, *measured, choice.backend, choice.precision, figures)
    return choice


def _runners(network: nn.Module, candidates: Sequence[tuple[str, str]], image: Tensor) -> dict[str, Runner]:
    """Return a runner for each candidate, by "backend precision", without those that fail.

    Each has seen the ``image``: what compiles does so then, and fails then.
    """
    runners, full = {}, ""
    for backend, precision in candidates:
        try:
            run = make_runner(network, backend, precision, image.device)
            _seconds(run, image)
            runners[f"{backend} {precision}"] = run
        except Exception as error:  # an optional package may fail in any way; the others still run
            if isinstance(error, torch.OutOfMemoryError):  # another precision may fit
                full = str(error)
            elif backend == "torch":
                raise
            logger.warning("%s %s does not run here: %s", backend, precision, str(error).split("\n")[0])
    if not runners:
        raise torch.OutOfMemoryError(full)
    return runners


def _seconds(run: Runner, image: Tensor) -> float:
    """Return the seconds of one call, those of the GPU included, whose errors show here too."""
    begin = time.perf_counter()
    run(image)
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - begin


def _medians(runners: dict[str, Runner], image: Tensor) -> dict[str, float]:
    """Return the median seconds of each runner, the fastest first; they take turns, so that load slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    begin = time.perf_counter()
    for done in range(_ROUNDS[1]):
        if done >= _ROUNDS[0] and time.perf_counter() - begin > _SECONDS_EACH * len(runners):
            break
        for name, run in runners.items():
            times[name].append(_seconds(run, image))
    medians = {name: statistics.median(found) for name, found in times.items()}
    return {name: medians[name] for name in sorted(medians, key=lambda name: medians[name])}


def _machine(device: torch.device) -> dict[str, object]:
    """Return what the speed of ``device`` depends on."""
    if device.type == "cuda":
        return {"gpu": torch.cuda.get_device_name(device)}
    listed = Path("/proc/cpuinfo")  # on Linux, where platform does not know it
    model = re.search("model name.*: (.*)", listed.read_text("utf-8")) if listed.exists() else None
    return {
        "cpu": model[1] if model else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
