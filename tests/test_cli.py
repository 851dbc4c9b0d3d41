"""The command dsegnext."""

import logging
import subprocess
import sys

import pytest

from mmseg_ext import __version__, cli
from mmseg_ext.errors import ConfigError


@pytest.fixture()
def dsegnext(root):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "mmseg_ext.cli", *arguments], cwd=root, capture_output=True, text=True
        )

    return run


def test_every_tool_is_a_command_with_a_summary(root):
    assert sorted(cli.COMMANDS) == sorted(path.stem for path in (root / "tools").glob("*.py"))
    for name in cli.COMMANDS:
        assert 10 < len(cli.summary(name)) < 100, name
        assert f"  {name.replace('_', '-')} " in cli.help_text()


def test_a_command_is_the_tool(dsegnext, run_tool):
    ours, tool = dsegnext("get-flops", "--help"), run_tool("get_flops.py", "--help")
    assert ours.returncode == tool.returncode == 0
    assert ours.stdout.split() == tool.stdout.replace("usage: get_flops.py", "usage: dsegnext get-flops").split()


def test_a_mistake_in_a_command_ends_as_in_the_tool(dsegnext):
    done = dsegnext("train", "no_such_config.py")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no_such_config.py: no such config")


def test_unknown_commands_get_the_nearest():
    with pytest.raises(ConfigError, match=r"dsegnext trian: no such command; did you mean 'train'\?"):
        cli.run_command("trian", [])
    with pytest.raises(ConfigError, match="dsegnext xyz: no such command; 'dsegnext --help' lists them"):
        cli.run_command("xyz", [])


def test_version_and_help(dsegnext):
    assert dsegnext("--version").stdout == f"dsegnext {__version__}\n"
    assert dsegnext().stdout == dsegnext("--help").stdout == cli.help_text()


def test_completion_of_commands_options_and_configs():
    assert cli.completions(["extr"]) == ["extract-network"]
    assert cli.completions(["predict", "--thr"]) == ["--threshold"]
    assert cli.completions(["train", "dsegnext.tiny.1024x1024.opm"]) == [
        "Dsegnext.tiny.1024x1024.OPM.20k",
        "dsegnext.tiny.1024x1024.OPM.20k.scratch",
    ]
    assert cli.completions(["train", ""]) == cli.completions(["unknown", "x"]) == []


def test_bash_completes(dsegnext, tmp_path):
    script = tmp_path / "completion.sh"
    script.write_text(
        f'dsegnext() {{ {sys.executable} -m mmseg_ext.cli "$@"; }}\n{dsegnext("--completion").stdout}'
        "COMP_WORDS=(dsegnext comp); COMP_CWORD=1; _dsegnext; printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.stdout.split() == ["compare-networks", "compare-runs"]


def test_messages_are_shown_after_mmcv_came_in(monkeypatch, capsys):
    from mmcv.utils import get_logger

    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    cli.log_to_stderr()
    get_logger("somebody")  # raises the level of the root logger's handlers
    logging.getLogger("mmseg_ext.geo").info("heard")
    assert capsys.readouterr().err == "heard\n"
