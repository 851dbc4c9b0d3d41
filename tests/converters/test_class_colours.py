"""Colour masks with several classes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmseg_ext.converters import convert
from mmseg_ext.converters.class_colours import ClassColours
from mmseg_ext.datasets import RoadDataset
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.imagery import read_metadata

WORDS = ("road=255,0,0", "ramp=#0000ff", "ignore=255,255,255")


def painted(labels, colours):
    return np.array([*colours, *[(255, 255, 255)] * 253], np.uint8)[np.minimum(labels, 3)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 255]), min_size=6, max_size=6), st.sampled_from(["png", "tif", "palette"]))
def test_colours_and_back(tmp_path_factory, labels, kind):
    labels = np.array(labels, np.uint8).reshape(2, 3)
    path = tmp_path_factory.mktemp("mask") / ("m.tif" if kind == "tif" else "m.png")
    picture = Image.fromarray(painted(labels, [(0, 0, 0), (255, 0, 0), (0, 0, 255)]))
    (picture.quantize(8) if kind == "palette" else picture).save(path)
    assert np.array_equal(ClassColours.of(WORDS).read(str(path)), labels)


def test_a_class_may_have_several_colours(tmp_path):
    Image.fromarray(painted(np.array([[0, 1, 2, 255]]), [(0, 0, 0), (255, 0, 0), (0, 0, 255)])).save(tmp_path / "m.png")
    colours = ClassColours.of(["road=255,0,0+#0000ff", "ignore=255,255,255"])
    assert colours.read(str(tmp_path / "m.png")).tolist() == [[0, 1, 1, 255]]
    assert (colours.classes, colours.palette) == (("background", "road"), ((0, 0, 0), (255, 0, 0)))
    with pytest.raises(ConfigError, match=r"\(255, 0, 0\) is given twice"):
        ClassColours.of(["road=255,0,0+0,0,255", "ramp=255,0,0"])


def test_an_unknown_colour_is_named_with_its_place(tmp_path):
    mask = np.zeros((4, 5, 3), np.uint8)
    mask[2, 3:] = 9, 8, 7
    Image.fromarray(mask).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m.png: colour 9,8,7 at row 2, column 3 \(and 1 more pixels\) is of none"):
        ClassColours.of(WORDS).read(str(tmp_path / "m.png"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.json", json.dumps(dict(road=[255, 0, 0], ramp="#0000FF", ignore=[255, 255, 255]))),
        ("c.json", json.dumps([dict(name=n, color=c) for n, c in (w.split("=") for w in WORDS)])),
        ("c.csv", "\ufeffname,r,g,b\r\nroad,255,0,0\r\nramp,0,0,255\r\nignore,255,255,255\r\n"),
        ("c.csv", "road,#ff0000\nramp,#0000ff\nignore,#ffffff\n"),
    ],
)
def test_files_say_the_same(tmp_path, name, content):
    (tmp_path / name).write_text(content, newline="")
    assert ClassColours.of([str(tmp_path / name)]) == ClassColours.of(WORDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["road=255,0"], "'255,0' is no colour of road; give NAME=RED,GREEN,BLUE"),
        (["road=red"], "'red' is no colour of road"),
        (["road=0,0,0"], r"\(0, 0, 0\) is given twice"),
        (["road=1,1,1", "road=2,2,2"], "road is given twice"),
        (["background=0,0,0", "ignore=1,1,1"], "0 classes besides the background"),
        (["none.json"], "none.json: cannot be read"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with pytest.raises(ConfigError, match=f"^--colours.*{message}") as refused:
        ClassColours.of(words)
    assert "\n" not in str(refused.value)


def test_a_data_set_of_several_classes(tmp_path):
    rng = np.random.default_rng(0)
    truth = {}
    for folder in ("images", "masks"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    for i in range(3):
        truth[f"a{i}"] = rng.choice([0, 1, 2, 255], (8, 8)).astype(np.uint8)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path / "raw" / "images" / f"a{i}.png")
        mask = painted(truth[f"a{i}"], [(10, 10, 10), (255, 0, 0), (0, 0, 255)])
        Image.fromarray(mask).save(tmp_path / "raw" / "masks" / f"a{i}.png")
    words = ("background=10,10,10", *WORDS)
    made = convert("pair", str(tmp_path / "raw"), str(tmp_path / "out"), val=1, colours=words)
    said = "classes=('background', 'road', 'ramp'), palette=[[10, 10, 10], [255, 0, 0], [0, 0, 255]], num_classes=3"
    assert made.text("not background").endswith(f"\nits classes: {said}")
    assert read_metadata(str(tmp_path / "out"))["classes"] == said
    names = dict(classes=("background", "road", "ramp"), palette=[[0, 0, 0]] * 3)
    dataset = RoadDataset([], "ImageSets/Segmentation/train.txt", str(tmp_path / "out"), **names)
    for index in range(2):
        stem = dataset.img_infos[index]["filename"][:2]
        assert np.array_equal(dataset.get_gt_seg_map_by_idx(index), truth[stem])
    with pytest.raises(ConfigError, match="--colours does not apply to epfl"):
        convert("epfl", str(tmp_path / "raw"), str(tmp_path / "o2"), colours=words)
