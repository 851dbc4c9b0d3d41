"""A folder of files that can be made again, kept between runs: exported networks and measured choices."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from ..engine.checkpoint import weights_sha256
from ..errors import ConfigError, UserError
from ..files import CACHE_VARIABLE, cache_folder

_KEPT = 32
_SIMPLE = (bool, int, float, str, tuple, type(None))
_PACKAGES = ("mmseg_ext", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")
logger = logging.getLogger(__name__)
T = TypeVar("T")


def through_cache(facts: Mapping[str, object], name: str, write: Callable[[str], None], read: Callable[[str], T]) -> T:
    """Return what ``read`` finds in a cached file, which ``write`` makes where it is missing or damaged.

    The file appears complete or not at all, so that processes may share the folder. Beyond `_KEPT` entries, those
    unused for longest are removed. The content depends on the ``facts`` alone. The file of that ``name`` is in a folder
    of its own, where ``write`` may put more files beside it.

    Raises:
        ConfigError: the cache folder cannot be written.
    """
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    root = cache_folder()
    entry = root / key
    if (entry / name).exists():
        try:
            found = read(str(entry / name))
            os.utime(entry)
            return found
        except UserError:  # the file is not what is wrong
            raise
        except Exception as error:  # a damaged file can break its reader anywhere
            logger.warning("%s: cannot be read and is made again (%s)", entry / name, type(error).__name__)
            shutil.rmtree(entry, ignore_errors=True)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=root, prefix=".", ignore_cleanup_errors=True)
    except OSError as error:
        raise ConfigError(f"{root}: cannot be written ({error}); name another folder in {CACHE_VARIABLE}") from None
    with scratch as folder:
        fresh = Path(folder, "entry")
        fresh.mkdir()
        write(str(fresh / name))
        try:
            fresh.rename(entry)
        except OSError:  # another process was first
            return read(str(fresh / name))
    with contextlib.suppress(OSError):  # another process does the same
        for unused in sorted(root.glob("?" * len(key)), key=os.path.getmtime, reverse=True)[_KEPT:]:
            shutil.rmtree(unused, ignore_errors=True)
    return read(str(entry / name))


@cache
def software() -> dict[str, str]:
    """Return the versions of the packages that run networks, and a hash of the code that defines and exports them."""
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    digest = hashlib.sha256()
    for room in ("models", "deploy"):
        for file in sorted(Path(__file__).parents[1].joinpath(room).rglob("*.py")):
            digest.update(file.read_bytes())
    return {**found, "code": digest.hexdigest()}


def architecture_sha256(network: nn.Module) -> str:
    """Return a hash of the modules, their settings and the shapes of their weights; the values do not count."""
    lines = []
    for name, module in network.named_modules():
        settings = {
            key: value
            for key, value in vars(module).items()
            if isinstance(value, _SIMPLE) and not key.startswith("_") and key != "training"
        }
        lines.append(f"{name} {type(module).__qualname__} {sorted(settings.items())}")
    lines += [f"{name} {tuple(value.shape)}" for name, value in _tensors(network).items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def network_identity(network: nn.Module) -> dict[str, Any]:
    """Return what identifies ``network`` with its weights, and the software that would export it."""
    return {
        "architecture": architecture_sha256(network),
        "weights": weights_sha256(_tensors(network)),
        "software": software(),
    }


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, including those in no state dict."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
