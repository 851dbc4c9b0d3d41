"""The table of trained methods grows run by run and trains nothing twice."""

import json

import pytest


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
