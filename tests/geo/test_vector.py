import json
import sqlite3
from contextlib import closing

import numpy as np
import pyogrio
import pytest
import shapely

from mmseg_ext.errors import DataError
from mmseg_ext.geo import RasterInfo, burn_lines, metric_crs, read_layer, read_lines, reprojected
from mmseg_ext.geo.vector import field_of, file_and_layer, layers_of, lines_layer
from mmseg_ext.networks import read_area, read_survey

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
    with pytest.raises(DataError, match="a: has no layer of lines or polygons; replace it"):
        burn_lines(write(tmp_path / "a", (500_010.0, 3_999_990.0), kind="Point"), GRID, 6)
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


@pytest.mark.parametrize("crs", ['LOCAL_CS["pit",UNIT["foot",0.3048]]', None])
def test_lines_of_a_local_grid_are_placed_as_they_are(tmp_path, crs):
    path = layer(tmp_path / "r.gpkg", [shapely.LineString([(500_000, 3_999_985), (500_040, 3_999_985)])], crs=crs)
    grid = RasterInfo("x.tif", 60, 80, 3, "uint8", crs=crs, transform=GRID.transform)
    width = 6 if crs is None else 6 * 0.3048
    assert np.flatnonzero(burn_lines(path, grid, width)[:, 40]).tolist() == list(range(24, 36))  # 3 units to a side
    if crs is not None:
        with pytest.raises(DataError, match="r.gpkg: is on the map 'pit' .foot., but x.tif on 'WGS 84 / UTM zone 12N'"):
            burn_lines(path, GRID, width)


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
    assert metric_crs("EPSG:4326", (7.0, 47.0), "roads") == "EPSG:32632"
    assert metric_crs("EPSG:4326", (-70.0, -23.0), "roads") == "EPSG:32719"
    (line,) = reprojected([np.array([[9.0, 0.0], [9.0, 0.001]])], "EPSG:4326", "EPSG:32632")
    assert line[0] == pytest.approx((500_000, 0), abs=1e-3)  # on the zone's middle meridian, at the equator
    assert np.hypot(*(line[1] - line[0])) == pytest.approx(110.574 * 0.9996, abs=0.01)  # a thousandth of a degree


def layer(path, shapes, name="roads", crs="EPSG:32612", append=False, **fields):
    kind = shapes[0].geom_type if shapes else "Polygon"
    values = [np.array(v, dtype=object if isinstance(v[0], (str, type(None))) else None) for v in fields.values()]
    pyogrio.raw.write(
        str(path), shapely.to_wkb(shapes), values, list(fields), crs=crs, geometry_type=kind, layer=name, append=append
    )
    return str(path)


def test_a_layer_has_its_shapes_with_their_fields(tmp_path):
    parts = shapely.MultiPolygon([shapely.box(0, 0, 2, 1), shapely.box(5, 0, 6, 1)])
    path = layer(
        tmp_path / "r.gpkg", [parts, shapely.MultiPolygon([shapely.box(9, 9, 10, 10)])], w=[4.5, 7.0], n=[1, 2]
    )
    found = read_layer(path, ["w"])
    assert [shape.bounds for shape in found.shapes] == [(0, 0, 2, 1), (5, 0, 6, 1), (9, 9, 10, 10)]
    assert found.fields["w"].tolist() == [4.5, 4.5, 7.0] and list(found.fields) == ["w"]
    assert found.fids.tolist() == [1, 1, 2] and found.crs == "EPSG:32612" and not found.are_lines.any()
    with pytest.raises(DataError, match="r.gpkg: has no field width; it has w, n"):
        read_layer(path, ["width"])


def test_invalid_shapes_are_repaired_or_left_out_and_named(tmp_path, caplog):
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    spike = shapely.Polygon([(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)])
    flat = shapely.Polygon([(0, 0), (5, 5), (1, 1), (0, 0)])
    path = layer(tmp_path / "r.gpkg", [bow, shapely.box(0, 0, 3, 3), spike, flat, shapely.Polygon()])
    found = read_layer(path)
    areas = {int(fid): sum(s.area for s in found.shapes[found.fids == fid]) for fid in found.fids}
    assert areas == {1: 2, 2: 9, 3: 16}  # two triangles of 1; the spike holds no area
    assert shapely.is_valid(found.shapes).all()
    assert "r.gpkg: 2 invalid geometries are repaired (features 1, 3)" in caplog.text
    assert (
        "r.gpkg: 2 geometries are left out, they are empty, points, damaged or of an unreadable kind (features 4, 5)"
        in caplog.text
    )


def test_one_layer_is_chosen_by_its_name(tmp_path):
    path = layer(tmp_path / "r.gpkg", [shapely.box(0, 0, 1, 1)], "surface")
    layer(path, [shapely.Point(0, 0)], "nodes", append=True)
    assert len(read_layer(path).shapes) == 1  # points are no roads
    layer(path, [shapely.LineString([(0, 0), (3, 4)])], "edges", append=True)
    assert read_layer(f"{path}:edges").shapes[0].length == 5
    with pytest.raises(DataError, match="r.gpkg: has the layers surface, edges; choose one as .*r.gpkg:surface"):
        read_layer(path)
    with pytest.raises(DataError, match="r.gpkg:roads: has no such layer of lines or polygons; it has surface, edges"):
        read_layer(f"{path}:roads")
    with pytest.raises(DataError, match="x.gpkg:roads: no such file"):
        read_layer(str(tmp_path / "x.gpkg:roads"))


