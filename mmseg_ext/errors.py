"""Exceptions raised for a user's mistake: one line, what was found, where, what to do."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

LOST_PEER = 3
# not pip install mmseg_ext[...]: a package index may hold another project of that name
_BRINGS_ALL = "'make install' in a clone of this project brings all"
_WORKSHOP = ("torch", "torchvision", "mmcv", "mmseg", "timm", "safetensors")  # packages of the extra 'train'
_LOST_PEER_WORDS = (
    r"(?is)(gloo|nccl|tcpstore|processgroup|broken pipe|store).*"
    r"(connection (reset|closed|refused)|closed by peer|remote process|timed? ?out|broken pipe|failed to recv)"
)


class UserError(Exception):
    """Base of every mistake that the user can mend; tools print it as one line and exit with code 2."""


class ConfigError(UserError):
    """A config file that is missing, cannot be read or contradicts itself or the machine."""


class DataError(UserError):
    """Images, masks or split files that are missing, unreadable or not what was promised."""


class CheckpointError(UserError):
    """A weights file that is missing, no checkpoint, damaged, or made for another network."""


class TrainingError(UserError):
    """A training that cannot go on, such as one whose loss is no number any more."""


class MissingExtraError(UserError):
    """An optional package that this work needs is not installed."""


class Stopped(KeyboardInterrupt):
    """The signal ``number`` asked a run to stop, and its work is saved; tools exit with 128 + it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def lazy_import(name: str, extra: str | None, purpose: str) -> ModuleType:
    """Return the optional module ``name``.

    Args:
        name: module to import, also one within a package.
        extra: the extra of this package that brings it; None: every installation has it.
        purpose: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        brought = "" if extra is None else f", or all of the extra '{extra}': {_BRINGS_ALL}"
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed; pip install {package}{brought}"
        ) from None


class LazyModule:
    """An optional module that `lazy_import` imports, with the same arguments, when something in it is first used."""

    def __init__(self, name: str, extra: str | None, purpose: str) -> None:
        self._module = name, extra, purpose

    def __getattr__(self, name: str) -> Any:
        return getattr(lazy_import(*self._module), name)


def require(names: Sequence[str], extra: str, purpose: str) -> None:
    """Say at once, without importing them, if any of the optional modules ``names`` is missing; see `lazy_import`.

    Raises:
        MissingExtraError: one is not installed; the message says how to get it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(
                f"{purpose} needs {name}, which is not installed; it is of the extra '{extra}': {_BRINGS_ALL}"
            )


def _leave_at_once(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0":
        os.write(2, b"stopped\n")
    os._exit(128 + number)


def stop_quietly_while_importing(tools: Path) -> None:
    """Let Ctrl-C end this process without a traceback while a tool imports what it needs; `run_tool` ends that.

    Has no effect where the program is none of our ``tools``, the folder, or handles or ignores the signal itself.
    """
    script = Path(sys.argv[0] if sys.argv else "")
    # python -m mmseg_ext...: only the parents of the module are imported while the name of the script is -m
    ours = script.name in ("-m", "dsegnext") or tools in script.resolve().parents
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, _leave_at_once)


def _say(line: str) -> None:
    """Write the cause of a failure: to the launcher, which says it once and last, or to the terminal."""
    launcher = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if launcher and "RANK" in os.environ:
        with open(launcher, "w", encoding="utf-8") as file:
            json.dump({"message": line, "timestamp": str(int(time.time()))}, file)
    else:
        sys.stderr.write(f"error: {line}\n")


def _with_its_packages(main: Callable[[], None]) -> None:
    """Run a tool; say in one line where it imports what only the extra 'train' brings.

    Raises:
        MissingExtraError: it needs a package of that extra.
    """
    try:
        main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _WORKSHOP:
            raise
        raise MissingExtraError(
            f"this needs {package}, which is not installed; it is of the extra 'train': {_BRINGS_ALL}"
        ) from None


def run_tool(main: Callable[[], None], stopped: str = "stopped") -> None:
    """Run a command-line tool: a `UserError` becomes one line on stderr and exit code 2, Ctrl-C 130, SIGTERM 143.

    Any other failure keeps its traceback and exits with 1. Of several processes, those that only lost the one that
    failed are silent and exit with `LOST_PEER`.

    Args:
        main: the tool.
        stopped: what to say after a signal.
    """
    code = 0
    try:
        if signal.getsignal(signal.SIGINT) is _leave_at_once:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _with_its_packages(main)
    except UserError as error:
        # an error from a data loader's worker arrives with the worker's traceback around it
        line = str(error).strip().splitlines()[-1]
        _say(re.sub(r"^mmseg_ext[.]errors[.][A-Za-z]+: ", "", line))
        code = 2
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":
            with contextlib.suppress(OSError):  # the terminal may be gone
                sys.stderr.write(f"{stopped}\n")
        code = 128 + getattr(stop, "number", 2)
    except Exception as error:
        if "RANK" not in os.environ:
            raise
        code = LOST_PEER if re.search(_LOST_PEER_WORDS, str(error)) else 1
        if code == 1:
            traceback.print_exc()
            first = (str(error).strip().splitlines() or [""])[0]
            _say(f"{type(error).__name__}: {first} (in process {os.environ['RANK']}; its traceback is above)")
    if code:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
