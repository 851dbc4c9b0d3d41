"""Stopping a training without losing work."""

from __future__ import annotations

import signal
from types import FrameType

from mmcv.runner import HOOKS, Hook, IterBasedRunner


@HOOKS.register_module()
class SaveOnInterrupt(Hook):
    """After Ctrl-C, finishes the iteration and writes a checkpoint; a second Ctrl-C stops at once.

    For a single process: several would have to agree on the iteration to stop after.
    """

    def __init__(self) -> None:
        self.interrupted = False

    def before_run(self, runner: IterBasedRunner) -> None:
        """Take over SIGINT."""
        self._previous = signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def after_train_iter(self, runner: IterBasedRunner) -> None:
        """Write the checkpoint and leave, when asked to."""
        if self.interrupted:
            runner.save_checkpoint(runner.work_dir)
            runner.logger.info("interrupted: saved iteration %d", runner.iter + 1)
            self.after_run(runner)
            raise KeyboardInterrupt

    def after_run(self, runner: IterBasedRunner) -> None:
        """Give SIGINT back."""
        signal.signal(signal.SIGINT, self._previous)
