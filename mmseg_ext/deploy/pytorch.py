"""PyTorch: networks as files that need none of this package's code, and as functions: plain, fast and compiled."""

from __future__ import annotations

import contextlib
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
from typing import Any

import torch
from torch import Tensor, nn

from ..engine.distributed import DTYPES
from ..models.folding import Scores, folded
from ..models.light_ham_head import Hamburger
from .exportable import example_image, exportable, exported_program

# images (N, C, H, W), float32 and normalised, to logits (N, K, H, W), float32
Runner = Callable[[Tensor], Tensor]
_CPU = torch.device("cpu")
_METADATA_FILE = "metadata.json"  # inside PyTorch's archives
_GRAPHS = 4
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1
logger = logging.getLogger(__name__)


def export_torch(
    network: nn.Module, path: str, precision: str, metadata: Mapping[str, str], target: str = "cpu"
) -> None:
    """Write ``network`` as PyTorch's ``ExportedProgram``: ``torch.export.load(path).module()(image)``.

    Sides of images are two strides at least. The network is folded for the device type ``target``. ``metadata`` is the
    JSON file ``metadata.json`` in the archive.
    """
    program = exported_program(network, precision, target)
    torch.export.save(program, path, extra_files={_METADATA_FILE: json.dumps(dict(metadata))})


@torch.no_grad()
def export_torchscript(
    network: nn.Module, path: str, precision: str, metadata: Mapping[str, str], target: str = "cpu"
) -> None:
    """Write ``network`` as TorchScript: ``torch.jit.load(path)(image)``; PyTorch calls this format deprecated.

    As `export_torch`, but sides that are no multiples of the stride give an error or scores of another size.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation, and branches on sizes, which all multiples of the stride share
        traced = torch.jit.trace(exportable(network, precision, target), example_image(network), check_trace=False)
        torch.jit.save(traced, path, _extra_files={_METADATA_FILE: json.dumps(dict(metadata))})


class TorchSession:
    """A module as a `Runner`: images take the precision and layout of its weights, outside any autocast.

    ``metadata`` is what the module's file says about itself.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        device: torch.device = _CPU,
        precision: str = "fp32",
        layout: torch.memory_format = torch.contiguous_format,
        metadata: dict[str, str] | None = None,
    ) -> None:
        self.module, self.device, self.layout, self.metadata = module, device, layout, metadata or {}
        self.dtype = DTYPES[precision] or torch.float32

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Return logits (N, K, H, W), float32, of normalised images (N, C, H, W)."""
        with torch.autocast(self.device.type, enabled=False):
            return self.module(image.to(self.dtype, memory_format=self.layout)).float()


def program_session(path: str) -> TorchSession:
    """Return an ``ExportedProgram`` as a runner on the CPU."""
    extra: dict[str, Any] = {_METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=extra)
    return TorchSession(program.module(), metadata=json.loads(extra[_METADATA_FILE]))


def torchscript_session(path: str) -> TorchSession:
    """Return a TorchScript file as a runner on the CPU."""
    extra: dict[str, Any] = {_METADATA_FILE: ""}
    module = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    return TorchSession(module, metadata=json.loads(extra[_METADATA_FILE]))


def plain_session(network: nn.Module, device: torch.device) -> Runner:
    """Return the network unchanged, in NCHW and float32: what all else is compared with."""
    return TorchSession(_placed(Scores(copy.deepcopy(network)), device, torch.contiguous_format), device)


def torch_session(network: nn.Module, precision: str, device: torch.device, compiled: bool = False) -> Runner:
    """Return the folded network in channels_last and the type of ``precision``; on a GPU replayed as CUDA graphs.

    The whole network is cast rather than autocast, which would cast weights at every call; only the NMF and its bases
    stay float32. ``compiled``: through ``torch.compile``, which needs a C++ compiler.
    """
    fast: Any = Scores(folded(network, device.type))
    if DTYPES[precision] is not None:
        bases = [(module, module.fixed_bases) for module in fast.modules() if isinstance(module, Hamburger)]
        fast = fast.to(DTYPES[precision])
        for module, kept in bases:
            module.fixed_bases = kept
    fast = _placed(fast, device, torch.channels_last)
    if device.type == "cpu":
        _keep_freed_memory()
    if compiled:
        fast = torch.compile(fast, dynamic=True)
    run: Runner = TorchSession(fast, device, precision, torch.channels_last)
    if compiled:
        run = _telling_compile_time(run)
    return _CudaGraphs(run, device) if device.type == "cuda" else run


def _telling_compile_time(run: Runner) -> Runner:
    """Return ``run``, which logs how long the first image of each new shape took to compile."""
    seen: set[torch.Size] = set()

    def told(image: Tensor) -> Tensor:
        begin = time.perf_counter()
        scores = run(image)
        if image.shape not in seen:
            seen.add(image.shape)
            shape = "x".join(map(str, image.shape))
            logger.info("torch.compile: the first image of shape %s took %.0f s", shape, time.perf_counter() - begin)
        return scores

    return told


def has_compiler() -> bool:
    """Return whether there is the C++ compiler that torch.compile would call."""
    return shutil.which(os.environ.get("CXX") or "g++") is not None


def _placed(scores: nn.Module, device: torch.device, layout: torch.memory_format) -> nn.Module:
    """Return ``scores`` for inference on ``device`` with its weights in ``layout``."""
    return scores.eval().requires_grad_(False).to(device).to(memory_format=layout)  # type: ignore[call-overload]


@cache
def _keep_freed_memory() -> None:
    """Let glibc reuse large blocks; the process then keeps its peak until it ends.

    The system clears new blocks page by page, which is a large part of a forward pass on a CPU. Without glibc nothing
    changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)


