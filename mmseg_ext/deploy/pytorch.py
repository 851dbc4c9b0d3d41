"""Networks as files of PyTorch that need none of this package's code."""

from __future__ import annotations

import copy
import ctypes
import json
import logging
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor, nn

from ..engine.distributed import DTYPES
from ..errors import ConfigError
from ..models.folding import Scores, folded
from ..models.light_ham_head import Hamburger
from .exportable import check_precision, example_image, exportable, exported_program
from .facts import EXTRA_FILE

_PRECISIONS = ("fp32", "fp16")


def export_torch(
    network: nn.Module, path: str, precision: str = "fp32", metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``network`` as PyTorch's ``ExportedProgram``: ``torch.export.load(path).module()(image)``.

    Image (N, C, H, W) and scores (N, K, H, W) are float32; N, H and W are free, H and W multiples of the network's
    stride, two at least.

    Args:
        network: segmentor with its weights; it stays as it is.
        path: the file to write, .pt2.
        precision: ``fp32`` or ``fp16``.
        metadata: what the file says of itself, as the JSON file ``metadata.json`` in it.

    Raises:
        ConfigError: another precision.
    """
    check_precision(precision, _PRECISIONS, "torch")
    program = exported_program(network, precision)
    torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(dict(metadata or {}))})


@torch.no_grad()
def export_torchscript(
    network: nn.Module, path: str, precision: str = "fp32", metadata: Mapping[str, str] | None = None
) -> None:
    """Write ``network`` as TorchScript: ``torch.jit.load(path)(image)``; PyTorch calls this format deprecated.

    Image (N, C, H, W) and scores (N, K, H, W) are float32; N, H and W are free, H and W multiples of the network's
    stride (others give an error or scores of another size).

    Args:
        network: segmentor with its weights; it stays as it is.
        path: the file to write, .pt.
        precision: ``fp32`` or ``fp16``.
        metadata: what the file says of itself, as the JSON file ``metadata.json`` in it.

    Raises:
        ConfigError: another precision.
    """
    check_precision(precision, _PRECISIONS, "torchscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation, and branches on sizes, which all multiples of the stride share
        traced = torch.jit.trace(exportable(network, precision), example_image(network), check_trace=False)
        torch.jit.save(traced, path, _extra_files={EXTRA_FILE: json.dumps(dict(metadata or {}))})


# -- backends.heap
# Memory that a process keeps for its next tensor instead of giving it back to the system.

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


@cache
def keep_freed_memory() -> None:
    """Let glibc reuse large blocks; the process then holds its peak until it ends.

    New blocks from the system are cleared page by page, which is a large part of a forward pass on a CPU. Without glibc
    nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)


# -- backends.pytorch
# Networks in PyTorch: as they are, in their fastest form, and compiled.

Runner = Callable[[Tensor], Tensor]
_GRAPHS = 4
logger = logging.getLogger(__name__)


def plain_runner(network: nn.Module, device: torch.device) -> Runner:
    """Return the untouched network in NCHW and float32, which all else is compared with."""
    scores = _arranged(Scores(copy.deepcopy(network)), device, torch.contiguous_format)
    return _called(scores, device, torch.float32, torch.contiguous_format)


def torch_runner(network: nn.Module, precision: str, device: torch.device) -> Runner:
    """Return the folded network in channels_last, on a GPU replayed as CUDA graphs."""
    run = _called(_fast(network, precision, device), device, DTYPES[precision] or torch.float32)
    return _CudaGraphs(run) if device.type == "cuda" else run


def compile_runner(network: nn.Module, precision: str, device: torch.device) -> Runner:
    """Return the same through ``torch.compile``.

    Raises:
        ConfigError: there is no C++ compiler.
    """
    if not has_compiler():
        raise ConfigError(
            "--backend compile needs a C++ compiler, and there is none; install g++, name yours in CXX, or take "
            "--backend torch"
        )
    compiled = torch.compile(_fast(network, precision, device), dynamic=True)
    run = _Told(_called(compiled, device, DTYPES[precision] or torch.float32))
    return _CudaGraphs(run) if device.type == "cuda" else run


def has_compiler() -> bool:
    """Return whether the C++ compiler that torch.compile would call is there."""
    return shutil.which(os.environ.get("CXX") or "g++") is not None


def _fast(network: nn.Module, precision: str, device: torch.device) -> nn.Module:
    """Return the scores of the folded network in channels_last and the type of ``precision``.

    The whole network is cast rather than autocast, which would cast weights at every call; only the NMF and its bases
    stay float32.
    """
    fast = Scores(folded(network))
    dtype = DTYPES[precision]
    if dtype is not None:
        bases = [(module, module.fixed_bases) for module in fast.modules() if isinstance(module, Hamburger)]
        fast = fast.to(dtype)
        for module, kept in bases:
            module.fixed_bases = kept
    return _arranged(fast, device, torch.channels_last)


def _arranged(scores: nn.Module, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """Return ``scores`` for inference on ``device`` with its weights in ``layout``."""
    return scores.eval().requires_grad_(False).to(device).to(memory_format=layout)  # type: ignore[call-overload]


def _called(
    scores: Callable[[Tensor], Tensor],
    device: torch.device,
    dtype: torch.dtype,
    layout: torch.memory_format = torch.channels_last,
) -> Runner:
    """Return ``scores`` as a runner: the type and layout of its weights in, float32 out, outside any autocast."""

    @torch.no_grad()
    def run(image: Tensor) -> Tensor:
        with torch.autocast(device.type, enabled=False):
            return scores(image.to(dtype, memory_format=layout)).float()

    return run


class _Told:
    """A runner that logs how long the first image of each new shape took to compile."""

    def __init__(self, run: Runner) -> None:
        self.run = run
        self.seen: set[torch.Size] = set()

    def __call__(self, image: Tensor) -> Tensor:
        if image.shape in self.seen:
            return self.run(image)
        self.seen.add(image.shape)
        begin = time.perf_counter()
        scores = self.run(image)
        shape = "x".join(map(str, image.shape))
        logger.info("torch.compile: the first image of shape %s took %.0f s", shape, time.perf_counter() - begin)
        return scores


class _CudaGraphs:
    """A runner whose kernels are recorded once per shape and replayed; beyond `_GRAPHS` shapes they run one by one."""

    def __init__(self, run: Runner) -> None:
        self.run = run
        self.graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self.works = True

    def __call__(self, image: Tensor) -> Tensor:
        if image.shape not in self.graphs:
            if not self.works or len(self.graphs) == _GRAPHS:
                return self.run(image)
            try:
                self.graphs[image.shape] = self._record(image)
            except RuntimeError as error:
                self.works = False
                logger.warning("CUDA graphs do not work here (%s); kernels run one by one", str(error).split("\n")[0])
                return self.run(image)
        graph, given, scores = self.graphs[image.shape]
        given.copy_(image)
        graph.replay()
        return scores.clone()

    def _record(self, image: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = image.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries choose and allocate before anything is recorded
                self.run(given)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            scores = self.run(given)
        return graph, given, scores
