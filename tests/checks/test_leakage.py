import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_ext.checks.leakage import difference_hash, find_copies, find_turned_copies
from mmseg_ext.datasets import generate_mine


def thumbnail(image):
    return cv2.resize(np.ascontiguousarray(image), (32, 32), interpolation=cv2.INTER_AREA).mean(2, dtype=np.float32)


def tiles(seed, side=128):
    mine = generate_mine(seed, 512, 2.0)
    return [mine.image[r : r + side, c : c + side] for r in range(0, 512, side) for c in range(0, 512, side)]


@pytest.fixture(scope="module")
def scenes():
    return [tile for seed in (1, 2, 3) for tile in tiles(seed)]


def as_jpeg(image, quality):
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality)
    return np.array(Image.open(data))


CHANGES = {
    "JPEG 90": lambda image: as_jpeg(image, 90),
    "JPEG 50": lambda image: as_jpeg(image, 50),
    "half size": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "darker": lambda image: (image * 0.7).astype(np.uint8),
    "lit from one side": lambda image: (image * np.linspace(0.8, 1, image.shape[1])[:, None]).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_copy_is_found_and_nothing_else(scenes, change):
    changed = [CHANGES[change](np.ascontiguousarray(tile)) for tile in scenes]
    count = len(scenes)
    pairs = find_copies(np.stack([thumbnail(tile) for tile in [*scenes, *changed]]))
    assert pairs == [(count + i, i) for i in range(count)]


def test_crops_of_one_texture_are_no_copies():
    texture = cv2.GaussianBlur(np.random.default_rng(0).normal(130, 120, (1024, 1024, 3)).astype(np.float32), (0, 0), 3)
    light = np.linspace(0, 60, 64)[None, :, None]  # the same light in all of them makes them alike at first sight
    crops = [texture[r : r + 64, c : c + 64] + light for r in range(0, 1024, 64) for c in range(0, 1024, 64)]
    assert find_copies(np.stack([thumbnail(np.clip(crop, 0, 255).astype(np.uint8)) for crop in crops])) == []


def test_what_has_no_features_is_left_out():
    even = np.random.default_rng(0).integers(99, 102, (6, 128, 128, 3), dtype=np.uint8)
    assert find_copies(np.stack([thumbnail(even[i // 2]) for i in range(6)])) == []


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarter", range(4))
def test_turned_copies_are_found(scenes, quarter, mirrored):
    turned = [np.rot90(tile[:, ::-1] if mirrored else tile, quarter) for tile in scenes[:6]]
    first = np.stack([thumbnail(tile) for tile in scenes])
    pairs = find_turned_copies(first, np.stack([thumbnail(as_jpeg(np.ascontiguousarray(t), 70)) for t in turned]))
    assert pairs == ([(i, i) for i in range(6)] if quarter or mirrored else [])
    assert find_turned_copies(first[:0], first) == find_turned_copies(first, first[:0]) == []


def test_many_copies_have_one_original():
    picture = np.random.default_rng(0).normal(100, 40, (1, 32, 32)).astype(np.float32)
    assert find_copies(np.repeat(picture, 300, axis=0)) == [(i, 0) for i in range(1, 300)]


def test_bits_tell_which_cell_is_darker_than_its_right_neighbour():
    ramp = np.tile(np.arange(32, dtype=np.float32), (32, 1))
    (bits,) = np.unpackbits(difference_hash(ramp[None]).view(np.uint8), axis=1).reshape(1, 16, 16)
    assert np.array_equal(bits, np.tile([*[1] * 15, 0], (16, 1)))
