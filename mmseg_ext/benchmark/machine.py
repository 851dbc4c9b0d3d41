"""The machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile")
_PACKAGES = ("torch", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "triton")
_PEERS = ("mmcv-full", "mmsegmentation", "segmentation-models-pytorch")


def machine_facts(threads: int | None = None) -> dict[str, Any]:
    """Return what decides about speed: processor, threads, GPU and versions.

    Args:
        threads: that networks may use; None for torch's default.
    """
    processor = _cpuinfo()
    gpu = torch.cuda.is_available()
    return dict(
        cpu=processor.get("model name", platform.processor() or platform.machine()),
        cores=len(os.sched_getaffinity(0)),
        threads=threads or torch.get_num_threads(),
        flags=[flag for flag in _FLAGS if flag in processor.get("flags", "").split()],
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=torch.cuda.get_device_name() if gpu else None,
        load=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        cuda=torch.version.cuda if gpu else None,
        limits=_limits(torch.device("cuda" if gpu else "cpu")),
        versions={name: found for name in (*_PACKAGES, *_PEERS) if (found := _version(name))},
    )


def machine_line(facts: Mapping[str, Any]) -> str:
    """Return ``facts`` of `machine_facts` as one sentence."""
    flags = f" ({', '.join(facts['flags'])})" if facts["flags"] else ""
    gpu = f"{facts['gpu']} (CUDA {facts['cuda']})" if facts["gpu"] else "no GPU"
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    return (
        f"Machine: {facts['cpu']}{flags}, {facts['cores']} cores, {facts['threads']} threads, "
        f"{facts['memory_gib']:g} GiB; {gpu}; {_limits_in_words(facts['limits'])}; "
        f"load {facts['load']:g} before the start; Python {facts['python']}, "
        f"{versions}."
    )


def _limits(device: torch.device) -> dict[str, float]:
    """Return what no network can exceed: matrix products in 10^9 operations a second, copies in 10^9 bytes a second."""

    def seconds(call: Callable[[], object]) -> float:
        times = []
        for _ in range(6):
            begin = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return statistics.median(times[1:])

    size = 2048 if device.type == "cpu" else 8192
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = torch.ones(size, size, dtype=dtype, device=device)
        found[name] = 2 * size**3 / seconds(partial(torch.mm, matrix, matrix)) / 1e9
    block = torch.ones(2**26, device=device)
    target = torch.empty_like(block)
    found["copy"] = 2 * block.nbytes / seconds(partial(target.copy_, block)) / 1e9
    return found


def _limits_in_words(limits: Mapping[str, float]) -> str:
    return (
        f"matrix products of {limits['fp32']:.0f} (fp32) and {limits['bf16']:.0f} (bf16) GFLOP/s, "
        f"copies of {limits['copy']:.0f} GB/s"
    )


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
