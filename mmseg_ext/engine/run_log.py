"""The logs of a run that was stopped and resumed, as if it never had been."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mmcv.runner import HOOKS, BaseRunner, TensorboardLoggerHook, master_only

from ..writing import complete_file


def trim_logs(work_dir: str, iteration: int) -> None:
    """Take out of the JSON logs in ``work_dir`` what lies after ``iteration``: a resumed run logs it again.

    A last line that a kill cut off goes too.
    """
    for path in Path(work_dir).glob("*.log.json"):
        before = path.read_text(encoding="utf-8")
        kept = []
        for line in before.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("iter", 0) <= iteration:
                kept.append(f"{line}\n")
        after = "".join(kept)
        if after != before:
            with complete_file(str(path)) as partial:
                Path(partial).write_text(after, encoding="utf-8")


@HOOKS.register_module()
class ResumableTensorboardHook(TensorboardLoggerHook):
    """``TensorboardLoggerHook`` whose curves go on where a resumed run goes on, without the steps made twice."""

    @master_only
    def before_run(self, runner: BaseRunner) -> None:
        """Open the event file; what was logged after the resumed iteration is hidden."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.log_dir or os.path.join(runner.work_dir, "tf_logs")
        self.writer = SummaryWriter(folder, purge_step=runner.iter + 1 if runner.iter else None)

    @master_only
    def close(self) -> None:
        """Write what is still waiting in memory, however the run ended."""
        if hasattr(self, "writer"):
            self.writer.close()
