"""When checkpoints are written, and how many are kept."""

from __future__ import annotations

import re
from pathlib import Path

from mmcv.runner import BaseRunner, CheckpointHook, master_only


class SafeCheckpointHook(CheckpointHook):
    """``CheckpointHook`` that keeps the newest ``max_keep_ckpts`` ``iter_N.pth``, those of stopped runs included."""

    @master_only
    def _save_checkpoint(self, runner: BaseRunner) -> None:
        runner.save_checkpoint(self.out_dir, save_optimizer=self.save_optimizer, **self.args)
        if self.max_keep_ckpts > 0:
            found = {}
            for path in Path(self.out_dir).glob("iter_*.pth"):
                match = re.fullmatch(r"iter_(\d+)\.pth", path.name)
                if match and int(match[1]) <= runner.iter + 1:
                    found[int(match[1])] = path
            for done in sorted(found)[: -self.max_keep_ckpts]:
                found[done].unlink(missing_ok=True)
