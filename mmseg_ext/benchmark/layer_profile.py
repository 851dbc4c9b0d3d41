"""Where the time of a network goes on OpenVINO."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections import defaultdict

import numpy as np

from ..deploy.onnx import export_onnx
from ..deploy.openvino import compile_settings, openvino_core
from ..errors import ConfigError
from .cell import Contender
from .methods import build_method
from .prepared import Settings

_CALLS = 12


def layer_profile(contender: Contender, size_px: int, settings: Settings) -> str:
    """Return a Markdown table of the time in each kind of layer, for one image of ``size_px`` rows and columns.

    Kinds are OpenVINO's, with the implementation that it chose; times are medians over calls, of all layers of a kind.

    Raises:
        ConfigError: the cell is not on OpenVINO.
    """
    if contender.backend != "openvino":
        raise ConfigError(f"--profile {contender}: OpenVINO tells its layers' times; give a cell such as unet@openvino")
    precision = contender.precision or "fp32"
    method = build_method(contender.method, settings.checkpoint)
    core = openvino_core()
    with tempfile.TemporaryDirectory() as folder:
        path = settings.int8_file if precision == "int8" else None
        if path is None:
            path = os.path.join(folder, "network.onnx")
            export_onnx(method.network, path)
        model = core.read_model(path)
    shape = [1, method.bands, size_px, size_px]
    model.reshape(shape)
    request = core.compile_model(
        model, "CPU", compile_settings(precision) | {"PERF_COUNT": True}
    ).create_infer_request()
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    times: dict[str, list[float]] = defaultdict(list)
    for call in range(_CALLS):
        request.infer({"image": image})
        sums: dict[str, float] = defaultdict(float)
        for layer in request.get_profiling_info():
            sums[f"{layer.node_type}, {layer.exec_type}"] += 1000 * layer.real_time.total_seconds()
        if call >= 2:  # the first ones warm up
            for kind, milliseconds in sums.items():
                times[kind].append(milliseconds)
    medians = {kind: statistics.median(found) for kind, found in times.items()}
    total = sum(medians.values())
    lines = [f"{contender}, {size_px} px: {total:.0f} ms", "", "| layers | ms | share |", "| --- | --- | --- |"]
    for kind, milliseconds in sorted(medians.items(), key=lambda item: -item[1]):
        if milliseconds > 0.005 * total:
            lines.append(f"| {kind} | {milliseconds:.1f} | {100 * milliseconds / total:.0f} % |")
    return "\n".join(lines)
