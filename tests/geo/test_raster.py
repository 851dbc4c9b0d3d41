import threading
import warnings

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from mmseg_ext import errors
from mmseg_ext.errors import DataError, MissingExtraError
from mmseg_ext.geo import (
    Georeference,
    RasterInfo,
    RasterSource,
    common_ground,
    disagreement,
    raster_info,
    read_raster,
    write_geotiff,
)
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
    spelled_out = rasterio.crs.CRS.from_epsg(32612).to_wkt()
    assert disagreement(info(UTM), info(UTM, spelled_out)) is None
    assert common_ground(info(UTM), info(UTM, spelled_out))[0] == (0, 0, 100, 80)


ROTATED = (0.2, 0.1, 500_000.0, 0.1, -0.2, 4_000_000.0)
SOUTH_UP = (0.25, 0.0, 500_000.0, 0.0, 0.25, 4_000_000.0)


def pixels(shape=(60, 50), bands=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(1, 250, (*shape, bands)).astype(dtype)


def write(path, values, alpha=None, **profile):
    """Write (H, W, B) by rasterio alone; ``alpha`` is the number of the band that is alpha."""
    height, width, count = values.shape
    profile = {"driver": "GTiff", "dtype": values.dtype.name} | profile
    with rasterio.open(path, "w", height=height, width=width, count=count, photometric="MINISBLACK", **profile) as file:
        if alpha is not None:
            file.colorinterp = [ColorInterp.alpha if i == alpha else ColorInterp.gray for i in range(1, count + 1)]
        file.write(values.transpose(2, 0, 1))
    return str(path)


def read(path, *args, **options):
    with RasterSource(str(path)) as source:
        return source.read(*args, **options)


@pytest.mark.parametrize("transform", [UTM, ROTATED, SOUTH_UP, None])
def test_header_and_place(transform, tmp_path):
    path = str(tmp_path / "a.tif")
    write_geotiff(path, pixels(), "EPSG:32612", transform)
    with RasterSource(path) as source:
        assert source.info == raster_info(path)
        assert (source.info.height, source.info.width, source.info.bands) == (60, 50, 3)
        assert source.georeference == Georeference("EPSG:32612", transform)


def test_ground_control_points(tmp_path):
    path = str(tmp_path / "a.tif")
    write(path, pixels(), nodata=0)
    points = [(0, 0, 10.5, 45.25, 300), (0, 50, 10.75, 45.25, 310), (60.5, 0, 10.5, 45.125, 0)]
    with rasterio.open(path, "r+") as file:
        file.gcps = [GroundControlPoint(*point) for point in points], rasterio.crs.CRS.from_epsg(4326)
    with RasterSource(path) as source:
        place = source.georeference
    assert (place.crs, place.transform, place.gcps_crs) == (None, None, "EPSG:4326")
    assert [(p.row, p.col, p.x, p.y, p.z, p.id) for p in place.gcps] == [
        (*point, str(number)) for number, point in enumerate(points, 1)
    ]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_window_is_that_part_of_the_whole(source_of_windows, data):
    source, whole, valid = source_of_windows
    row, column = data.draw(st.integers(0, 59)), data.draw(st.integers(0, 49))
    height, width = data.draw(st.integers(1, 60 - row)), data.draw(st.integers(1, 50 - column))
    bands = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    found, holds = source.read(row, column, height, width, bands)
    part = slice(row, row + height), slice(column, column + width)
    assert np.array_equal(found, whole[part][:, :, [band - 1 for band in bands]])
    expected = valid[part]
    assert holds is None if expected.all() else np.array_equal(holds, expected)


@pytest.fixture(scope="module")
def source_of_windows(tmp_path_factory):
    alpha = np.random.default_rng(1).integers(0, 3, (60, 50, 1)).astype(np.uint8)
    path = write(
        tmp_path_factory.mktemp("windows") / "a.tif", np.concatenate([pixels(), alpha], 2), alpha=4,
        tiled=True, blockxsize=16, blockysize=32, compress="deflate",
    )  # fmt: skip
    with RasterSource(path) as source:
        yield source, pixels(), alpha[:, :, 0] > 0


def test_a_window_outside_and_a_band_that_is_not_there(tmp_path):
    path = write(tmp_path / "a.tif", pixels())
    with RasterSource(path) as source:
        for window in [(-1, 0, 5, 5), (0, 46, 5, 5), (58, 0, 3, 5), (0, 0, 0, 5)]:
            with pytest.raises(ValueError, match="not inside 60 x 50"):
                source.read(*window)
        for bands in ([0], [1, 4], []):
            with pytest.raises(DataError, match=r"a.tif: has bands 1 to 3, asked for"):
                source.read(0, 0, 5, 5, bands)
    with pytest.raises(ValueError, match="not inside"):
        read_raster(path, (0, 0, 61, 50))


def test_alpha_anywhere_of_any_depth(tmp_path):
    values = pixels(bands=4, dtype=np.uint16)
    values[:, :, 1] = 65_535
    values[:7, :, 1], values[7:9, :, 1] = 0, 1  # an alpha of 1 in 65535 still is no hole
    path = write(tmp_path / "a.tif", values, alpha=2)
    found, valid = read(path, 0, 0, 60, 50)
    assert np.array_equal(found, values[:, :, [0, 2, 3]])
    assert not valid[:7].any() and valid[7:].all()
    assert np.array_equal(read(path, 0, 0, 60, 50, [4])[1], valid)


@pytest.mark.parametrize("internal", [True, False])
def test_masks_inside_and_beside_the_file(internal, tmp_path):
    path = tmp_path / "a.tif"
    mask = np.zeros((60, 50), np.uint8)
    mask[10:, 5:] = 255
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        write(path, pixels())
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() != internal
    assert np.array_equal(read(path, 5, 0, 20, 50)[1], mask[5:25] > 0)
    assert read(path, 20, 20, 20, 20)[1] is None


def test_nodata_is_a_hole_where_every_band_read_is(tmp_path):
    values = pixels(dtype=np.int16)
    values[0], values[1, :, 1] = -9999, -9999
    path = write(tmp_path / "a.tif", values, nodata=-9999)
    valid = read(path, 0, 0, 60, 50)[1]
    assert not valid[0].any() and valid[1:].all()
    alone = read(path, 0, 0, 60, 50, [2])[1]
    assert not alone[:2].any() and alone[2:].all()
    fine = pixels(bands=1, dtype=np.float32)
    fine[0], fine[1], fine[2] = 0.1, np.inf, np.nan  # 0.1 is no float32: nodata is compared in the file's type
    valid = read(write(tmp_path / "b.tif", fine, nodata=0.1), 0, 0, 60, 50)[1]
    assert not valid[:3].any() and valid[3:].all()


def test_shrinking_averages_the_valid_pixels_and_knows_no_overviews(tmp_path):
    values = np.zeros((8, 8, 1), np.uint8)
    values[:4, :4, 0] = np.arange(16).reshape(4, 4) + 10  # 10 11 / 14 15 -> 12.5; with one pixel at 0: (11+14+15)/3
    values[0, 0] = 0
    path = write(tmp_path / "a.tif", values, nodata=0)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
    found, valid = read(path, 0, 0, 8, 8, out_shape=(4, 4))
    # 0 11 / 14 15, 12 13 / 16 17, 18 19 / 22 23, 20 21 / 24 25: halves are rounded up
    assert found[:2, :2, 0].tolist() == [[13, 15], [21, 23]]
    assert found.shape == (4, 4, 1) and valid.shape == (4, 4)
    assert valid[:2, :2].all() and not valid[2:].any() and not valid[:, 2:].any()
    assert read(path, 2, 2, 2, 2, out_shape=(1, 1))[0].tolist() == [[[23]]]  # a window is that part of the whole


def test_enlarging_is_bilinear_and_holes_stay_square(tmp_path):
    values = np.array([[0, 40, 80, 255], [0, 40, 80, 255]], np.uint8)[:, :, None]
    path = write(tmp_path / "a.tif", values, nodata=255)
    found, valid = read(path, 0, 0, 2, 4, out_shape=(4, 8))
    # the new pixels' centres lie at -1/4, 1/4, 3/4, ... of the old; the hole takes no part
    assert found[1, :6, 0].tolist() == [0, 10, 30, 50, 70, 80]
    assert valid[:, :6].all() and not valid[:, 6:].any()


def test_a_pixel_that_is_no_number_spoils_no_average(tmp_path):
    values = np.ones((4, 4, 1), np.float32)
    values[1, 1] = np.nan
    found, valid = read(write(tmp_path / "a.tif", values), 0, 0, 4, 4, out_shape=(2, 2))
    assert np.isfinite(found[valid if valid is not None else ...]).all()


def test_other_formats(tmp_path):
    values = pixels()
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "a.pgw").write_text("0.5\n0\n0\n-0.5\n100.25\n199.75\n")  # of the first pixel's centre
    with RasterSource(str(tmp_path / "a.png")) as source:
        assert source.georeference == Georeference(None, (0.5, 0, 100, 0, -0.5, 200))
        assert np.array_equal(source.read(3, 4, 5, 6)[0], values[3:8, 4:10])
    assert read(tmp_path / "a.jpg", 0, 0, 60, 50)[0].shape == (60, 50, 3)
    vrt = tmp_path / "a.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><NoDataValue>{nodata}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">a.png</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for i, nodata in ((1, values[0, 0, 0]), (2, values[0, 0, 1]))
    )
    vrt.write_text(f'<VRTDataset rasterXSize="50" rasterYSize="60">{bands}</VRTDataset>')
    found, valid = read(vrt, 0, 0, 60, 50)
    assert np.array_equal(found, values[:, :, :2])
    assert np.array_equal(valid, (values[:, :, :2] != values[0, 0, :2]).any(axis=2)) and not valid[0, 0]


