import json

import cv2
import numpy as np
import pytest

from mmseg_ext import cli, errors
from mmseg_ext.errors import ConfigError, DataError, MissingExtraError


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("plot_runs")


def write_log(folder, name, iterations, start=1.0, cut=""):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [dict(seed=0, exp_name="c.py")]
    for i in iterations:
        lines.append(dict(mode="train", iter=i, loss=start / i, lr=0.1))
        if i % 20 == 0:
            lines.append({"mode": "val", "iter": i, "mIoU": i / 200, "IoU.road": i / 400})
    text = "\n".join(map(json.dumps, lines))
    (folder / f"{name}.log.json").write_text(f"{text}\n{cut}")


def test_resumed_logs_are_joined(tool, tmp_path):
    write_log(tmp_path, "20260102_000000", range(10, 60, 10), cut='{"mode": "train", "iter": 60, "lo')
    write_log(tmp_path, "20260103_000000", range(40, 90, 10), start=2.0)
    curves = tool.read_curves(str(tmp_path))
    assert curves["loss"][:, 0].tolist() == [10, 20, 30, 40, 50, 60, 70, 80]
    assert curves["loss"][:, 1].tolist() == [1 / 10, 1 / 20, 1 / 30, *(2 / i for i in range(40, 90, 10))]
    assert curves["mIoU"].tolist() == [[20, 0.1], [40, 0.2], [60, 0.3], [80, 0.4]]
    assert curves["IoU.road"].tolist() == [[20, 0.05], [40, 0.1], [60, 0.15], [80, 0.2]]
    with pytest.raises(DataError, match=r"none: holds no \*.log.json"):
        tool.read_curves(str(tmp_path / "none"))


def test_smoothing_is_a_mean_of_neighbours(tool):
    values = np.arange(10.0) ** 2
    assert tool.smoothed(values, 0).tolist() == values.tolist()
    expected = [np.mean(values[max(0, i - 2) : i + 3]) for i in range(10)]
    assert tool.smoothed(values, 5) == pytest.approx(expected)


def test_names_tell_runs_apart(tool, tmp_path):
    assert cli.distinct_names(["a/run1", "b/run2/"]) == ["run1", "run2"]
    assert cli.distinct_names(["a/run", "b/run"]) == ["a/run", "b/run"]
    assert cli.distinct_names(["a/run", "a/run"]) == ["run", "run"]
    curves = {"mIoU": np.array([[10, 0.5], [20, 0.7], [30, np.nan]]), "IoU.road": np.zeros((0, 2))}
    assert tool._label("run", curves) == "run: best mIoU 70.0 at 20"


def test_a_picture_of_runs(tool, tmp_path):
    write_log(tmp_path / "one", "a", range(10, 210, 10))
    write_log(tmp_path / "two", "a", range(10, 110, 10), start=3.0)
    write_log(tmp_path / "new", "a", [])
    path = tmp_path / "out" / "runs.png"
    tool.plot_runs([str(tmp_path / name) for name in ("one", "two", "new")], str(path))
    picture = cv2.imread(str(path))[:, :, ::-1].astype(int)
    assert picture.shape[1] == 1800
    # both runs' lines are in each third of the picture
    for third in np.array_split(picture, 3, axis=1):
        for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
            assert (abs(third - colour).max(-1) < 8).sum() > 50
    with pytest.raises(ConfigError, match=r"runs.xyz: cannot be written .* name a .png"):
        tool.plot_runs([str(tmp_path / "one")], str(tmp_path / "runs.xyz"))


def test_matplotlib_is_an_extra(tool, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"needs matplotlib.*extra 'plots'"):
        tool.plot_runs([str(tmp_path)], str(tmp_path / "a.png"))
