"""The process's one OpenVINO core."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..errors import require


@cache
def openvino_core() -> Any:
    """Return the `openvino.Core` of this process, which stays to its end.

    The CPU plugin of each core gives signal handlers a stack of their own. When a core goes that is not the youngest,
    they are left with a stack that is no longer there, and the next signal, be it Ctrl-C, kills the process
    (OpenVINO 2026.4).

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    require(["openvino"], "export", "reading and running OpenVINO files")
    import openvino

    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, before any other core can
    return core
