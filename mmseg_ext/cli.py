"""The command ``dsegnext``: the scripts of ``tools/`` as subcommands, and what several of them share."""

from __future__ import annotations

import ast
import logging
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import count
from pathlib import Path
from types import ModuleType

from . import __version__
from .errors import ConfigError, run_tool
from .files import DISTRIBUTION_ROOT

TOOLS = DISTRIBUTION_ROOT / "tools"

GROUPS = {
    "Map a mine": ("predict", "extract_network", "compare_networks"),
    "Prepare data": ("convert_dataset", "make_dataset", "make_mines", "check_dataset", "browse_dataset"),
    "Train and evaluate": ("train", "test", "evaluate", "repeat", "pretrain", "calibrate", "plot_runs", "compare_runs"),
    "Hand over": ("export", "publish", "publish_checkpoint"),
    "Count and tabulate": ("get_flops", "get_memory", "model_table", "accuracy_table"),
    "Try it": ("demo",),
}
COMMANDS = tuple(name for names in GROUPS.values() for name in names)

_COMPLETION = """\
_dsegnext() {
    local IFS=$'\\n'
    COMPREPLY=($(dsegnext --complete "${COMP_WORDS[@]:1:COMP_CWORD}"))
}
complete -o default -F _dsegnext dsegnext
"""


def summary(command: str) -> str:
    """Return what a tool does, from the first sentence of its docstring."""
    text = ast.get_docstring(ast.parse((TOOLS / f"{command}.py").read_text(encoding="utf-8"))) or ""
    return re.split(r"[:.](?:\s|$)", text, maxsplit=1)[0]


def help_text() -> str:
    """Return all commands by group, one a line."""
    lines = ["usage: dsegnext COMMAND [ARGUMENTS ...]", "       dsegnext COMMAND --help"]
    for title, names in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {_shown(name):18} {summary(name)}" for name in names)]
    lines += ["", 'tab completion in bash, and in zsh with bashcompinit: eval "$(dsegnext --completion)"']
    return "\n".join(lines) + "\n"


def completions(words: list[str]) -> list[str]:
    """Return what the last of ``words`` may become: a command, an option of the command, or the name of a config."""
    *before, start = words or [""]
    if not before:
        return [name for name in map(_shown, COMMANDS) if name.startswith(start)]
    name = before[0].replace("-", "_")
    if name not in COMMANDS:
        return []
    if start.startswith("-"):
        source = (TOOLS / f"{name}.py").read_text(encoding="utf-8")
        return sorted({option for option in re.findall(r'"(--[a-z][a-z-]*)"', source) if option.startswith(start)})
    configs = sorted(path.stem for path in (DISTRIBUTION_ROOT / "myconfigs").rglob("*.*.*.py"))
    return [config for config in configs if start and config.casefold().startswith(start.casefold())]


def run_command(command: str, arguments: list[str]) -> None:
    """Run a tool as ``python tools/COMMAND.py ARGUMENTS`` does.

    Raises:
        ConfigError: no such command; the nearest is offered.
    """
    name = command.replace("-", "_")
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean '{_shown(near[0])}'?" if near else "'dsegnext --help' lists them"
        raise ConfigError(f"dsegnext {command}: no such command; {hint}")
    sys.argv = [f"dsegnext {_shown(name)}", *arguments]
    sys.path.insert(0, str(TOOLS))  # tools import one another
    path = TOOLS / f"{name}.py"
    tool = sys.modules["__main__"] = ModuleType("__main__")  # runpy would show the path as the program's name
    tool.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec"), vars(tool))


class _Messages(logging.StreamHandler):
    """Shows messages; mmcv, imported later, raises the level of the root logger's plain ``StreamHandler`` to ERROR."""


def log_to_stderr(level: int = logging.INFO) -> None:
    """Show messages from ``level`` up on stderr, of rasterio and pyogrio only what ours do not say."""
    logging.basicConfig(level=level, format="%(message)s", handlers=[_Messages(sys.stderr)])
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    logging.getLogger("pyogrio").setLevel(logging.ERROR)


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Return the shortest ends of ``paths`` that tell them apart; a path given twice has one name."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    ends = (["/".join(part[-length:]) for part in parts] for length in count(1))
    return next(names for names in ends if len(set(names)) == len(set(parts)))


def _shown(name: str) -> str:
    return name.replace("_", "-")


def main() -> None:
    """Run the command line."""
    first, *rest = sys.argv[1:] or ["--help"]
    if first in ("-h", "--help", "help"):
        sys.stdout.write(help_text())
    elif first == "--version":
        sys.stdout.write(f"dsegnext {__version__}\n")
    elif first == "--completion":
        sys.stdout.write(_COMPLETION)
    elif first == "--complete":
        sys.stdout.write("".join(f"{word}\n" for word in completions(rest)))
    else:
        run_tool(lambda: run_command(first, rest))


if __name__ == "__main__":
    main()
