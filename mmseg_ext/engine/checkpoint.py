"""Checkpoint files: reading that runs no code, writing that cannot tear."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError

logger = logging.getLogger(__name__)

# numpy scalars in the meta data of older checkpoints; they hold numbers and run no code
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
_SAFE_GLOBALS: list[Any] = [
    np.dtype,
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(type(np.dtype(name)) for name in ("f8", "f4", "i8", "i4", "b1")),
]
# the entry of a safetensors header that holds our meta data as JSON
_META_KEY = "mmseg_ext"
SCHEMA_VERSION = 1
_NOT_WEIGHTS = {
    rb"\s*<(!doctype|html|\?xml)": "is a web page, not a checkpoint: a login or an error page answered the download; "
    "fetch the file in a browser",
    rb"version https://git-lfs": "is a Git LFS pointer, not a checkpoint; fetch the file itself: git lfs pull",
}


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
        raise CheckpointError(f"{path}: its weights are not those that its SHA-256 was made of; download it again")
    return dict(state_dict=weights, meta=meta)


def _refuse_flipped_bits(path: str) -> None:
    """Compare the checksums of a PyTorch file, which its reader passes over; old files that are no archive have none.

    Raises:
        zipfile.BadZipFile: a part is not what was written.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)


def read_checkpoint(path: str) -> dict:
    """Return the checkpoint at ``path`` as a dict with ``state_dict`` and, where present, ``meta`` and ``optimizer``.

    Reads ``.safetensors`` and PyTorch files. No code of the file is run.

    Raises:
        CheckpointError: the file is missing, damaged, no checkpoint (a web page, say), or would need to run code.
    """
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: no such checkpoint; give the path of a .pth or .safetensors file")
    if path.endswith(".py"):
        raise CheckpointError(f"{path}: is a config, not a checkpoint; give the checkpoint after it")
    refuse_what_is_no_weights_file(path)
    try:
        if path.endswith(".safetensors"):
            content: Any = _read_safetensors(path)
        else:
            _refuse_flipped_bits(path)
            with torch.serialization.safe_globals(_SAFE_GLOBALS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can break the readers anywhere
        if isinstance(error, pickle.UnpicklingError) and re.search(r"Unsupported (global|class)|GLOBAL", str(error)):
            raise CheckpointError(
                f"{path}: holds Python objects that would run code; only plain weights are read"
            ) from None
        with open(path, "rb") as file:
            begun = file.read(2) == b"PK" or path.endswith(".safetensors")
        state = "is cut off or damaged" if begun else "is not a checkpoint, or is damaged"
        raise CheckpointError(f"{path}: {state}; download or copy it again") from None
    checkpoint = content if isinstance(content, dict) and "state_dict" in content else dict(state_dict=content)
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict) or not any(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: is not a checkpoint: it holds no weights")
    checkpoint["state_dict"] = {
        re.sub(r"^module\.", "", key): value for key, value in weights.items() if isinstance(value, Tensor)
    }
    return checkpoint


@contextlib.contextmanager
def _complete_or_not_there(path: str) -> Iterator[str]:
    """Yield a name to write to; the file gets its own name once it is on the disk."""
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        directory = os.open(folder or ".", os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error}); older checkpoints are intact") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


def write_checkpoint(content: dict, path: str) -> None:
    """Write ``content`` to ``path`` so that the file is either the old or the new one, never a torn one.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    with _complete_or_not_there(path) as partial, open(partial, "wb") as file:
        torch.save(content, file)


def write_safetensors(weights: dict[str, Tensor], meta: dict, path: str) -> None:
    """Write ``weights`` and JSON-able ``meta`` (with ``weights_sha256``) to ``path``, complete or not at all.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    with _complete_or_not_there(path) as partial:
        contiguous = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        save_file(contiguous, partial, metadata={_META_KEY: json.dumps(meta)})


def point_to(path: str, link: str) -> None:
    """Make the symbolic link ``link`` point to the file ``path`` beside it, in one step."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(link) or ".") as folder:
        fresh = os.path.join(folder, "link")
        os.symlink(os.path.basename(path), fresh)
        os.replace(fresh, link)


def latest_checkpoint(work_dir: str) -> str | None:
    """Return the newest complete ``iter_N.pth`` of ``work_dir``, None where there are none at all.

    Damaged ones are named and passed over.

    Raises:
        CheckpointError: there are some, and not one is complete.
    """
    found = {}
    for path in Path(work_dir).glob("iter_*.pth"):
        match = re.fullmatch(r"iter_(\d+)\.pth", path.name)
        if match:
            found[int(match[1])] = str(path)
    for iteration in sorted(found, reverse=True):
        try:
            if {"meta", "optimizer"} <= read_checkpoint(found[iteration]).keys():
                return found[iteration]
            logger.warning("%s: is not a training checkpoint; passed over", found[iteration])
        except CheckpointError as error:
            logger.warning("%s; passed over", error)
    if found:
        raise CheckpointError(
            f"{work_dir}: none of its {len(found)} checkpoint(s) is complete; move them away to begin anew"
        )
    return None


def remove_partial_files(work_dir: str) -> None:
    """Delete what interrupted writes left behind in ``work_dir``."""
    for path in Path(work_dir).glob(".*.pth.*.partial"):
        path.unlink(missing_ok=True)
