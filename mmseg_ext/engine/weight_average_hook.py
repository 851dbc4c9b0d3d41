"""An exponential moving average of the weights, evaluated and saved."""

from __future__ import annotations

import torch
from mmcv.runner import HOOKS, Hook
from torch import Tensor

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
        self._averages: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._counts: list[tuple[Tensor, Tensor]] = []

    def before_run(self, runner: SafeIterRunner) -> None:
        """Begin with the weights as they are, or with the average of a resumed run."""
        own = runner.network.state_dict()
        if runner.average is None:
            runner.average = {key: value.clone() for key, value in own.items()}
        pairs = [(runner.average[key], value) for key, value in own.items()]
        self._averages = [average for average, value in pairs if value.is_floating_point()]
        self._weights = [value for _, value in pairs if value.is_floating_point()]
        self._counts = [(average, value) for average, value in pairs if not value.is_floating_point()]

    @torch.no_grad()
    def after_train_iter(self, runner: SafeIterRunner) -> None:
        """Move the average towards the weights, after a step of the optimizer."""
        if runner.accumulated:
            return
        torch._foreach_lerp_(self._averages, self._weights, self.momentum)
        for average, value in self._counts:
            average.copy_(value)
