import numpy as np
import pytest
from PIL import Image

from mmseg_ext.datasets.raw_mask import repaired_labels
from mmseg_ext.errors import DataError

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