def test_missing_foreign_and_truncated_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a.tif: no such file"):
        RasterSource(str(tmp_path / "a.tif"))
    (tmp_path / "b.tif").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b.tif: cannot be read as a raster"):
        RasterSource(str(tmp_path / "b.tif"))
    path = tmp_path / "c.tif"
    write(path, pixels((64, 64)), tiled=True, blockxsize=16, blockysize=16, interleave="pixel")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with RasterSource(str(path)) as source:
        assert np.array_equal(source.read(0, 0, 48, 64)[0], pixels((64, 64))[:48])
        with pytest.raises(DataError, match=r"c.tif: cannot be read in rows 40 to 63, it is truncated") as error:
            source.read(40, 0, 24, 64)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "bands"), [("a.png", 3), ("a.png", 1), ("a.jpg", 3)])
def test_truncated_pictures_read_whole_are_named(name, bands, tmp_path):
    path = tmp_path / name
    Image.fromarray(pixels((400, 300), bands).squeeze()).save(path)
    content = path.read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match=f"{name}: cannot be read in rows 0 to 399"):
            read(path, 0, 0, 400, 300)


def test_another_thread_may_read(tmp_path):
    found = []
    with warnings.catch_warnings(), RasterSource(write(tmp_path / "a.tif", pixels())) as source:
        warnings.simplefilter("error")
        thread = threading.Thread(target=lambda: found.append(source.read(0, 0, 60, 50, out_shape=(30, 25))[0]))
        thread.start()
        thread.join()
        assert np.array_equal(found[0], source.read(0, 0, 60, 50, out_shape=(30, 25))[0])
