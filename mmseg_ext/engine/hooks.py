"""The hooks of a training: guard, optimizer step, weight average, and what is saved, shown and stopped around them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.runner import (
    HOOKS,
    BaseRunner,
    CheckpointHook,
    Hook,
    IterBasedRunner,
    OptimizerHook,
    TensorboardLoggerHook,
    master_only,
)
from torch import Tensor, nn
from torch import distributed as dist
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..errors import ConfigError, Stopped, TrainingError
from ..report.pictures import panel
from .checkpoint import NON_FINITE_ADVICE, checkpoints_by_iteration, non_finite_tensor
from .distributed import gather_by_index, gathered, hosts, to_device
from .evaluation import EvalHook, Prediction, image_name
from .runner import SafeIterRunner

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_S = 25
_LARGEST = 3


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a module's output."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield value
    elif isinstance(value, (Mapping, list, tuple)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


class Activations:
    """Records the largest magnitude that each module of a network puts out, in the order they finish."""

    def __init__(self, network: nn.Module) -> None:
        self.sizes: dict[str, Tensor] = {}
        modules = [(name, module) for name, module in network.named_modules() if name]
        self._handles = [module.register_forward_hook(partial(self._record, name)) for name, module in modules]

    def _record(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        sizes = [tensor.detach().abs().amax().float() for tensor in _tensors(output)]
        if sizes:
            self.sizes[name] = torch.stack(sizes).amax()

    def __enter__(self) -> Activations:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def words(self) -> list[str]:
        """Return in words the first module with non-finite activations, and those with the largest finite ones."""
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

    The loss in the log is the mean over all processes, so all see the same and agree without communicating. Nothing is
    written when a run stops: earlier checkpoints stay as they are.

    Args:
        skip: skip the step of an iteration whose loss is NaN or Inf, with its weights, batch-norm statistics and log
            entry, and count it; False stops at the first.
        max_skips: how many in a row are skipped before the run stops anyway.

    Raises:
        TrainingError: the loss is non-finite; names iteration, images and layers.
    """

    def __init__(self, skip: bool = False, max_skips: int = 10) -> None:
        self.skip, self.max_skips = skip, max_skips
        self._bad = False
        self._buffers: list[Tensor] = []

    def before_run(self, runner: SafeIterRunner) -> None:
        """Stand before the optimizer hooks, whatever their kind."""
        for hook in runner.hooks if self.skip else []:
            if isinstance(hook, OptimizerHook):
                hook.after_train_iter = partial(self._step_if_finite, hook.after_train_iter)

    def _step_if_finite(self, step: Any, runner: SafeIterRunner) -> None:
        if not self._bad:
            step(runner)

    def before_train_iter(self, runner: SafeIterRunner) -> None:
        """Keep the statistics of the batch norms, which a non-finite forward pass would spoil."""
        if self.skip:
            self._buffers = [buffer.clone() for buffer in runner.network.buffers()]

    def after_train_iter(self, runner: SafeIterRunner) -> None:
        """Stop, or skip the step, when the loss is non-finite."""
        self._bad = not math.isfinite(runner.outputs["log_vars"]["loss"])
        if not self._bad:
            runner.skipped_in_a_row = 0
            return
        for buffer, before in zip(runner.network.buffers(), self._buffers, strict=False):
            buffer.copy_(before)
        values = {name: value for name, value in runner.outputs["log_vars"].items() if not math.isfinite(value)}
        losses = ", ".join(f"{name} is {value:g}" for name, value in values.items())
        spoiled = non_finite_tensor(runner.network.named_parameters())
        if not self.skip or runner.skipped_in_a_row == self.max_skips or spoiled:
            raise TrainingError(self._explanation(runner, losses, spoiled))
        runner.skipped_in_a_row += 1
        notes = runner.meta["hook_msgs"]
        notes["skipped_steps"] = notes.get("skipped_steps", 0) + 1
        counts = runner.skipped_in_a_row, notes["skipped_steps"]
        runner.logger.warning("iteration %d skipped: %s; %d in a row, %d in this run", runner.iter + 1, losses, *counts)
        for history in (runner.log_buffer.val_history, runner.log_buffer.n_history):  # averaged by the next log line
            for name in runner.outputs["log_vars"]:
                history[name].pop()
                if not history[name]:
                    del history[name]

    def _explanation(self, runner: SafeIterRunner, losses: str, spoiled: str | None) -> str:
        """Run the same batch once more and return what it shows, in one line; the same in all processes."""
        with torch.no_grad(), Activations(runner.network) as activations:
            runner.model.train_step(runner.data_batch)
        batch = to_device(runner.data_batch, torch.device("cpu"))
        names = list(dict.fromkeys(os.path.basename(meta["filename"]) for meta in batch["img_metas"]))
        words = [f"images {', '.join(names)}"]
        if spoiled:
            words.append(f"{spoiled} contains NaN or Inf since the previous step")
        if not batch["img"].isfinite().all():
            words.append("the images themselves contain NaN or Inf")
        words += activations.words()
        mine = math.isfinite(runner.outputs["loss"].item()), "; ".join(words)
        # the first process whose own loss is non-finite speaks for all
        where = min(gathered(mine), key=lambda item: item[0])[1]
        skipped = runner.skipped_in_a_row
        often = f" after {skipped} skipped steps in a row" if skipped else ""
        return f"iteration {runner.iter + 1}: {losses}{often}; {where}; no checkpoint was touched; {NON_FINITE_ADVICE}"


