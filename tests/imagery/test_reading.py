"""Every kind of image file, against Pillow or the array that was written."""

import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from mmseg_ext.checks.pairs import Split, measure_pair
from mmseg_ext.errors import DataError
from mmseg_ext.geo import RasterSource, write_geotiff
from mmseg_ext.imagery.raw_mask import read_grey
from mmseg_ext.imagery.reading import check_same_size, image_info, orientation, read_pixels
from mmseg_ext.imagery.voc import Pair

RGB = np.random.default_rng(0).integers(0, 256, (21, 33, 3), dtype=np.uint8)
ALPHA = np.where(np.arange(33) < 5, 0, 200).astype(np.uint8) * np.ones((21, 1), np.uint8)
DEEP = RGB.astype(np.uint16) * 255 + 7


def palette(path, transparent=False):
    picture = Image.fromarray(RGB).quantize(16)
    picture.save(path, **({"transparency": 3} if transparent else {}))


def deep_png(path, array):
    order = [2, 1, 0, *range(3, array.shape[2])] if array.ndim == 3 else ...
    cv2.imwrite(str(path), array[:, :, order] if array.ndim == 3 else array)


KINDS = {
    "rgb.png": lambda p: Image.fromarray(RGB).save(p),
    "rgb.jpg": lambda p: Image.fromarray(RGB).save(p, quality=90),
    "rotated.jpg": lambda p: Image.fromarray(RGB).save(p, exif=_rotated()),
    "grey.jpg": lambda p: Image.fromarray(RGB[:, :, 0]).save(p),
    "cmyk.jpg": lambda p: Image.fromarray(RGB).convert("CMYK").save(p),
    "grey.png": lambda p: Image.fromarray(RGB[:, :, 0]).save(p),
    "bit.png": lambda p: Image.fromarray(RGB[:, :, 0] > 99).save(p),
    "rgba.png": lambda p: Image.fromarray(np.dstack([RGB, ALPHA])).save(p),
    "la.png": lambda p: Image.fromarray(np.dstack([RGB[:, :, 0], ALPHA])).save(p),
    "palette.png": palette,
    "see-through.png": lambda p: palette(p, transparent=True),
    "rgb.tif": lambda p: Image.fromarray(RGB).save(p),
    "rgb.bmp": lambda p: Image.fromarray(RGB).save(p),
}


def _rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("name", KINDS)
def test_8_bit_files_are_what_pillow_says(name, tmp_path):
    path = tmp_path / name
    KINDS[name](path)
    picture = Image.open(path)
    mode = "RGB" if picture.mode in ("P", "CMYK", "RGBA") else "L" if picture.mode in ("1", "LA") else picture.mode
    expected = np.array(picture.convert("RGB") if mode == "RGB" else picture.convert("L"))
    alpha = np.array(picture.convert("RGBA"))[:, :, 3] > 0
    values, valid = read_pixels(str(path))
    assert np.array_equal(values, expected.reshape(*expected.shape[:2], -1))
    assert np.array_equal(np.ones(alpha.shape, bool) if valid is None else valid, alpha)
    info = image_info(str(path))
    assert (info.height, info.width, info.bands, info.dtype) == (*values.shape, "uint8")
    assert info.has_alpha == (name in ("rgba.png", "la.png", "see-through.png"))
    part, _ = read_pixels(str(path), (3, 4, 10, 20))
    assert np.array_equal(part, values[3:13, 4:24])


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_16_bit_png_keeps_its_depth(bands, tmp_path):
    path = tmp_path / "deep.png"
    layers = np.dstack([DEEP, ALPHA.astype(np.uint16) * 257])[:, :, :bands]
    deep_png(path, layers[:, :, 0] if bands == 1 else layers)
    values, valid = read_pixels(str(path))
    assert values.dtype == np.uint16
    assert np.array_equal(values, layers[:, :, : min(bands, 3)])
    assert (valid is None) == (bands < 4)
    if bands == 4:
        assert np.array_equal(valid, ALPHA > 0)
    info = image_info(str(path))
    assert (info.bands, info.dtype, info.has_alpha) == (min(bands, 3), "uint16", bands == 4)


@pytest.mark.parametrize("name", ["rgb.png", "rgb.jpg", "rgba.png", "grey.png", "rgb.tif", "deep.tif", "deep.png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused_whatever_the_decoder(name, share, tmp_path):
    path = tmp_path / name
    big = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    if name.startswith("deep"):
        deep = big.astype(np.uint16) * 200
        write_geotiff(str(path), deep) if name.endswith("tif") else deep_png(path, deep)
    else:
        mode = dict(rgba="RGBA", grey="L").get(name.split(".")[0], "RGB")
        Image.fromarray(big).convert(mode).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=name):
        read_pixels(str(path))


def test_what_is_no_image_is_refused(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        (tmp_path / name).write_bytes(b"nothing")
        for read in (read_pixels, image_info):
            with pytest.raises(DataError, match=f"{name}: cannot be read as"):
                read(str(tmp_path / name))


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_eight_orientations_of_exif_turn_nothing_and_are_said(turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    smooth = np.dstack(np.broadcast_arrays(np.arange(33) * 7, np.arange(21)[:, None] * 9, 60)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, exif=exif)
    Image.fromarray(smooth).save(tmp_path / "b.jpg", quality=95)
    path, plain = str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")
    assert orientation(path) == turn and orientation(plain) == 1
    as_stored = read_pixels(plain)[0]
    with RasterSource(path, colours=True) as source:  # as predict reads it
        assert np.abs(source.read(0, 0, 21, 33)[0].astype(int) - as_stored).max() < 8  # decoders differ a little
    assert np.array_equal(read_pixels(path)[0], as_stored)
    split = Split("pairs", (Pair("a", path, None),), str(tmp_path), None)
    for decode in (False, True):
        found = [problem.code for problem in measure_pair(split.pairs[0], split, decode).problems]
        assert found == ["orientation"] * (turn > 1)
    if turn > 1:
        with pytest.raises(DataError, match=f"33x21 px with EXIF orientation {turn}, which is not applied; export"):
            check_same_size((33, 21), (21, 33), "m.png", path)


def test_large_images_are_read_and_bombs_are_not(tmp_path):
    Image.new("1", (16_000, 12_000)).save(tmp_path / "a.png")
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_info(str(tmp_path / "a.png")).width == 16_000
        grey, valid = read_grey(str(tmp_path / "a.png"))
    assert grey.shape == (12_000, 16_000) and not grey.any() and valid is None
    assert Image.MAX_IMAGE_PIXELS == limit
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[16:24] = (40_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    for read in (image_info, read_pixels, read_grey):
        with pytest.raises(DataError, match="bomb.png: 40000 x 40000 px are too many to decode at once; make it"):
            read(str(tmp_path / "bomb.png"))
