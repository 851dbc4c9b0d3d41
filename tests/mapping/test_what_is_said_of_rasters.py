"""What bands, alpha, depth and borders of a raster mean, and what is said of it before the work."""

import os
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import rasterio
from bright_network import PLAIN, BrightNetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from mmseg_ext.converters import convert
from mmseg_ext.errors import DataError
from mmseg_ext.geo import GridSource, RasterSource, grid_of, log_doubts, raster_info, read_raster, write_geotiff
from mmseg_ext.imagery import ImageReading, reading_of
from mmseg_ext.imagery.reading import image_info, read_pixels
from mmseg_ext.mapping import check_rasters, map_raster

UTM, PLACE = "EPSG:32612", (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0)


def by_rasterio(path, values, **profile):
    """Write (H, W, B) as rasterio does by default: the fourth band of four is alpha."""
    height, width, count = values.shape
    place = dict(crs=UTM, transform=rasterio.Affine(*PLACE))
    options = dict(driver="GTiff", height=height, width=width, count=count, dtype=values.dtype.name) | place | profile
    with rasterio.open(path, "w", **options) as file:
        file.write(values.transpose(2, 0, 1))
    return str(path)


def four_bands(seed=0, shape=(96, 80)):
    """Return random bands, the fourth of which is 0 here and there, as near infrared on water."""
    values = np.random.default_rng(seed).integers(0, 256, (*shape, 4), np.uint8)
    values[10:20, 10:20, 3] = 0
    return values


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(1, 4), min_size=1, max_size=5), st.sampled_from(["a.tif", "a.png"]))
def test_a_band_that_is_marked_as_alpha_is_data_where_it_is_named(tmp_path_factory, seed, bands, name):
    values, path = four_bands(seed, (24, 20)), str(tmp_path_factory.mktemp("b") / name)
    by_rasterio(path, values) if name == "a.tif" else Image.fromarray(values).save(path)
    wanted = tuple(bands)
    holes = values[:, :, 3] == 0
    seen, valid = ImageReading(bands=wanted, low=(0.0,), high=(255.0,)).read(path)
    if 4 in wanted:
        assert valid is None and np.array_equal(seen, values[:, :, [band - 1 for band in wanted]])
    else:
        assert np.array_equal(valid, ~holes)
        assert np.array_equal(seen[valid], values[:, :, [band - 1 for band in wanted]][valid])
    info = image_info(path)
    assert (info.bands, info.alpha_band, info.bands_for(wanted)) == (3, 4, 3 + (4 in wanted))
    with RasterSource(path) as source:
        found, known = source.read(0, 0, 24, 20, bands=wanted)
    assert np.array_equal(found, values[:, :, [band - 1 for band in wanted]])
    assert known is None if 4 in wanted else np.array_equal(known, ~holes)


def test_near_infrared_reaches_maps_data_sets_and_grids(tmp_path):
    values = four_bands()
    path, plain = by_rasterio(tmp_path / "nir.tif", values), str(tmp_path / "plain.tif")
    write_geotiff(plain, values, UTM, PLACE)  # no alpha
    for reading in (dict(bands=(1, 2, 3, 4)), dict(bands=(4, 2, 1))):
        made = []
        for raster in (path, plain):
            check_rasters([raster], BrightNetwork(**reading), PLAIN)
            map_raster(raster, BrightNetwork(**reading), str(tmp_path / str(reading["bands"])), PLAIN)
            maps = tmp_path / str(reading["bands"]) / f"{os.path.basename(raster)[:-4]}_probability.tif"
            made.append(read_raster(str(maps)))
        assert np.array_equal(made[0][0], made[1][0]) and made[0][1] is None
    for gsd_m in (None, 0.3, 1.0):
        found = []
        for raster in (path, plain):
            with GridSource(raster, grid_of(raster_info(raster), gsd_m), (1, 2, 3, 4)) as source:
                found.append(source.read(source.window))
        assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])
    for folder in ("images", "masks"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    for name in "ab":
        by_rasterio(tmp_path / "raw" / "images" / f"{name}.tif", values)
        write_geotiff(str(tmp_path / "raw" / "masks" / f"{name}.tif"), np.eye(96, 80, dtype=np.uint8), UTM, PLACE)
    for tile in (0, 64):
        convert(
            "pair",
            str(tmp_path / "raw"),
            str(tmp_path / "made"),
            val=1,
            tile=tile,
            overlap=0,
            bands=(1, 2, 3, 4),
            overwrite=True,
        )
        reading = reading_of(str(tmp_path / "made"))
        for image in (tmp_path / "made" / "JPEGImages").glob("a*_r00000_c00000.tif" if tile else "a.tif"):
            seen, valid = reading.read(str(image))
            assert valid is None and np.array_equal(seen, values[: tile or None, : tile or None])


def test_tiles_of_four_bands_with_holes_keep_their_bands(tmp_path):
    valid = np.ones((96, 80), bool)
    valid[:5] = False
    for bands in (1, 2, 3, 4, 5):
        values = np.random.default_rng(bands).integers(1, 255, (96, 80, bands), np.uint8)
        write_geotiff(str(tmp_path / "a.tif"), values, UTM, PLACE, valid)
        found, known = read_raster(str(tmp_path / "a.tif"))
        assert np.array_equal(found, values) and np.array_equal(known, valid)


def test_alpha_that_looks_like_a_picture_is_said_and_named(tmp_path, caplog):
    path = by_rasterio(tmp_path / "nir.tif", four_bands())
    check_rasters([path], BrightNetwork(), PLAIN)
    assert "nir.tif: band 4 is marked as alpha but looks like a picture; where it is 0 the image counts" in caplog.text
    assert "--bands 1,2,3,4" in caplog.text and "gdal_edit.py -colorinterp_4 undefined" in caplog.text
    caplog.clear()
    check_rasters([path], BrightNetwork(bands=(1, 2, 3, 4)), PLAIN)
    real = four_bands()
    real[:, :, 3] = 255 * (real[:, :, 3] > 0)
    check_rasters([by_rasterio(tmp_path / "real.tif", real)], BrightNetwork(), PLAIN)
    assert not caplog.text
    four = BrightNetwork(bands=(1, 2, 3, 4))
    four.facts = replace(four.facts, reading=ImageReading())
    with pytest.raises(
        DataError, match=r"3 band\(s\) to read, .* takes 4; .*--bands \(band 4 is marked as alpha, it may"
    ):
        check_rasters([path], four, PLAIN)


COUNTS, REFLECTANCE = dict(low=(300.0,), high=(4000.0,)), dict(low=(0.02,), high=(0.4,))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_depth_or_unit_that_the_checkpoint_does_not_know_is_refused(tmp_path_factory, data):
    trained = data.draw(st.sampled_from([COUNTS, REFLECTANCE]))
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "int16", "int32", "float32", "float64"]))
    counts = data.draw(st.booleans()) if dtype.startswith("float") else True
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = random.uniform(200, 5000, (40, 50, 3)) if counts else random.uniform(0.0, 0.6, (40, 50, 3))
    values = values / 20 if dtype == "uint8" else values
    path = str(tmp_path_factory.mktemp("d") / "a.tif")
    write_geotiff(path, values.astype(dtype), UTM, PLACE)
    fits = dtype != "uint8" and counts == (trained is COUNTS)
    if fits:
        check_rasters([path], BrightNetwork(**trained), PLAIN)
        return
    with pytest.raises(DataError, match="a.tif: .*(black).*(white)") as error:
        check_rasters([path], BrightNetwork(**trained), PLAIN)
    assert "\n" not in str(error.value)
    if not dtype.startswith("float"):
        with pytest.raises(DataError, match="give the image in the depth and unit"):  # in training too
            ImageReading(**trained).read(path)


