import contextlib
import itertools
import resource

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint

from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import Georeference, RasterSource, disk_needed, write_cog

UTM = Georeference("EPSG:32612", (0.25, 0.0, 500_000.0, 0.0, -0.25, 4_000_000.0))
GCPS = tuple(
    GroundControlPoint(row, column, 10 + column / 3e5, 45 - row / 3e5, z, str(i), "")
    for i, (row, column, z) in enumerate([(0, 0, 3), (1100.5, 0, 0), (0, 700.25, 7.5), (1100, 700, 0)], 1)
)
PLACES = {
    "utm": UTM,
    "degrees": Georeference("EPSG:4326", (2.3e-6, 0.0, -110.123456789, 0.0, -2.1e-6, 40.987654321)),
    "rotated": Georeference("EPSG:32612", (0.21, 0.123, 512_345.678, 0.117, -0.19, 4_123_456.789)),
    "south-up": Georeference("EPSG:32612", (0.25, 0.0, 500_000.0, 0.0, 0.25, 4_000_000.0)),
    "US feet": Georeference("EPSG:2227", (0.5, 0.0, 6_000_000.125, 0.0, -0.5, 2_000_000.375)),
    "no authority": Georeference(
        rasterio.crs.CRS.from_string("+proj=tmerc +lat_0=31 +lon_0=-110.5 +k=0.9999 +x_0=7000 +ellps=GRS80").to_wkt(),
        (0.25, 0.0, 7_000.0, 0.0, -0.25, 50.0),
    ),
    "points": Georeference(gcps=GCPS, gcps_crs="EPSG:4326"),
    "points of no system": Georeference(gcps=GCPS),
    "system alone": Georeference("EPSG:32612"),
    "transform alone": Georeference(None, (0.25, 0.0, 100.0, 0.0, -0.25, 200.0)),
    "none": Georeference(),
}


def noise(height, width, bands=None, high=250, dtype=np.uint8):
    shape = (height, width) if bands is None else (height, width, bands)
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def cut(values, *rows):
    edges = [0, *rows, len(values)]
    return [(a, values[a:b]) for a, b in itertools.pairwise(edges)]


def write(path, values, *rows, place=UTM, **options):
    write_cog(str(path), cut(values, *rows), *values.shape[:2], values.dtype.name, place, **options)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing temporary, no side file
    return str(path)


def corners(place, height, width):
    a, b, c, d, e, f = place.transform
    return np.array([(a * x + b * y + c, d * x + e * y + f) for x in (0, width) for y in (0, height)])


@pytest.mark.parametrize("name", PLACES)
def test_the_place_survives(name, tmp_path):
    place = PLACES[name]
    path = write(tmp_path / "a.tif", noise(1100, 700), 333, place=place)
    with RasterSource(path) as source:
        found = source.georeference
    if place.transform is not None:
        np.testing.assert_allclose(corners(found, 1100, 700), corners(place, 1100, 700), rtol=1e-9)
    else:
        assert found.transform is None
    if name == "no authority":
        assert rasterio.crs.CRS.from_wkt(found.crs) == rasterio.crs.CRS.from_wkt(place.crs)
    else:
        assert found.crs == place.crs
    assert [point.asdict() for point in found.gcps] == [point.asdict() for point in place.gcps]
    assert found.gcps_crs == place.gcps_crs


def test_any_name_is_apart_from_those_of_its_strips(tmp_path):
    values = noise(600, 700)
    with rasterio.open(write(tmp_path / "strips.tif", values)) as file:
        assert np.array_equal(file.read(1), values)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_of_a_transform_and_points_the_transform_is_kept(tmp_path):
    both = Georeference(UTM.crs, UTM.transform, GCPS, "EPSG:4326")
    with RasterSource(write(tmp_path / "a.tif", noise(9, 7), place=both)) as source:
        assert source.georeference == UTM


