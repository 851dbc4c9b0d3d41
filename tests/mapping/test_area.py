"""Maps of the ground inside polygons only: what is read, what is written, what is refused."""

import json
import os

import cv2
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from bright_network import PLAIN, BrightNetwork
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import RasterArea, RasterInfo, VectorLayer, read_areas, write_geotiff
from mmseg_ext.mapping import TilePlan, check_rasters, map_raster, map_strips, road_map
from mmseg_ext.networks import extract_network

UTM, PLACE = "EPSG:32719", (0.5, 0.1, 400_000.25, 0.1, -0.5, 7_400_000.75)  # turned a little
SHAPE = 150, 210


def centres(height, width, transform=PLACE):
    """Map x and y (H, W) of the pixels' centres."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return rasterio.Affine(*transform) @ (columns, rows)


def on_map(rows, columns, transform=PLACE):
    """The polygon between two (row, column) corners of the raster."""
    (top, bottom), (left, right) = rows, columns
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
    return shapely.Polygon(np.stack(rasterio.Affine(*transform) @ corners.T, axis=1))


def picture(path, seed=0, valid=None, **place):
    values = np.random.default_rng(seed).integers(0, 255, (*SHAPE, 3), np.uint8)
    write_geotiff(str(path), values, **(place or dict(crs=UTM, transform=PLACE)), valid=valid)
    return str(path)


def polygons(path, shapes, crs=UTM):
    pyogrio.raw.write(str(path), shapely.to_wkb(shapes), [], [], crs=crs, geometry_type="Unknown", layer="lease")
    return read_areas(str(path))


def pixels(path):
    with rasterio.open(path) as opened:
        return opened.read()


class Watched:
    """A raster in memory that knows which windows were read."""

    def __init__(self, height, width, seed=0):
        self.values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        self.info = RasterInfo("memory", height, width, 3, "uint8", crs=UTM, transform=PLACE)
        self.reads = []

    def read(self, row, column, height, width, bands=None, out_shape=None):
        self.reads.append((row, column))
        values = self.values[row : row + height, column : column + width]
        return (values if out_shape is None else cv2.resize(values, out_shape[::-1]).reshape(*out_shape, -1)), None


class Around(BrightNetwork):
    """Sees what is around each pixel in its tile."""

    def predict(self, images):
        return super().predict([np.roll(image, 3, axis=(0, 1)) // 2 + image // 2 for image in images])


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 120), st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_inside_the_map_is_that_of_the_whole_raster_and_only_tiles_with_a_pixel_of_it_are_read(
    seed, count, height, width
):
    random = np.random.default_rng(seed)
    plan = TilePlan(height, width, 24, 8, random.choice([1, 1, 0.6, 2]), int(random.choice([1, 8])))
    x, y = centres(height, width)
    size = random.uniform(1, 20, count)
    places = random.uniform(-10, [width + 10, height + 10], (count, 2))
    shapes = [
        shapely.Point(np.array(rasterio.Affine(*PLACE) @ tuple(place))).buffer(radius)
        for place, radius in zip(places, size, strict=True)
    ]
    shapes[0] = shapes[0].difference(shapely.Point(shapes[0].centroid).buffer(size[0] / 2))  # a hole
    source = Watched(height, width)
    area = RasterArea(VectorLayer("a", np.array(shapes), UTM, {}, np.arange(count)), source.info)
    inside = np.logical_or.reduce([shapely.contains_xy(shape, x, y) for shape in shapes])
    whole = list(map_strips(Watched(height, width), Around(), plan, batch=1))
    part = list(map_strips(source, Around(), plan, batch=3, area=area))
    for one, other in zip(whole, part, strict=True):
        here = inside[one.row : one.row + one.probability.shape[1]]
        assert np.array_equal(np.ones_like(here) if other.valid is None else other.valid, here)
        assert np.array_equal(one.probability * here, other.probability)
    rows, columns = plan.tile_shape
    assert source.reads == [
        (row, column)
        for row in plan.row_starts
        for column in plan.column_starts
        if inside[row : row + rows, column : column + columns].any()
    ]
    assert (area.window is not None) == inside.any()
    if area.window is not None:
        row, column, h, w = area.window
        assert inside.sum() == inside[row : row + h, column : column + w].sum()


@pytest.mark.parametrize(
    ("suffix", "crs"),
    [(".gpkg", UTM), (".gpkg", "EPSG:3857"), (".gpkg", "EPSG:32718"), (".shp", "EPSG:4326"), (".geojson", "EPSG:4326")],
)
def test_polygons_of_any_map_with_holes_and_parts_are_placed(tmp_path, crs, suffix):
    ring = on_map((20, 120), (10, 90)).difference(on_map((50, 80), (30, 70)))
    both = shapely.MultiPolygon([ring, on_map((5, 35), (110, 140))])
    to_area, back = (pyproj.Transformer.from_crs(*pair, always_xy=True) for pair in ((UTM, crs), (crs, UTM)))
    shapes = [
        shapely.transform(shape, lambda points: np.stack(to_area.transform(*points.T), axis=1))
        for shape in (both, on_map((100, 400), (150, 400)))
    ]
    area = polygons(tmp_path / f"lease{suffix}", shapes, crs)
    path = picture(tmp_path / "pit.tif")
    map_raster(path, BrightNetwork(), str(tmp_path / "out"), PLAIN, area=area)
    x, y = centres(*SHAPE)
    inside = shapely.contains_xy(shapely.union_all(shapes), *to_area.transform(x, y))
    assert 0.2 < inside.mean() < 0.8
    for layer in ("roads", "probability"):
        found = pixels(tmp_path / "out" / f"pit_{layer}.tif")[0] != 255
        near = shapely.dwithin(
            shapely.transform(shapely.union_all(shapes), lambda p: np.stack(back.transform(*p.T), axis=1)).boundary,
            shapely.points(x, y),
            0.001,
        )
        assert np.array_equal(found[~near], inside[~near])


def test_a_long_edge_is_as_straight_as_on_its_own_map(tmp_path):
    # 60 km along a parallel at 60 N: in UTM it bends by some 120 m
    place = (50.0, 0.0, 470_000.0, 0.0, -50.0, 6_653_000.0)
    info = RasterInfo("a", 80, 1200, 3, "uint8", crs="EPSG:32632", transform=place)
    box = np.array([shapely.box(-20, 60, 40, 61)])
    area = RasterArea(VectorLayer("a", box, "EPSG:4326", {}, np.zeros(1)), info)
    _, latitude = pyproj.Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True).transform(
        *centres(80, 1200, place)
    )
    found = area.inside(0, 0, 80, 1200)
    clear = np.abs(latitude - 60) > 1e-5
    assert np.array_equal(found[clear], latitude[clear] > 60) and 0.1 < found.mean() < 0.9


@pytest.mark.parametrize("turn", [0, 360])
def test_the_180th_meridian_is_no_border(turn):
    place = (100.0, 0.0, 640_000.0, 0.0, -100.0, 7_020_000.0)
    info = RasterInfo("a", 200, 400, 3, "uint8", crs="EPSG:32660", transform=place)
    parts = np.array([shapely.box(179.9, 63.1, 180, 63.25), shapely.box(-180 + turn, 63.1, -179.6 + turn, 63.25)])
    area = RasterArea(VectorLayer("a", parts, "EPSG:4326", {}, np.zeros(2)), info)
    to_globe = pyproj.Transformer.from_crs("EPSG:32660", "EPSG:4326", always_xy=True)
    longitude, latitude = to_globe.transform(*centres(200, 400, place))
    longitude = longitude % 360
    inside = (longitude > 179.9) & (longitude < 180.4) & (latitude > 63.1) & (latitude < 63.25)
    assert (area.inside(0, 0, 200, 400) != inside).mean() < 0.002 < 0.2 < inside.mean()


def test_a_map_that_is_nowhere_is_refused():
    local = 'LOCAL_CS["grid of the mine",UNIT["metre",1]]'
    info = RasterInfo("pit.tif", 20, 40, 3, "uint8", crs=local, transform=PLACE)
    with pytest.raises(
        DataError, match=r"lease.gpkg: is on the map 'WGS 84 / UTM.*, but pit.tif on 'grid of the mine'"
    ):
        RasterArea(VectorLayer("lease.gpkg", np.array([shapely.box(0, 0, 1, 1)]), UTM, {}, np.zeros(1)), info)


def test_an_area_that_covers_everything_gives_the_same_files(tmp_path):
    valid = np.ones(SHAPE, bool)
    valid[:40, :50] = False
    path = picture(tmp_path / "pit.tif", valid=valid)
    area = polygons(tmp_path / "all.gpkg", [on_map((-9, 200), (-9, 300))])
    map_raster(path, BrightNetwork(), str(tmp_path / "a"), PLAIN)
    record = map_raster(path, BrightNetwork(), str(tmp_path / "b"), PLAIN, area=area)
    assert record["settings"]["area"] == str(tmp_path / "all.gpkg")
    for name in os.listdir(tmp_path / "a"):
        if name != "pit.json":
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_outside_is_nodata_in_every_file_and_a_border_of_the_network(tmp_path):
    values = np.zeros((*SHAPE, 3), np.uint8)
    values[60:70] = 255  # a road from side to side
    write_geotiff(str(tmp_path / "pit.tif"), values, "EPSG:32719", (0.5, 0, 4e5, 0, -0.5, 7e6))
    area = polygons(tmp_path / "lease.gpkg", [shapely.box(4e5 + 20, 7e6 - 60, 4e5 + 70, 7e6)])
    map_raster(str(tmp_path / "pit.tif"), BrightNetwork(), str(tmp_path), PLAIN, area=area)
    inside = np.zeros(SHAPE, bool)
    inside[:120, 40:140] = True
    for layer in ("roads", "probability"):
        assert np.array_equal(pixels(tmp_path / f"pit_{layer}.tif")[0] != 255, inside)
    layers = extract_network(str(tmp_path / "pit_probability.tif"))
    assert list(layers.nodes["kind"]) == ["border", "border"] and len(layers.edges) == 1
    assert layers.surface.total_bounds == pytest.approx([4e5 + 20, 7e6 - 35, 4e5 + 70, 7e6 - 30])
    # the preview is of the area
    assert pixels(tmp_path / "pit_preview.png").shape[1:] == (120, 100)


def test_nothing_outside_is_read_for_the_preview(tmp_path, monkeypatch):
    monkeypatch.setattr("mmseg_ext.mapping.map_files._READ_PX", (30, 30))
    read, windows = road_map.RasterSource.read, []

    def watched(self, row, column, height, width, *args, **kwargs):
        if self.info.path.endswith("pit.tif"):
            windows.append((row, column, height, width))
        return read(self, row, column, height, width, *args, **kwargs)

    path = picture(tmp_path / "pit.tif")
    area = polygons(tmp_path / "lease.gpkg", [on_map((2, 8), (2, 8)), on_map((140, 147), (200, 207))])
    monkeypatch.setattr(road_map.RasterSource, "read", watched)
    map_raster(path, BrightNetwork(), str(tmp_path), PLAIN, area=area)
    corners = [(row < 75, column < 105) for row, column, *_ in windows]
    assert sorted(set(corners)) == [(False, False), (True, True)]
    assert len(windows) == 2 + 2  # a tile and a part of the preview for each


def test_the_area_is_part_of_what_a_map_is(tmp_path):
    path, out = picture(tmp_path / "pit.tif"), str(tmp_path / "out")
    one = polygons(tmp_path / "one.gpkg", [on_map((10, 60), (10, 60))])
    made = map_raster(path, BrightNetwork(), out, PLAIN, area=one)
    again = polygons(tmp_path / "copy.geojson", [on_map((10, 60), (10, 60))])
    assert map_raster(path, BrightNetwork(), out, PLAIN, area=again)["key"] == made["key"]  # kept: the same ground
    moved = polygons(tmp_path / "moved.gpkg", [on_map((10, 61), (10, 60))])
    for other in (moved, None):
        with pytest.raises(ConfigError, match="pit.json: is there already, of another raster, checkpoint or setting"):
            map_raster(path, BrightNetwork(), out, PLAIN, area=other)


def test_strips_of_another_area_are_not_taken_up(tmp_path, monkeypatch):
    path = picture(tmp_path / "pit.tif")
    one, other = (
        polygons(tmp_path / f"{name}.gpkg", [on_map(rows, (10, 60))])
        for name, rows in (("one", (0, 40)), ("other", (20, 60)))
    )

    def first(*args, **kwargs):
        yield next(iter(map_strips(*args, **kwargs)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(road_map, "map_strips", first)
        map_raster(path, BrightNetwork(), str(tmp_path / "out"), PLAIN, area=one)
    map_raster(path, BrightNetwork(), str(tmp_path / "out"), PLAIN, area=other)
    map_raster(path, BrightNetwork(), str(tmp_path / "straight"), PLAIN, area=other)
    assert np.array_equal(*(pixels(tmp_path / where / "pit_roads.tif") for where in ("out", "straight")))


def test_rasters_outside_are_said_and_left_out(tmp_path, caplog):
    here = picture(tmp_path / "here.tif")
    beside = picture(tmp_path / "beside.tif", crs=UTM, transform=(0.5, 0, 300_000, 0, -0.5, 7e6))
    far = str(tmp_path / "far.tif")
    elsewhere = dict(crs="EPSG:32633", transform=(0.5, 0, 500_000, 0, -0.5, 5_400_000))
    write_geotiff(far, np.zeros((70, 70, 5), np.uint8), **elsewhere)  # of bands that would not fit
    area = polygons(tmp_path / "lease.gpkg", [on_map((10, 60), (10, 60))])
    assert list(check_rasters([beside, here, far], BrightNetwork(), PLAIN, area).of) == [here]
    assert f"left out, as they lie outside {area.path}: {beside}, {far}" in caplog.text
    with pytest.raises(DataError, match=r"all 2 rasters, .*beside.tif first, lie outside .*lease.gpkg; give another"):
        check_rasters([beside, far], BrightNetwork(), PLAIN, area)
    with pytest.raises(DataError, match=r"beside.tif: lies outside .*lease.gpkg; give another --area"):
        map_raster(beside, BrightNetwork(), str(tmp_path / "out"), PLAIN, area=area)
    touching = polygons(tmp_path / "touching.gpkg", [on_map((10, 60), (-50, 0))])  # along the border, no pixel
    with pytest.raises(DataError, match="here.tif: lies outside .*touching.gpkg"):
        check_rasters([here], BrightNetwork(), PLAIN, touching)
    assert not (tmp_path / "out").exists()


def test_what_is_no_area_is_refused(tmp_path):
    layer = VectorLayer("lease.gpkg", np.array([on_map((0, 9), (0, 9))]), UTM, {}, np.zeros(1))
    plain = str(tmp_path / "plain.tif")
    write_geotiff(plain, np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match="plain.tif: has no georeference, so lease.gpkg cannot be placed on it; add"):
        check_rasters([plain], BrightNetwork(), PLAIN, layer)
    with pytest.raises(DataError, match="none.gpkg: no such file"):
        read_areas(str(tmp_path / "none.gpkg"))
    (tmp_path / "torn.gpkg").write_text("no vectors")
    with pytest.raises(DataError, match="torn.gpkg: cannot be read as vector data"):
        read_areas(str(tmp_path / "torn.gpkg"))
    with pytest.raises(DataError, match="lines.gpkg: areas are polygons, it has lines"):
        polygons(tmp_path / "lines.gpkg", [shapely.LineString([(0, 0), (1, 1)])])
    (tmp_path / "empty.geojson").write_text(json.dumps(dict(type="FeatureCollection", features=[])))
    with pytest.raises(DataError, match="empty.geojson: areas are polygons, it has none"):
        read_areas(str(tmp_path / "empty.geojson"))


def test_predict_refuses_an_area_before_it_loads_a_network(tmp_path, run_tool):
    (tmp_path / "torn.gpkg").write_text("no vectors")
    done = run_tool("predict.py", "none.pth", picture(tmp_path / "a.tif"), "--out", tmp_path / "out", "--area",
                    tmp_path / "torn.gpkg")  # fmt: skip
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr == f"error: {tmp_path}/torn.gpkg: cannot be read as vector data; replace it or take it out\n"
