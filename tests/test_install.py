"""The lock beside requirements.txt, and what tools/install.sh asks of a machine."""

import re
import shutil
import subprocess
import sys

import pytest


def pins(text):
    """Return {package: version} of the lines ``package==version``."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, flags=re.M))


@pytest.fixture()
def lock(root):
    return (root / "requirements.lock").read_text()


def test_the_lock_holds_every_direct_pin(root, lock):
    wanted = pins((root / "requirements.txt").read_text())
    assert len(wanted) > 30
    wanted["mmcv"] = wanted.pop("mmcv-full")  # the same source without compiled operators
    wanted["opencv-python-headless"] = wanted["opencv-python"]  # for machines without libGL
    locked = pins(lock)
    wrong = {name: (wanted[name], locked.get(name)) for name in wanted if locked.get(name) != wanted[name]}
    assert not wrong, f"requirements.txt and requirements.lock disagree (asked, locked): {wrong}; run: make lock"


def test_the_lock_has_hashes_and_nothing_of_the_machine_that_made_it(lock):
    entries = re.findall(r"^[A-Za-z0-9].*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", lock, flags=re.M)
    assert len(entries) == len(pins(lock)) > 100
    rest = [line for line in lock.splitlines() if not re.match(r"([A-Za-z0-9._-]+==|    --hash=|    #|#)", line)]
    assert rest == [] and not re.search(r"://|file:|find-links|index-url|(?<!via) /", lock)
    assert not re.search(r"^[^#\s].*\+", lock, flags=re.M)  # no local build such as 2.11.0+cpu


@pytest.fixture()
def check(root, tmp_path):
    """Return a function that checks a machine with little on PATH: (**environ) -> exit code, stderr."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "uname", "basename", "readlink", "df", "awk", "make"):
        (folder / name).symlink_to(shutil.which(name))

    def run(**environ):
        environ = {**dict(PATH=str(folder), PYTHON=sys.executable, VENV=str(tmp_path / "venv")), **environ}
        done = subprocess.run(
            [str(root / "tools" / "install.sh"), "--check-only"], env=environ, capture_output=True, text=True
        )
        return done.returncode, done.stderr

    return run


def test_python_and_make_are_enough(check):
    assert check() == (0, "")


def test_a_compiler_is_asked_for_with_mmcv_ops_alone(check, tmp_path):
    code, said = check(MMCV_OPS="1")
    assert code == 2 and "a C++ compiler; install with: sudo apt-get" in said and "build-essential" in said
    assert check(MMCV_CUDA_OPS="1") == (2, said)
    assert check(MMCV_OPS="1", WHEELS=str(tmp_path)) == (0, "")


def test_another_python_is_named(check):
    code, said = check(PYTHON="no-such-python")
    assert code == 2 and said.startswith("error: Python 3.11 or 3.12 is needed (found: no-such-python)")
