"""What happens when a loss is no number: the run stops and says where it came from, or leaves the step out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from mmcv.runner import HOOKS, Hook, IterBasedRunner, OptimizerHook
from torch import Tensor, nn
from torch import distributed as dist

from ..errors import TrainingError
from .distributed import to_device

_LARGEST = 3
_ADVICE = (
    "lower optimizer.lr, set optimizer_config.grad_clip.max_norm=1 or precision=fp32, and go on from the last "
    "checkpoint with --auto-resume"
)


def _spoiled(state_dict: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a nan or an infinity, if there is one."""
    for name, value in state_dict.items():
        if value.is_floating_point() and not value.isfinite().all():
            return name
    return None


def check_weights(state_dict: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are no numbers: written, they would push out a good checkpoint.

    Args:
        state_dict: weights and buffers.
        name: the checkpoint that is about to be written.

    Raises:
        TrainingError: names the first tensor with a nan or an infinity.
    """
    spoiled = _spoiled(state_dict)
    if spoiled:
        raise TrainingError(f"{name}: not written, because {spoiled} holds nan or infinity; {_ADVICE}")


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a module's output."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


class _Activations:
    """Records the largest magnitude that each module of a network puts out, in the order they finish."""

    def __init__(self, network: nn.Module) -> None:
        self.sizes: dict[str, Tensor] = {}
        self._handles = [
            module.register_forward_hook(partial(self._record, name))
            for name, module in network.named_modules()
            if name
        ]

    def _record(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        sizes = [tensor.detach().abs().amax().float() for tensor in _tensors(output)]
        if sizes:
            self.sizes[name] = torch.stack(sizes).amax()

    def __enter__(self) -> _Activations:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def words(self) -> list[str]:
        """Return in words the first module whose activations are no numbers, and those with the largest."""
        sizes = {name: size.item() for name, size in self.sizes.items()}
        words = [f"the first layer with {size:g} is {name}" for name, size in sizes.items() if not math.isfinite(size)]
        largest: dict[float, str] = {}
        for name, size in sizes.items():
            if math.isfinite(size):
                largest.setdefault(size, name)  # a module that only passes on what its last part put out is no news
        named = [f"{largest[size]} {size:.3g}" for size in sorted(largest, reverse=True)[:_LARGEST]]
        return words[:1] + ([f"largest activations: {', '.join(named)}"] if named else [])


@HOOKS.register_module()
class NonFiniteGuard(Hook):
    """Looks at the loss of every iteration before the optimizer does; needs a priority above the optimizer hook's.

    The loss in the log is the mean over all processes, so all see the same and agree without asking each other.
    Nothing is written when a run stops: the checkpoints of before stay as they are.

    Args:
        skip: leave out the step of an iteration whose loss is nan or infinite, with its weights, its batch-norm
            statistics and its log entry as if it had not been, and count it; False stops at the first.
        max_skips: how many in a row are left out before the run stops all the same.

    Raises:
        TrainingError: the loss is no number; names iteration, images and layers.
    """

    def __init__(self, skip: bool = False, max_skips: int = 10) -> None:
        self.skip, self.max_skips = skip, max_skips
        self._bad = False
        self._buffers: list[Tensor] = []

    def before_run(self, runner: IterBasedRunner) -> None:
        """Stand before the optimizer hooks, whatever their kind."""
        if not self.skip:
            return
        for hook in runner.hooks:
            if isinstance(hook, OptimizerHook):
                hook.after_train_iter = partial(self._step_if_finite, hook.after_train_iter)

    def _step_if_finite(self, step: Any, runner: IterBasedRunner) -> None:
        if not self._bad:
            step(runner)

    def before_train_iter(self, runner: IterBasedRunner) -> None:
        """Keep the statistics of the batch norms, which a forward of no numbers spoils for good."""
        if self.skip:
            self._buffers = [buffer.clone() for buffer in runner.network.buffers()]

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        """Stop, or leave the step out, when the loss is no number."""
        self._bad = not math.isfinite(runner.outputs["log_vars"]["loss"])
        if not self._bad:
            runner.skipped_in_a_row = 0
            return
        for buffer, before in zip(runner.network.buffers(), self._buffers, strict=False):
            buffer.copy_(before)
        spoiled = _spoiled(dict(runner.network.named_parameters()))
        if not self.skip or runner.skipped_in_a_row == self.max_skips or spoiled:
            raise TrainingError(self._explanation(runner, spoiled))
        runner.skipped_in_a_row += 1
        notes = runner.meta["hook_msgs"]
        notes["skipped_steps"] = notes.get("skipped_steps", 0) + 1
        runner.logger.warning(
            "iteration %d left out: %s; %d in a row, %d in this run",
            runner.iter + 1,
            _losses(runner),
            runner.skipped_in_a_row,
            notes["skipped_steps"],
        )
        self._forget(runner)

    def _forget(self, runner: IterBasedRunner) -> None:
        """Take this iteration out of what the next log line averages."""
        for history in (runner.log_buffer.val_history, runner.log_buffer.n_history):
            for name in runner.outputs["log_vars"]:
                history[name].pop()
                if not history[name]:
                    del history[name]

    def _explanation(self, runner: IterBasedRunner, spoiled: str | None) -> str:
        """Run the same batch once more and return what it shows, in one line; the same in all processes."""
        with torch.no_grad(), _Activations(runner.network) as activations:
            runner.model.train_step(runner.data_batch)
        batch = to_device(runner.data_batch, torch.device("cpu"))
        names = list(dict.fromkeys(os.path.basename(meta["filename"]) for meta in batch["img_metas"]))
        words = [f"images {', '.join(names)}"]
        if spoiled:
            words.append(f"{spoiled} holds nan or infinity since the step before")
        if not batch["img"].isfinite().all():
            words.append("the images themselves hold nan or infinity")
        words += activations.words()
        mine = math.isfinite(runner.outputs["loss"].item()), "; ".join(words)
        found = [mine] * (dist.get_world_size() if dist.is_initialized() else 1)
        if dist.is_initialized():
            dist.all_gather_object(found, mine)
        # the first process whose own loss is no number speaks for all
        where = min(found, key=lambda item: item[0])[1]
        skipped = runner.skipped_in_a_row
        often = f" after {skipped} skipped steps in a row" if skipped else ""
        return f"iteration {runner.iter + 1}: {_losses(runner)}{often}; {where}; no checkpoint was touched; {_ADVICE}"


def _losses(runner: IterBasedRunner) -> str:
    """Return the terms of the loss that are no numbers, in words."""
    values = {name: value for name, value in runner.outputs["log_vars"].items() if not math.isfinite(value)}
    return ", ".join(f"{name} is {value:g}" for name, value in values.items())
