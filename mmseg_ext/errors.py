"""Exceptions raised for a user's mistake: one line, what was found, where, what to do."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Callable
from types import ModuleType


class UserError(Exception):
    """Base of every mistake that the user can mend; tools print it as one line and exit with code 2."""


class ConfigError(UserError):
    """A config file that is missing, cannot be read or contradicts itself or the machine."""


class DataError(UserError):
    """Images, masks or split files that are missing, unreadable or not what was promised."""


class CheckpointError(UserError):
    """A weights file that is missing, no checkpoint, damaged, or made for another network."""


class MissingExtraError(UserError):
    """An optional package that this work needs is not installed."""


class Stopped(KeyboardInterrupt):
    """A signal asked a run to stop, and its work is saved.

    Args:
        number: the signal; tools exit with 128 + it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def lazy_import(name: str, extra: str, purpose: str) -> ModuleType:
    """Return the optional module ``name``.

    Args:
        name: module to import.
        extra: the extra of this package that brings it.
        purpose: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed; the message has the pip command.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed; pip install {package}, or all of this package's "
            f"extra '{extra}': pip install -e '.[{extra}]'"
        ) from None


def run_tool(main: Callable[[], None]) -> None:
    """Run a command-line tool: a `UserError` becomes one line on stderr and exit code 2, Ctrl-C 130, SIGTERM 143.

    Of several processes that fail alike, the first speaks: the others wait a little, and the launcher ends them.
    """
    try:
        main()
    except UserError as error:
        time.sleep(2 * int(os.environ.get("RANK", 0)))
        # an error from a data loader's worker arrives with the worker's traceback around it
        line = str(error).strip().splitlines()[-1]
        sys.stderr.write(f"error: {re.sub(r'^mmseg_ext[.]errors[.][A-Za-z]+: ', '', line)}\n")
        sys.stderr.flush()
        os._exit(2)
    except KeyboardInterrupt as stop:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write("stopped; a training continues with the same command and --auto-resume\n")
        sys.stderr.flush()
        os._exit(128 + getattr(stop, "number", 2))
