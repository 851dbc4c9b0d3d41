"""The formats' own checkers on the files."""

import json

import geojson_validator
import geopandas as gpd
import geoparquet_validator
import numpy as np
import pytest

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.geo import write_geotiff
from mmseg_ext.networks import add_heights, extract_network, write_layers

_PLACE = ("EPSG:32612", (1.5, 0, 500_000, 0, -1.5, 4_000_000))


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """The network of a mine with heights, some of which are unknown, and with a hole in its surface."""
    folder = tmp_path_factory.mktemp("mine")
    mine = generate_mine(22, 500, 1.5)
    heights = mine.elevation_m.copy()
    heights[:100] = np.nan
    for name, values in (("roads", mine.mask), ("dem", heights)):
        write_geotiff(str(folder / f"{name}.tif"), values, *_PLACE)
    return add_heights(extract_network(str(folder / "roads.tif")), str(folder / "dem.tif")).named()


@pytest.fixture
def empty(raster):
    return extract_network(raster(np.zeros((50, 60), np.uint8))).named()


def test_geoparquet_is_valid(layers, empty, tmp_path):
    files = write_layers(str(tmp_path / "mine.parquet"), layers)
    assert len(files) == 4
    for file in files:
        report = geoparquet_validator.check(file)
        assert report["version"] == "1.1.0" and geoparquet_validator.failed(report) == []
        assert all(geoparquet_validator.conformant(report, kind) for kind in ("core", "covering"))
        assert "bbox" not in gpd.read_parquet(file)
    for file in write_layers(str(tmp_path / "empty.parquet"), empty):
        assert geoparquet_validator.conformant(geoparquet_validator.check(file), "core")


def test_geojson_is_valid(layers, empty, tmp_path):
    for name, tables in (("mine", layers), ("empty", empty)):
        for file, table in zip(write_layers(str(tmp_path / f"{name}.geojson"), tables), tables.values(), strict=True):
            with open(file) as text:
                written = json.load(text)
            assert len(written["features"]) == len(table)
            assert "crs" not in written  # RFC 7946: always WGS 84
            assert geojson_validator.validate_structure(written) == {}
            if len(table):
                found = geojson_validator.validate_geometries(written)
                # 3-D lines and tenths of a millimetre are meant, and roads around a block of ground have holes
                assert found["invalid"] == {}
                assert not found["problematic"].keys() - {"3d_coordinates", "excessive_coordinate_precision", "holes"}
