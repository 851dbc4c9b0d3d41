"""The floating-point type of training and evaluation, chosen by hardware."""

from __future__ import annotations

import torch

from ..errors import ConfigError

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16`` for the config's ``precision``.

    ``auto`` takes bf16 where the GPU computes it natively (Ampere and newer), fp16 with a gradient scaler on
    older GPUs such as Turing, and fp32 on a CPU.

    Raises:
        ConfigError: an unknown name, or bf16 on a GPU that only emulates it.
    """
    if wanted not in (*DTYPES, "auto"):
        raise ConfigError(f"precision='{wanted}' is unknown; take one of {', '.join(DTYPES)} or auto")
    native_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    if wanted == "auto":
        return "fp32" if device.type == "cpu" else "bf16" if native_bf16 else "fp16"
    if wanted == "bf16" and device.type == "cuda" and not native_bf16:
        raise ConfigError(f"precision='bf16': {torch.cuda.get_device_name(device)} has no native bf16; take fp16")
    return wanted
