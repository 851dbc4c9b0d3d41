import numpy as np
import pytest

from mmseg_ext.errors import DataError
from mmseg_ext.geo import GridSource, grid_of, raster_info, reprojected, write_geotiff

UTM, PLACE = "EPSG:32612", (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0)


def noise(height=30, width=40, bands=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(1, 250, (height, width, bands)).astype(dtype)


def read(path, grid, window):
    with GridSource(path, grid) as source:
        return (*source.read(window), source.window)


def test_a_raster_has_its_own_pixels_on_its_own_grid_and_nothing_beyond(tmp_path):
    values, known = noise(), np.ones((30, 40), bool)
    known[3:9, 5:11] = False
    path = str(tmp_path / "a.tif")
    write_geotiff(path, values, UTM, PLACE, known)
    grid = grid_of(raster_info(path))
    assert (grid.crs, grid.gsd_m, grid.transform(0, 0)) == (UTM, 0.5, PLACE)
    found, valid, window = read(path, grid, (-2, 30, 40, 20))
    assert window == (0, 0, 30, 40)
    assert np.array_equal(found[2:32, :10], values[:, 30:]) and not found[:2].any() and not found[:, 10:].any()
    assert valid[2:32, :10].all() and valid.sum() == 300
    assert np.array_equal(read(path, grid, window)[1], known)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_coarser_pixels_are_averages_of_the_valid_ones(tmp_path, dtype):
    values, known = noise(dtype=dtype) * np.array(9 if dtype != np.uint8 else 1, dtype), np.ones((30, 40), bool)
    known[10:12, 10:12] = known[20, 20] = False  # a whole pixel of the grid, and a quarter of one
    path = str(tmp_path / "a.tif")
    write_geotiff(path, values, UTM, PLACE, known)
    found, valid, window = read(path, grid_of(raster_info(path), 1.0), (0, 0, 15, 20))
    assert window == (0, 0, 15, 20)
    weight = known.reshape(15, 2, 20, 2, 1)
    parts = values.reshape(15, 2, 20, 2, 3) * weight
    total = weight.sum(axis=(1, 3))
    assert np.array_equal(valid, total[:, :, 0] > 0) and (~valid).sum() == 1
    expected = parts.sum(axis=(1, 3)) / np.maximum(total, 1)
    assert np.abs(found[valid] - expected[valid]).max() <= (0.5 if dtype != np.float32 else 1e-3)


def test_nodata_is_nothing_only_where_all_bands_have_it(tmp_path):
    values = noise()
    values[::2, ::2, 0] = 0
    values[10:20, 10:20] = 0
    path = str(tmp_path / "a.tif")
    write_geotiff(path, values, UTM, PLACE, nodata=0)
    for gsd_m in (None, 0.25):
        grid = grid_of(raster_info(path), gsd_m)
        window = (0, 0, 30, 40) if gsd_m is None else (0, 0, 60, 80)
        valid = read(path, grid, window)[1]
        step = window[2] // 30
        inner = valid[11 * step : 19 * step, 11 * step : 19 * step]
        assert not inner.any()
        valid[9 * step : 21 * step, 9 * step : 21 * step] = True
        assert valid.all()


def test_degrees_become_metres_of_the_utm_zone(tmp_path):
    rows, columns = np.mgrid[:400, :300]
    ramp = np.dstack([columns * 0.5, rows * 0.5, 0 * rows + 7]).astype(np.float32)
    place = (1e-5, 0.0, 10.0, 0.0, -1e-5, 60.0)
    path = str(tmp_path / "a.tif")
    write_geotiff(path, ramp, "EPSG:4326", place)
    grid = grid_of(raster_info(path), 1.0)
    assert grid.crs == "EPSG:32632"
    found, valid, window = read(path, grid, grid.window_of(raster_info(path)))
    assert window[2] == pytest.approx(400 * 1.1141, abs=6) and window[3] == pytest.approx(300 * 0.5580, abs=8)
    y, x = np.argwhere(valid)[::97].T
    a, _, left, _, e, top = grid.transform(*window[:2])
    (degrees,) = reprojected([np.stack([left + a * (x + 0.5), top + e * (y + 0.5)], axis=1)], grid.crs, "EPSG:4326")
    column, row = (degrees[:, 0] - 10) / 1e-5 - 0.5, (60 - degrees[:, 1]) / 1e-5 - 0.5
    inside = (column > 2) & (column < 297) & (row > 2) & (row < 397)
    assert inside.sum() > 100
    assert np.abs(found[y, x, 0] - column * 0.5)[inside].max() < 0.3
    assert np.abs(found[y, x, 1] - row * 0.5)[inside].max() < 0.3


def test_rasters_of_one_map_share_a_grid(tmp_path):
    values = noise(20, 20)
    write_geotiff(str(tmp_path / "a.tif"), values, UTM, PLACE)
    moved = (0.5, 0.0, 500_003.0, 0.0, -0.5, 4_000_005.0)
    write_geotiff(str(tmp_path / "b.tif"), values, UTM, moved)
    found, valid, window = read(
        str(tmp_path / "b.tif"), grid_of(raster_info(str(tmp_path / "a.tif"))), (-10, 6, 20, 20)
    )
    assert window == (-10, 6, 20, 20) and valid.all() and np.array_equal(found, values)


def test_a_truncated_raster_is_named(tmp_path):
    path = tmp_path / "a.tif"
    write_geotiff(str(path), noise(600, 600), UTM, PLACE)
    grid = grid_of(raster_info(str(path)), 1.0)
    path.write_bytes(path.read_bytes()[:-200_000])
    with pytest.raises(DataError, match="a.tif: "):
        read(str(path), grid, (0, 0, 300, 300))
