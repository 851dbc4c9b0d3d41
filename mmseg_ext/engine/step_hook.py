"""The step of the optimizer: accumulation, clipping, scaling."""

from __future__ import annotations

import torch
from mmcv.runner import HOOKS, OptimizerHook

from .runner import SafeIterRunner


@HOOKS.register_module()
class StepHook(OptimizerHook):
    """Backward pass and optimizer step, as the config's ``optimizer_config`` says.

    Args:
        grad_clip: arguments of `torch.nn.utils.clip_grad_norm_`, ``dict(max_norm=1.0)`` say; None does not clip.
        accumulate: iterations whose gradients make one step; their mean counts, as if their images were one batch.
            The last iteration of a run steps with what there is.
        scaled: scale the loss, for fp16. The scale travels in the checkpoint's meta data.
    """

    def __init__(self, grad_clip: dict | None = None, accumulate: int = 1, scaled: bool = False) -> None:
        super().__init__(grad_clip)
        self.accumulate, self.scaled = accumulate, scaled

    def before_run(self, runner: SafeIterRunner) -> None:
        """Take up the scaler where a resumed run left it; gradients of half a step stay."""
        if not runner.accumulated:
            runner.optimizer.zero_grad()
        device = next(runner.model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(device, enabled=self.scaled)
        state = (runner.meta or {}).get("grad_scaler")
        if state and self.scaled:
            self.scaler.load_state_dict(state)

    def after_train_iter(self, runner: SafeIterRunner) -> None:
        """Add this iteration's gradients, and step when there are enough."""
        self.scaler.scale(runner.outputs["loss"] / self.accumulate).backward()
        runner.accumulated += 1
        if runner.accumulated < self.accumulate and not self.is_last_iter(runner):
            return
        grad_norm = None
        if self.grad_clip is not None:
            self.scaler.unscale_(runner.optimizer)
            grad_norm = self.clip_grads(runner.model.parameters())
        self.scaler.step(runner.optimizer)
        self.scaler.update()
        if grad_norm is not None:  # read after the step is under way: it waits for the device
            runner.log_buffer.update({"grad_norm": float(grad_norm)}, runner.outputs["num_samples"])
        runner.optimizer.zero_grad()
        runner.accumulated = 0
        if self.scaled and runner.meta is not None:
            runner.meta["grad_scaler"] = self.scaler.state_dict()
