"""Several data sets that train together: built, checked against each other, examined, trained and resumed."""

import numpy as np
import pytest
import torch
from mmcv import Config

from mmseg_ext.checks import check_datasets, examine, splits_of_config
from mmseg_ext.converters import write_synthetic_mines
from mmseg_ext.datasets.pipelines import training_steps
from mmseg_ext.datasets.several import build_training_set, common_reading, part_settings, parts_of
from mmseg_ext.engine import load_config, train
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.engine.config import step_arguments
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.imagery.voc import read_metadata, write_metadata

NORM = dict(mean=[150.0, 138.0, 112.0], std=[27.0, 24.0, 24.0])
STEPS = dict(Resize=dict(img_scale=(64, 64)), RandomCrop=dict(crop_size=(64, 64)), Pad=dict(size=(64, 64)))
LIST = "ImageSets/Segmentation/{}.txt"


@pytest.fixture()
def other(tmp_path):
    """A second data set, of 4 training tiles."""
    write_synthetic_mines(str(tmp_path / "other"), [11], [12], [13], size_px=128, tile_px=64, gsd_m=4.0)
    return tmp_path / "other"


def part(root, norm=NORM, split="train", **settings):
    pipeline = training_steps(Normalize=norm, **STEPS)
    return dict(type="RoadDataset", data_root=str(root), split=LIST.format(split), pipeline=pipeline, **settings)


def forms(first, second):
    return {
        "list": [first, second],
        "ConcatDataset": dict(type="ConcatDataset", datasets=[first, second]),
        "RepeatDataset": [dict(type="RepeatDataset", times=1, dataset=first), second],
        "Repeat of a list": dict(type="RepeatDataset", times=1, dataset=[first, second]),
    }


@pytest.mark.parametrize("form", ["list", "ConcatDataset", "RepeatDataset", "Repeat of a list"])
def test_every_form_has_the_images_of_all(mine_data, other, form):
    split = forms(part(mine_data), part(other))[form]
    assert [settings["data_root"] for settings in part_settings(split)] == [str(mine_data), str(other)]
    dataset = build_training_set(split)
    assert len(dataset) == 16 + 4 and dataset.CLASSES == ("background", "road")
    assert [one.data_root for one in parts_of(dataset)] == [str(mine_data), str(other)]
    assert dataset[16]["img_metas"].data["filename"].startswith(str(other))
    assert common_reading(dataset).gsd_m == 4.0
    check_datasets(train=dataset, val=None)


def test_images_are_repeated_and_lists_joined(mine_data):
    assert len(build_training_set(dict(type="RepeatDataset", times=3, dataset=part(mine_data)))) == 48
    split = part(mine_data) | dict(split=[LIST.format("train"), LIST.format("val")])
    assert len(build_training_set(split)) == 20
    assert [one["split"] for one in part_settings(split)] == split["split"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            dict(norm=dict(mean=[1.0] * 3, std=[2.0] * 3)),
            r"their normalisation: .*; give all the same Normalize",
        ),
        (dict(classes=("ground", "road")), r"their classes: .*'background'.*'ground'"),
        (dict(ignore_index=254), "their ignored label: 255 and 254"),
    ],
)
def test_what_one_network_cannot_see_alike_is_refused(mine_data, other, change, words):
    with pytest.raises(ConfigError, match=rf"train.txt and .*other/.*train.txt train together, but differ in {words}"):
        common_reading(build_training_set([part(mine_data), part(other, **change)]))


def test_readings_are_compared_and_metres_too(mine_data, other, caplog):
    write_metadata(str(other), read_metadata(str(other)) | dict(gsd_m=0.5))
    assert common_reading(build_training_set([part(mine_data), part(other)])).gsd_m is None
    assert "the training sets have 4, 0.5 m per pixel; ScaleToGSD(gsd_m=...)" in caplog.text
    caplog.clear()
    scaled = [part(mine_data), part(other)]
    for one in scaled:
        one["pipeline"].insert(2, dict(type="ScaleToGSD", gsd_m=4.0))
    assert common_reading(build_training_set(scaled)).gsd_m is None and caplog.text == ""
    write_metadata(str(other), read_metadata(str(other)) | dict(low=[0.0], high=[99.0]))
    with pytest.raises(ConfigError, match=r"scaling to 8 bits: \(None, None\) and \(\(0.0,\), \(99.0,\)\)"):
        common_reading(build_training_set([part(mine_data), part(other)]))


