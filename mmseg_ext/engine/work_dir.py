"""The folder of a run: one training at a time, one run for good."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mmcv import Config
from mmcv.runner import HOOKS, BaseRunner, TensorboardLoggerHook, master_only

from ..errors import ConfigError
from ..files import complete_file
from .checkpoint import remove_partial_files

_LOCK = ".training.lock"


def prepare_work_dir(work_dir: str, cfg: Config, goes_on: bool) -> None:
    """Create ``work_dir``, dump the config into it and clear what an interrupted write left.

    Args:
        work_dir: the folder.
        cfg: the config of the run.
        goes_on: whether the run continues what is there.

    Raises:
        ConfigError: the folder cannot be written, or holds another run.
    """
    there = [path.name for path in Path(work_dir).glob("iter_*.pth")]
    if there and not goes_on:
        newest = max(there, key=lambda name: (len(name), name))
        raise ConfigError(
            f"{work_dir}: holds a run, up to {newest}; give --auto-resume to continue it, or another --work-dir"
        )
    try:
        os.makedirs(work_dir, exist_ok=True)
        cfg.dump(os.path.join(work_dir, os.path.basename(cfg.filename)))
    except OSError as error:
        raise ConfigError(f"{work_dir}: cannot be written ({error.strerror}); choose another --work-dir") from None
    remove_partial_files(work_dir)


@contextlib.contextmanager
def only_one(work_dir: str) -> Iterator[None]:
    """Keep other trainings out of ``work_dir`` for a while; the lock ends with the process, however it ends.

    File systems without locks keep nobody out.

    Args:
        work_dir: the folder; made where it is missing and can be.

    Raises:
        ConfigError: another process trains there.
    """
    try:
        os.makedirs(work_dir, exist_ok=True)
        file = open(os.path.join(work_dir, _LOCK), "w")
    except OSError as error:
        raise ConfigError(f"{work_dir}: cannot be written ({error.strerror}); choose another --work-dir") from None
    with file:
        try:
            # POSIX locks: loading processes, which may outlive a killed training for seconds, do not hold them
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ConfigError(f"{work_dir}: another training runs there; give another --work-dir") from None
        yield


@contextlib.contextmanager
def full_disk_told(work_dir: str) -> Iterator[None]:
    """Turn what a full disk raises anywhere, in a log's line say, into one line.

    Raises:
        ConfigError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"{work_dir}: cannot be written ({error.strerror}); what was saved stays: free some disk and go on with "
            "--auto-resume"
        ) from None


# -- engine.run_log
# The logs of a run that was stopped and resumed, as if it never had been.


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
