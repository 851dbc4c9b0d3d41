"""Repeats: the figures, and that nothing is trained twice; test_accuracy_table.py trains really."""

import json
import signal
import statistics
import sys

import pytest

from mmseg_ext.errors import ConfigError, Stopped, TrainingError

SCORES = {0: (0.61, 0.41), 1: (0.65, 0.45), 2: (0.60, 0.37)}


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("repeat")


@pytest.fixture()
def trained(monkeypatch, tool):
    """The (seed, work dir, options) of each training that was asked for; seed 9 fails."""
    asked = []

    def pretend(config, seed, work_dir, options, validate, processes):
        if seed == 9:
            raise TrainingError("broken")
        asked.append((seed, work_dir, list(options)))
        miou, road = SCORES[seed]
        return {"aAcc": 0.9, "mIoU": miou, "IoU.background": 0.8, "IoU.road": road, "Acc.road": None}

    monkeypatch.setattr(tool, "train_and_score", pretend)
    return asked


def test_mean_and_deviation_and_what_is_done_is_kept(tiny_config, tmp_path, trained, tool):
    work_dir = tmp_path / "runs"
    options = ["optimizer.lr=1e-4"]
    with pytest.raises(TrainingError):
        tool.repeat(str(tiny_config), [1, 0, 9], str(work_dir), options, 1)
    after_two = json.loads((work_dir / "repeat.json").read_text())
    assert [run["seed"] for run in after_two["runs"]] == [0, 1]
    result = tool.repeat(str(tiny_config), [0, 1, 2], str(work_dir), options, 1)
    assert trained == [(seed, str(work_dir / f"seed{seed}"), options) for seed in (1, 0, 2)]
    assert json.loads((work_dir / "repeat.json").read_text()) == result
    for place, name in enumerate(("mIoU", "IoU.road")):
        values = [SCORES[seed][place] for seed in range(3)]
        mean = sum(values) / 3
        assert result["mean"][name] == pytest.approx(mean)
        assert result["deviation"][name] == pytest.approx((sum((v - mean) ** 2 for v in values) / 2) ** 0.5)
    assert "Acc.road" not in result["mean"]
    assert tool.repeat_table(result).splitlines() == [
        "| seed | mIoU % | road IoU % |",
        "| --- | --- | --- |",
        "| 0 | 61.00 | 41.00 |",
        "| 1 | 65.00 | 45.00 |",
        "| 2 | 60.00 | 37.00 |",
        f"| mean ± deviation | 62.00 ± {100 * statistics.stdev([0.61, 0.65, 0.60]):.2f} | 41.00 ± 4.00 |",
    ]
    with pytest.raises(ConfigError, match=r"repeat.json: was made with options \['optimizer.lr=1e-4'\], not \[\]"):
        tool.repeat(str(tiny_config), [0], str(work_dir), [], 1)


def test_the_tool_prints_the_table(tiny_config, tmp_path, trained, tool, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["repeat.py", str(tiny_config), "--seeds", "1"])
    tool.main()
    assert capsys.readouterr().out.splitlines()[2:] == ["| 1 | 65.00 | 45.00 |", "| mean | 65.00 | 45.00 |"]
    assert (tmp_path / "work_dirs/tiny.repeat/repeat.json").exists()
    with pytest.raises(ConfigError, match="no such config"):
        tool.repeat("none.py", [0], None, [], 1)


def test_a_config_may_be_named(tmp_path, trained, tool, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "dsegnext.tiny.160x160.MINE.0.75k"
    assert tool.repeat(name, [1], None, [], 1)["config"] == f"{name}.py"
    assert [folder for _, folder, _ in trained] == [f"work_dirs/{name}.repeat/seed1"]


def test_a_failed_or_stopped_child_ends_the_repeats(tool):
    with pytest.raises(TrainingError, match="the training of a with seed 1 ended with exit code 3"):
        tool.run("the training of a with seed 1", [sys.executable, "-c", "raise SystemExit(3)"])
    before = signal.getsignal(signal.SIGTERM)
    # the child asks its parent to end; the parent passes that on and waits until the child has saved
    child = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)"
    )
    with pytest.raises(Stopped) as stopped:
        tool.run("it", [sys.executable, "-c", child])
    assert stopped.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
