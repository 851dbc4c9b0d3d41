import json

import numpy as np
import pytest

from mmseg_ext.errors import DataError
from mmseg_ext.geo import RasterInfo, burn_lines

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
    (tmp_path / "b.geojson").write_text('{"type": "FeatureCollection"}')
    with pytest.raises(DataError, match="b.geojson: cannot be read as GeoJSON"):
        burn_lines(str(tmp_path / "b.geojson"), GRID, 4)