class _CudaGraphs:
    """A runner whose kernels are recorded once per shape and replayed; beyond `_GRAPHS` shapes they run one by one.

    The graphs share their memory: they run one after another, and what one leaves is copied at once. Where the rest
    needs it, they give it up. They belong to ``device``, whichever GPU is the current one.
    """

    def __init__(self, run: Runner, device: torch.device) -> None:
        self.run, self.device = run, device
        self.graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self.pool: Any = None
        self.side: Any = None  # the stream of all recordings: memory is shared within a stream
        self.works = True
        self._failed: list[torch.cuda.CUDAGraph] = []

    def __call__(self, image: Tensor) -> Tensor:
        with torch.cuda.device(self.device):
            if image.shape not in self.graphs and self.works and len(self.graphs) < _GRAPHS:
                try:
                    self.graphs[image.shape] = self._record(image)
                except RuntimeError as error:
                    self.works = False
                    said = str(error).split("\n")[0]
                    logger.warning("CUDA graphs do not work here (%s); kernels run one by one", said)
            if image.shape not in self.graphs:
                return self._one_by_one(image)
            graph, given, scores = self.graphs[image.shape]
            given.copy_(image)
            graph.replay()
            return scores.clone()

    def _one_by_one(self, image: Tensor) -> Tensor:
        try:
            return self.run(image)
        except torch.OutOfMemoryError:
            if not self.graphs:
                raise
        # not within the handler, whose error would keep what the failed call has made
        logger.warning("the GPU's memory is short: CUDA graphs give up theirs; kernels run one by one")
        self.graphs.clear()
        self.works = False
        return self.run(image)

    def _record(self, image: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        if self.side is None:
            self.side, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        given, before, graph = image.clone(), torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        self.side.wait_stream(before)
        with torch.cuda.stream(self.side):  # torch.cuda.graph itself does not go back where a recording fails
            for _ in range(3):  # libraries choose and allocate before anything is recorded
                self.run(given)
            try:
                # other threads, such as a loader's that pins memory, may call CUDA meanwhile
                with torch.cuda.graph(graph, self.pool, self.side, capture_error_mode="thread_local"):
                    scores = self.run(given)
            except BaseException:
                self._forget(graph)
                raise
        before.wait_stream(self.side)
        return graph, given, scores

    def _forget(self, graph: torch.cuda.CUDAGraph) -> None:
        """Give back what a recording that failed holds."""
        graph.reset()
        self._failed.append(graph)  # torch's allocator may still ask it
        with contextlib.suppress(RuntimeError):  # the recording had ended: only what was recorded failed
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self.pool)
            torch._C._cuda_releasePool(torch.cuda.current_device(), self.pool)
