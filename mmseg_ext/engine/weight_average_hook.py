"""An exponential moving average of the weights, evaluated and saved."""

from __future__ import annotations

import torch
from mmcv.runner import HOOKS, Hook

from ..errors import ConfigError
from .runner import SafeIterRunner


@HOOKS.register_module()
class WeightAverageHook(Hook):
    """Keeps ``average = (1 - momentum) * average + momentum * weights`` over the steps of the optimizer.

    Evaluation during and after the training uses the average; the training itself goes on with the weights.
    Checkpoints hold both.

    Args:
        momentum: share of the newest weights, above 0 and at most 1; about the last 1 / momentum steps count.

    Raises:
        ConfigError: ``momentum`` is no such share.
    """

    def __init__(self, momentum: float = 1e-3) -> None:
        if not 0 < momentum <= 1:
            raise ConfigError(f"WeightAverageHook: momentum {momentum} must be above 0 and at most 1")
        self.momentum = momentum

    def before_run(self, runner: SafeIterRunner) -> None:
        """Begin with the weights as they are, or with the average of a resumed run."""
        if runner.average is None:
            runner.average = {key: value.detach().clone() for key, value in runner.network.state_dict().items()}

    @torch.no_grad()
    def after_train_iter(self, runner: SafeIterRunner) -> None:
        """Move the average towards the weights, after a step of the optimizer."""
        if runner.accumulated or runner.average is None:
            return
        for key, value in runner.network.state_dict().items():
            if value.is_floating_point():
                runner.average[key].lerp_(value, self.momentum)
            else:
                runner.average[key].copy_(value)