LINE, BEND = "(0 0, 100 0)", "(100 0, 150 50, 200 0)"  # half a circle
DISC = "CIRCULARSTRING (0 0, 50 50, 100 0, 50 -50, 0 0)"
SQUARE = "((300 0, 300 10, 310 10, 310 0, 300 0))"
HALF, WHOLE = 50 * np.pi, 2500 * np.pi
GEOMETRIES = {  # lengths of lines, areas
    f"LINESTRING {LINE}": ([100], []),
    "LINESTRING Z (0 0 5, 100 0 9)": ([100], []),
    "LINESTRING M (0 0 5, 100 0 9)": ([100], []),
    "LINESTRING ZM (0 0 5 1, 100 0 9 2)": ([100], []),
    f"CIRCULARSTRING {BEND}": ([HALF], []),
    f"COMPOUNDCURVE ({LINE}, CIRCULARSTRING {BEND})": ([100 + HALF], []),
    "COMPOUNDCURVE Z ((0 0 1, 100 0 2), CIRCULARSTRING Z (100 0 2, 150 50 3, 200 0 4))": ([100 + HALF], []),
    f"MULTICURVE ({LINE}, CIRCULARSTRING {BEND}, COMPOUNDCURVE ({LINE}))": ([100, HALF, 100], []),
    f"CURVEPOLYGON ({DISC})": ([], [WHOLE]),
    f"CURVEPOLYGON ({DISC}, (40 0, 40 10, 50 10, 50 0, 40 0))": ([], [WHOLE - 100]),
    f"MULTISURFACE (CURVEPOLYGON ({DISC}), {SQUARE})": ([], [WHOLE, 100]),
    f"GEOMETRYCOLLECTION (POINT (0 0), LINESTRING {LINE})": ([100], []),
    f"GEOMETRYCOLLECTION (GEOMETRYCOLLECTION (MULTILINESTRING ({LINE}, {LINE})), POINT (0 0))": ([100, 100], []),
    f"GEOMETRYCOLLECTION (LINESTRING {LINE}, POLYGON {SQUARE})": ([100], [100]),
    f"GEOMETRYCOLLECTION (LINESTRING {LINE}, MULTIPOLYGON ({SQUARE}))": ([100], [100]),
}
UNREAD = [
    "", "LINESTRING EMPTY", "POLYGON EMPTY", "GEOMETRYCOLLECTION EMPTY", "POINT (0 0)", "MULTIPOINT (0 0, 1 1)",
    f"GEOMETRYCOLLECTION (CIRCULARSTRING {BEND})", f"TIN ({SQUARE})", f"POLYHEDRALSURFACE ({SQUARE})",
]  # fmt: skip


def of_texts(folder, *texts, kind=None):
    """Return a vector file with a geometry for each of ``texts``, well-known text, and a field ``n`` that counts."""
    rows = [f'{i};"{text}"' for i, text in enumerate(texts)]
    (folder / "a.csv").write_text("\n".join(["n;WKT", *rows]) + "\n")
    kind = f"<GeometryType>{kind}</GeometryType>" if kind else ""
    (folder / "a.vrt").write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource relativeToVRT="1">a.csv</SrcDataSource>{kind}'
        '<LayerSRS>EPSG:32612</LayerSRS><GeometryField encoding="WKT" field="WKT"/><Field name="n" type="Integer"/>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    return str(folder / "a.vrt")


@pytest.mark.parametrize("text", GEOMETRIES)
def test_geometries_of_every_kind_are_lines_and_areas_to_every_reader(tmp_path, text):
    lengths, areas = GEOMETRIES[text]
    path = of_texts(tmp_path, text)
    layer = read_layer(path, ["n"])
    shapes = layer.shapes
    assert set(shapely.get_type_id(shapes)) <= {1, 3} and not shapely.has_z(shapes).any()
    assert shapes[layer.are_lines].tolist() == [shape for shape in shapes if shape.length and not shape.area]
    assert shapely.length(shapes[layer.are_lines]) == pytest.approx(lengths, rel=1e-3)
    assert shapely.area(shapes[~layer.are_lines]) == pytest.approx(areas, rel=3e-3)
    assert len(layer.fields["n"]) == len(layer.fids) == len(shapes)
    if lengths:
        assert [shapely.LineString(line).length for line in read_lines(path).lines] == pytest.approx(lengths, rel=1e-3)
        assert read_survey(path).edges.length.tolist() == pytest.approx(lengths, rel=1e-3)
    else:
        for read in (read_lines, read_survey):
            with pytest.raises(DataError, match="a.vrt: has no lines; give road lines"):
                read(path)
    if lengths:
        with pytest.raises(DataError, match="a.vrt: areas are polygons, it has lines; give another"):
            read_area(path)
    else:
        assert read_area(path).area.tolist() == pytest.approx(areas, rel=3e-3)


