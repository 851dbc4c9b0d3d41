"""How everything here is measured: in turns, in processes of their own, on a machine that is described."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from mmseg_ext.deploy.choice import fast_precisions
from mmseg_ext.engine.distributed import DTYPES
from mmseg_ext.errors import UserError

_T = TypeVar("_T")
_PROCESS = Path("/proc/self")
# imported once, before the processes that measure are copied
_PRELOADED = ["mmseg_ext", "tqdm"]
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "amx_tile")
_PACKAGES = (
    *("torch", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt"),
    *("mmcv-full", "mmcv", "mmsegmentation", "segmentation-models-pytorch"),
)


def in_turns(works: Mapping[str, Callable[[], _T]], rounds: int, warm_up: int = 1) -> dict[str, list[_T]]:
    """Return what each of ``works`` returned in each round.

    They run A B A B, so that what slows the machine for a while slows all of them: compare ratios. Each returns its own
    measurement, such as a `timed` one. The ``warm_up`` rounds before do not count.
    """
    found: dict[str, list[_T]] = {name: [] for name in works}
    for turn in range(warm_up + rounds):
        for name, work in works.items():
            measured = work()
            if turn >= warm_up:
                found[name].append(measured)
    return found


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return a function that does ``work`` and returns its seconds, those of the GPU included."""

    def seconds() -> float:
        start = time.perf_counter()
        work()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of each round's ``ours`` over ``theirs``; a stop may have ended within a round."""
    return median(a / b for a, b in zip(ours, theirs, strict=False))


def machine_line(threads: int | None = None) -> str:
    """Return what decides about speed in one sentence: processor, ``threads`` of networks, GPU, limits, versions.

    The limits, which no network can exceed, are measured: products of matrices, copies in memory.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    processor = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = processor.get("model name", platform.processor() or platform.machine())
    flags = ", ".join(flag for flag in _FLAGS if flag in processor.get("flags", "").split())
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.is_available()
    load = os.getloadavg()[0]
    copies, products = _limits(torch.device("cuda" if gpu else "cpu"))
    versions = []
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return (
        f"Machine: {name}{flags and f' ({flags})'}, {len(os.sched_getaffinity(0))} cores, "
        f"{threads or torch.get_num_threads()} threads, {memory_gib:.1f} GiB; "
        f"{f'{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})' if gpu else 'no GPU'}; "
        f"matrix products of {' and '.join(f'{rate:.0f} ({name})' for name, rate in products.items())} GFLOP/s, "
        f"copies of {copies:.0f} GB/s; load {load:.2f} before the start; "
        f"Python {platform.python_version()}, {', '.join(versions)}."
    )


def _limits(device: torch.device) -> tuple[float, dict[str, float]]:
    """Return copies in 10^9 bytes a second, and matrix products in 10^9 operations a second.

    Products are those of the precisions that the hardware has; emulated ones can take minutes.
    """
    size = 2048 if device.type == "cpu" else 8192
    matrices = {name: torch.ones(size, size, device=device, dtype=DTYPES[name]) for name in fast_precisions(device)}
    block, target = torch.ones(2, 2**26, device=device)
    works = {name: timed(partial(torch.mm, matrix, matrix)) for name, matrix in matrices.items()}
    seconds = in_turns({**works, "copy": timed(partial(target.copy_, block))}, rounds=5)
    products = {name: 2 * size**3 / median(seconds[name]) / 1e9 for name in matrices}
    return 2 * block.nbytes / median(seconds["copy"]) / 1e9, products


def process_bytes(field: str) -> int | None:
    """Return this process's memory: ``VmRSS`` now, ``VmHWM`` at most; None where the kernel does not tell."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def forget_peak() -> None:
    """Let the peak memory of this process, on a GPU of its tensors, begin anew."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_bytes(before: int | None = None) -> int | None:
    """Return the peak of the tensors on the GPU, else what this process grew by since it had ``before`` bytes."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    most = process_bytes("VmHWM")
    return None if most is None or before is None else most - before


class WorkerError(UserError):
    """A process that measures has failed or ended."""


class Worker(contextlib.AbstractContextManager):
    """A process that goes through an iterator, a step for each `ask`.

    On a CPU it is the copy of a process that has imported everything (a GPU's driver does not bear that).

    Args:
        steps: what makes the iterator, such as a generator function; it can be imported.
        args: its arguments.
        fresh: start with an empty process instead, whose memory counts from its start.
    """

    def __init__(self, steps: Callable[..., Iterator[Any]], *args: object, fresh: bool = False) -> None:
        copied = not (fresh or torch.cuda.is_available())
        context: Any = multiprocessing.get_context("forkserver" if copied else "spawn")
        if copied:
            context.set_forkserver_preload(_PRELOADED)
        self._connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, steps, args))
        self.process.start()
        other.close()

    def ask(self) -> Any:
        """Return what the iterator gives next.

        Raises:
            WorkerError: it raised an exception, or its process has ended; says why in one line.
        """
        try:
            self._connection.send(True)
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            killed = code == -signal.SIGKILL
            answer = WorkerError("killed, out of memory?" if killed else f"its process ended with code {code}")
        if isinstance(answer, WorkerError):
            raise answer
        return answer

    def end(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self.process.kill()
        self.process.join()

    def __exit__(self, *_: object) -> None:
        self.end()


def _serve(connection: Any, steps: Callable[..., Iterator[Any]], args: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    with contextlib.suppress(OSError):  # where memory runs out, this process goes first
        (_PROCESS / "oom_score_adj").write_text("1000")
    with contextlib.suppress(EOFError, ConnectionError):  # the process that asks has ended
        running = steps(*args)
        while connection.recv():
            try:
                answer = next(running)
            except Exception as error:
                line = (str(error).strip().splitlines() or [""])[0]
                kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
                answer = WorkerError(f"{kind}{line}"[:300])
            connection.send(answer)


def apart(function: Callable[..., _T], *args: object) -> _T:
    """Return ``function(*args)``, computed in an empty process.

    Raises:
        WorkerError: it failed.
    """
    with Worker(map, function, *([value] for value in args), fresh=True) as worker:
        return worker.ask()