def test_it_is_a_cloud_optimized_geotiff(tmp_path):
    path = write(tmp_path / "a.tif", noise(1500, 2100), 100, 1200)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2, 4, 8]
    with tifffile.TiffFile(path) as tiff:
        pages = list(tiff.pages)
        assert [page.shape for page in pages] == [(1500, 2100), (750, 1050), (375, 525), (187, 262)]
        assert all(page.is_tiled and (page.tilelength, page.tilewidth) == (512, 512) for page in pages)
        assert all(page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE for page in pages)
        starts = [min(page.dataoffsets) for page in pages]
        # all headers, then the pixels from the smallest overview to the full size
        assert max(page.offset for page in pages) < min(starts)
        assert starts == sorted(starts, reverse=True)


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    return noise(1301, 37), tmp_path_factory.mktemp("cuts") / "a.tif"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 1301), max_size=12))
def test_pixels_and_statistics_do_not_depend_on_the_cuts(tall, rows):
    values, path = tall
    with rasterio.open(write(path, values, *sorted(rows), nodata=3)) as file:
        assert np.array_equal(file.read(1), values)
        tags = file.tags(1)
    valid = values[values != 3].astype(np.float64)
    found = [float(tags[f"STATISTICS_{key}"]) for key in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV", "VALID_PERCENT")]
    expected = [valid.min(), valid.max(), valid.mean(), valid.std(), 100 * valid.size / values.size]
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[:4] == pytest.approx(expected[:4], rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1031), (1031, 1), (512, 512), (513, 1024), (521, 1031)])
@pytest.mark.parametrize(("dtype", "bands"), [(np.uint8, None), (np.uint16, 2), (np.float32, 4)])
def test_odd_shapes_depths_and_bands(shape, dtype, bands, tmp_path):
    values = noise(*shape, bands, dtype=dtype)
    names = [f"band {i}" for i in range(bands or 1)]
    path = write(tmp_path / "a.tif", values, *range(0, shape[0], 100), band_names=names)
    with RasterSource(path) as source:
        assert source.info.bands == (bands or 1)  # a second or fourth band is no alpha
        found, valid = source.read(0, 0, *shape)
    assert found.dtype == dtype and valid is None
    assert np.array_equal(found, values.reshape(found.shape))
    with rasterio.open(path) as file:
        assert file.descriptions == tuple(names)
        for band in range(bands or 1):
            tags = file.tags(band + 1)
            assert float(tags["STATISTICS_MEAN"]) == pytest.approx(found[:, :, band].mean(dtype=float), rel=1e-12)
            std = found[:, :, band].std(dtype=float)
            assert float(tags["STATISTICS_STDDEV"]) == pytest.approx(std, rel=1e-12)
        # as many halves as bring the longer side to a block's; 1031 -> 515 -> 257
        assert len(file.overviews(1)) == {1: 0, 512: 0, 1024: 1, 1031: 2}[max(shape)]


def test_colours_nodata_and_words_survive(tmp_path):
    values = noise(600, 700, high=2)
    values[:50] = 255
    path = write(
        tmp_path / "a.tif", values, 7, nodata=255, colours={0: (0, 0, 0), 1: (255, 10, 77), 7: (1, 2, 3)},
        tags={"TIFFTAG_IMAGEDESCRIPTION": "roads of a mine", "model": "PSPNet é"}, overview_resampling="mode",
    )  # fmt: skip
    with rasterio.open(path) as file:
        assert file.nodata == 255
        table = file.colormap(1)
        assert [table[i] for i in (0, 1, 7)] == [(0, 0, 0, 255), (255, 10, 77, 255), (1, 2, 3, 255)]
        assert file.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "roads of a mine" and file.tags()["model"] == "PSPNet é"
        assert np.array_equal(file.read(1), values)
    with tifffile.TiffFile(path) as tiff:
        assert all(page.photometric == tifffile.PHOTOMETRIC.PALETTE for page in tiff.pages)


def test_scale_survives_and_statistics_are_of_the_stored_values(tmp_path):
    values = noise(20, 30)
    with rasterio.open(write(tmp_path / "a.tif", values, nodata=255, scale=1 / 250)) as file:
        assert (file.scales, file.offsets) == ((1 / 250,), (0.0,))
        assert float(file.tags(1)["STATISTICS_MAXIMUM"]) == values.max()


def overview(path, level=0):
    with rasterio.open(path, OVERVIEW_LEVEL=level) as file:
        return file.read(1)