@pytest.mark.parametrize("text", UNREAD)
def test_geometries_that_are_none_are_named_by_every_reader(tmp_path, text, caplog):
    path = of_texts(tmp_path, f"LINESTRING {LINE}", text, f"LINESTRING {LINE}")
    layer = read_layer(path, ["n"])
    assert layer.fields["n"].tolist() == [0, 2] and layer.fids.tolist() == [1, 3]
    assert len(read_lines(path).lines) == 2 and read_survey(path).edges["n"].tolist() == [0, 2]
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 1 geometries are left out, they are empty, points, damaged or of an unreadable kind (features 2)"
    ] * 3
    of_texts(tmp_path, text)
    with pytest.raises(DataError, match="a.vrt: areas are polygons, it has none"):
        read_area(path)


@pytest.mark.parametrize(
    ("kind", "lines"),
    [("wkbCompoundCurve", 1), ("wkbMultiCurve", 1), ("wkbCurvePolygon", 0), ("wkbMultiSurface", 0)],
)
def test_layers_of_curves_are_layers_of_lines_or_areas(tmp_path, kind, lines):
    path = of_texts(tmp_path, kind=kind)
    ((name, found),) = layers_of(path)
    others = [("areas", "Polygon")] if lines else [("lines", "LineString")]
    assert lines_layer(path, None, [(name, found), *others]) == ("a" if lines else "lines")


def test_the_layer_of_edges_is_that_of_the_lines(tmp_path):
    path = layer(tmp_path / "r.gpkg", [shapely.box(0, 0, 1, 1)], "surface")
    layer(path, [shapely.Point(0, 0)], "nodes", append=True)
    layer(path, [shapely.LineString([(0, 0), (3, 4)])], "edges", append=True)
    layer(path, [shapely.LineString([(0, 0), (9, 9)])], "grades", append=True)
    assert [line.tolist() for line in read_lines(path).lines] == [[[0, 0], [3, 4]]]
    assert read_survey(path).edges.length.tolist() == [5]
    assert len(read_lines(f"{path}:grades").lines) == 1 and file_and_layer(f"{path}:grades") == (path, "grades")


def test_a_geopackage_may_say_that_its_map_is_undefined(tmp_path):
    path = layer(tmp_path / "r.gpkg", [shapely.LineString([(5000, 0), (5003, 4)])])
    for number in (-1, 0):
        with closing(sqlite3.connect(path)) as file, file:
            for table in ("gpkg_contents", "gpkg_geometry_columns"):
                file.execute(f"UPDATE {table} SET srs_id = {number}")
        assert "Undefined" in pyogrio.read_info(path)["crs"]
        assert read_layer(path).crs is None and read_lines(path).crs is None and read_survey(path).edges.crs is None


def test_a_field_is_found_by_what_a_shapefile_leaves_of_its_name(tmp_path):
    with pytest.warns(RuntimeWarning, match="Normalized/laundered field name: 'width_median_m' to 'width_medi'"):
        path = layer(tmp_path / "r.shp", [shapely.box(0, 0, 1, 1)], width_median_m=[4.5], kind=[2.0])
    found = read_layer(path, ["width_median_m", "kind"]).fields
    assert {name: values.tolist() for name, values in found.items()} == {"width_median_m": [4.5], "kind": [2]}
    assert field_of("width_medi", ["width_medi"]) == "width_medi"
    assert field_of("width_median_m", ["width_medi", "width_median_m"]) == "width_median_m"
    assert field_of("width", ["width_medi"]) is None
    twins = ["cross_fall", "cross_fa_1"]  # cross_fall_percent and cross_fall_exceeded
    assert field_of("cross_fall_exceeded", twins) is None and field_of("cross_fall", twins) == "cross_fall"


def test_metres_that_are_said_to_be_degrees_are_refused(tmp_path):
    path = write(tmp_path / "a.geojson", [(500_100.0, 3_999_900.0), (500_700.0, 3_999_300.0)], crs=None)
    words = "a.geojson: is said to be in degrees .EPSG:4326. but reaches to 3999900; set the right coordinate reference"
    with pytest.raises(DataError, match=words):
        read_layer(path)


def test_layers_of_one_name_are_refused(tmp_path):
    one = write(tmp_path / "a.geojson", [(0.0, 0.0), (1.0, 1.0)])
    twins = tmp_path / "twins.vrt"
    entry = f'<OGRVRTLayer name="roads"><SrcDataSource>{one}</SrcDataSource><SrcLayer>a</SrcLayer></OGRVRTLayer>'
    twins.write_text(f"<OGRVRTDataSource>{entry}{entry}</OGRVRTDataSource>")
    for source in (twins, f"{twins}:roads"):
        with pytest.raises(DataError, match="has two layers of the name roads; rename one"):
            read_layer(str(source))
    assert read_layer(layer(tmp_path / "r.shp", [shapely.box(0, 0, 1, 1)], crs=None)).crs is None
