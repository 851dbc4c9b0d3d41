"""What can happen to a night's training: after each fault it resumes, and little is lost.

The counts are small by default. At length: FAULT_KILLS=30 FAULT_RANKS=5 python -m pytest tests/faults -s
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mmseg_ext.engine.checkpoint import latest_checkpoint, read_checkpoint
from mmseg_ext.errors import CheckpointError

pytestmark = pytest.mark.slow

INTERVAL = 5
KILLS = int(os.environ.get("FAULT_KILLS", 2))
RANKS = int(os.environ.get("FAULT_RANKS", 1))


class Run:
    """A training in processes of its own."""

    def __init__(self, root, config, work_dir, processes=1, iterations=100000):
        self.work_dir = work_dir
        self.older_logs = set(logs(work_dir))
        launcher = [] if processes == 1 else ["-m", "mmseg_ext.engine.launch", str(processes)]
        command = [
            *(sys.executable, *launcher, "tools/train.py", str(config), "--work-dir", str(work_dir), "--auto-resume"),
            *("--no-validate", "--cfg-options", f"checkpoint_config.interval={INTERVAL}", "data.workers_per_gpu=1"),
            f"runner.max_iters={iterations}",
        ]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, cwd=root, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def family(self):
        try:
            parent = psutil.Process(self.process.pid)
            return [*parent.children(recursive=True), parent]
        except psutil.NoSuchProcess:
            return []

    def kill(self):
        for member in self.family():
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        return self.process.communicate()[1]

    def wait_until_it_trains(self):
        self.wait_for(
            lambda: any('"mode": "train"' in p.read_text() for p in set(logs(self.work_dir)) - self.older_logs)
        )

    def wait_for(self, condition, seconds=600):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            if self.process.poll() is not None:
                raise AssertionError(self.process.communicate()[1])
            time.sleep(0.005)
        raise AssertionError(f"nothing happened in {seconds} s: {self.kill()}")

    def end(self, seconds=600):
        _, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, errors


def logs(work_dir):
    return list(Path(work_dir).glob("*.log.json"))


def logged(work_dir):
    last = 0
    for path in logs(work_dir):
        for line in path.read_text().splitlines():
            try:
                last = max(last, json.loads(line).get("iter", 0))
            except ValueError:
                continue
    return last


def saved(work_dir):
    while path := latest_checkpoint(str(work_dir)):
        try:
            return read_checkpoint(path)["meta"]["iter"]
        except CheckpointError:
            if os.path.exists(path):  # else the running training has removed it meanwhile
                raise
    return 0


def assert_little_is_lost(work_dir):
    """Assert that the newest complete checkpoint is at most one interval behind the last finished iteration."""
    newest, done = saved(work_dir), logged(work_dir)
    assert newest % INTERVAL == 0
    assert done - newest <= INTERVAL
    link = work_dir / "latest.pth"
    if link.is_symlink():
        assert read_checkpoint(str(link))["meta"]["iter"] in (newest, newest - INTERVAL)
    return newest


def finish(root, config, work_dir, processes=1):
    """Train a little further and assert that it went on where the newest checkpoint was."""
    newest = saved(work_dir)
    code, errors = Run(root, config, work_dir, processes, newest + 2).end()
    assert code == 0, errors
    if newest:
        assert f"resumed from {work_dir}/iter_{newest}.pth at iteration {newest}" in errors
    assert saved(work_dir) == newest + 2


def test_kill_9_at_any_moment(tiny_config, tmp_path, root):
    rng = random.Random(0)
    work_dir = tmp_path / "run"
    while_writing = 0
    for number in range(KILLS):
        run = Run(root, tiny_config, work_dir)
        start = saved(work_dir)
        run.wait_until_it_trains()
        if number % 2:  # while a checkpoint is written
            run.wait_for(lambda: list(work_dir.glob(".iter_*.partial")))
            while_writing += 1
        else:
            time.sleep(rng.uniform(0, 2))
        run.kill()
        assert assert_little_is_lost(work_dir) >= start
    finish(root, tiny_config, work_dir)
    assert not list(work_dir.glob(".*.partial"))
    sys.stdout.write(f"{KILLS} kills, {while_writing} of them while a checkpoint was written\n")


def test_a_killed_rank_ends_all_and_is_named_last(tiny_config, tmp_path, root):
    rng = random.Random(1)
    work_dir = tmp_path / "run"
    for _ in range(RANKS):
        run = Run(root, tiny_config, work_dir, processes=2)
        run.wait_until_it_trains()
        time.sleep(rng.uniform(0, 1))
        ranks = {}
        for member in run.family():
            if "tools/train.py" in member.cmdline() and "RANK" in member.environ():
                ranks.setdefault(int(member.environ()["RANK"]), member)
        victim = rng.choice((0, 1))
        ranks[victim].kill()
        code, errors = run.end()
        assert code == 128 + signal.SIGKILL
        last = errors.strip().splitlines()[-1]
        assert last.startswith(f"error: process {victim} was ended by SIGKILL")
        assert errors.count("was ended by SIGKILL") == 1
        assert "Traceback" not in errors
        assert_little_is_lost(work_dir)
    finish(root, tiny_config, work_dir, processes=2)


@pytest.fixture()
def small_disk(tmp_path):
    """A file system with room for a few checkpoints."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine may not mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_with_one_line_and_leaves_what_was_saved(tiny_config, root, small_disk):
    work_dir = small_disk / "run"
    run = Run(root, tiny_config, work_dir)
    run.wait_for(lambda: saved(work_dir) >= 2 * INTERVAL)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 65536)
        except OSError:
            pass
    code, errors = run.end()
    assert code == 2
    last = errors.strip().splitlines()[-1]
    assert re.match(r"error: .*: cannot be written \(.*\)", last), last
    assert "Traceback" not in errors
    newest = saved(work_dir)
    assert newest >= 2 * INTERVAL
    assert not list(work_dir.glob(".*.partial"))
    filler.unlink()
    finish(root, tiny_config, work_dir)


