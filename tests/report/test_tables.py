import json

import pytest

from mmseg_ext.errors import DataError
from mmseg_ext.report.tables import markdown_table, save_metrics, update_blocks


def test_a_markdown_table():
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_blocks_are_replaced_and_the_rest_stays(tmp_path):
    page = tmp_path / "page.md"
    text = "# Title\n<!-- one: start -->\nold\n<!-- one: end -->\nby hand\n<!-- two: start --><!-- two: end -->\n"
    page.write_text(text)
    assert not update_blocks(str(page), {"one": r"new \1"}, check=True)
    assert page.read_text() == text
    assert not update_blocks(str(page), {"one": r"new \1"})
    assert page.read_text() == text.replace("old", r"new \1")
    assert update_blocks(str(page), {"one": r"new \1"}, check=True)
    assert list(tmp_path.iterdir()) == [page]
    with pytest.raises(DataError, match="page.md: the comments '<!-- three: start -->'"):
        update_blocks(str(page), {"one": "x", "three": "y"})
    assert r"new \1" in page.read_text()
    with pytest.raises(DataError, match="no such file"):
        update_blocks(str(tmp_path / "none.md"), {})


def test_metrics_file_is_json_with_null_for_undefined(tmp_path):
    path = str(tmp_path / "m.json")
    save_metrics(path, dict(mIoU=0.5, F=float("nan")), config="c.py")
    assert json.loads((tmp_path / "m.json").read_text()) == dict(config="c.py", metrics=dict(mIoU=0.5, F=None))
