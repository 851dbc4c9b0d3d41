"""int8 by post-training quantisation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import require
from ..models.layers.hamburger import Hamburger


def quantized(model: Any, network: Any, calibration: Sequence[np.ndarray]) -> Any:
    """Return ``model`` with int8 convolutions; the NMF stays in float.

    Args:
        model: OpenVINO or ONNX model of ``network``.
        network: the segmentor.
        calibration: normalised images (N, C, H, W) like those that the network will see.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    require(["nncf"], "export", "int8")
    import nncf

    nncf.set_log_level(logging.ERROR)
    # all matrix products of a network with a Hamburger are those of its NMF
    nmf = any(isinstance(module, Hamburger) for module in network.modules())
    return nncf.quantize(
        model,
        nncf.Dataset(calibration, lambda image: {"image": image}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(types=["MatMul", "Divide", "Div"], validate=False) if nmf else None,
    )
