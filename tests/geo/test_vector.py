import json

import numpy as np
import pyogrio
import pytest
import shapely

from mmseg_ext.errors import DataError
from mmseg_ext.geo import RasterInfo, burn_lines, metric_crs, read_lines, reprojected

GRID = RasterInfo("x.tif", 60, 80, 3, "uint8", crs="EPSG:32612", transform=(0.5, 0, 500_000, 0, -0.5, 4_000_000))


def write(path, *lines, crs="EPSG:32612", kind="LineString"):
    features = [dict(type="Feature", properties={}, geometry=dict(type=kind, coordinates=line)) for line in lines]
    content = dict(type="FeatureCollection", features=features)
    if crs:
        content["crs"] = dict(type="name", properties=dict(name=crs))
    path.write_text(json.dumps(content))
    return str(path)


def distance_to_segment(x, y, start, end):
    (x0, y0), (x1, y1) = start, end
    along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1)
    return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))


def test_a_line_becomes_the_pixels_within_half_its_width(tmp_path):
    start, end = (500_004.0, 3_999_995.0), (500_033.0, 3_999_976.0)
    path = write(tmp_path / "r.geojson", [start, end])
    rows, columns = np.mgrid[:60, :80]
    away = distance_to_segment(500_000 + (columns + 0.5) * 0.5, 4_000_000 - (rows + 0.5) * 0.5, start, end)
    mask = burn_lines(path, GRID, width_m=6)
    assert mask.dtype == np.uint8
    sure = np.abs(away - 3) > 0.05  # the ends of a line are rounded by a polygon
    assert np.array_equal(mask[sure] == 1, away[sure] < 3)
    assert np.array_equal(burn_lines(path, GRID, 6, (10, 20, 30, 40)), mask[10:40, 20:60])


def test_other_geometries_and_no_lines_are_no_road(tmp_path):
    assert not burn_lines(write(tmp_path / "a", (500_010.0, 3_999_990.0), kind="Point"), GRID, 6).any()
    assert not burn_lines(write(tmp_path / "b"), GRID, 6).any()


def test_lines_in_degrees_are_placed(tmp_path):
    degrees = RasterInfo("x.tif", 100, 100, 3, "uint8", crs="EPSG:4326", transform=(1e-5, 0, 10, 0, -1e-5, 60))
    path = write(tmp_path / "a", [(10.0, 59.9995), (10.001, 59.9995)], crs=None)
    mask = burn_lines(path, degrees, 10)
    rows = np.flatnonzero(mask[:, 50])
    assert rows.mean() == pytest.approx(49.5, abs=1)
    assert len(rows) == pytest.approx(10 / 1.113, abs=1.5)
    path = write(tmp_path / "b", [(10.0005, 59.999), (10.0005, 60.0)], crs="urn:ogc:def:crs:OGC:1.3:CRS84")
    across = np.flatnonzero(burn_lines(path, degrees, 10)[50])
    assert len(across) == pytest.approx(10 / (1.113 * 0.5), abs=1.5)  # a degree of longitude is half as long at 60 N


def test_what_cannot_be_placed_is_named(tmp_path):
    path = write(tmp_path / "a.geojson", [(0.0, 0.0), (1.0, 1.0)])
    with pytest.raises(DataError, match="x.tif: has no georeference, so the lines of .*a.geojson cannot be placed"):
        burn_lines(path, RasterInfo("x.tif", 5, 5, 3, "uint8"), 4)
    (tmp_path / "b.geojson").write_text('{"type": "FeatureColl')
    with pytest.raises(DataError, match="b.geojson: cannot be read as vector data"):
        burn_lines(str(tmp_path / "b.geojson"), GRID, 4)
    with pytest.raises(DataError, match="c.gpkg: no such file"):
        read_lines(str(tmp_path / "c.gpkg"))


def test_a_ring_road_stays_open_inside(tmp_path):
    ring = [(500_010, 3_999_995), (500_030, 3_999_995), (500_030, 3_999_975), (500_010, 3_999_975)]
    mask = burn_lines(write(tmp_path / "a.geojson", [*ring, ring[0]]), GRID, 4)
    assert mask[10, 40] == 1 and mask[30, 20] == 1  # on the line
    assert mask[30, 40] == 0  # in the middle, 10 m from every line


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
def test_lines_of_every_format_are_the_same(tmp_path, suffix):
    lines = [np.array([[500_000.0, 4_000_000.0], [500_010.0, 4_000_000.0]]), np.array([[1.0, 2.0], [3.0, 4.0], [5, 7]])]
    path = str(tmp_path / f"roads{suffix}")
    geometries = shapely.to_wkb([shapely.LineString(line) for line in lines])
    pyogrio.raw.write(path, geometries, [], [], crs="EPSG:32612", geometry_type="LineString")
    found = read_lines(path)
    assert found.crs == "EPSG:32612"
    assert all(np.array_equal(a, b) for a, b in zip(found.lines, lines, strict=True))


def test_parts_of_multilines_are_lines_and_heights_are_dropped(tmp_path):
    content = dict(type="FeatureCollection", features=[])
    for kind, where in (
        ("MultiLineString", [[[1, 2, 9], [3, 4, 9]], [[5, 6, 9], [7, 8, 9]]]),
        ("Point", [1, 1]),
    ):
        content["features"].append(dict(type="Feature", properties={}, geometry=dict(type=kind, coordinates=where)))
    content["features"].append(dict(type="Feature", properties={}, geometry=None))
    path = tmp_path / "m.geojson"
    path.write_text(json.dumps(content))
    found = read_lines(str(path))
    assert [line.tolist() for line in found.lines] == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert found.crs == "EPSG:4326"


def test_metres_are_those_of_the_utm_zone():
    assert metric_crs("EPSG:4326", (7.0, 47.0)) == "EPSG:32632"
    assert metric_crs("EPSG:4326", (-70.0, -23.0)) == "EPSG:32719"
    (line,) = reprojected([np.array([[9.0, 0.0], [9.0, 0.001]])], "EPSG:4326", "EPSG:32632")
    assert line[0] == pytest.approx((500_000, 0), abs=1e-3)  # on the zone's middle meridian, at the equator
    assert np.hypot(*(line[1] - line[0])) == pytest.approx(110.574 * 0.9996, abs=0.01)  # a thousandth of a degree
