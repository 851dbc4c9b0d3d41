"""Rasters whose pieces are larger than GDAL's cache are decoded once, or said to be slow; counted in bytes read."""

import os

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from bright_network import BrightNetwork
from rasterio.env import get_gdal_config, set_gdal_config

from mmseg_ext.geo import RasterSource, log_doubts, raster
from mmseg_ext.mapping import TilePlan, map_strips
from mmseg_ext.networks import NetworkSettings, extract_network
from mmseg_ext.networks.dem import Dem

SIDE = 600
COUNTER = "/proc/self/io"
needs_counter = pytest.mark.skipif(not os.path.exists(COUNTER), reason="this system does not count the bytes read")


def bytes_read():
    with open(COUNTER, encoding="ascii") as file:
        return int(file.readline().split()[1])


@pytest.fixture()
def small_cache():
    before = get_gdal_config("GDAL_CACHEMAX")
    set_gdal_config("GDAL_CACHEMAX", 50_000)
    yield 50_000
    set_gdal_config("GDAL_CACHEMAX", before)


LAYOUTS = {
    "blocks.tif": dict(tiled=True, blockxsize=512, blockysize=512, interleave="pixel"),
    "planes.tif": dict(tiled=True, blockxsize=512, blockysize=512, interleave="band"),
    "rows.tif": dict(blockysize=1, interleave="pixel"),
    "strip.tif": dict(blockysize=SIDE, interleave="pixel"),
    "alone.png": dict(driver="PNG"),  # rows can only be decoded from the top
}


def stored(folder, name, bands=4, side=SIDE, **more):
    """Noise, with alpha where there are four bands, in one of the layouts or as a VRT of it."""
    base = "blocks.tif" if name == "virtual.vrt" else name
    values = np.random.default_rng(0).integers(1, 255, (bands, side, side), np.uint8)
    profile = dict(driver="GTiff", height=side, width=side, count=bands, dtype="uint8") | LAYOUTS.get(base, {}) | more
    if profile["driver"] == "GTiff":
        profile["compress"] = "deflate"
    with rasterio.open(folder / base, "w", **profile) as file:
        file.write(values)
    if base != name:
        rasterio.shutil.copy(str(folder / base), str(folder / name), driver="VRT")
    return str(folder / name), os.path.getsize(folder / base), values


@needs_counter
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("name", [*LAYOUTS, "virtual.vrt"])
def test_every_piece_is_decoded_once(tmp_path, small_cache, name, scale):
    path, size, _ = stored(tmp_path, name)
    plan = TilePlan(SIDE, SIDE, 64, 16, scale)
    counts, maps = [], []
    for with_room in (False, True):
        with RasterSource(path, colours=True) as source:
            if with_room:
                assert source.make_room(*plan.tile_shape) > 0
                assert get_gdal_config("GDAL_CACHEMAX") > small_cache
            start = bytes_read()
            maps.append([strip.probability for strip in map_strips(source, BrightNetwork(), plan)])
            counts.append((bytes_read() - start) / size)
    assert get_gdal_config("GDAL_CACHEMAX") == small_cache  # as before
    assert all(np.array_equal(*pair) for pair in zip(*maps, strict=True))
    assert counts[1] < 1.6
    assert counts[0] > 4 or name == "strip.tif"  # of which GDAL keeps what it decoded last


@needs_counter
def test_a_mask_is_decoded_once_for_its_network(tmp_path, small_cache):
    path, size, _ = stored(tmp_path, "blocks.tif", bands=1)
    counts = []
    for most in (0, raster.MOST_ROOM):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(raster, "MOST_ROOM", most)
            start = bytes_read()
            extract_network(path, NetworkSettings(road_values=[7], tile_px=64, halo_px=32))
            counts.append((bytes_read() - start) / size)
    assert counts[0] > 20 and counts[1] < 4  # tile by tile; looked at twice


@needs_counter
def test_a_dem_is_decoded_once_for_roads_that_lead_anywhere(tmp_path, small_cache):
    path = tmp_path / "dem.tif"
    heights = np.random.default_rng(0).random((1, SIDE * 2, SIDE * 2), np.float32)
    profile = dict(driver="GTiff", height=SIDE * 2, width=SIDE * 2, count=1, dtype="float32", crs="EPSG:32719")
    blocks = dict(tiled=True, blockxsize=1024, blockysize=1024, compress="deflate")
    with rasterio.open(path, "w", **profile, **blocks, transform=rasterio.Affine(1, 0, 0, 0, -1, 0)) as file:
        file.write(heights)
    counts = []
    for most in (0, raster.MOST_ROOM):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(raster, "MOST_ROOM", most)
            with Dem(str(path)) as dem:
                start = bytes_read()
                for y in np.tile([0.5, 1180.5], 5):
                    dem.at(np.stack([np.arange(0.5, 1199), np.full(1199, -y)], axis=1))
                counts.append((bytes_read() - start) / path.stat().st_size)
    assert counts[0] > 4 and counts[1] < 1.1


def test_what_tiles_need_is_known(tmp_path):
    header = 4 * 256  # of a block of each band
    for name in ("blocks.tif", "virtual.vrt"):
        with RasterSource(stored(tmp_path, name)[0]) as source:
            assert source.room_for(512, 512) == 0
            assert source.room_for(64, 64) == 4 * (512 * 512 * 4 + header)  # two rows of two blocks
    with RasterSource(stored(tmp_path, "rows.tif")[0]) as source:
        assert source.room_for(64, 64) == 65 * (SIDE * 4 + header)
        assert source.room_for(64, SIDE) == 0


def test_a_raster_that_stays_slow_is_said_before_the_work(tmp_path, monkeypatch, caplog):
    words = "decoded again and again, which takes long; make it tiled first: gdal_translate -co TILED=YES"
    planar, _, _ = stored(tmp_path, "planar.tif", bands=3, blockysize=2100, interleave="band", side=2100)
    fine = [stored(tmp_path, name, bands=3)[0] for name in (*LAYOUTS, "virtual.vrt")]
    for path in [*fine, planar]:
        assert not log_doubts(path, None)
    monkeypatch.setattr("mmseg_ext.geo.doubts._MANY_PX", 2**20)
    assert log_doubts(planar, None) and f"{planar}: is stored in pieces so large" in caplog.text
    caplog.clear()
    rasterio.shutil.copy(planar, str(tmp_path / "planar.vrt"), driver="VRT")
    assert log_doubts(str(tmp_path / "planar.vrt"), None) and words in caplog.text
    caplog.clear()
    large, _, _ = stored(tmp_path, "large.tif", bands=3, tiled=True, blockxsize=2048, blockysize=2048, side=2100)
    monkeypatch.setattr("mmseg_ext.geo.doubts.MOST_ROOM", 2**22)
    assert log_doubts(large, None) and words in caplog.text
