"""Checkpoint files: reading that runs no code, writing that cannot tear."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import logging
import math
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
from mmcv import Config
from mmseg.models import build_segmentor
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Size, Tensor, nn

from ..errors import CheckpointError
from .config import CONFIG_ROOT, leaf_configs, load_config, merge_options, with_our_names

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


# -- engine.fitting_config
# Which of our configs a set of weights is for.


def _plainest_first(path: str) -> tuple[bool, bool, int, str]:
    return "/ablation/" in path, ".OPM." not in path, len(path), path


@functools.cache
def _networks() -> dict[str, tuple[type[nn.Module], dict[str, Size]]]:
    """Return type of the backbone and shapes by key of every distinct network, by its plainest config."""
    found: dict[str, tuple[type[nn.Module], dict[str, Size]]] = {}
    seen = set()
    for path in sorted(leaf_configs(), key=_plainest_first):
        with contextlib.suppress(Exception):  # somebody's unfinished config must not hide what was refused
            model = load_config(str(CONFIG_ROOT.parent / path)).model
            model.backbone.init_cfg = None
            head = {key: value for key, value in model.decode_head.items() if key != "loss_decode"}
            description = json.dumps([model.backbone, head], sort_keys=True)
            if description not in seen:
                seen.add(description)
                network = build_segmentor(model)
                found[path] = type(network.backbone), {key: value.shape for key, value in network.state_dict().items()}
    return found


def fitting_config(weights: dict[str, Tensor]) -> str | None:
    """Return the path of the plainest config whose network, or encoder, has the keys and shapes of ``weights``.

    The number of classes may differ. Builds every network of ours, which takes seconds: meant for the moment when a
    checkpoint has been refused.

    Args:
        weights: a segmentation checkpoint (``backbone.*``, ``decode_head.*``) or an encoder with or without prefix.
    """
    whole = any(key.startswith("decode_head.") for key in weights)
    for path, (backbone, shapes) in _networks().items():
        theirs = {
            key if key.startswith(("backbone.", "decode_head.")) else f"backbone.{key}": v for key, v in weights.items()
        }
        if hasattr(backbone, "adapt_published_keys"):
            backbone.adapt_published_keys(theirs, "backbone.")
        own = {key: shape for key, shape in shapes.items() if whole or key.startswith("backbone.")}
        needed = [key for key in own if not key.endswith("num_batches_tracked") and ".conv_seg." not in key]
        if theirs.keys() <= own.keys() and all(key in theirs and theirs[key].shape == own[key] for key in needed):
            return path
    return None


def refuse_encoder(weights: dict[str, Tensor], path: str) -> None:
    """Refuse an encoder where a whole segmentation network is needed.

    Raises:
        CheckpointError: ``weights`` are those of an encoder of ours; the message says what an encoder is for.
    """
    if not any(key.startswith("decode_head.") for key in weights) and fitting_config(weights):
        raise CheckpointError(
            f"{path}: is an encoder, not a segmentation network; start a training from it: "
            f"--cfg-options model.backbone.init_cfg.checkpoint={path}"
        )


# -- engine.embedded_config
# The config that a checkpoint carries as Python text, read without executing it.

_NUMBERS = {"inf": math.inf, "nan": math.nan}


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """Return the value of a literal, of ``dict(...)`` or of a name that was assigned before.

    Raises:
        ValueError: anything else, which would have to be executed.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        values = [_value(item, names) for item in node.elts]
        return values if isinstance(node, ast.List) else {ast.Tuple: tuple, ast.Set: set}[type(node)](values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _value(node.operand, names)
        if isinstance(number, (int, float)):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Dict):
        merged: dict = {}
        for key, item in zip(node.keys, node.values, strict=True):
            merged |= _value(item, names) if key is None else {_value(key, names): _value(item, names)}
        return merged
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        merged = {}
        for argument in node.args:
            merged |= _value(argument, names)
        for keyword in node.keywords:
            item = _value(keyword.value, names)
            merged |= item if keyword.arg is None else {keyword.arg: item}
        return merged
    if isinstance(node, ast.Name) and node.id in names | _NUMBERS:
        return (_NUMBERS | names)[node.id]
    raise ValueError(f"line {node.lineno}: '{ast.unparse(node)[:60]}' is no literal")


def read_config_text(text: str) -> dict[str, Any]:
    """Return the assignments of a config's text; nothing of it is executed.

    Literals, ``dict(...)`` of them and names assigned before are understood.

    Raises:
        ValueError: the text is no Python, or assigns something that would have to be executed.
    """
    try:
        module = ast.parse(text)
        names: dict[str, Any] = {}
        for statement in module.body:
            if isinstance(statement, ast.Assign) and all(isinstance(target, ast.Name) for target in statement.targets):
                value = _value(statement.value, names)
                names.update({target.id: value for target in statement.targets if isinstance(target, ast.Name)})
            elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                raise ValueError(f"line {statement.lineno}: '{ast.unparse(statement)[:60]}' is no assignment")
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    return names


def config_of_checkpoint(path: str, options: dict | None = None) -> Config:
    """Return the config that the checkpoint at ``path`` carries, with ``options`` (dotted keys) merged over it.

    Raises:
        CheckpointError: the file cannot be read, or carries no config or one that would have to be executed.
        ConfigError: an option does not fit.
    """
    checkpoint = read_checkpoint(path)
    text = (checkpoint.get("meta") or {}).get("config")
    if not isinstance(text, str):
        refuse_encoder(checkpoint["state_dict"], path)
        config = fitting_config(checkpoint["state_dict"])
        hint = f"one with the model of {config}, which the weights fit" if config else "the one it was trained with"
        raise CheckpointError(f"{path}: carries no config; give {hint}")
    try:
        content = read_config_text(text)
        if not {"model", "data"} <= content.keys():
            raise ValueError("it has no 'model' or no 'data'")
        content["model"] = with_our_names(content["model"])
        cfg = Config(content, cfg_text=text, filename=path)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: the config inside cannot be used ({error}); give one") from None
    return merge_options(cfg, options)


def config_for(config: str | None, checkpoint: str, options: dict | None = None) -> Config:
    """Return the config at ``config``, or where that is None the one inside ``checkpoint``.

    Raises:
        UserError: see `load_config` and `config_of_checkpoint`.
    """
    return load_config(config, options) if config else config_of_checkpoint(checkpoint, options)
