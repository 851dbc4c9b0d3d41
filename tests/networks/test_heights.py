"""Heights of road networks: 3-D lines, grade and cross-fall against surfaces known exactly."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform as warped

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.networks import HeightSettings, NetworkSettings, RoadLayers, add_heights, check_dem, extract_network
from mmseg_ext.networks.dem import Dem
from mmseg_ext.networks.heights import Profile, _bridged, fitted_lines
from mmseg_ext.networks.layer_files import write_layers

CRS = "EPSG:32612"
X, Y = 500_000.0, 4_000_000.0  # upper left corner of the rasters
FRAME = (1.0, 0, X, 0, -1.0, Y)


def network(*lines, crs=CRS, width_m=12.0):
    """Return the layers of lines of metres from the upper left corner, x right and y up; each has its own nodes."""
    count = len(lines)
    ends = [shapely.Point(X + line[at][0], Y + line[at][1]) for line in lines for at in (0, -1)]
    edges = gpd.GeoDataFrame(
        {
            "edge_id": np.arange(count),
            "node_from": np.arange(0, 2 * count, 2),
            "node_to": np.arange(1, 2 * count, 2),
            "length_m": [shapely.LineString(line).length for line in lines],
            "width_median_m": np.full(count, width_m),
        },
        geometry=[shapely.LineString([(X + x, Y + y) for x, y in line]) for line in lines],
        crs=CRS,
    )
    nodes = gpd.GeoDataFrame({"node_id": np.arange(2 * count)}, geometry=ends, crs=CRS)
    tables = [table.to_crs(crs) for table in (edges, nodes, edges[:0])]
    return RoadLayers(*tables)


def surface(height_at, size=200, gsd=1.0):
    """Return the heights of a function of metres from the upper left corner, x right and y up, at pixel centres."""
    centres = (np.arange(size) + 0.5) * gsd
    return height_at(centres[None], -centres[:, None]).astype(np.float32)


def plane(x, y):
    """Climb 8 % to the right, 3 % up the map."""
    return 100 + 0.08 * x + 0.03 * y


def zs(table):
    return [shapely.get_coordinates(shape, include_z=True)[:, 2] for shape in table.geometry]


def test_a_plane_has_its_grades_and_cross_falls(raster):
    level, upright, bent = [(20, -100), (180, -100)], [(100, -20), (100, -180)], [(30, -30), (90, -110), (170, -110)]
    dem = raster(surface(plane), transform=FRAME)
    layers = add_heights(network(level, upright, bent), dem)
    edges = layers.edges
    assert edges["grade_mean_percent"].tolist()[:2] == pytest.approx([8, -3], abs=0.01)
    assert edges["grade_max_percent"].tolist() == pytest.approx([8, 3, 8], abs=0.01)
    # level: the left side, up the map, is higher; upright: on the way down the map, what is to the right is lower
    assert edges["cross_fall_percent"].tolist()[:2] == pytest.approx([3, 8], abs=0.01)
    assert edges["height_share"].tolist() == [1, 1, 1]
    grades = layers.grades
    for edge, grade, cross_fall in ((0, 8, 3), (1, -3, 8)):
        own = grades[grades["edge_id"] == edge]
        assert own["from_m"].tolist() == list(range(0, 160, 20)) and own["to_m"].tolist() == list(range(20, 180, 20))
        assert own["grade_percent"].tolist() == pytest.approx([grade] * 8, abs=0.01)
        assert own["cross_fall_percent"].tolist() == pytest.approx([cross_fall] * 8, abs=0.01)
    # the bent line's first 100 m go 0.6 to the right and 0.8 down
    assert grades[grades["edge_id"] == 2]["grade_percent"].tolist()[:4] == pytest.approx([2.4] * 4, abs=0.01)
    for table in (edges, layers.nodes, grades):
        for shape in table.geometry:
            x, y, z = shapely.get_coordinates(shape, include_z=True).T
            if not np.hypot(x - X - 90, y - Y + 110).min() < 15:  # the bend is rounded off
                assert z == pytest.approx(plane(x - X, y - Y), abs=0.01)
    assert edges.geometry.length.tolist() == pytest.approx([160, 160, 180])
    assert layers.surface.equals(network(level).surface)


def test_what_exceeds_a_limit_is_flagged(raster):
    def crest(x, y):
        return 100 - 0.12 * np.abs(x - 100) + 0.05 * y

    dem = raster(surface(crest), transform=FRAME)
    lines = network([(20, -100), (180, -100)], [(100, -20), (100, -180)])
    layers = add_heights(lines, dem)
    assert layers.edges["grade_max_percent"].tolist() == pytest.approx([12, 5], abs=0.05)
    assert layers.edges["grade_mean_percent"].tolist() == pytest.approx([0, -5], abs=0.05)
    assert layers.edges["grade_exceeded"].tolist() == [True, False]
    assert layers.edges["cross_fall_exceeded"].tolist() == [True, False]  # 5 %; 0, as both sides fall alike
    own = layers.grades[layers.grades["edge_id"] == 0]
    assert own["grade_percent"].iloc[[0, 1, -2, -1]].tolist() == pytest.approx([12, 12, -12, -12], abs=0.05)
    loose = add_heights(lines, dem, HeightSettings(max_grade_percent=12.5, max_cross_fall_percent=5.5))
    assert not loose.edges[["grade_exceeded", "cross_fall_exceeded"]].any(axis=None)
    assert not loose.grades[["grade_exceeded", "cross_fall_exceeded"]].any(axis=None)


def test_the_distance_decides_on_what_a_grade_is(raster):
    # waves of 1 m height every 40 m are steep over 5 m and level over 80 m
    def waves(x, y):
        return 100 + 0.5 * np.sin(2 * np.pi * x / 40) + 0 * y

    dem, line = raster(surface(waves), transform=FRAME), network([(10, -100), (190, -100)])
    steepest = 100 * 0.5 * 2 * np.pi / 40
    over = {m: add_heights(line, dem, HeightSettings(m)).edges["grade_max_percent"][0] for m in (5, 20, 80)}
    assert over[5] == pytest.approx(steepest, rel=0.1)
    assert over[80] < 0.2 * steepest < 0.6 * steepest < over[20] < over[5]
    assert add_heights(line, dem, HeightSettings(80)).grades["to_m"].tolist() == [90, 180]


@pytest.mark.parametrize("seed", [1, 4])
@pytest.mark.parametrize("dem_gsd", [0.75, 2.0])
def test_grades_of_a_mine_are_those_of_its_roads(raster, seed, dem_gsd):
    gsd, size = 0.75, 1000
    mine = generate_mine(seed, size, gsd)
    dem = mine.elevation_m
    if dem_gsd != gsd:  # another grid: its own pixels, each the mean of those in it
        shape = int(size * gsd / dem_gsd), int(size * gsd / dem_gsd)
        with rasterio.open(raster(dem, CRS, (gsd, 0, X, 0, -gsd, Y), name="fine.tif")) as file:
            dem = np.zeros(shape, np.float32)
            target = rasterio.Affine(dem_gsd, 0, X, 0, -dem_gsd, Y)
            rasterio.warp.reproject(
                rasterio.band(file, 1),
                dem,
                dst_transform=target,
                dst_crs=CRS,
                resampling=rasterio.enums.Resampling.average,
            )
    path = raster(dem, CRS, (dem_gsd, 0, X, 0, -dem_gsd, Y), name="dem.tif")
    layers = extract_network(raster(mine.mask, CRS, (gsd, 0, X, 0, -gsd, Y)), NetworkSettings(min_length=100))
    grades = add_heights(layers, path).grades
    errors = []
    for road in mine.roads:
        along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(road.xy_m, axis=0).T))])
        others = np.concatenate([other.xy_m for other in mine.roads if other is not road])
        for row in grades[grades.geometry.length > 15].itertuples():
            line = shapely.get_coordinates(row.geometry) - [X, Y]
            middle = shapely.get_coordinates(row.geometry.interpolate(0.5, normalized=True))[0] - [X, Y]
            place, begin, end = (np.hypot(*(road.xy_m * (1, -1) - xy).T) for xy in (middle, line[0], line[-1]))
            clear = np.hypot(*(others * (1, -1) - middle).T).min() > 45  # no other road's heights within the fit
            if place.min() > 3 or not clear:
                continue
            here = along[place.argmin()]
            if min(here, along[-1] - here) < 15:
                continue
            window = np.abs(along - here) <= 10
            way = 1 if begin.argmin() < end.argmin() else -1
            errors.append(row.grade_percent - way * 100 * np.polyfit(along[window], road.z_m[window], 1)[0])
    assert len(errors) > 40
    assert np.abs(errors).max() < 0.5


def test_trucks_and_bench_edges_make_no_grade(raster):
    heights = surface(plane)
    dem = raster(heights, transform=FRAME)
    line = network([(20, -100), (180, -100)], width_m=20)
    clean = add_heights(line, dem)
    parked = heights.copy()
    parked[92:98, 60:73] += 5  # 13 m long, 6 m wide, on the left and on the right
    parked[102:108, 120:133] += 5
    parked[:88] += 15  # a bench that begins 2 m from the road's edge
    with_trucks = add_heights(line, raster(parked, transform=FRAME, name="trucks.tif"))
    for name in ("grade_mean_percent", "grade_max_percent", "cross_fall_percent"):
        assert with_trucks.edges[name][0] == pytest.approx(clean.edges[name][0], abs=0.5)
    assert zs(with_trucks.edges)[0] == pytest.approx(zs(clean.edges)[0], abs=0.1)
    across = heights.copy()
    across[:, 90:98] += 4  # across all of the road, less than half the distance
    bridged = add_heights(line, raster(across, transform=FRAME, name="across.tif"))
    assert bridged.edges["grade_max_percent"][0] == pytest.approx(8, abs=0.1)


FRAMES = {
    "another resolution": (CRS, (4.0, 0, X - 50, 0, -3.0, Y + 50)),
    "south up": (CRS, (2.0, 0, X - 50, 0, 2.0, Y - 300)),
    "rotated": (CRS, (1.6, 1.2, X - 200, 1.2, -1.6, Y - 100)),
    "another zone": ("EPSG:32613", (2.0, 0, 0, 0, -2.0, 0)),
    "degrees": ("EPSG:4326", (2e-5, 0, 0, 0, -2e-5, 0)),
    "web mercator": ("EPSG:3857", (2.0, 0, 0, 0, -2.0, 0)),
}


@pytest.mark.parametrize("crs", [CRS, "EPSG:4326", "EPSG:3857", "EPSG:2223"])
@pytest.mark.parametrize("frame", FRAMES)
def test_grades_are_on_the_ground_in_any_map(raster, crs, frame):
    dem_crs, (a, b, c, d, e, f) = FRAMES[frame]
    if c == 0:
        (x,), (y,) = warped(CRS, dem_crs, [X], [Y])
        c, f = x - 80 * a, y - 80 * e
    columns, rows = np.meshgrid(np.arange(260) + 0.5, np.arange(260) + 0.5)
    x, y = warped(dem_crs, CRS, (a * columns + b * rows + c).ravel(), (d * columns + e * rows + f).ravel())
    heights = plane(np.array(x) - X, np.array(y) - Y).reshape(260, 260)
    dem = raster(heights.astype(np.float32), dem_crs, (a, b, c, d, e, f))
    layers = add_heights(network([(20, -100), (180, -100)], [(100, -20), (100, -180)], crs=crs, width_m=25), dem)
    assert layers.edges["grade_mean_percent"].tolist() == pytest.approx([8, -3], abs=0.05)
    assert layers.edges["cross_fall_percent"].tolist() == pytest.approx([3, 8], abs=0.05)
    assert layers.grades["to_m"].max() == pytest.approx(160, rel=1e-3)
    assert layers.edges.crs == layers.nodes.crs == layers.grades.crs == crs


def test_a_dem_too_coarse_for_the_width_gives_no_cross_fall(raster):
    dem = raster(surface(plane, 40, 5), transform=(5.0, 0, X, 0, -5.0, Y))
    edges = add_heights(network([(20, -100), (180, -100)]), dem).edges
    assert edges["grade_max_percent"][0] == pytest.approx(8, abs=0.01)
    assert np.isnan(edges["cross_fall_percent"][0]) and not edges["cross_fall_exceeded"][0]


@pytest.mark.parametrize("nodata", [-9999.0, None, np.nan])
def test_where_nothing_is_known_nothing_is_said(raster, nodata):
    heights = surface(plane)
    void = -9999.0 if nodata is None else nodata  # often nobody says that it is nodata
    heights[:, 50:56] = void
    heights[:, 122:158] = void
    heights[150:] = void
    dem = raster(heights, nodata=nodata, transform=FRAME)
    lines = network([(20, -100), (180, -100)], [(20, -20), (100, -20)], [(20, -170), (180, -170)])
    layers = add_heights(lines, dem)
    edges = layers.edges
    assert edges["height_share"].tolist() == pytest.approx([1 - (7 + 37) / 160, 1 - 7 / 80, 0], abs=0.02)
    assert edges["grade_mean_percent"].tolist() == pytest.approx([8, 8, np.nan], abs=0.01, nan_ok=True)
    assert edges["grade_max_percent"].tolist() == pytest.approx([8, 8, np.nan], abs=0.01, nan_ok=True)
    assert edges["grade_exceeded"].tolist() == edges["cross_fall_exceeded"].tolist() == [False] * 3
    # the short gap is bridged: a line is 3-D where all of it is known, and a stretch likewise
    assert edges.geometry.has_z.tolist() == [False, True, False]
    assert zs(edges)[1] == pytest.approx(plane(shapely.get_coordinates(edges.geometry[1])[:, 0] - X, -20), abs=0.01)
    own = layers.grades[layers.grades["edge_id"] == 0]
    assert own.geometry.has_z.tolist() == [True] * 5 + [False, False, True]
    assert layers.nodes.geometry.has_z.tolist() == [True] * 4 + [False] * 2
    strict = add_heights(lines, dem, HeightSettings(bridge_m=3))
    assert not strict.edges.geometry.has_z.any()


def test_lines_meet_in_their_nodes(raster):
    mine = generate_mine(1, 500, 1.0)
    layers = extract_network(raster(mine.mask, transform=FRAME))
    layers = add_heights(layers, raster(mine.elevation_m, transform=FRAME, name="dem.tif"))
    places = layers.nodes.set_index("node_id").geometry
    compared = 0
    for edge in layers.edges.itertuples():
        for node, at in ((edge.node_from, 0), (edge.node_to, -1)):
            if edge.geometry.has_z and places[node].has_z:
                assert tuple(edge.geometry.coords[at]) == tuple(places[node].coords[0])
                compared += 1
    assert compared >= 6
    flat = extract_network(raster(mine.mask, transform=FRAME)).edges
    assert (flat.geometry.hausdorff_distance(layers.edges.geometry.force_2d()) < 1e-6).all()
    # an edge is its stretches, and is as steep as the steepest of them says
    length = layers.grades.groupby("edge_id")["to_m"].max()
    assert length.tolist() == pytest.approx(layers.edges["length_m"].tolist(), rel=1e-3)
    assert layers.grades.groupby("edge_id")["grade_exceeded"].any().tolist() == layers.edges["grade_exceeded"].tolist()


def test_roads_that_leave_the_dem_have_heights_to_the_end(raster):
    lines = network([(0.5, -60), (199.5, -140)], [(60, -199.5), (100, -100)], [(100, -50), (220, -50)])
    layers = add_heights(lines, raster(surface(plane), transform=FRAME))
    assert layers.edges.geometry.has_z.tolist() == [True, True, False]
    assert (layers.edges["height_share"][:2] < 1).all()
    for shape in layers.edges.geometry[:2]:
        x, y, z = shapely.get_coordinates(shape, include_z=True).T
        assert z == pytest.approx(plane(x - X, y - Y), abs=0.01)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_heights_are_in_every_format(raster, suffix, tmp_path):
    heights = surface(plane)
    heights[150:] = -9999
    dem = raster(heights, nodata=-9999, transform=FRAME)
    layers = add_heights(network([(20, -100), (180, -100)], [(20, -170), (180, -170)]), dem)
    files = write_layers(str(tmp_path / f"roads{suffix}"), layers.named())
    for place, name in enumerate(("edges", "nodes", "surface", "grades")):
        if suffix == ".parquet":
            table = gpd.read_parquet(files[place])
        else:
            table = gpd.read_file(
                files[-1] if suffix == ".gpkg" else files[place], layer=name if suffix == ".gpkg" else None
            )
        wanted = layers.named()[name]
        assert len(table) == len(wanted) and not table.geometry.isna().any()
        if name != "surface":
            assert table.geometry.has_z.tolist() == wanted.geometry.has_z.tolist()
            assert np.concatenate(zs(table)) == pytest.approx(np.concatenate(zs(wanted)), nan_ok=True)
    assert table["grade_exceeded"].dtype == bool


def test_short_edges_have_heights_but_no_grade(raster):
    layers = add_heights(
        network([(20, -100), (28, -100)], [(20, -50), (33, -50)]), raster(surface(plane), transform=FRAME)
    )
    assert layers.edges["grade_max_percent"].tolist() == pytest.approx([np.nan, 8], abs=0.01, nan_ok=True)
    assert layers.edges["grade_mean_percent"].tolist() == pytest.approx([np.nan, 8], abs=0.01, nan_ok=True)
    for z, (start, end, y) in zip(zs(layers.edges), [(20, 28, -100), (20, 33, -50)], strict=True):
        assert z == pytest.approx([plane(start, y), plane(end, y)], abs=0.01)


def test_windows_of_the_dem_give_the_same(raster, monkeypatch):
    heights = surface(lambda x, y: plane(x, y) + 3 * np.sin(x / 9) * np.cos(y / 7))
    dem, lines = raster(heights, transform=FRAME), network([(20, -100), (90, -30), (180, -100)])
    whole = add_heights(lines, dem)
    monkeypatch.setattr("mmseg_ext.networks.dem._TILE_PX", 16)
    monkeypatch.setattr("mmseg_ext.networks.heights._FITS", 10)
    parts = add_heights(lines, dem)
    assert parts.grades.drop(columns="geometry").equals(whole.grades.drop(columns="geometry"))
    assert zs(parts.edges)[0].tolist() == zs(whole.edges)[0].tolist()


def test_outliers_do_not_move_a_line():
    rng = np.random.default_rng(0)
    offsets = (np.arange(21) - 10) * 0.7
    heights = 300 + 0.1 * offsets + rng.normal(0, 0.05, (6, 21))
    wanted = [np.polyfit(offsets, row, 1) for row in heights]
    heights[1, :7] += 4
    heights[2, 7:14] -= 1
    heights[3, [2, 7, 20]] = np.nan
    heights[4, :11] = np.nan
    heights[5] = np.nan
    slopes, middles = fitted_lines(offsets, heights)
    for number, left_out in ((1, slice(7)), (2, slice(7, 14)), (3, [2, 7, 20])):
        good = np.delete(np.arange(21), left_out)
        wanted[number] = np.polyfit(offsets[good], heights[number, good], 1)
    assert slopes[:4] == pytest.approx(np.array(wanted)[:4, 0])
    assert middles[:4] == pytest.approx(np.array(wanted)[:4, 1])
    assert np.isnan(slopes[4:]).all() and np.isnan(middles[4:]).all()


def test_gaps_up_to_a_length_are_bridged():
    at = np.arange(10.0)
    heights = np.array([np.nan, 1, np.nan, 3, np.nan, np.nan, np.nan, 7, 8, np.nan])
    assert _bridged(at, heights, 2).tolist() == pytest.approx([np.nan, 1, 2, 3, np.nan, np.nan, np.nan, 7, 8, np.nan], nan_ok=True)  # fmt: skip  # noqa: E501
    assert _bridged(at, heights, 4).tolist() == pytest.approx([np.nan, 1, 2, 3, 4, 5, 6, 7, 8, np.nan], nan_ok=True)
    assert np.isnan(_bridged(at, np.full(10, np.nan), 5)).all()


def test_no_roads_have_no_heights(raster, tmp_path):
    layers = extract_network(raster(np.zeros((50, 60), np.uint8)))
    found = add_heights(layers, raster(surface(plane), name="dem.tif"))
    assert len(found.edges) == len(found.nodes) == len(found.grades) == 0
    assert {"grade_mean_percent", "grade_exceeded", "height_share"} <= set(found.edges.columns)
    assert len(write_layers(str(tmp_path / "none.gpkg"), found.named())) == 1


def test_what_is_no_dem_of_the_place_is_refused(raster, tmp_path, caplog):
    lines, roads = network([(20, -100), (180, -100)]), raster(np.ones((200, 200), np.uint8), transform=FRAME)
    far = raster(surface(plane), transform=(1.0, 0, X + 5000, 0, -1.0, Y), name="far.tif")
    with pytest.raises(DataError, match=r"far.tif: does not overlap .*roads.tif, .* columns -5000 to -4800 of 200 and"):
        check_dem(far, roads)
    with pytest.raises(DataError, match="far.tif: does not overlap the road network, .* columns -49"):
        add_heights(lines, far)
    with pytest.raises(DataError, match="rgb.tif: has 3 bands; give a DEM or DSM"):
        add_heights(lines, raster(np.zeros((9, 9, 3), np.uint8), name="rgb.tif"))
    with pytest.raises(DataError, match="bare.tif: has no georeference, so its heights"):
        add_heights(lines, raster(surface(plane), None, None, name="bare.tif"))
    with pytest.raises(DataError, match="none.tif: no such file"):
        add_heights(lines, str(tmp_path / "none.tif"))
    dem = raster(surface(plane), name="dem.tif", transform=FRAME)
    check_dem(dem, roads)
    bare = raster(np.ones((200, 200), np.uint8), None, None, name="pixels.tif")
    with pytest.raises(DataError, match="pixels.tif: has no georeference, so the heights of"):
        check_dem(dem, bare)
    with pytest.raises(DataError, match="the roads have no georeference"):
        add_heights(extract_network(bare), dem)
    with pytest.raises(ConfigError, match="max grade percent of -1: give 0 or more"):
        HeightSettings(max_grade_percent=-1)
    with pytest.raises(ConfigError, match="grades over 0 m: give a distance of 1 m or more"):
        HeightSettings(grade_over_m=0)
    caplog.clear()
    edges = add_heights(lines, raster(np.full((200, 200), np.nan, np.float32), transform=FRAME, name="void.tif")).edges
    assert "void.tif: is nodata on all of the roads" in caplog.text and edges["height_share"][0] == 0
    for table in (lines.edges, lines.nodes):
        table.set_crs("EPSG:4326", allow_override=True, inplace=True)
    words = "road network: lies around 500100 3.9999e[+]06, which is nowhere in EPSG:4326; correct the"
    with pytest.raises(DataError, match=words):
        add_heights(lines, dem)


def test_a_map_without_known_place_is_as_its_units_say(raster, caplog, tmp_path):
    lines = network([(20, -100), (180, -100)])
    no_crs = raster(surface(plane), None, FRAME, name="no_crs.tif")
    assert add_heights(lines, no_crs).edges["grade_max_percent"][0] == pytest.approx(8, abs=0.01)
    assert "no_crs.tif: has no coordinate reference system; that of the roads is assumed" in caplog.text
    grid = 'LOCAL_CS["mine grid",UNIT["foot",0.3048],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    for table in (lines.edges, lines.nodes):
        table.set_crs(grid, allow_override=True, inplace=True)
    in_feet = add_heights(lines, raster(surface(plane), grid, FRAME, name="feet.tif"))
    assert in_feet.edges["grade_max_percent"][0] == pytest.approx(8 / 0.3048, abs=0.01)
    for table in (lines.edges, lines.nodes):  # the GeoTIFF does not keep the datum
        table.set_crs(grid.replace("UNIT", 'LOCAL_DATUM["pit",32767],UNIT'), allow_override=True, inplace=True)
    assert (
        add_heights(lines, str(tmp_path / "feet.tif"))
        .edges["grade_max_percent"]
        .equals(in_feet.edges["grade_max_percent"])
    )
    with pytest.raises(
        DataError, match="utm.tif: is on the map 'WGS 84 / UTM zone 12N' .metre., but the road network on"
    ):
        add_heights(lines, raster(surface(plane), transform=FRAME, name="utm.tif"))
    for table in (lines.edges, lines.nodes):
        table.set_crs(None, allow_override=True, inplace=True)
    assert add_heights(lines, str(tmp_path / "utm.tif")).edges["grade_max_percent"][0] == pytest.approx(8, abs=0.01)
    assert "the roads have no coordinate reference system; that of the DEM is assumed" in caplog.text
    with pytest.raises(DataError, match="feet.tif: its map is not in metres, as the roads, which have no coordinate"):
        add_heights(lines, str(tmp_path / "feet.tif"))


def test_heights_are_scaled_as_the_file_says(raster):
    path = raster(np.round(surface(plane) * 100).astype(np.uint16), transform=FRAME)  # centimetres
    with rasterio.open(path, "r+") as file:
        file.scales = (0.01,)
    layers = add_heights(network([(20, -100), (180, -100)]), path)
    assert zs(layers.edges)[0][0] == pytest.approx(plane(20, -100), abs=0.01)
    assert layers.edges["grade_max_percent"][0] == pytest.approx(8, abs=0.1)


def test_a_height_needs_only_the_pixels_around_it(raster):
    heights = np.arange(12, dtype=np.float32).reshape(3, 4)
    heights[2] = np.nan
    with Dem(raster(heights, transform=FRAME)) as dem:
        found = dem.at(np.array([(X + x, Y - y) for x, y in [(1.5, 1.5), (2, 1), (2, 1.6), (0.4, 1), (9, 1)]]))
    assert found.tolist() == pytest.approx([5, 3.5, np.nan, np.nan, np.nan], nan_ok=True)


def test_a_profile_comes_to_its_nodes_without_a_step():
    at = np.arange(0, 51, 5.0)
    profile = Profile(at[[0, -1]], at, np.full(11, 10.0), np.zeros(11), np.zeros(11), 1.0)
    profile.meet(12.0, np.nan, 20)
    assert profile.height.tolist() == pytest.approx([12, 11.5, 11, 10.5, *[10] * 7])


def test_an_end_that_the_dem_does_not_know_takes_nothing_from_the_rest():
    at = np.arange(0, 51, 5.0)
    profile = Profile(at[[0, -1]], at, np.array([np.nan] * 3 + [10.0] * 8), np.zeros(11), np.zeros(11), 1.0)
    profile.meet(12.0, 11.0, 20)
    wanted = [12, np.nan, np.nan, 10, 10, 10, 10, 10.25, 10.5, 10.75, 11]
    assert profile.height.tolist() == pytest.approx(wanted, nan_ok=True)


def test_a_road_out_of_a_hole_keeps_its_heights(raster):
    heights = surface(plane)
    heights[:, 92:140] = np.nan
    lines = network([(20, -100), (100, -100)], [(100, -100), (190, -100)])
    lines.edges.loc[1, "node_from"] = 1  # they meet 8 m into the hole
    layers = add_heights(lines, raster(heights, transform=FRAME))
    assert layers.edges.geometry.has_z.tolist() == [True, False]
    assert layers.edges["grade_mean_percent"].tolist() == pytest.approx([8, 8], abs=0.01)
    assert layers.grades[layers.grades["edge_id"] == 1].geometry.has_z.tolist()[-2:] == [True, True]


@pytest.mark.parametrize("over", [1, 20, 5000])
def test_edges_of_any_length_and_shape_have_what_can_be_known(raster, over):
    angle = np.linspace(0, 2 * np.pi, 61)
    ring = [(100 + 40 * x, -100 + 40 * y) for x, y in zip(np.cos(angle), np.sin(angle), strict=True)]
    ring[-1] = ring[0]
    tiny = [(99 + (x - 100) / 500, -99 + (y + 100) / 500) for x, y in ring]
    back = [(20, -30), (60, -30), (20, -30)]
    lines = network([(50, -50), (50, -50)], [(50, -60), (50.01, -60)], tiny, ring, back, [(20, -20), (180, -20)])
    for edge in (2, 3, 4):
        lines.edges.loc[edge, "node_to"] = lines.edges.loc[edge, "node_from"]
    with np.errstate(all="raise"):
        edges = add_heights(lines, raster(surface(plane), transform=FRAME), HeightSettings(over)).edges
    assert edges.geometry.has_z.all() and (edges["height_share"] == 1).all()
    for edge, start in ((0, plane(50, -50)), (1, plane(50, -60)), (2, plane(99.08, -99))):
        assert zs(edges)[edge] == pytest.approx(start, abs=0.02)
    assert np.isnan(edges["grade_max_percent"][:2]).all()
    assert np.isnan(edges["cross_fall_percent"][0])  # a point has no direction
    if over == 5000:
        assert np.isnan(edges["grade_max_percent"]).all() and not edges["grade_exceeded"].any()
        return
    assert edges["grade_mean_percent"][3:].tolist() == pytest.approx([0, 0, 8], abs=0.01)
    assert zs(edges)[3][0] == zs(edges)[3][-1] == pytest.approx(plane(140, -100), abs=0.2)
    # the ring is as steep as the plane where it goes straight up, a little less over an arc
    steepest = 100 * np.hypot(0.08, 0.03)
    assert 0.97 * steepest < edges["grade_max_percent"][3] < steepest + 0.1
    assert edges["grade_max_percent"][4:].tolist() == pytest.approx([8, 8], abs=0.01)


def test_a_grade_over_more_than_the_edge_is_that_of_the_edge(raster):
    dem = raster(surface(plane), transform=FRAME)
    lines = network([(20, -100), (180, -100)])
    for over, wanted in ((160, 8), (300, 8), (319, 8), (321, np.nan)):
        layers = add_heights(lines, dem, HeightSettings(over))
        assert layers.edges["grade_max_percent"][0] == pytest.approx(wanted, abs=0.01, nan_ok=True)
        assert np.ravel(layers.grades[["from_m", "to_m"]]).tolist() == pytest.approx([0, 160])
        assert zs(layers.edges)[0] == pytest.approx([plane(20, -100), plane(180, -100)], abs=0.01)


def test_stored_heights_are_scaled_and_shifted(raster):
    path = raster(np.round((surface(plane) + 100) * 100).astype(np.uint16), transform=FRAME)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.01,), (-100.0,)
    layers = add_heights(network([(20, -100), (180, -100)]), path)
    assert zs(layers.edges)[0] == pytest.approx([plane(x, -100) for x in range(20, 181, 20)], abs=0.01)


@pytest.mark.parametrize(
    ("unit", "crs", "metres"),
    [
        ("ft", CRS, 0.3048),
        ("US survey foot", CRS, 1200 / 3937),
        ("metre", CRS, 1),
        (None, "EPSG:32612+6360", 1200 / 3937),  # NAVD88 in US survey feet
        (None, "EPSG:32612+5703", 1),
        ("m", "EPSG:32612+6360", 1),  # what is said of the values goes first
    ],
)
def test_heights_in_feet_become_metres(raster, unit, crs, metres):
    path = raster(surface(plane) / np.float32(metres), crs, FRAME)
    if unit:
        with rasterio.open(path, "r+") as file:
            file.units = (unit,)
    layers = add_heights(network([(20, -100), (180, -100)]), path)
    assert zs(layers.edges)[0] == pytest.approx([plane(x, -100) for x in range(20, 181, 20)], abs=0.01)
    assert layers.edges["grade_mean_percent"][0] == pytest.approx(8, abs=0.01)
    assert layers.edges["cross_fall_percent"][0] == pytest.approx(3, abs=0.01)


def test_an_unknown_unit_of_heights_is_refused_and_a_doubtful_one_named(raster, caplog):
    lines, path = network([(20, -100), (180, -100)]), raster(surface(plane), transform=FRAME, name="dem.tif")
    with rasterio.open(path, "r+") as file:
        file.units = ("cubit",)
    with pytest.raises(DataError, match="dem.tif: has heights in cubit, an unknown unit; set it to m, ft or us-ft"):
        add_heights(lines, path)
    (x,), (y,) = warped(CRS, "EPSG:2223", [X], [Y])
    add_heights(lines, raster(surface(plane, 250), "EPSG:2223", (3.0, 0, x, 0, -3.0, y), name="feet.tif"))
    assert "feet.tif: its map is in feet, the unit of its heights is not stated; metres are assumed" in caplog.text


@pytest.mark.parametrize("crs", ["EPSG:32613", "EPSG:4326", "EPSG:3857"])
def test_a_dem_of_the_wrong_coordinate_reference_system_is_beside_the_roads(raster, crs):
    wrong = raster(surface(plane), crs, FRAME, name="wrong.tif")
    with pytest.raises(
        DataError, match=r"^.*wrong.tif: does not overlap the road network, .* correct its georeference$"
    ):
        add_heights(network([(20, -100), (180, -100)]), wrong)


PLACES = {
    "UTM": (CRS, X, Y, 1.0),
    "UTM, a zone beside": ("EPSG:32613", -39_000, 4_010_000, 1.0),
    "feet": ("EPSG:2223", 900_000, 1_800_000, 3.0),
    "degrees": ("EPSG:4326", -111.0, 36.1, 1e-5),
    "degrees to 360": ("EPSG:4326", 249.0, 36.1, 1e-5),
    "web map": ("EPSG:3857", -12_356_000, 4_320_000, 1.0),
    "world mercator": ("EPSG:3395", -12_356_000, 4_290_000, 1.0),
    "mine": ('LOCAL_CS["mine",UNIT["foot",0.3048],AXIS["Easting",EAST],AXIS["Northing",NORTH]]', 0, 0, 3.0),
    "none": (None, 0, 0, 1.0),
}


@pytest.mark.parametrize("place", PLACES)
def test_edges_are_as_long_as_in_the_network(raster, crossing, place):
    crs, x, y, size = PLACES[place]
    frame = (size, 0, x, 0, -size, y)
    layers = extract_network(raster(crossing, crs, frame))
    layers = add_heights(layers, raster(np.zeros((200, 160), np.float32), crs, frame, name="dem.tif"))
    along = layers.grades.groupby("edge_id")["to_m"].max()
    assert len(along) >= 4
    assert along.tolist() == pytest.approx(layers.edges["length_m"].tolist(), rel=1e-7)
