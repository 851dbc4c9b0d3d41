"""Checkpoint files, read without running code and written in one step, and the work dir of a run."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv import Config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..download import local_file
from ..errors import CheckpointError, ConfigError, TrainingError
from ..files import complete_file, remove_partial_files, write_text, writing
from ..weights import shipped_file, shipped_names

logger = logging.getLogger(__name__)

# numpy scalars in the meta data of older checkpoints; they are numbers and run no code
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
_SAFE_GLOBALS: list[Any] = [
    np.dtype,
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(type(np.dtype(name)) for name in ("f8", "f4", "i8", "i4", "b1")),
]
# the entry of a safetensors header with our meta data as JSON
_META_KEY = "mmseg_ext"
SCHEMA_VERSION = 1
_NOT_WEIGHTS = {
    rb"\s*<(!doctype|html|\?xml)": "is a web page, not a checkpoint: a login or an error page answered the download; "
    "fetch the file in a browser",
    rb"version https://git-lfs": "is a Git LFS pointer, not a checkpoint; fetch the file itself: git lfs pull",
}
_LOCK = ".training.lock"
_ANOTHER = "choose another --work-dir"
NON_FINITE_ADVICE = (
    "lower optimizer.lr, set optimizer_config.grad_clip.max_norm=1 or precision=fp32, and resume from the last "
    "checkpoint with --auto-resume"
)


def refuse_what_is_no_weights_file(path: str) -> None:
    """Name what failed downloads usually leave in place of a checkpoint.

    Raises:
        CheckpointError: the file at ``path`` is empty, a web page or a Git LFS pointer.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise CheckpointError(f"{path}: is not a checkpoint: the file is empty; download or copy it again")
    for pattern, words in _NOT_WEIGHTS.items():
        if re.match(pattern, start, re.IGNORECASE):
            raise CheckpointError(f"{path}: {words}")


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """Return a hash of all names, types, shapes and values, independent of their order and of the file format."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_safetensors(path: str) -> dict:
    with safe_open(path, framework="pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}
        header = file.metadata() or {}
    meta = json.loads(header.get(_META_KEY, "{}"))
    if meta.get("schema_version", 0) > SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: has meta data of schema {meta['schema_version']}, this version knows {SCHEMA_VERSION}; "
            "update mmseg_ext"
        )
    if meta and meta["weights_sha256"] != weights_sha256(weights):
        raise CheckpointError(f"{path}: its weights do not match their SHA-256; download it again")
    return dict(state_dict=weights, meta=meta)


def _read_pytorch(path: str) -> Any:
    if zipfile.is_zipfile(path):  # files of PyTorch before 1.6 are no archives
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # flipped bits, which PyTorch's reader does not notice
                raise zipfile.BadZipFile
    with torch.serialization.safe_globals(_SAFE_GLOBALS):
        return torch.load(path, map_location="cpu", weights_only=True)


def read_checkpoint(path: str) -> dict:
    """Return the checkpoint at ``path`` as a dict with ``state_dict`` and, where present, ``meta`` and ``optimizer``.

    Reads ``.safetensors`` and PyTorch files, also by a URL with a hash (`local_file`), and the weights of this package
    by their name. No code of a file is run.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint (a web page, say), or would need to run code.
    """
    path = local_file(shipped_file(path))
    if not os.path.isfile(path):
        raise CheckpointError(
            f"{path}: no such checkpoint; give the path of a .pth or .safetensors file, or {', '.join(shipped_names())}"
        )
    if path.endswith(".py"):
        raise CheckpointError(f"{path}: is a config, not a checkpoint; give the checkpoint after it")
    refuse_what_is_no_weights_file(path)
    is_safetensors = path.endswith(".safetensors")
    try:
        content = _read_safetensors(path) if is_safetensors else _read_pytorch(path)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can break the readers anywhere
        if isinstance(error, pickle.UnpicklingError) and re.search(r"Unsupported (global|class)|GLOBAL", str(error)):
            raise CheckpointError(
                f"{path}: contains Python objects that would run code; only plain weights are read"
            ) from None
        with open(path, "rb") as file:
            begun = is_safetensors or file.read(2) == b"PK"
        state = "is truncated or damaged" if begun else "is not a checkpoint, or is damaged"
        raise CheckpointError(f"{path}: {state}; download or copy it again") from None
    checkpoint = content if isinstance(content, dict) and "state_dict" in content else dict(state_dict=content)
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: is not a checkpoint: it contains no weights")
    checkpoint["state_dict"] = {
        re.sub(r"^module\.", "", key): value for key, value in weights.items() if isinstance(value, Tensor)
    }
    return checkpoint


@contextlib.contextmanager
def _complete_checkpoint(path: str, remedy: str) -> Iterator[str]:
    """Yield a name to write to; the file gets its own name once it is on the disk.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    with complete_file(path, remedy, CheckpointError) as partial:
        try:
            yield partial
        except (RuntimeError, SafetensorError) as error:  # what the writers make of a full disk
            raise OSError(str(error)) from None