def test_the_doctor_examines_every_part(mine_data, other):
    val = part(mine_data, split="val")
    for split in forms(part(mine_data), part(other)).values():
        diagnosis = examine("config", *splits_of_config(dict(train=split, val=val)))
        assert [(*s.names, s.pairs) for s in diagnosis.statistics] == [("train 1", 16), ("train 2", 4), ("val", 4)]
        assert diagnosis.exit_code == 0, diagnosis.text()
    leaking = dict(train=[part(other), part(mine_data)], val=part(other, split="train"))
    diagnosis = examine("config", *splits_of_config(leaking))
    assert "same-name" in {finding.code for finding in diagnosis.findings}
    (next((other / "SegmentationClass").iterdir())).unlink()
    with pytest.raises(DataError, match="other/JPEGImages/.*: no mask"):
        build_training_set([part(mine_data), part(other)])


def config(tiny_config, tmp_path, mine_data, other, repeat):
    first = part(mine_data)
    first = dict(type="RepeatDataset", times=2, dataset=first) if repeat else first
    path = tmp_path / "two.py"
    path.write_text(
        f"_base_ = {str(tiny_config)!r}\ntwo = {[first, part(other)]!r}\n"
        "data = dict(train=two)\nrunner = dict(max_iters=6)\ncheckpoint_config = dict(interval=3)\n"
    )
    return path


@pytest.mark.parametrize("repeat", [False, True])
def test_training_and_exact_resume(tiny_config, tmp_path, mine_data, other, repeat):
    path = config(tiny_config, tmp_path, mine_data, other, repeat)
    whole = train(load_config(str(path)), str(tmp_path / "whole"))
    rest = train(load_config(str(path), dict(resume_from=f"{whole}/iter_3.pth")), str(tmp_path / "rest"))
    one, two = (read_checkpoint(f"{folder}/iter_6.pth") for folder in (whole, rest))
    assert one["meta"]["draws"] == two["meta"]["draws"] == 12
    assert all(torch.equal(value, two["state_dict"][key]) for key, value in one["state_dict"].items())
    assert one["meta"]["image"] == dict(bands=None, low=None, high=None, gsd_m=4.0)


def test_options_reach_all_parts_and_scores_are_of_one(tiny_config, tmp_path, mine_data, other):
    path = config(tiny_config, tmp_path, mine_data, other, True)
    text = path.read_text().replace("data = dict(train=two)", "data = dict(train=two, val=two)")
    path.write_text(text)
    with pytest.raises(ConfigError, match="data.val: several data sets can train together, but scores are of one"):
        load_config(str(path))
    path.write_text(text.replace(", val=two", ""))
    cfg = load_config(str(path), {"data.train.1.step_args.Normalize": dict(mean=[1.0] * 3)})
    assert step_arguments(cfg.data.train[1], "Normalize")["mean"] == [1.0] * 3
    assert step_arguments(cfg.data.train, "Normalize")["mean"] == NORM["mean"]
    assert Config.fromfile(str(path)).data.train[0].type == "RepeatDataset"


def test_browsing_shows_every_part(tiny_config, tmp_path, mine_data, other, run_tool):
    path = config(tiny_config, tmp_path, mine_data, other, False)
    done = run_tool("browse_dataset.py", path, "--count", 2, "--out", tmp_path / "sheet.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "sheet.html").read_text()
    assert "2 draws from 16 images" in page and "2 draws from 4 images" in page
    assert np.char.count(page, "what the network sees").item() >= 4
