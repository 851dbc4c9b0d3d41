"""The table of trained methods grows run by run and trains nothing twice."""

import json

import pytest

from mmseg_ext.errors import ConfigError

PUBLISHED = dict(
    methods=[
        dict(method="LinkNet", config="myconfigs/linknets/linknet34.1024x1024.{dataset}.20k.py"),
        dict(method="D-SegNeXt-T", config="myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.{dataset}.20k.py"),
    ]
)


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("accuracy_table")


@pytest.mark.slow
def test_runs_are_added_once(run_tool, tiny_config, tmp_path):
    results, runs = tmp_path / "rows.json", tmp_path / "runs"
    command = ("accuracy_table.py", tiny_config, "--work-root", runs, "--results", results)
    done = run_tool(*command)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(results.read_text())
    assert (row["config"], row["recipe"], row["seed"], row["iterations"]) == (str(tiny_config), "cpu", 0, 4)
    scores = json.loads((runs / "tiny.seed0" / "test.json").read_text())["metrics"]
    assert (row["miou"], row["road_iou"]) == (round(scores["mIoU"], 6), round(scores["IoU.road"], 6))
    written = (runs / "tiny.seed0" / "test.json").stat().st_mtime_ns
    done = run_tool(*command, "--seeds", 1, 0)
    assert done.returncode == 0, done.stderr
    rows = json.loads(results.read_text())
    assert rows[0] == row
    assert [(r["config"], r["seed"]) for r in rows] == [(str(tiny_config), 0), (str(tiny_config), 1)]
    assert (runs / "tiny.seed0" / "test.json").stat().st_mtime_ns == written
    assert "| 4 | 0, 1 |" in done.stdout


def test_a_run_that_fails_ends_the_table(run_tool, tmp_path):
    done = run_tool("accuracy_table.py", tmp_path / "none.py", "--results", tmp_path / "rows.json")
    assert done.returncode == 2
    assert "none.py: no such config" in done.stderr
    assert not (tmp_path / "rows.json").exists()


def test_a_config_may_be_named(tool, tmp_path, root, monkeypatch, capsys):
    def measure(config, recipe, seed, work_root):
        return dict(config=config, recipe=recipe, seed=seed, iterations=1500, road_iou=0.5, miou=0.6)

    monkeypatch.setattr(tool, "measure", measure)
    monkeypatch.chdir(root)
    results = tmp_path / "rows.json"
    for name in ("dsegnext.tiny.256x256.EPFL.1.5k", "myconfigs/dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py"):
        monkeypatch.setattr("sys.argv", ["accuracy_table.py", name, "--results", str(results)])
        tool.main()
    (row,) = json.loads(results.read_text())
    assert row["config"] == "myconfigs/dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py"
    assert f"[D-SegNeXt-T](../{row['config']}) | 1,500 | 0 | 50.0 | 60.0 |" in capsys.readouterr().out


def test_without_the_published_tables_nothing_is_trained(tool, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "measure", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr("sys.argv", ["accuracy_table.py", str(tiny_config), "--results", str(tmp_path / "rows.json")])
    (tmp_path / "rows.json").write_text("[")
    with pytest.raises(ConfigError, match=r"rows.json: cannot be read \(Expecting value.*\); run the tool in a clone"):
        tool.main()
    monkeypatch.setattr(tool, "PUBLISHED", tmp_path / "none.json")
    with pytest.raises(ConfigError, match=r"none.json: cannot be read \(No such file or directory\); run the tool"):
        tool.main()


def test_methods_are_named_as_in_the_paper(tool):
    assert tool.method_name("myconfigs/linknets/linknet34.256x256.EPFL.1.5k.py", PUBLISHED) == "LinkNet"
    assert tool.method_name("myconfigs/dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py", PUBLISHED) == "D-SegNeXt-T"
    assert tool.method_name("mine/other.big.64x64.X.1k.py", PUBLISHED) == "other.big"
    assert tool.method_name("mine/my_mine.py", PUBLISHED) == "my_mine"


def test_the_best_method_comes_first_with_mean_and_deviation(tool):
    def row(config, seed, road_iou, miou):
        return dict(config=config, seed=seed, iterations=1500, road_iou=road_iou, miou=miou)

    one, two = "a/linknet34.256x256.EPFL.1.5k.py", "a/dsegnext.tiny.256x256.EPFL.1.5k.py"
    lines = tool.accuracy_table(
        [row(one, 0, 0.5, 0.6), row(two, 1, 0.6, 0.8), row(two, 0, 0.7, 0.7)], PUBLISHED
    ).splitlines()
    assert lines[2] == f"| [D-SegNeXt-T](../{two}) | 1,500 | 0, 1 | 65.0 ± 7.1 | 75.0 ± 7.1 |"
    assert lines[3] == f"| [LinkNet](../{one}) | 1,500 | 0 | 50.0 | 60.0 |"