def test_8_bits_with_a_scaling_of_their_own_are_read(tmp_path):
    write_geotiff(str(tmp_path / "a.tif"), four_bands()[:, :, :3], UTM, PLACE)
    check_rasters([str(tmp_path / "a.tif")], BrightNetwork(low=(10.0,), high=(200.0,)), PLAIN)


@pytest.mark.parametrize("background", [0, 255])
def test_a_rim_that_jpeg_left_is_said(tmp_path, caplog, background):
    values = np.random.default_rng(0).integers(90, 160, (160, 160, 3), np.uint8)
    rows, columns = np.mgrid[:160, :160]
    values[rows + columns < 140] = background
    jpeg = dict(compress="jpeg", photometric="ycbcr", nodata=background, tiled=True, blockxsize=64, blockysize=64)
    path = by_rasterio(tmp_path / "jpeg.tif", values, **jpeg)
    read, valid = read_pixels(path)
    rim = valid & (np.abs(read.astype(int) - background).max(axis=2) < 5)
    assert rim.sum() > 10  # so the header alone takes them for ground
    assert log_doubts(path, None)
    assert f"near its nodata {background} along the border" in caplog.text
    assert ("nearblack -white -setalpha" in caplog.text) == (background == 255)
    caplog.clear()
    assert not log_doubts(by_rasterio(tmp_path / "lossless.tif", values, nodata=background, compress="deflate"), None)
    values[:] = 120
    assert not log_doubts(by_rasterio(tmp_path / "whole.tif", values, **jpeg), None)


@given(st.sampled_from(["uint8", "uint16"]), st.booleans(), st.integers(1, 4), st.integers(0, 3), st.floats(0.02, 0.6))
@settings(max_examples=40, deadline=None)
def test_a_collar_that_counts_as_ground_is_said(tmp_path_factory, dtype, white, bands, turns, share):
    colour = np.iinfo(dtype).max if white else 0
    values = np.random.default_rng(0).integers(20, 200, (120, 120, bands)).astype(dtype)
    rows, columns = np.rot90(np.mgrid[:120, :120], turns, (1, 2))
    collar = rows + columns < 240 * share
    values[collar] = colour
    values[60, 60] = colour  # a pixel within is none
    path = by_rasterio(tmp_path_factory.mktemp("collar") / "a.tif", values, dtype=dtype, photometric="minisblack")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray] * bands
    with mock.patch("mmseg_ext.geo.doubts.logger") as said:
        doubted = log_doubts(path, None)
    seen = collar[[*range(16), *range(26, 42), *range(52, 68), *range(78, 94), *range(104, 120)]].mean()
    assert doubted == (seen > 0.05)
    assert not doubted or said.warning.call_args.args[2].startswith(
        f"about {seen:.0%} of it, from its sides inwards, have the value {colour} in every band"
    )
    with rasterio.open(path, "r+") as file:
        file.nodata = colour
    assert not log_doubts(path, None)
