"""Annotations of LabelMe and COCO: what is drawn, and a data set of them."""

import json

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.converters import convert
from mmseg_ext.converters.annotations import Annotations
from mmseg_ext.converters.scenes import Scene
from mmseg_ext.datasets import RoadDataset
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.imagery import read_metadata

SQUARE = [[1, 2], [5, 2], [5, 6], [1, 6]]
STRIP = [[0, 8], [12, 8]]


def labelme(folder, stem, *shapes, height=10, width=12):
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [dict(label=label, shape_type=kind, points=points) for label, kind, points in shapes]
    content = dict(shapes=drawn, imagePath=f"{stem}.png", imageHeight=height, imageWidth=width)
    (folder / f"{stem}.json").write_text(json.dumps(content))


def coco(path, names, *annotations):
    content = dict(
        images=[dict(id=i, file_name=f"deep/{name}", height=10, width=12) for i, name in enumerate(names)],
        categories=[dict(id=7, name="road"), dict(id=3, name="ramp")],
        annotations=[dict(id=i, image_id=0, category_id=c, segmentation=s) for i, (c, s) in enumerate(annotations)],
    )
    path.write_text(json.dumps(content))


def of(image):
    return Scene("a", ("train",), image)


def drawn(*areas):
    labels = np.zeros((10, 12), np.uint8)
    for label, rows, columns in areas:
        labels[rows, columns] = label
    return labels


def test_shapes_cover_the_pixels_whose_centres_they_hold(tmp_path):
    labelme(
        tmp_path,
        "a",
        ("road", "polygon", SQUARE),
        ("road", "linestrip", STRIP),
        ("ignore", "rectangle", [[4, 5], [6, 7]]),
    )
    found = Annotations.read(str(tmp_path), line_width_px=2).labels(of("x/a.png"))
    expected = drawn((1, np.s_[2:6], np.s_[1:5]), (1, np.s_[7:9], np.s_[:]), (255, np.s_[5:7], np.s_[4:6]))
    assert np.array_equal(found, expected)
    labelme(tmp_path, "a", ("road", "circle", [[6, 5], [6, 8]]))
    rows, columns = np.indices((10, 12)) + 0.5
    inside = np.hypot(columns - 6, rows - 5)
    found = Annotations.read(str(tmp_path)).labels(of("a.jpg"))
    assert (found[inside < 2.95] == 1).all() and (found[inside > 3] == 0).all()


def test_both_formats_say_the_same(tmp_path):
    labelme(tmp_path / "lm", "a", ("road", "polygon", SQUARE), ("ramp", "polygon", [[3, 0], [12, 0], [12, 3], [3, 3]]))
    coco(tmp_path / "c.json", ["a.png"], (7, [np.ravel(SQUARE).tolist()]), (3, [[3, 0, 12, 0, 12, 3, 3, 3]]))
    one, two = (Annotations.read(str(tmp_path / name)) for name in ("lm", "c.json"))
    assert one.classes == two.classes == ("background", "ramp", "road")
    expected = drawn((2, np.s_[2:6], np.s_[1:5]), (1, np.s_[0:3], np.s_[3:12]))  # the later counts
    assert np.array_equal(one.labels(of("a.png")), expected) and np.array_equal(two.labels(of("a.png")), expected)
    chosen = Annotations.read(str(tmp_path / "lm"), ["road", "ramp"]).labels(of("a.png"))
    assert np.array_equal(chosen, np.array([0, 2, 1], np.uint8)[expected])


def test_a_data_set_of_annotations(tmp_path):
    (tmp_path / "raw").mkdir()
    for i in range(3):
        image = np.random.default_rng(i).integers(0, 255, (10, 12, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "raw" / f"a{i}.png")
        labelme(tmp_path / "raw", f"a{i}", *[("road", "polygon", SQUARE)] * (i < 2))
    options = dict(annotations=str(tmp_path / "raw"), val=1, by_name=True)
    made = convert("pair", str(tmp_path / "raw"), str(tmp_path / "out"), **options)
    assert made.counts == dict(train=2, val=1, test=0)
    assert read_metadata(str(tmp_path / "out"))["classes"].startswith("classes=('background', 'road'), ")
    train, val = (RoadDataset([], f"ImageSets/Segmentation/{s}.txt", str(tmp_path / "out")) for s in ("train", "val"))
    assert np.array_equal(train.get_gt_seg_map_by_idx(0), drawn((1, np.s_[2:6], np.s_[1:5])))
    assert not val.get_gt_seg_map_by_idx(0).any()
    labelme(tmp_path / "raw", "a1", ("road", "polygon", SQUARE), height=11)
    with pytest.raises(DataError, match=r"a1.json: the mask is 12x11 px but its image .*a1.png is 12x10 px"):
        convert("pair", str(tmp_path / "raw"), str(tmp_path / "o2"), **options)
    (tmp_path / "raw" / "a1.json").unlink()
    with pytest.raises(DataError, match="a1.png: has no annotations; add them, or move the image away"):
        convert("pair", str(tmp_path / "raw"), str(tmp_path / "o3"), **options)


@pytest.mark.parametrize(
    ("shapes", "classes", "words"),
    [
        ([("pad", "polygon", SQUARE)], ["road"], "a.json: class 'pad' is none of road; add it to --classes"),
        ([("road", "line", STRIP)], [], "a.json: has lines; say how wide they are in pixels: --line-width"),
        ([("road", "point", [[1, 1]])], [], r"a.json: a point of 1 point\(s\) has no area; draw polygons"),
        ([("road", "polygon", [])], [], "a.json: is no annotation of LabelMe or COCO"),
        ([("road", "polygon", [[float("nan"), 1]])], [], "a.json: is no annotation of LabelMe or COCO"),
        ([], [], "not one shape has a class"),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path, shapes, classes, words):
    labelme(tmp_path, "a", *shapes)
    with pytest.raises(DataError, match=words):
        Annotations.read(str(tmp_path), classes).labels(of("a.png"))


def test_other_mistakes(tmp_path):
    coco(tmp_path / "c.json", ["a.png"], (7, dict(counts=[1], size=[10, 12])))
    with pytest.raises(DataError, match="annotation 0 is a run-length mask; export polygons"):
        Annotations.read(str(tmp_path / "c.json"))
    (tmp_path / "c.json").write_text("[")
    with pytest.raises(DataError, match="c.json: cannot be read as JSON"):
        Annotations.read(str(tmp_path / "c.json"))
    with pytest.raises(ConfigError, match="line width 0 must be above 0"):
        convert("pair", str(tmp_path), str(tmp_path / "out"), annotations=str(tmp_path / "c.json"), line_width=0.0)
