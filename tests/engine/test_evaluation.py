import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmseg.apis import inference_segmentor, init_segmentor
from mmseg.datasets import build_dataset
from PIL import Image

from mmseg_ext.engine import PredictionWriter, build_network, evaluate_checkpoint, load_config
from mmseg_ext.engine.config import config_for
from mmseg_ext.engine.evaluation import Prediction, image_name
from mmseg_ext.errors import ConfigError
from mmseg_ext.imagery.voc import LISTS, road_labels
from mmseg_ext.scoring.results import MapWriter


def known(metrics):
    return {name: math.nan if value is None else value for name, value in metrics.items()}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, run_tool, one_config):
    """A trained network's road scores by one process and by two, and the folders of their reports."""
    root = tmp_path_factory.mktemp("road")
    done = run_tool("train.py", one_config, "--work-dir", root / "run")
    assert done.returncode == 0, done.stderr
    checkpoint = root / "run" / "latest.pth"
    options = ["--eval", "mIoU", "road", "--cfg-options", "data.test.split=ImageSets/Segmentation/val.txt"]
    metrics = {}
    for processes in (1, 2):
        files = ["--out", root / f"{processes}.json", "--report", root / f"report{processes}"]
        tool = ["test.py", one_config, checkpoint] if processes == 1 else ["dist_test.sh", one_config, checkpoint, 2]
        done = run_tool(*tool, *files, *options)
        assert done.returncode == 0, done.stderr
        metrics[processes] = json.loads((root / f"{processes}.json").read_text())["metrics"]
    return root, metrics, done


def test_road_scores_are_those_of_mmsegmentation_where_both_exist(evaluated):
    _, metrics, _ = evaluated
    one = metrics[1]
    assert one["road.IoU"] == pytest.approx(one["IoU.road"], abs=1e-9)
    assert one["road.recall"] == pytest.approx(one["Acc.road"], abs=1e-9)
    assert one["road.accuracy"] == pytest.approx(one["aAcc"], abs=1e-9)
    assert {"road.APLS_spacenet", "road.TOPO_F1", "road.clDice", "road.pairs_kept", "road.calibration_error"} <= set(
        one
    )


def test_two_processes_score_and_report_like_one(evaluated):
    root, metrics, _ = evaluated
    assert metrics[1] == metrics[2]
    for name in ("images.csv", "scores.md", "scores.json"):
        assert (root / "report1" / name).read_text() == (root / "report2" / name).read_text()
    assert sorted(path.name for path in (root / "report2" / "probability").iterdir()) == sorted(
        path.name for path in (root / "report1" / "probability").iterdir()
    )


def test_a_report_holds_what_evaluate_finds_in_its_maps(evaluated, run_tool, tmp_path, mine_data):
    root, _, _ = evaluated
    names = [line.split(",")[0] for line in (root / "report1" / "images.csv").read_text().splitlines()[1:]]
    (tmp_path / "split.txt").write_text("\n".join(names))
    done = run_tool(
        *("evaluate.py", root / "report1" / "labels", mine_data / "SegmentationClass", "--out", tmp_path / "again"),
        *("--split", tmp_path / "split.txt", "--images", mine_data / "JPEGImages", "--gsd", 1),
    )
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again" / "scores.json").read_text())
    first = json.loads((root / "report1" / "scores.json").read_text())
    for key in ("IoU", "relaxed_F1", "quality", "clDice", "pairs_kept", "gaps"):
        assert again["road"][key]["pooled"] == pytest.approx(first["road"][key]["pooled"]), key
    for folder in (root / "report1", tmp_path / "again"):
        page = (folder / "report.html").read_text()
        assert page.count("<img") >= 8 and names[0] in page
    entropy = np.array(Image.open(root / "report1" / "entropy" / f"{names[0]}.png"))
    probability = np.array(Image.open(root / "report1" / "probability" / f"{names[0]}.png")) / 255
    with np.errstate(all="ignore"):
        bits = -probability * np.log2(probability) - (1 - probability) * np.log2(1 - probability)
    assert np.abs(np.nan_to_num(bits) - entropy / 255).max() < 0.02


