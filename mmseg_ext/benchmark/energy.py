"""Energy that the machine counts by itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_POWERCAP = Path("/sys/class/powercap")


def energy_counter(device: torch.device, powercap: Path = _POWERCAP) -> Callable[[], float] | None:
    """Return a function that reads the joules used so far, by all that runs there; None where nothing tells.

    On a GPU these are the whole board's (NVML), else those of the processor's packages (RAPL). RAPL's counters start
    again from 0 after some minutes to hours.

    Args:
        device: where the network runs.
        powercap: the kernel's folder of RAPL's counters.
    """
    return _board_counter(device) if device.type == "cuda" else _package_counter(powercap)


def _package_counter(powercap: Path) -> Callable[[], float] | None:
    zones = [zone for zone in powercap.glob("*rapl:*") if zone.name.count(":") == 1]
    try:
        counters = [zone / "energy_uj" for zone in zones if (zone / "name").read_text().startswith("package")]
        for counter in counters:
            counter.read_text()
    except OSError:  # on many machines only root may read them
        return None
    return (lambda: sum(int(counter.read_text()) for counter in counters) / 1e6) if counters else None


def _board_counter(device: torch.device) -> Callable[[], float] | None:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    board, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()

    def read() -> float:
        nvml.nvmlDeviceGetTotalEnergyConsumption(board, ctypes.byref(millijoules))
        return millijoules.value / 1000

    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(board)):
        return None
    return read if read() else None