def write_checkpoint(content: dict, path: str) -> None:
    """Write ``content`` to ``path`` so that the file is either the old or the new one; see `_complete_checkpoint`."""
    with _complete_checkpoint(path, "older checkpoints are intact") as partial, open(partial, "wb") as file:
        torch.save(content, file)


def write_safetensors(weights: dict[str, Tensor], meta: dict, path: str) -> None:
    """Write ``weights`` and JSON-able ``meta`` (with ``weights_sha256``) to ``path``; see `_complete_checkpoint`."""
    with _complete_checkpoint(path, "choose another place") as partial:
        contiguous = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        save_file(contiguous, partial, metadata={_META_KEY: json.dumps(meta)})


def non_finite_tensor(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor with a NaN or an Inf, if there is one."""
    return next((name for name, value in tensors if value.is_floating_point() and not value.isfinite().all()), None)


def check_weights(state_dict: dict[str, Tensor], path: str) -> None:
    """Refuse to write non-finite weights to ``path``: they would push out a good checkpoint.

    Raises:
        TrainingError: names the first tensor with a NaN or an Inf.
    """
    if name := non_finite_tensor(state_dict.items()):
        raise TrainingError(f"{path}: not written, because {name} contains NaN or Inf; {NON_FINITE_ADVICE}")


def point_to(path: str, link: str) -> None:
    """Make the symbolic link ``link`` point to the file ``path`` beside it, in one step."""
    with complete_file(link) as fresh:
        os.symlink(os.path.basename(path), fresh)


def checkpoints_by_iteration(work_dir: str) -> dict[int, Path]:
    """Return every ``iter_N.pth`` of ``work_dir`` by its N, the newest last."""
    found = {}
    for path in Path(work_dir).glob("iter_*.pth"):
        if match := re.fullmatch(r"iter_(\d+)\.pth", path.name):
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def latest_checkpoint(work_dir: str) -> str | None:
    """Return the newest complete ``iter_N.pth`` of ``work_dir``, None where there are none at all.

    Raises:
        CheckpointError: there are some, and not one is complete.
    """
    paths = [str(path) for path in checkpoints_by_iteration(work_dir).values()]
    for path in reversed(paths):
        try:
            if {"meta", "optimizer"} <= read_checkpoint(path).keys():
                return path
            logger.warning("%s: is not a training checkpoint; skipped", path)
        except CheckpointError as error:
            logger.warning("%s; skipped", error)
    if paths:
        raise CheckpointError(
            f"{work_dir}: none of its {len(paths)} checkpoint(s) is complete; move them away to start again"
        )
    return None


def prepare_work_dir(work_dir: str, cfg: Config, resumes: bool) -> None:
    """Create ``work_dir``, dump the config into it and delete what an interrupted write left.

    Args:
        work_dir: the folder.
        cfg: the config of the run.
        resumes: whether the run continues what is there.

    Raises:
        ConfigError: the folder cannot be written, or contains another run.
    """
    there = checkpoints_by_iteration(work_dir)
    if there and not resumes:
        raise ConfigError(
            f"{work_dir}: already contains a run, up to {list(there.values())[-1].name}; "
            "give --auto-resume to resume it, or another --work-dir"
        )
    with writing(work_dir, _ANOTHER):
        os.makedirs(work_dir, exist_ok=True)
        cfg.dump(os.path.join(work_dir, os.path.basename(cfg.filename)))
    remove_partial_files(work_dir)


@contextlib.contextmanager
def only_one(work_dir: str) -> Iterator[None]:
    """Keep other trainings out of ``work_dir``; the lock ends with the block, or with the process however it ends.

    Has no effect on file systems without locks. The folder is made where it is missing.

    Raises:
        ConfigError: another process trains there, or the folder cannot be written.
    """
    with writing(work_dir, _ANOTHER):
        os.makedirs(work_dir, exist_ok=True)
        file = open(os.path.join(work_dir, _LOCK), "w")
    with file:
        try:
            # POSIX locks: loading processes, which may outlive a killed training for seconds, do not hold them
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ConfigError(f"{work_dir}: another training runs there; give another --work-dir") from None
        yield


@contextlib.contextmanager
def disk_full_error(work_dir: str) -> Iterator[None]:
    """Turn what a full disk raises anywhere, such as in a log line, into one line.

    Raises:
        ConfigError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        remedy = "what was saved stays: free some disk space and resume with --auto-resume"
        raise ConfigError(f"{work_dir}: cannot be written ({error.strerror}); {remedy}") from None


def trim_logs(work_dir: str, iteration: int) -> None:
    """Remove the entries after ``iteration`` from the JSON logs in ``work_dir``: a resumed run logs them again.

    A last line that a kill truncated goes too.
    """
    for path in Path(work_dir).glob("*.log.json"):
        before = path.read_text(encoding="utf-8")
        kept = []
        for line in before.splitlines():
            with contextlib.suppress(ValueError):
                if json.loads(line).get("iter", 0) <= iteration:
                    kept.append(f"{line}\n")
        after = "".join(kept)
        if after != before:
            write_text(str(path), after)
