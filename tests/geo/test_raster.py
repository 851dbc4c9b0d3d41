import numpy as np
import pytest
import rasterio

from mmseg_ext import errors
from mmseg_ext.errors import DataError, MissingExtraError
from mmseg_ext.geo import RasterInfo, disagreement, raster_info, read_raster, write_geotiff
from mmseg_ext.geo.raster import transform_at

UTM = (0.25, 0.0, 500_000.0, 0.0, -0.25, 4_000_000.0)


def values(dtype=np.uint16, bands=4, shape=(9, 7)):
    return np.random.default_rng(0).integers(1, 250, (*shape, bands)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("bands", [1, 3, 4, 8])
def test_what_is_written_is_read(dtype, bands, tmp_path):
    path = str(tmp_path / "a.tif")
    write_geotiff(path, values(dtype, bands), "EPSG:32612", UTM)
    read, valid = read_raster(path)
    assert read.dtype == dtype and valid is None
    assert np.array_equal(read, values(dtype, bands))
    assert raster_info(path) == RasterInfo(path, 9, 7, bands, np.dtype(dtype).name, False, None, "EPSG:32612", UTM)
    part, _ = read_raster(path, (2, 1, 5, 4))
    assert np.array_equal(part, values(dtype, bands)[2:7, 1:5])


def test_holes_by_alpha_by_nodata_and_by_nan(tmp_path):
    path, hole = str(tmp_path / "a.tif"), np.zeros((9, 7), bool)
    hole[:3] = True
    write_geotiff(path, values(np.uint8, 3), valid=~hole)
    info = raster_info(path)
    assert (info.bands, info.has_alpha, info.may_have_holes) == (3, True, True)
    read, valid = read_raster(path)
    assert read.shape == (9, 7, 3) and np.array_equal(valid, ~hole)
    dark = values(np.uint16, 3)
    dark[hole] = 0
    dark[5, 5, 0] = 0  # one band at nodata is no hole
    write_geotiff(path, dark, nodata=0)
    assert np.array_equal(read_raster(path)[1], ~hole)
    broken = values(np.float32, 1)
    broken[hole] = np.nan
    write_geotiff(path, broken)
    assert np.array_equal(read_raster(path)[1], ~hole)


def test_a_mask_inside_the_file_counts(tmp_path):
    path = str(tmp_path / "a.tif")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(
        path, "w", driver="GTiff", height=9, width=7, count=3, dtype="uint8"
    ) as file:  # fmt: skip
        file.write(values(np.uint8, 3).transpose(2, 0, 1))
        mask = np.full((9, 7), 255, np.uint8)
        mask[:, 0] = 0
        file.write_mask(mask)
    assert raster_info(path).has_alpha
    assert np.array_equal(read_raster(path)[1], mask > 0)


def test_missing_truncated_and_foreign_files_are_named(tmp_path):
    path = tmp_path / "a.tif"
    with pytest.raises(DataError, match="a.tif: no such file"):
        read_raster(str(path))
    write_geotiff(str(path), values(np.uint16, 3, (64, 64)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="a.tif: cannot be read"):
        read_raster(str(path))
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="a.tif: cannot be read as a raster"):
        raster_info(str(path))


def test_without_rasterio_the_message_says_what_to_install(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(
        MissingExtraError, match=r"needs rasterio, which is not installed; pip install rasterio"
    ) as error:
        read_raster(str(tmp_path / "a.tif"))
    assert "\n" not in str(error.value)


def info(transform, crs="EPSG:32612"):
    return RasterInfo("x", 100, 80, 1, "uint8", crs=crs, transform=transform)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (UTM, None),
        (transform_at(UTM, 0.4, 0.4), None),
        (transform_at(UTM, 3, -2), "the mask lies -2.0 px right and +3.0 px down of its image"),
        ((0.5, 0, 500_000, 0, -0.5, 4_000_000), "another pixel size or rotation"),
        (None, None),
    ],
)
def test_disagreement(other, words):
    found = disagreement(info(UTM), info(other))
    assert found is None if words is None else words in found


def test_disagreement_of_reference_systems():
    assert "EPSG:4326" in disagreement(info(UTM), info(UTM, "EPSG:4326"))
    assert disagreement(info(UTM), info(UTM, None)) is None
