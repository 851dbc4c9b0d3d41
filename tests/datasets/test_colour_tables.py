"""A raster with a colour table is the picture that it shows, in every reader of images; masks keep their values."""

import numpy as np
import pytest
import rasterio
from bright_network import BrightNetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from mmseg_ext.converters import convert
from mmseg_ext.datasets import LoadRoadImage
from mmseg_ext.geo import GridSource, RasterSource, grid_of, raster_info, read_raster, write_geotiff
from mmseg_ext.imagery import ImageReading
from mmseg_ext.imagery.raw_mask import read_grey
from mmseg_ext.imagery.reading import image_info, read_pixels
from mmseg_ext.mapping import MapSettings, check_rasters, map_raster

UTM, PLACE = "EPSG:32612", (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0)


def write(path, index, table, nodata=None, hidden=None, how=None, place=PLACE):
    """Write ``index`` with its ``table`` (256, 4); ``hidden`` pixels by a mask in the file or by an alpha band."""
    profile = dict(driver="GTiff", height=index.shape[0], width=index.shape[1], dtype=index.dtype.name, nodata=nodata)
    profile |= dict(crs=UTM, transform=rasterio.Affine(*place)) if place else {}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=2 if how == "alpha" else 1, **profile) as file,
    ):
        file.write_colormap(1, {place: tuple(map(int, rgba)) for place, rgba in enumerate(table)})
        if how == "alpha":
            file.colorinterp = [ColorInterp.palette, ColorInterp.alpha]
            file.write(np.where(hidden, 0, 255).astype(index.dtype), 2)
        file.write(index, 1)
        if how == "mask":
            file.write_mask(~hidden)
    return str(path)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_the_colours_and_what_is_valid_are_those_of_the_table(tmp_path_factory, data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    index = random.integers(0, data.draw(st.integers(2, 256)), (14, 18)).astype(np.uint8)
    table = random.integers(0, 256, (256, 4))
    table[:, 3] = 255  # a TIFF's table has no alpha
    nodata = data.draw(st.sampled_from([None, 0, 1, 255]))
    how = data.draw(st.sampled_from([None, "mask", "alpha"]))
    hidden = random.random(index.shape) < 0.2
    place = data.draw(st.sampled_from([PLACE, None]))
    path = write(tmp_path_factory.mktemp("t") / "a.tif", index, table, nodata, hidden, how, place)
    valid = (index != (-1 if nodata is None else nodata)) & (~hidden if how else True)
    values, found = read_pixels(path)
    assert values.dtype == np.uint8 and np.array_equal(values, table[index, :3])
    assert found is None if valid.all() else np.array_equal(found, valid)
    info = image_info(path)
    assert (info.bands, info.dtype, info.transform) == (3, "uint8", place)
    assert info.may_have_holes or valid.all()
    with RasterSource(path, colours=True) as source:
        assert source.info == info
        part, found = source.read(2, 4, 10, 12, bands=[3, 1])
        inside = valid[2:12, 4:16]
        assert np.array_equal(part[inside], table[index, :3][2:12, 4:16, [2, 0]][inside])
        assert valid[2:12, 4:16].all() if found is None else np.array_equal(valid[2:12, 4:16], found)
        half, _ = source.read(0, 0, 14, 18, out_shape=(7, 9))
    weight = valid.reshape(7, 2, 9, 2, 1)
    total = (table[index, :3].reshape(7, 2, 9, 2, 3) * weight).sum(axis=(1, 3)) / np.maximum(weight.sum(axis=(1, 3)), 1)
    known = weight.any(axis=(1, 3))[:, :, 0]
    assert np.abs(half - total)[known].max(initial=0) <= 0.5
    # as a mask it is what it stores
    assert np.array_equal(read_raster(path)[0][:, :, 0], index) and raster_info(path).bands == 1


def test_a_table_with_alpha_is_transparent_for_pillow_and_gdal(tmp_path):
    index = np.random.default_rng(0).integers(0, 9, (20, 30), np.uint8)
    picture = Image.fromarray(index, mode="P")
    picture.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    picture.save(tmp_path / "a.png", transparency=bytes([255, 0, 99, 0, 255]))
    values, valid = read_pixels(str(tmp_path / "a.png"))
    with RasterSource(str(tmp_path / "a.png"), colours=True) as source:
        found, known = source.read(0, 0, 20, 30)
    assert np.array_equal(valid, ~np.isin(index, (1, 3))) and np.array_equal(known, valid)
    assert np.array_equal(found[valid], values[valid])


@pytest.fixture()
def pictures(tmp_path):
    """The same picture with a colour table and as RGB."""
    random = np.random.default_rng(3)
    index = random.integers(0, 40, (12, 12), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    table = np.concatenate([random.integers(0, 256, (256, 3)), np.full((256, 1), 255)], axis=1)
    write_geotiff(str(tmp_path / "rgb.tif"), table[index, :3].astype(np.uint8), UTM, PLACE)
    return write(tmp_path / "table.tif", index, table), str(tmp_path / "rgb.tif")


def test_training_conversion_and_grids_see_the_picture(pictures, tmp_path):
    loaded = [LoadRoadImage()(dict(img_info=dict(filename=path), img_prefix=""))["img"] for path in pictures]
    assert np.array_equal(*loaded)
    for gsd_m in (None, 1.0, 0.25, 0.3):
        found = []
        for path in pictures:
            grid = grid_of(raster_info(path), gsd_m)
            with GridSource(path, grid) as source:
                found.append(source.read(source.window))
        assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])
    for folder in ("images", "masks"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    for name in "ab":
        (tmp_path / "raw" / "images" / f"{name}.tif").write_bytes(open(pictures[0], "rb").read())
        write_geotiff(str(tmp_path / "raw" / "masks" / f"{name}.tif"), np.eye(96, dtype=np.uint8), UTM, PLACE)
    convert("pair", str(tmp_path / "raw"), str(tmp_path / "made"), val=1, tile=64, overlap=0)
    tile = tmp_path / "made" / "JPEGImages" / "a_r00000_c00000.tif"
    tile = tile if tile.exists() else next((tmp_path / "made" / "JPEGImages").glob("b_r00000_c00000.tif"))
    assert np.array_equal(ImageReading().read(str(tile))[0], ImageReading().read(pictures[1])[0][:64, :64])


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_maps_are_those_of_the_picture(pictures, tmp_path, scale):
    settings = MapSettings(64, 16, 2, scale=scale)
    check_rasters(pictures, BrightNetwork(gsd_m=0.5), settings)
    for path in pictures:
        map_raster(path, BrightNetwork(gsd_m=0.5), str(tmp_path / "maps"), settings)
    maps = [read_raster(str(tmp_path / "maps" / f"{name}_probability.tif"))[0] for name in ("table", "rgb")]
    assert np.abs(maps[0].astype(int) - maps[1]).max() <= (0 if scale == 1 else 1) and np.ptp(maps[0]) > 50


def test_a_mask_keeps_its_values_and_a_table_may_be_of_16_bits(tmp_path):
    index = np.eye(12, dtype=np.uint8)
    table = np.tile([[9, 9, 9, 255]], (256, 1))
    assert np.array_equal(read_grey(write(tmp_path / "a.tif", index, table))[0], index)
    deep = write(tmp_path / "b.tif", index.astype(np.uint16) * 200, np.arange(1024).reshape(256, 4) % 251)
    assert read_pixels(deep)[0][0].tolist() == [[800 % 251, 801 % 251, 802 % 251], *[[0, 1, 2]] * 11]