@HOOKS.register_module()
class StepHook(OptimizerHook):
    """Backward pass and optimizer step, as the config's ``optimizer_config`` says.

    Args:
        grad_clip: arguments of `torch.nn.utils.clip_grad_norm_`, such as ``dict(max_norm=1.0)``; None: no clipping.
        accumulate: iterations whose gradients make one step; their mean counts, as if their images were one batch.
            The last iteration of a run steps with what there is.
        scaled: scale the loss, for fp16. The scale is stored in the checkpoint's meta data.
    """

    def __init__(self, grad_clip: dict | None = None, accumulate: int = 1, scaled: bool = False) -> None:
        super().__init__(grad_clip)
        self.accumulate, self.scaled = accumulate, scaled

    def before_run(self, runner: SafeIterRunner) -> None:
        """Restore the scaler of a resumed run, whose gradients of half a step stay."""
        if not runner.accumulated:
            runner.optimizer.zero_grad()
        device = next(runner.model.parameters()).device.type
        runner.scaler = torch.amp.GradScaler(device, enabled=self.scaled)
        state = (runner.meta or {}).get("grad_scaler")
        if state and self.scaled:
            runner.scaler.load_state_dict(state)

    def _is_last_of_step(self, runner: SafeIterRunner) -> bool:
        return runner.accumulated + 1 >= self.accumulate or self.is_last_iter(runner)

    def before_train_iter(self, runner: SafeIterRunner) -> None:
        """Let the processes average their gradients in the last iteration of a step only."""
        runner.model.require_backward_grad_sync = self._is_last_of_step(runner)

    def after_train_iter(self, runner: SafeIterRunner) -> None:
        """Add this iteration's gradients, and step when there are enough."""
        runner.scaler.scale(runner.outputs["loss"] / self.accumulate).backward()
        if not self._is_last_of_step(runner):
            runner.accumulated += 1
            return
        grad_norm = None
        if self.grad_clip is not None:
            runner.scaler.unscale_(runner.optimizer)
            grad_norm = self.clip_grads(runner.model.parameters())
        runner.scaler.step(runner.optimizer)
        runner.scaler.update()
        if grad_norm is not None:  # read after the step is under way: it waits for the device
            norm = float(grad_norm)
            if math.isfinite(norm) or not self.scaled:  # a scaler looks for the largest scale, and skips what overflows
                runner.log_buffer.update({"grad_norm": norm}, runner.outputs["num_samples"])
        runner.optimizer.zero_grad()
        runner.accumulated = 0


@HOOKS.register_module()
class WeightAverageHook(Hook):
    """Keeps ``average = (1 - momentum) * average + momentum * weights`` over the steps of the optimizer.

    Evaluation during and after the training uses the average; the training itself continues with the weights.
    Checkpoints contain both.

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
        own = runner.network.state_dict()
        if runner.average is None:
            runner.average = {key: value.clone() for key, value in own.items()}
        pairs = [(runner.average[key], value) for key, value in own.items()]
        self._averages = [average for average, value in pairs if value.is_floating_point()]
        self._weights = [value for _, value in pairs if value.is_floating_point()]
        self._counts = [(average, value) for average, value in pairs if not value.is_floating_point()]
        self._scale = runner.scaler.get_scale()

    @torch.no_grad()
    def after_train_iter(self, runner: SafeIterRunner) -> None:
        """Move the average towards the weights, after a step of the optimizer that was not skipped."""
        if runner.accumulated or runner.skipped_in_a_row:
            return
        before, self._scale = self._scale, runner.scaler.get_scale()
        if self._scale < before:  # the gradients overflowed
            return
        torch._foreach_lerp_(self._averages, self._weights, self.momentum)
        for average, value in self._counts:
            average.copy_(value)


class SafeCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that keeps the newest ``max_keep_ckpts`` ``iter_N.pth``, those of stopped runs included."""

    def _save_checkpoint(self, runner: SafeIterRunner) -> None:
        runner.share_gradients()
        if runner.rank:
            return
        runner.save_checkpoint(self.out_dir, save_optimizer=self.save_optimizer, **self.args)
        if self.max_keep_ckpts > 0:
            found = checkpoints_by_iteration(self.out_dir)
            for path in [found[done] for done in found if done <= runner.iter + 1][: -self.max_keep_ckpts]:
                path.unlink(missing_ok=True)


