"""The floating-point type of training and evaluation, chosen by hardware."""

from __future__ import annotations

import itertools

import torch
from mmcv.runner import build_optimizer
from torch import nn
from torch.optim import Optimizer

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


# -- engine.optimizer
# The config's optimizer, with parameters of equal settings updated together instead of one after the other.

_FUSED = ("Adam", "AdamW", "SGD")  # have a fused step on CPU and on CUDA
_EXECUTION = ("foreach", "fused")  # how a step is computed, not what


def training_optimizer(network: nn.Module, settings: dict) -> Optimizer:
    """Return the optimizer for ``network``, which must be on its device.

    mmcv makes one group for each parameter where ``paramwise_cfg`` is given; here those of equal settings make one.
    Its state dict keeps mmcv's groups, and takes up any grouping of the same parameters in the same order. Adam,
    AdamW and SGD step fused, unless ``settings`` say ``fused`` or ``foreach`` themselves.

    Args:
        network: network whose parameters are trained.
        settings: ``cfg.optimizer``.
    """
    if settings.get("type") in _FUSED and not settings.keys() & set(_EXECUTION):
        settings = {**settings, "fused": True}
    optimizer = build_optimizer(network, settings)
    built = optimizer.param_groups
    optimizer.param_groups = _joined(built)
    optimizer.register_state_dict_post_hook(lambda own, state: _regrouped(state, own.param_groups, built))
    optimizer.register_load_state_dict_pre_hook(lambda own, state: _fitting(state, built, own.param_groups))
    optimizer.register_load_state_dict_post_hook(_align_state)
    return optimizer


def _settings(group: dict) -> dict:
    return {name: value for name, value in group.items() if name != "params"}


def _joined(groups: list[dict]) -> list[dict]:
    """Return the groups with those of equal settings joined, in the order of their first parameters."""
    joined: list[dict] = []
    for group in groups:
        twin = next((other for other in joined if _settings(other) == _settings(group)), None)
        if twin is None:
            joined.append({**group, "params": list(group["params"])})
        else:
            twin["params"] += group["params"]
    return joined


def _regrouped(state: dict, groups: list[dict], wanted: list[dict]) -> dict:
    """Return an optimizer's state dict in other groups of the same parameters.

    Args:
        state: state dict, whose groups hold the parameters of ``groups`` in this order.
        groups: groups with parameters.
        wanted: groups with parameters; each gets the settings that its first parameter has in ``state``.
    """
    settings = {number: _settings(group) for group in state["param_groups"] for number in group["params"]}
    numbers = dict(zip((id(p) for group in groups for p in group["params"]), settings, strict=True))
    count = itertools.count()
    moments: dict[int, dict] = {}
    regrouped = []
    for group in wanted:
        old = [numbers[id(parameter)] for parameter in group["params"]]
        new = [next(count) for _ in old]
        moments.update(
            (there, state["state"][here]) for here, there in zip(old, new, strict=True) if here in state["state"]
        )
        regrouped.append({**settings[old[0]], "params": new})
    return {**state, "state": moments, "param_groups": regrouped}


def _fitting(state: dict, built: list[dict], own: list[dict]) -> dict:
    """Return a saved state dict in the optimizer's groups, to be computed as the optimizer does."""
    count = sum(len(group["params"]) for group in built)
    if sum(len(group["params"]) for group in state["param_groups"]) != count:
        return state  # torch says that it does not fit
    state = _regrouped(state, built, own)
    for saved, group in zip(state["param_groups"], own, strict=True):
        saved.update({name: group[name] for name in _EXECUTION if name in group})
    return state


def _align_state(optimizer: Optimizer) -> None:
    """Give the moments the memory format of their parameters, which a fused step takes for granted."""
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
