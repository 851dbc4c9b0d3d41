"""Stopping a training without losing work."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from mmcv.runner import HOOKS, Hook, IterBasedRunner
from torch import distributed as dist

from ..errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE_S = 25


@HOOKS.register_module()
class StopOnSignal(Hook):
    """After SIGINT or SIGTERM, finishes the iteration, writes a checkpoint and leaves with `Stopped`.

    All processes agree after every iteration, so that a signal to one of them stops all at the same one. A second
    signal ends the process at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, Any] = {}
        self._group: Any = None
        self._end: threading.Timer | None = None

    def before_run(self, runner: IterBasedRunner) -> None:
        """Take over the signals."""
        if dist.is_initialized() and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")  # the question must not wait for the GPUs
        for number in SIGNALS:
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
        """Return the signal that any process received, 0 for none."""
        if not dist.is_initialized():
            return self.received
        received = torch.tensor([self.received])
        dist.all_reduce(received, dist.ReduceOp.MAX, group=self._group)
        return int(received)

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        """Write the checkpoint and leave, when asked to."""
        number = self._agreed()
        if not number:
            return
        if runner.rank == 0:
            done = runner.iter + 1
            if not os.path.isfile(os.path.join(runner.work_dir, f"iter_{done}.pth")):
                runner.save_checkpoint(runner.work_dir)
            runner.logger.info("%s: saved iteration %d", signal.Signals(number).name, done)
        if dist.is_initialized():
            dist.barrier()
        self.after_run(runner)
        raise Stopped(number)

    def after_run(self, runner: IterBasedRunner) -> None:
        """Give the signals back; a process that came this far is not to be ended."""
        if self._end is not None:
            self._end.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