def test_runs_compare(evaluated, run_tool, tmp_path):
    root, _, _ = evaluated
    done = run_tool(
        "compare_runs.py", root / "report1", root / "report2", "--scores", "IoU", "--out", tmp_path / "t.md"
    )
    assert done.returncode == 0, done.stderr
    assert "| IoU (pooled) | report2 |" in done.stdout and "not significant" in done.stdout
    assert (tmp_path / "t.md").read_text() == done.stdout
    for wrong, words in (
        ([root / "report1"], "at least two runs"),
        ([root / "report1", root / "report1"], "given twice"),
        ([root / "report1", root / "run"], "holds no road scores"),
    ):
        done = run_tool("compare_runs.py", *wrong)
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_bad_arguments_are_one_line(evaluated, run_tool, one_config, tmp_path):
    root, _, _ = evaluated
    checkpoint = root / "run" / "latest.pth"
    for options, words in (
        (["--eval", "roads"], "--eval roads: unknown metric; choose from mIoU, mDice, mFscore, road"),
        (["--eval", "road", "--threshold", 2], "the threshold is 2; it must lie between 0 and 1"),
        (["--eval", "road", "--report", one_config], "cannot be written"),
    ):
        done = run_tool("test.py", one_config, checkpoint, *options)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    done = run_tool("evaluate.py", tmp_path / "none", tmp_path)
    assert done.returncode == 2 and "none: no such file or folder" in done.stderr


def test_a_map_that_cannot_be_written_is_named(one_config, tmp_path):
    dataset = build_dataset(load_config(str(one_config)).data.test, dict(test_mode=True))
    name = image_name(dataset, 0)
    labels = np.zeros((4, 4), np.uint8)
    writer = PredictionWriter(str(tmp_path), None)
    (tmp_path / f"{name}.png").mkdir()
    with pytest.raises(ConfigError, match=rf"{name}.png: cannot be written \(Is a directory\); choose another place"):
        writer(dataset, Prediction(0, labels, torch.zeros(2, 4, 4)))
    maps = MapWriter(str(tmp_path / "maps"))
    (tmp_path / "maps" / "labels" / "a.png").mkdir()
    with pytest.raises(ConfigError, match=r"labels/a.png: cannot be written \(Is a directory\); choose another place"):
        maps.write("a", np.zeros((4, 4), np.float32), labels)


def test_what_is_road_is_told_by_the_names_of_the_classes():
    assert road_labels(("background", "road")) == [1]
    assert road_labels(("ground", "road", "pad")) == [1]
    assert road_labels(("ground", "ramp", "haul")) == [1, 2]


def test_who_scores_no_roads_needs_no_graph_libraries(root):
    code = "import sys, mmseg_ext; print(*sorted({'networkx', 'skimage', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr


def test_mmsegmentations_own_api_gives_the_labels_of_our_tool(tmp_path, root, mine_data, build):
    """One of our configs and a checkpoint, and a config with ``step_args`` through the config in its checkpoint."""
    leaf = root / "myconfigs/dsegnext/tiny/dsegnext.tiny.160x160.MINE.0.75k.py"
    (tmp_path / "derived.py").write_text(
        f"_base_ = {str(leaf)!r}\ndata = dict(test=dict(data_root={str(mine_data)!r}, "
        "step_args=dict(MultiScaleFlipAug=dict(img_scale=(128, 128)))))\n"
    )
    torch.manual_seed(0)
    cfg = load_config(str(tmp_path / "derived.py"))
    network = build_network(cfg)
    torch.nn.init.normal_(network.decode_head.conv_seg.weight, std=1)
    meta = dict(CLASSES=["background", "road"], PALETTE=[[0, 0, 0], [128, 0, 0]], config=cfg.pretty_text)
    torch.save(dict(state_dict=network.state_dict(), meta=meta), tmp_path / "net.pth")
    image = next((mine_data / "JPEGImages").glob(f"{(mine_data / LISTS / 'test.txt').read_text().split()[0]}.*"))

    def ours(config, **options):
        cfg, found = (
            config_for(config, str(tmp_path / "net.pth"), {"data.test.data_root": str(mine_data)} | options),
            [],
        )
        evaluate_checkpoint(cfg, str(tmp_path / "net.pth"), (), on_prediction=lambda _, one: found.append(one.labels))
        return found[0]

    def theirs(config):
        model = init_segmentor(config, str(tmp_path / "net.pth"), device="cpu")
        return inference_segmentor(model, str(image))[0]

    expected = ours(str(tmp_path / "derived.py"))
    assert 0.02 < expected.mean() < 0.98
    (tmp_path / "inside.py").write_text(meta["config"])
    assert np.array_equal(theirs(str(tmp_path / "inside.py")), expected)
    assert np.array_equal(theirs(str(leaf)), ours(str(leaf)))
    assert not np.array_equal(
        ours(None, **{"data.test.step_args.Normalize": dict(mean=[0] * 3, std=[255] * 3)}), expected
    )
