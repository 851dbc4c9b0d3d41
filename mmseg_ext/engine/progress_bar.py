"""Progress of a training in a terminal."""

from __future__ import annotations

import contextlib
import logging
import os

from mmcv.runner import HOOKS, Hook, IterBasedRunner
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


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
        self._bar = tqdm(
            total=runner.max_iters,
            initial=runner.iter,
            desc=os.path.basename(os.path.normpath(runner.work_dir)),
            unit="it",
            dynamic_ncols=True,
            disable=None,
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
