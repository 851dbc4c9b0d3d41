"""What ends a tool from outside: a closed terminal, with and without nohup, and Ctrl-C while it still imports."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from mmseg_ext.engine.checkpoint import checkpoints_by_iteration, read_checkpoint

DEADLINE_S = 300


def wait_for(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lines_logged(folder):
    return sum(len(path.read_text().splitlines()) for path in folder.glob("*.log.json"))


def options(max_iters):
    return ("--no-validate", "--cfg-options", f"runner.max_iters={max_iters}", "checkpoint_config.interval=1000000")


def test_a_closed_terminal_saves_as_for_term(tiny_config, tmp_path, root):
    master, slave = pty.openpty()
    command = [sys.executable, "tools/train.py", str(tiny_config), "--work-dir", str(tmp_path), *options(100000)]

    def take_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    process = subprocess.Popen(
        command, cwd=root, stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal, close_fds=True
    )
    os.close(slave)
    os.set_blocking(master, False)

    def ready():
        try:
            os.read(master, 1 << 16)  # a terminal that nobody reads would block the run
        except BlockingIOError:
            pass
        return lines_logged(tmp_path) > 3

    wait_for(ready)
    os.close(master)
    assert process.wait(timeout=DEADLINE_S) == 128 + signal.SIGHUP
    newest = max(checkpoints_by_iteration(str(tmp_path)))
    assert read_checkpoint(str(tmp_path / f"iter_{newest}.pth"))["meta"]["iter"] == newest >= 3


@pytest.mark.parametrize("tool", [("train.py",), ("dist_train.sh", "2")])
def test_under_nohup_it_goes_on(tiny_config, tmp_path, root, tool):
    start = [sys.executable] if tool[0].endswith(".py") else ["bash"]
    command = ["nohup", *start, f"tools/{tool[0]}", str(tiny_config), *tool[1:], "--work-dir", str(tmp_path)]
    process = subprocess.Popen(
        [*command, *options(12)],
        cwd=root,
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: lines_logged(tmp_path) > 2)
    os.killpg(process.pid, signal.SIGHUP)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors
    assert max(checkpoints_by_iteration(str(tmp_path))) == 12


def ours(process):
    """Return whether the process has begun to import our package's requirements."""
    with open(f"/proc/{process.pid}/maps") as maps:
        return "numpy" in maps.read() or process.poll() is not None


@pytest.mark.parametrize(
    "tool", ["tools/get_flops.py none.py", "tools/browse_dataset.py none.py", "-m mmseg_ext.engine.launch --help"]
)
def test_ctrl_c_while_importing_leaves_no_traceback(root, tool):
    process = subprocess.Popen(
        [sys.executable, *tool.split()],
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: ours(process))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (130, "stopped\n")


def test_a_program_that_only_uses_the_package_keeps_its_ctrl_c(root):
    code = "import signal, mmseg_ext; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    restored = dict(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert subprocess.run([sys.executable, "-c", code], cwd=root, **restored).returncode == 0
