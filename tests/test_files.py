import os
from pathlib import Path

import pytest

from mmseg_ext.errors import CheckpointError, ConfigError
from mmseg_ext.files import complete_file, remove_partial_files, write_text, writing


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with complete_file(str(path)) as partial:
        assert os.path.basename(partial) == "a.txt"
        with open(partial, "w") as file:
            file.write("one")
        with open(f"{partial}-journal", "w") as file:
            file.write("a library's own")
        assert not path.exists()
    assert path.read_text() == "one" and os.listdir(path.parent) == ["a.txt"]


def test_text_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(str(path), "Grüße\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(str(path), "half of it, then \udcff")
    assert path.read_bytes() == "Grüße\n".encode() and os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (OSError(28, "No space left on device"), ConfigError, r"a.txt: cannot be written \(No space .*\); free some"),
        (ValueError("no such colour"), ValueError, "no such colour"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
def test_after_any_error_the_old_file_stays_and_nothing_is_left_beside_it(tmp_path, error, raised, words):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(raised, match=words), complete_file(str(path), "free some disk") as partial:
        with open(partial, "w") as file:
            file.write("half")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match="a.txt: cannot be written"), complete_file(str(tmp_path / "a.txt")):
        pass
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named():
    with pytest.raises(ConfigError, match="cannot be written .*choose another place"), complete_file("/proc/no/a"):
        raise AssertionError("not reached")
    with pytest.raises(CheckpointError, match=r"^/proc/no: cannot be written \(.*\); ask"):
        with writing("/proc/no", "ask", CheckpointError):
            os.mkdir("/proc/no")


def test_what_a_killed_process_left_goes(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / f".{name}.partial").mkdir()
        (tmp_path / f".{name}.partial" / name).write_text("half")
    for name in (".c.txt.partial", ".d.txt.partial"):
        (tmp_path / name).write_text("of a writer without a folder of its own")
    (tmp_path / ".e.txt.partial").symlink_to(tmp_path / "nowhere")
    with complete_file(str(tmp_path / "c.txt")) as partial:
        Path(partial).write_text("whole")
    assert (tmp_path / "c.txt").read_text() == "whole"
    with complete_file(str(tmp_path / "a.txt")) as partial:
        assert not os.path.exists(partial)
        os.symlink("b.txt", partial)
    assert os.readlink(tmp_path / "a.txt") == "b.txt"
    remove_partial_files(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "c.txt"]


def test_only_a_link_is_removed_not_what_it_points_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.txt").write_text("a")
    (tmp_path / ".x.partial").symlink_to(tmp_path / "kept")
    remove_partial_files(str(tmp_path))
    assert os.listdir(tmp_path) == ["kept"] and (tmp_path / "kept" / "a.txt").read_text() == "a"
