import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.errors import ConfigError, DataError


@pytest.fixture()
def voc(mine_data, tmp_path):
    return shutil.copytree(mine_data, tmp_path / "voc")


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("check_dataset")


def call(tool, monkeypatch, *args):
    """Run the tool in this process and return its exit code."""
    monkeypatch.setattr("sys.argv", ["check_dataset.py", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        tool.main()
    return end.value.code


def test_a_clean_config_exits_with_0(tool, tiny_config, monkeypatch, capsys):
    assert call(tool, monkeypatch, tiny_config, "--quick") == 0
    said = capsys.readouterr().out
    assert "nothing wrong was found (images were not looked into: --quick)" in said
    assert said.count(" 64x64 ") == 2


def test_a_config_may_be_named(tool, mine_data):
    roots = {f"data.{split}.data_root": str(mine_data) for split in ("train", "val", "test")}
    diagnosis = tool.diagnose("dsegnext.tiny.1024x1024.OPM.20k", True, roots)
    assert diagnosis.source.endswith("myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py")
    assert diagnosis.exit_code == 0


def test_warnings_exit_with_1(tool, voc, monkeypatch, capsys):
    first = sorted((voc / "JPEGImages").iterdir())[0]
    Image.fromarray(np.full((64, 64, 3), 9, np.uint8)).save(first)
    assert call(tool, monkeypatch, voc) == 1
    assert "warning: an image has one colour only [blank-image]" in capsys.readouterr().out


def test_errors_exit_with_2_and_are_repaired_into_a_new_folder(run_tool, voc, tmp_path):
    masks = sorted((voc / "SegmentationClass").iterdir())
    truth = {path.name: np.array(Image.open(path)) for path in masks}
    for path in masks:
        Image.fromarray(truth[path.name] * 255).save(path)
    report, page, fixed = tmp_path / "report.json", tmp_path / "sheet.html", tmp_path / "fixed"
    done = run_tool("check_dataset.py", voc, "--json", report, "--html", page, "--fix", fixed, "--samples", 2)
    before, after = done.stdout.split("after the repair: ")
    assert "error: road is written as 255, which is to be ignored [mask-0-255]" in before
    assert "nothing wrong was found" in after
    assert done.returncode == 0, done.stderr
    for name, labels in truth.items():
        assert np.array_equal(np.array(Image.open(fixed / "SegmentationClass" / name)), labels)
    written = json.loads(report.read_text())
    assert (written["exit_code"], written["findings"][0]["code"]) == (2, "mask-0-255")
    assert len(written["findings"][0]["files"]) == sum(labels.any() for labels in truth.values())
    assert "[mask-0-255]" in page.read_text()


def test_what_cannot_be_done_is_told(tool, tmp_path, write_pairs, monkeypatch):
    with pytest.raises(DataError, match="nothing: no such folder; give a config, a data set, or a folder of raw"):
        tool.diagnose(str(tmp_path / "nothing"))
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    write_pairs(tmp_path / "raw", {"a": (image, np.eye(16, dtype=np.uint8) * 255)})
    diagnosis = tool.diagnose(str(tmp_path / "raw"))
    with pytest.raises(DataError, match="--fix takes a data set with splits.*convert_dataset.py pair SOURCE DEST"):
        tool.repair(diagnosis, str(tmp_path / "fixed"))
    monkeypatch.setattr("sys.argv", ["check_dataset.py", str(tmp_path / "raw"), "--json", "/dev/null/x.json"])
    with pytest.raises(ConfigError, match="/dev/null/x.json: cannot be written"):
        tool.main()