def test_overviews_leave_nodata_out(tmp_path):
    values = np.full((600, 700), 255, np.uint8)
    values[1::3, 1::2] = 10  # every block of 2 x 2 pixels has at least one of them or is all nodata
    values[2::3, ::3] = 50
    found = overview(write(tmp_path / "a.tif", values, nodata=255))
    blocks = values.reshape(300, 2, 350, 2).transpose(0, 2, 1, 3).reshape(300, 350, 4).astype(float)
    blocks[blocks == 255] = np.nan
    holds = np.isfinite(blocks).any(axis=2)
    assert np.array_equal(found != 255, holds)
    expected = np.nanmean(blocks[holds], axis=1)
    assert np.abs(found[holds] - expected).max() <= 0.5
    fine = np.where(values == 255, np.nan, values).astype(np.float32)
    found = overview(write(tmp_path / "a.tif", fine, nodata=np.nan))
    assert found[holds] == pytest.approx(expected, rel=1e-6) and np.isnan(found[~holds]).all()


def test_overviews_of_classes_are_the_most_frequent_class(tmp_path):
    values = np.zeros((600, 700), np.uint8)
    values[::2, ::2], values[1::2, 1::2], values[::2, 1::2] = 7, 7, 3  # 7 3 / 0 7
    path = write(tmp_path / "a.tif", values, colours={0: (0, 0, 0), 7: (255, 0, 0)}, overview_resampling="mode")
    assert (overview(path) == 7).all()


def test_without_a_valid_pixel_the_statistics_say_so(tmp_path):
    with rasterio.open(write(tmp_path / "a.tif", np.full((5, 6), 255, np.uint8), nodata=255)) as file:
        assert {key: value for key, value in file.tags(1).items() if key.startswith("STATISTICS")} == {
            "STATISTICS_VALID_PERCENT": "0"
        }


@pytest.mark.parametrize(
    "strips",
    [
        [],
        [(0, np.zeros((5, 7), np.uint8))],
        [(1, np.zeros((9, 7), np.uint8))],
        [(0, np.zeros((5, 7), np.uint8)), (6, np.zeros((4, 7), np.uint8))],
        [(0, np.zeros((11, 7), np.uint8))],
        [(0, np.zeros((10, 8), np.uint8))],
        [(0, np.zeros((10, 7), np.uint16))],
        [(0, np.zeros((5, 7), np.uint8)), (5, np.zeros((5, 7, 2), np.uint8))],
    ],
)
def test_strips_that_are_not_what_was_promised(strips, tmp_path):
    with pytest.raises(ValueError, match="strip"):
        write_cog(str(tmp_path / "a.tif"), strips, 10, 7, "uint8", UTM)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_strips_leaves_nothing_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.tif"
    write(path, noise(9, 7))
    before = path.read_bytes()
    (tmp_path / ".a.tif.partial").mkdir()
    (tmp_path / ".a.tif.partial" / "strips.tif").write_bytes(b"of a run that was killed")

    def strips():
        yield 0, noise(600, 7)
        raise DataError("b.tif: is gone")

    with pytest.raises(DataError, match=r"b.tif: is gone"):
        write_cog(str(path), strips(), 700, 7, "uint8", UTM)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@contextlib.contextmanager
def files_of_at_most(size):
    """No file may grow beyond ``size`` bytes: the write fails there, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# noise of 1300 x 1100 pixels takes 1.43 MB as strips, 0.48 MB as overviews and 1.9 MB in the end
@pytest.mark.parametrize("size", [10, 5_000, 300_000, 900_000, 1_300_000, 1_500_000, 1_700_000, 1_850_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(size, tmp_path):
    values = noise(1300, 1100, high=256)
    with files_of_at_most(size), pytest.raises(ConfigError, match=r"a.tif: cannot be written .*MB are free") as error:
        write_cog(str(tmp_path / "a.tif"), cut(values, 700), 1300, 1100, "uint8", UTM)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/a.tif: cannot be written \((Not a directory|File exists)\)"):
        write_cog(str(tmp_path / "file" / "a.tif"), [], 1, 1, "uint8", UTM)


def test_disk_needed_holds_even_for_noise(tmp_path):
    # 100 x 300 pixels of 4 bytes: 120,000 B of strips, 40,000 B of overviews, 160,000 B at the end, 1 % and 1 MiB
    assert disk_needed(100, 300, 4) == 323_200 + 2**20
    values = noise(1300, 1100, high=256)
    path = tmp_path / "a.tif"
    write(path, values)
    strips, overviews = values.size, values.size // 3
    assert strips < path.stat().st_size < disk_needed(1300, 1100, 1) - strips - overviews