class EarlyStopping(Hook):
    """Ends a run whose validation score does not improve; runs after the evaluation and before the checkpoint hook.

    The state is part of a checkpoint, so that a resumed run counts on, and one that was ended stays so.

    Args:
        metric: the score that counts, as the log names it; of a ``loss`` less is better.
        patience: evaluations in a row without improvement after which the run ends.
        min_delta: what counts as an improvement is more than this.

    Raises:
        ConfigError: ``patience`` is below 1, or the evaluation has no such score.
    """

    def __init__(self, metric: str = "mIoU", patience: int = 5, min_delta: float = 0.0) -> None:
        if not isinstance(patience, int) or patience < 1:
            raise ConfigError(f"early_stopping.patience={patience!r}: give a number of evaluations, 1 or more")
        self.metric, self.patience, self.min_delta = metric, patience, min_delta

    def before_run(self, runner: SafeIterRunner) -> None:
        """Find the evaluation; a run that was ended already takes no further step."""
        self._evaluation = next(hook for hook in runner.hooks if isinstance(hook, EvalHook))
        if self._state(runner)["waited"] >= self.patience:
            self._end(runner, runner.iter)

    def after_train_iter(self, runner: SafeIterRunner) -> None:
        """Count the evaluations without improvement, the same in all processes."""
        if self._evaluation.evaluated_iter != runner.iter:
            return
        (score,) = gather_by_index({0: self._evaluation.scores.get(self.metric)} if runner.rank == 0 else {})
        if score is None:
            names = ", ".join(self._evaluation.scores)
            raise ConfigError(f"early_stopping.metric={self.metric!r}: the evaluation has {names}; choose one")
        state, sign = self._state(runner), -1 if "loss" in self.metric else 1
        if state["best"] is None or sign * (score - state["best"]) > self.min_delta:
            state.update(best=score, waited=0)
        else:
            state["waited"] += 1
        if state["waited"] >= self.patience:
            self._end(runner, runner.iter + 1)

    def _state(self, runner: SafeIterRunner) -> dict:
        return runner.meta["hook_msgs"].setdefault("early_stopping", dict(best=None, waited=0))

    def _end(self, runner: SafeIterRunner, iteration: int) -> None:
        runner._max_iters = iteration
        best = self._state(runner)["best"]
        text = "stopped early at iteration %d: no %s better than %.4f in %d evaluations"
        runner.logger.info(text, iteration, self.metric, best, self._state(runner)["waited"])


@HOOKS.register_module()
class PredictionSamplesHook(Hook):
    """Shows image, truth and prediction of a few validation images in TensorBoard, if it is among the loggers.

    The images are spread evenly over those that the first process evaluates, so no network runs twice.

    Args:
        count: number of images; 0 for none.
        max_size_px: longest side of each picture; larger images are scaled down.
    """

    def __init__(self, count: int = 4, max_size_px: int = 512) -> None:
        self.count, self.max_size_px = count, max_size_px

    def before_run(self, runner: IterBasedRunner) -> None:
        """Listen to the evaluation."""
        boards = [hook for hook in runner.hooks if isinstance(hook, TensorboardLoggerHook)]
        evaluations = [hook for hook in runner.hooks if isinstance(hook, EvalHook)]
        if runner.rank or not self.count or not boards or not evaluations:
            return
        (self._board, *_), (evaluation, *_) = boards, evaluations
        self._dataset = evaluation.dataloader.dataset
        indices = np.asarray(evaluation.dataloader.sampler)
        spread = np.linspace(0, len(indices) - 1, min(self.count, len(indices)))
        self._shown = set(indices[spread.round().astype(int)].tolist())
        evaluation.on_prediction = self._show

    def before_train_iter(self, runner: IterBasedRunner) -> None:
        """Remember the iteration; a reference to the runner would keep it, and its loader's workers, alive."""
        self._iteration = runner.iter + 1

    def _show(self, found: Prediction) -> None:
        index = found.index
        if index not in self._shown:
            return
        image, truth = self._dataset.picture(index), None
        if self._dataset.ann_dir:
            truth = self._smaller(self._dataset.get_gt_seg_map_by_idx(index), cv2.INTER_NEAREST)
        labels = self._smaller(found.labels, cv2.INTER_NEAREST)
        sheet = panel(self._smaller(image, cv2.INTER_AREA), labels, truth, self._dataset.PALETTE)
        name = image_name(self._dataset, index)
        self._board.writer.add_image(f"predictions/{name}", sheet, self._iteration, dataformats="HWC")

    def _smaller(self, picture: np.ndarray, interpolation: int) -> np.ndarray:
        """Return ``picture`` (H, W, ...) with at most ``max_size_px`` on a side, uint8."""
        scale = min(1, self.max_size_px / max(picture.shape[:2]))
        return cv2.resize(np.asarray(picture, np.uint8), None, fx=scale, fy=scale, interpolation=interpolation)