def test_a_work_dir_that_cannot_be_written_is_named(tiny_config, root):
    code, errors = Run(root, tiny_config, "/proc/run").end()
    assert code == 2
    assert errors.strip().splitlines()[-1].startswith("error: /proc/run: cannot be written")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_newest_checkpoint_is_passed_over(damage, tiny_config, tmp_path, root):
    work_dir = tmp_path / "run"
    assert Run(root, tiny_config, work_dir, iterations=2 * INTERVAL).end()[0] == 0
    newest = work_dir / f"iter_{2 * INTERVAL}.pth"
    content = bytearray(newest.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    code, errors = Run(root, tiny_config, work_dir, iterations=2 * INTERVAL + 1).end()
    assert code == 0, errors
    assert f"iter_{2 * INTERVAL}.pth: is truncated or damaged" in errors
    assert f"resumed from {work_dir}/iter_{INTERVAL}.pth at iteration {INTERVAL}" in errors
    assert saved(work_dir) == 2 * INTERVAL + 1


def test_an_image_that_disappears_stops_the_run_and_is_named(tiny_config, tmp_path, root, mine_data):
    data = tmp_path / "data"
    shutil.copytree(mine_data, data)
    config = tmp_path / "own.py"
    config.write_text(tiny_config.read_text().replace(str(mine_data), str(data)))
    work_dir = tmp_path / "run"
    run = Run(root, config, work_dir)
    run.wait_for(lambda: saved(work_dir) >= INTERVAL)
    image = sorted((data / "JPEGImages").iterdir())[0]
    kept = image.read_bytes()
    image.unlink()
    code, errors = run.end()
    assert code == 2
    assert image.name in errors.strip().splitlines()[-1]
    image.write_bytes(kept)
    assert_little_is_lost(work_dir)
    finish(root, config, work_dir)
