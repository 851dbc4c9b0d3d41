import os

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.errors import DataError
from mmseg_ext.imagery.raw_mask import find_folders, match_files, pair_files, repaired_labels

ROAD = np.zeros((12, 16), np.uint8)
ROAD[4:8] = 1


def palette(indices, *colours):
    picture = Image.fromarray(indices.astype(np.uint8), mode="P")
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def soft():
    grey = ROAD * 255
    grey[3], grey[8] = 90, 40
    return grey


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
KINDS = {
    "labels": lambda: ROAD,
    "black palette": lambda: palette(ROAD, BLACK, RED),
    "palette without black": lambda: palette(ROAD, RED, WHITE),
    "white first": lambda: palette(1 - ROAD, WHITE, BLACK),
    "high index": lambda: palette(ROAD * 15, *[BLACK] * 15, RED),
    "soft grey": soft,
    "1 bit": lambda: Image.fromarray(ROAD.astype(bool)),
    "3 channels": lambda: np.repeat(ROAD[:, :, None] * 255, 3, axis=2),
    "colour": lambda: ROAD[:, :, None] * np.array(RED, np.uint8),
    "16 bit": lambda: ROAD.astype(np.uint16) * 65535,
}


def saved(mask, path):
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_mask_of_any_kind_has_one_answer(kind, tmp_path):
    assert np.array_equal(repaired_labels(saved(KINDS[kind](), tmp_path / "a.png")), ROAD)


def test_255_is_road_only_where_that_is_said(tmp_path):
    path = saved(ROAD * 255, tmp_path / "a.png")
    assert np.array_equal(repaired_labels(path), ROAD * 255)
    assert np.array_equal(repaired_labels(path, road_is_ignore=True), ROAD)
    both = ROAD.copy()
    both[0] = 255
    path = saved(both, tmp_path / "b.png")
    assert np.array_equal(repaired_labels(path, road_is_ignore=True), both)


def test_several_answers_are_refused(tmp_path):
    with pytest.raises(DataError, match="a.png: values 0, 7 are neither"):
        repaired_labels(saved(ROAD * 7, tmp_path / "a.png"))
    colours = np.zeros((12, 16, 3), np.uint8)
    colours[:4], colours[4:8] = RED, WHITE
    with pytest.raises(DataError, match="b.png: 3 colours, not black and one other"):
        repaired_labels(saved(colours, tmp_path / "b.png"))


@pytest.fixture()
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        return str(tmp_path)

    return make


@pytest.mark.parametrize(
    ("files", "images", "masks"),
    [
        (["images/a.png", "masks/a.png"], "images", "masks"),
        (["Img/a.png", "GT/a.gif", "notes/b.png"], "Img", "GT"),
        (["JPEGImages/a.jpg", "SegmentationClass/a.png", "ImageSets/x.txt"], "JPEGImages", "SegmentationClass"),
        (["a_sat.jpg", "a_mask.png", "read.me"], "", ""),
    ],
)
def test_folders_are_told_by_their_names(folder, files, images, masks):
    root = folder(*files)
    assert find_folders(root) == tuple(os.path.join(root, sub) if sub else root for sub in (images, masks))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.png", "b.png"], "holds no folder of images beside a folder of masks"),
        (["images/a.png", "sat/a.png", "masks/a.png"], "images, sat may each hold the images; keep one of them there"),
        (["images/a.png"], "holds no folder of images beside a folder of masks"),
    ],
)
def test_what_cannot_be_told_is_refused(folder, files, message):
    with pytest.raises(DataError, match=message) as error:
        find_folders(folder(*files))
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="no such folder"):
        find_folders("nowhere")


def test_matching_goes_on_where_pairing_stops(folder):
    root = folder("i/a_sat.png", "i/b.png", "i/b.jpg", "i/c.tif", "m/a_mask.bmp", "m/b_road.png", "m/d.png")
    images, masks = os.path.join(root, "i"), os.path.join(root, "m")
    matching = match_files(images, masks)
    assert [(stem, os.path.basename(i), os.path.basename(m)) for stem, i, m in matching.pairs] == [
        ("a", "a_sat.png", "a_mask.bmp"),
        ("b", "b.jpg", "b_road.png"),
    ]
    assert [os.path.basename(path) for path in matching.lone_images] == ["c.tif"]
    assert [(stem, os.path.basename(other)) for stem, _, other in matching.clashes] == [("b", "b.png")]
    with pytest.raises(DataError, match="b.jpg and b.png both stand for 'b'; keep one of them"):
        pair_files(images, masks)
    os.remove(os.path.join(images, "b.png"))
    with pytest.raises(DataError, match="c.tif: no mask named like it in"):
        pair_files(images, masks)
    os.remove(os.path.join(images, "c.tif"))
    assert [pair[0] for pair in pair_files(images, masks)] == ["a", "b"]