@HOOKS.register_module()
class ResumableTensorboardHook(TensorboardLoggerHook):
    """``TensorboardLoggerHook`` whose curves continue where a resumed run does, without the steps made twice."""

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Open the event file; what was logged after the resumed iteration is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.log_dir or os.path.join(runner.work_dir, "tf_logs")
        self.writer = SummaryWriter(folder, purge_step=runner.iter + 1 if runner.iter else None)
        threading.excepthook = _say_unless_unwritten

    @master_only
    def close(self) -> None:
        """Write what is still waiting in memory, however the run ended."""
        if hasattr(self, "writer"):
            self.writer.close()


def _say_unless_unwritten(said: threading.ExceptHookArgs) -> None:
    """Print the error of a thread, but not that a file cannot be written: TensorBoard raises it at the next value."""
    if not isinstance(said.exc_value, OSError):
        threading.__excepthook__(said)


@HOOKS.register_module()
class ProgressBar(Hook):
    """A line with iterations, speed, ETA and loss, below the log, where stderr is a terminal; files never see it."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._redirection = contextlib.ExitStack()

    def before_run(self, runner: IterBasedRunner) -> None:
        """Draw the bar, and let log lines appear above it."""
        if runner.rank:
            return
        name = os.path.basename(os.path.normpath(runner.work_dir))
        self._bar = tqdm(
            total=runner.max_iters, initial=runner.iter, desc=name, unit="it", dynamic_ncols=True, disable=None
        )
        if not self._bar.disable:
            loggers = [runner.logger, logging.getLogger("mmseg_ext")]
            self._redirection.enter_context(logging_redirect_tqdm(loggers))

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        """Move on by one iteration."""
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{runner.outputs['log_vars']['loss']:.4f}", refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Leave the terminal to what follows."""
        self._redirection.close()
        if self._bar is not None:
            self._bar.close()


@HOOKS.register_module()
class StopOnSignal(Hook):
    """After SIGINT, SIGTERM or SIGHUP, finishes the iteration, writes a checkpoint and leaves with `Stopped`.

    SIGHUP, which a closed terminal sends, is left alone where it is ignored already, as under ``nohup``.

    All processes agree after every iteration, so that a signal to one of them stops all at the same one. Several
    finish the step of the optimizer, within which each has gradients of its own. A second signal ends the process at
    once.
    """

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, Any] = {}
        self._end: threading.Timer | None = None

    def before_run(self, runner: IterBasedRunner) -> None:
        """Take over the signals."""
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + number)
        self.received = number
        if dist.is_initialized():
            # where another process is gone, the iteration may never end; the launcher would wait for 30 s, then kill
            self._end = threading.Timer(_PATIENCE_S, os._exit, (128 + number,))
            self._end.start()

    def _agreed(self) -> int:
        """Return the signal that any process received, 0 for none; waits for what the first one writes meanwhile."""
        if not dist.is_initialized():
            return self.received
        received = torch.tensor([self.received])
        dist.all_reduce(received, dist.ReduceOp.MAX, group=hosts())
        return int(received)

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        """Write the checkpoint and leave, if a signal came."""
        number = self._agreed()
        if not number or (runner.accumulated and dist.is_initialized()):
            return
        if runner.rank == 0:
            done = runner.iter + 1
            if not os.path.isfile(os.path.join(runner.work_dir, f"iter_{done}.pth")):
                runner.save_checkpoint(runner.work_dir)
            runner.logger.info("%s: saved iteration %d", signal.Signals(number).name, done)
        gathered(None)
        self.after_run(runner)
        raise Stopped(number)

    def after_run(self, runner: IterBasedRunner) -> None:
        """Give the signals back; a process that came this far is not to be ended."""
        if self._end is not None:
            self._end.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
