import pytest

from mmseg_ext.errors import DataError
from mmseg_ext.report import accuracy_table, markdown_table, update_blocks
from mmseg_ext.report.accuracy_table import method_name

PUBLISHED = dict(
    methods=[
        dict(method="LinkNet", config="myconfigs/linknets/linknet34.1024x1024.{dataset}.20k.py"),
        dict(method="D-SegNeXt-T", config="myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.{dataset}.20k.py"),
    ]
)


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


def test_methods_are_named_as_in_the_paper():
    assert method_name("myconfigs/linknets/linknet34.256x256.EPFL.1.5k.py", PUBLISHED) == "LinkNet"
    assert method_name("myconfigs/dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py", PUBLISHED) == "D-SegNeXt-T"
    assert method_name("mine/other.big.64x64.X.1k.py", PUBLISHED) == "other.big"
    assert method_name("mine/my_mine.py", PUBLISHED) == "my_mine"


def test_the_best_method_comes_first_with_mean_and_deviation():
    def row(config, seed, road_iou, miou):
        return dict(config=config, seed=seed, iterations=1500, road_iou=road_iou, miou=miou)

    one, two = "a/linknet34.256x256.EPFL.1.5k.py", "a/dsegnext.tiny.256x256.EPFL.1.5k.py"
    lines = accuracy_table(
        [row(one, 0, 0.5, 0.6), row(two, 1, 0.6, 0.8), row(two, 0, 0.7, 0.7)], PUBLISHED
    ).splitlines()
    assert lines[2] == f"| [D-SegNeXt-T](../{two}) | 1,500 | 0, 1 | 65.0 ± 7.1 | 75.0 ± 7.1 |"
    assert lines[3] == f"| [LinkNet](../{one}) | 1,500 | 0 | 50.0 | 60.0 |"
