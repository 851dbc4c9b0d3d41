"""The process that measures one cell, turn by turn."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from ..deploy.cache import cache_folder
from ..engine.distributed import start_process
from ..errors import UserError
from .cell import Cell
from .energy import energy_counter
from .prepared import Settings, prepare

_PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Ready:
    """The cell runs, and is warm.

    Attributes:
        backend: that runs, where ``auto`` chose too.
        precision: that runs.
        filled_cache: files such as an export were made, which takes memory that the next process does not need.
    """

    backend: str
    precision: str
    filled_cache: bool


@dataclass(frozen=True)
class Turn:
    """What one turn measured.

    Attributes:
        seconds: of each call that counts.
        joules: of one call, by all that ran on the machine; None where it does not tell.
        peak_bytes: most memory during the calls: of a GPU what torch allocated, else what this process grew by
            since before it built the network; None where the system does not tell.
    """

    seconds: tuple[float, ...]
    joules: float | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Failure:
    """The cell cannot be measured.

    Attributes:
        reason: one line.
    """

    reason: str


def serve(connection: Connection, cell: Cell, settings: Settings) -> None:
    """Build what ``cell`` says and send `Ready`, then a `Turn` for every message; or, at any time, a `Failure`.

    Args:
        connection: to the process that asks; its end ends this one.
        cell: what is measured.
        settings: how.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    with contextlib.suppress(OSError):  # where memory runs out, this process goes first
        (_PROCESS / "oom_score_adj").write_text("1000")
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            _serve(connection, cell, settings)
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            line = (str(error).strip().splitlines() or [""])[0]
            name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            connection.send(Failure(f"{name}{line}"[:300]))


def _serve(connection: Connection, cell: Cell, settings: Settings) -> None:
    before, cached = _memory("VmRSS"), _cached()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = start_process().device
    prepared = prepare(cell, device, settings)
    call = _complete(prepared.call, device)
    for _ in range(2):
        call()
    _forget_peak(device)
    connection.send(Ready(prepared.backend, prepared.precision, _cached() != cached))
    joules = energy_counter(device)
    while connection.recv():
        connection.send(_turn(call, settings.turn_seconds, joules, lambda: _peak(device, before)))


def _complete(call: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Return ``call`` that ends when the device has finished."""
    if device.type == "cpu":
        return call

    def whole() -> None:
        call()
        torch.cuda.synchronize(device)

    return whole


def _turn(
    call: Callable[[], object],
    turn_seconds: float,
    joules: Callable[[], float] | None,
    peak: Callable[[], int | None],
) -> Turn:
    """Call until ``turn_seconds`` are over; of several calls the first, which finds the caches cold, does not count."""
    seconds: list[float] = []
    used = joules() if joules else 0.0
    end = time.perf_counter() + turn_seconds
    while not seconds or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    each = (joules() - used) / len(seconds) if joules else -1.0
    return Turn(tuple(seconds[1:] or seconds), each if each >= 0 else None, peak())  # below 0: the counter began again


def _cached() -> set[str]:
    folder = cache_folder()
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def _memory(field: str) -> int | None:
    """Return a figure of the kernel about this process, in bytes; None where it tells none."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5")  # VmHWM begins anew


def _peak(device: torch.device, before: int | None) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = _memory("VmHWM")
    return None if most is None or before is None else most - before
