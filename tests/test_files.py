import pytest

from mmseg_ext.errors import ConfigError
from mmseg_ext.files import complete_file


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with complete_file(str(path)) as partial:
        with open(partial, "w") as file:
            file.write("one")
        assert not path.exists()
    assert path.read_text() == "one" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ConfigError, match=r"a.txt: cannot be written \(No space left on device\); free some disk"):
        with complete_file(str(path), "free some disk"):
            raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    with pytest.raises(ConfigError, match="cannot be written .*choose another place"), complete_file("/proc/no/a") as _:
        raise AssertionError("not reached")
