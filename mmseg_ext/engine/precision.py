"""The floating-point type of training and evaluation, chosen by hardware."""

from __future__ import annotations

import torch
from mmcv.runner import BaseRunner
from mmcv.runner.hooks import HOOKS, OptimizerHook

from ..errors import ConfigError

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return ``fp32``, ``bf16`` or ``fp16`` for the config's ``precision``.

    ``auto`` takes bf16 where the GPU computes it natively (Ampere and newer), fp16 with a gradient scaler on
    older GPUs such as Turing, and fp32 on a CPU.

    Raises:
        ConfigError: an unknown name, bf16 on a GPU that only emulates it, or fp16 on a CPU.
    """
    if wanted not in (*DTYPES, "auto"):
        raise ConfigError(f"precision='{wanted}' is unknown; take one of {', '.join(DTYPES)} or auto")
    native_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    if wanted == "auto":
        return "fp32" if device.type == "cpu" else "bf16" if native_bf16 else "fp16"
    if wanted == "bf16" and device.type == "cuda" and not native_bf16:
        raise ConfigError(f"precision='bf16': {torch.cuda.get_device_name(device)} has no native bf16; take fp16")
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("precision='fp16' needs a GPU; take bf16 or fp32 on a CPU")
    return wanted


@HOOKS.register_module()
class ScaledOptimizerHook(OptimizerHook):
    """Optimizer step with a gradient scaler, for fp16; its state travels in the checkpoint's meta."""

    def before_run(self, runner: BaseRunner) -> None:
        """Take up the scaler where a resumed run left it."""
        self.scaler = torch.amp.GradScaler("cuda")
        state = (runner.meta or {}).get("grad_scaler")
        if state:
            self.scaler.load_state_dict(state)

    def after_train_iter(self, runner: BaseRunner) -> None:
        """Scale the loss, step the optimizer where the gradients are finite, adapt the scale."""
        runner.optimizer.zero_grad()
        self.scaler.scale(runner.outputs["loss"]).backward()
        if self.grad_clip is not None:
            self.scaler.unscale_(runner.optimizer)
            grad_norm = self.clip_grads(runner.model.parameters())
            if grad_norm is not None:
                runner.log_buffer.update({"grad_norm": float(grad_norm)}, runner.outputs["num_samples"])
        self.scaler.step(runner.optimizer)
        self.scaler.update()
        if runner.meta is not None:
            runner.meta["grad_scaler"] = self.scaler.state_dict()
