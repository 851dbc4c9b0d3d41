"""Two surveys of a road network: planted changes are found with their lengths, and nothing else."""

import warnings
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import shapely
from scipy import ndimage

from mmseg_ext.datasets.synthetic_mine import distance_to_roads, generate_mine
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.networks import (
    ComparisonSettings,
    Survey,
    compare_networks,
    extract_network,
    read_area,
    read_survey,
    write_layers,
)

SIZE_PX, GSD_M = 1400, 0.5
ORIGIN = np.array([500_000, 4_000_000])
WIDTHS = "width_median_m", "width_p10_m", "width_p90_m"


@pytest.fixture
def flight(raster):
    """Return a function that sees roads from another flight: ragged edges, and a registration of its own."""

    def see(roads, seed, shift=(0.0, 0.0)):
        distance, _ = distance_to_roads([replace(road, xy_m=road.xy_m + shift) for road in roads], SIZE_PX, GSD_M, 8.0)
        ragged = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(distance.shape), 4 / GSD_M)
        mask = (distance + 0.5 * ragged / ragged.std() <= 0).astype(np.uint8)
        layers = extract_network(raster(mask, transform=(GSD_M, 0, ORIGIN[0], 0, -GSD_M, ORIGIN[1])))
        return Survey(layers.edges, layers.surface)

    return see


def on_map(road):
    """Return the part of a road's centreline that lies on the raster, on its map."""
    return shapely.LineString(road.xy_m).intersection(shapely.box(0, 0, SIZE_PX * GSD_M, SIZE_PX * GSD_M))


def planted(roads):
    """Return the roads before and after, and the line of each kind of change (y down, metres from the corner)."""
    gone, fresh, haul = [road for road in roads if road.kind == "haul"][::-1]
    ramp = next(road for road in roads if road.kind == "ramp")
    steps = np.gradient(haul.xy_m, axis=0)
    aside = np.stack([-steps[:, 1], steps[:, 0]], axis=1) / np.hypot(*steps.T)[:, None]
    offset = 8 * np.clip((np.arange(len(steps)) * 2.0 - 60) / 40, 0, 1)  # from 60 m on it swings out, up to 8 m
    moved = replace(haul, xy_m=haul.xy_m + offset[:, None] * aside)
    part = slice(int(0.4 * len(ramp.xy_m)), int(0.6 * len(ramp.xy_m)))
    width = ramp.width_m.copy()
    width[part] *= 1.4
    wide = replace(ramp, width_m=width)
    ring = next(road for road in roads if road.kind == "ring")
    changes = {"new": fresh, "removed": gone, "shifted": moved, "widened": ramp}
    parts = {"shifted": offset > 3, "widened": part}
    lines = {
        kind: on_map(replace(road, xy_m=road.xy_m[parts.get(kind, slice(None))])) for kind, road in changes.items()
    }
    return [ramp, ring, haul, gone], [wide, ring, moved, fresh], lines


@pytest.mark.parametrize("seed", [2, 3, 7])
def test_planted_changes_are_found_and_nothing_else(flight, seed):
    before, after, lines = planted(generate_mine(seed, 700, 1.0).roads)
    old, new = flight(before, 1), flight(after, 2, shift=(0.8, -0.6))
    result = compare_networks(old, new)
    lengths = result.lengths()
    for kind, line in lines.items():
        # half of the widened road's end reaches beyond it, as a disc's does
        assert lengths[kind] == pytest.approx(line.length, abs=20), kind
        found = result.changes[result.changes["kind"] == kind].geometry.affine_transform(
            [1, 0, 0, -1, -ORIGIN[0], ORIGIN[1]]
        )
        assert found.difference(line.buffer(6)).length.sum() < 20, kind
    assert lengths["narrowed"] == 0
    assert result.old_m == pytest.approx(old.edges["length_m"].sum())
    assert lengths["unchanged"] + sum(lengths[kind] for kind in ("new", "shifted", "widened")) == pytest.approx(
        new.edges["length_m"].sum()
    )
    rows = result.changes.set_index("kind")
    assert np.median(rows.loc[["shifted"], "offset_m"]) == pytest.approx(8, abs=1.5)
    assert rows.loc[["widened"], "width_new_m"].max() == pytest.approx(
        1.4 * rows.loc[["widened"], "width_old_m"].max(), rel=0.05
    )
    # backwards, what was new is removed
    back = compare_networks(new, old).lengths()
    for kind, other in {"new": "removed", "removed": "new", "shifted": "shifted", "widened": "narrowed"}.items():
        assert back[other] == pytest.approx(lengths[kind], abs=20), kind


@pytest.mark.parametrize("seed", [4, 6, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (12, 20))])
def test_another_flight_over_the_same_roads_changes_nothing(flight, seed):
    roads = generate_mine(seed, 700, 1.0).roads
    old, new = flight(roads, 1), flight(roads, 2, shift=(0.8, -0.6))
    degrees = Survey(new.edges.to_crs("EPSG:4326"), new.surface.to_crs("EPSG:4326"))
    for one, other in ((old, new), (new, old), (Survey(old.edges), Survey(new.edges)), (old, degrees), (degrees, old)):
        result = compare_networks(one, other)
        assert result.changes.empty
        assert result.changes.crs == one.edges.crs
        assert result.lengths()["unchanged"] == pytest.approx(other.edges["length_m"].sum(), rel=1e-3)


def survey(*lines, crs="EPSG:32612", width=None):
    """Return lines drawn by hand, metres from a corner, all of one width."""
    shapes = [shapely.LineString(np.array(line, float) + ORIGIN) for line in lines]
    columns = {} if width is None else {f"width_{name}_m": float(width) for name in ("median", "p10", "p90")}
    table = gpd.GeoDataFrame({name: [value] * len(lines) for name, value in columns.items()}, geometry=shapes, crs=crs)
    return Survey(table)


ROAD = [(0, 0), (400, 0)]


def found(old, new, area=None, **settings):
    """Return (kind, length in whole metres) of each change."""
    changes = compare_networks(old, new, ComparisonSettings(**settings), area).changes
    return sorted((row.kind, round(row.length_m)) for row in changes.itertuples())


def test_networks_in_pixels_do_not_compare_with_metres(caplog):
    plain, pixels = survey(ROAD, crs=None), survey(ROAD, crs=None)
    pixels.edges["length_px"] = 400.0
    with pytest.raises(DataError, match="the new survey: is a network in pixels, but the other is in metres; extract"):
        compare_networks(plain, pixels)
    assert found(pixels, pixels) == []
    assert "both surveys are networks in pixels; all that is called metres are pixels" in caplog.text


def test_a_road_that_moved_is_shifted_up_to_a_limit():
    assert found(survey(ROAD), survey([(0, 2.9), (400, 2.9)])) == []
    moved = survey([(0, 8), (400, 8)])
    assert found(survey(ROAD), moved) == [("shifted", 400)]
    assert compare_networks(survey(ROAD), moved).changes["offset_m"].tolist() == pytest.approx([8])
    assert found(survey(ROAD), moved, tolerance=8.5) == []
    assert found(survey(ROAD), moved, shift=7) == [("new", 400), ("removed", 400)]
    assert found(survey(ROAD), survey([(0, 16), (400, 16)])) == [("new", 400), ("removed", 400)]


def test_a_second_road_beside_the_old_one_is_new():
    assert found(survey(ROAD), survey(ROAD, [(100, 12), (300, 12)])) == [("new", 200)]
    assert found(survey(ROAD, [(100, 12), (300, 12)]), survey(ROAD)) == [("removed", 200)]
    # of two new roads beside the place of the old one, the nearer one is that road
    assert found(survey(ROAD), survey([(0, 5), (400, 5)], [(0, -12), (400, -12)])) == [("new", 400), ("shifted", 400)]


def test_an_extension_and_a_side_road_are_new_from_where_they_begin():
    old = survey(ROAD, width=12)
    assert found(old, survey([(0, 0), (450, 0)], width=12)) == [("new", 46)]  # less the tolerance
    branch = survey([(0, 0), (200, 0)], [(200, 0), (400, 0)], [(200, 0), (200, 100)], width=12)
    assert found(old, branch) == [("new", 100)]
    # a spur no longer than the road is wide is only a centreline's whim
    assert found(old, survey(ROAD, [(200, 0), (204, 8)], width=12)) == []
    # what is too short
    assert found(survey(ROAD), survey([(0, 0), (412, 0)])) == []
    assert found(survey(ROAD), survey([(0, 0), (412, 0)]), min_length=5) == [("new", 8)]


def test_a_short_interruption_does_not_part_a_stretch():
    bulge = survey([(0, 0), (100, 8), (200, 8), (210, 2.5), (212, 2.5), (222, 8), (300, 8), (400, 0)])
    changes = compare_networks(survey(ROAD), bulge).changes
    assert changes["kind"].tolist() == ["shifted"]
    assert changes["length_m"].tolist() == pytest.approx([331], abs=5)


def test_widths_change_by_metres_and_by_share():
    old = survey(ROAD, width=20)
    assert found(old, survey(ROAD, width=23.9)) == []
    assert found(old, survey(ROAD, width=24.2)) == [("widened", 400)]
    assert found(old, survey(ROAD, width=15.8)) == [("narrowed", 400)]
    assert found(survey(ROAD, width=5), survey(ROAD, width=6.9)) == []
    assert found(survey(ROAD, width=5), survey(ROAD, width=6.9), width_change=1.5) == [("widened", 400)]
    assert found(old, survey(ROAD)) == []
    # widened to one side, its middle moves
    changes = compare_networks(old, survey([(0, 5), (400, 5)], width=30)).changes
    assert changes["kind"].tolist() == ["widened"]
    assert changes[["width_old_m", "width_new_m"]].to_numpy().tolist() == [[20, 30]]


def test_lengths_are_metres_on_every_map():
    wanted = [("new", 200), ("shifted", 400)]
    old, new = survey(ROAD), survey([(0, 8), (400, 8)], [(200, 100), (200, 300)])
    assert found(old, new) == wanted
    for crs in ("EPSG:4326", "EPSG:2230", "EPSG:3857"):  # degrees, feet, a web map
        one, other = (Survey(table.edges.to_crs(crs)) for table in (old, new))
        # metres of another map's scale
        got = compare_networks(one, other)
        assert got.changes.crs == crs
        assert dict(zip(got.changes["kind"], got.changes["length_m"], strict=True)) == pytest.approx(
            dict(wanted), rel=0.02
        )
        moved = got.changes[got.changes["kind"] == "shifted"].to_crs(old.edges.crs)
        assert moved.geometry.iloc[0].hausdorff_distance(new.edges.geometry[0]) < 0.05


def test_a_width_corrected_by_hand_counts():
    # its percentiles are of the width that it had
    before = survey(ROAD, width=12)
    for width, kind in ((20, "widened"), (8, "narrowed")):
        assert found(before, Survey(before.edges.assign(width_median_m=float(width)))) == [(kind, 400)]


def test_an_empty_survey_and_one_without_reference(caplog):
    nothing = Survey(survey(ROAD).edges.iloc[:0])
    assert found(nothing, survey(ROAD)) == [("new", 400)]
    assert found(survey(ROAD), nothing) == [("removed", 400)]
    assert [record.getMessage() for record in caplog.records] == [
        "the old survey: has no roads",
        "the new survey: has no roads",
    ]
    caplog.clear()
    assert found(nothing, nothing) == []
    assert found(survey(ROAD), survey([(0, 90), (400, 90)])) == [("new", 400), ("removed", 400)]
    assert "the new survey lies elsewhere than the old survey; check the coordinate" in caplog.text
    assert found(survey(ROAD, crs=None), survey([(0, 8), (400, 8)], crs=None)) == [("shifted", 400)]
    assert "no coordinate reference system; their units are assumed to be metres" in caplog.text
    with pytest.raises(
        DataError, match="the new survey: has no coordinate reference system, but the old survey has one"
    ):
        compare_networks(survey(ROAD), survey(ROAD, crs=None))
    with pytest.raises(
        DataError, match="the old survey: has no coordinate reference system, but the new survey has one"
    ):
        compare_networks(survey(ROAD, crs=None), survey(ROAD))
    with pytest.raises(DataError, match="the old survey: has no coordinate reference system, but the area has one"):
        found(survey(ROAD, crs=None), survey(ROAD, crs=None), ground((0, 0, 9, 9)))


GRID = 'LOCAL_CS["pit grid",UNIT["foot",0.3048],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
WITH_DATUM = GRID.replace("UNIT", 'LOCAL_DATUM["pit",32767],UNIT')


def test_a_shapefile_keeps_the_widths_and_the_surface(raster, crossing, tmp_path):
    layers = extract_network(raster(crossing))
    wider = layers.edges.assign(**{name: layers.edges[name] * 2 for name in WIDTHS})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are cut
        for name, table in (("old", layers.edges), ("old_edges", layers.edges), ("new", wider)):
            table.to_file(tmp_path / f"{name}.shp")
        layers.surface.to_file(tmp_path / "old_surface.shp")
    old, new = (read_survey(str(tmp_path / f"{name}.shp")) for name in ("old", "new"))
    assert "width_medi" in old.edges
    for name in WIDTHS:
        assert old.widths(name.removesuffix("_m")) == pytest.approx(layers.edges[name].tolist())
    changes = compare_networks(old, new).changes
    expected = compare_networks(Survey(layers.edges), Survey(wider)).changes
    assert len(changes) and set(changes["kind"]) == {"widened"}
    for name in ("length_m", "width_old_m", "width_new_m"):
        assert changes[name].tolist() == pytest.approx(expected[name].tolist())
    assert read_survey(str(tmp_path / "old_edges.shp")).surface.area.sum() == pytest.approx(crossing.sum() / 4)


@pytest.mark.parametrize("other", [GRID, WITH_DATUM])
def test_surveys_on_one_local_grid_are_compared_in_metres(other):
    longer = [(0, 0), (1000, 0)], [(0, 0), (0, 1000)]  # feet
    grown = survey(*longer, crs=other)
    assert found(survey(longer[0], crs=GRID), grown) == [("new", 305)]
    assert found(survey(longer[0], crs=GRID), grown, ground((-9, -9, 9, 500)).set_crs(other, allow_override=True)) == [
        ("new", 152)
    ]
    changes = compare_networks(survey(longer[0], crs=GRID), grown).changes
    assert changes.crs == GRID and changes.geometry[0].length == pytest.approx(1000)  # on the map: feet
    assert found(Survey(grown.edges.iloc[:0]), survey(longer[0], crs=GRID)) == [("new", 305)]


@pytest.mark.parametrize(
    "crs", ["EPSG:32612", GRID.replace("pit", "other"), GRID.replace('"foot",0.3048', '"metre",1')]
)
def test_surveys_on_a_local_grid_and_on_another_map_are_refused(crs):
    for one, other in ((GRID, crs), (crs, GRID)):
        with pytest.raises(DataError, match="the new survey: is on the map '.*, but the old survey on '.*, and from a"):
            compare_networks(survey(ROAD, crs=one), survey(ROAD, crs=other))
    with pytest.raises(DataError, match="the area: is on the map '.*, but the old survey on 'pit grid'"):
        found(survey(ROAD, crs=GRID), survey(ROAD, crs=GRID), ground((0, 0, 9, 9)).set_crs(crs, allow_override=True))


def ground(*boxes, crs="EPSG:32612"):
    """Return an area of boxes (left, bottom, right, top), metres from a corner."""
    shapes = [shapely.box(*(box + np.tile(ORIGIN, 2))) for box in boxes]
    return gpd.GeoDataFrame(geometry=shapes, crs="EPSG:32612").to_crs(crs)


@pytest.mark.parametrize("crs", ["EPSG:32612", "EPSG:4326", "EPSG:2230"])
def test_outside_of_the_area_nothing_is_compared(crs):
    old = survey([(0, 0), (400, 0)], [(300, 50), (300, 300)], width=12)
    flown = survey([(0, 1), (251, 1)], [(100, 50), (100, 200)], width=12)
    assert found(old, flown) == [("new", 150), ("removed", 146), ("removed", 250)]
    area = ground((-9, -20, 250.3, 121), crs=crs)
    result = compare_networks(old, flown, area=area)
    assert result.changes["kind"].tolist() == ["new"]
    assert result.changes["length_m"].tolist() == pytest.approx([71], abs=0.01)  # cut in the middle of a piece
    line = result.changes.geometry[0]
    assert shapely.get_coordinates(line) == pytest.approx(np.array([(100, 50), (100, 121)]) + ORIGIN, abs=0.01)
    assert (result.old_m, result.new_m) == pytest.approx((250.3, 250.3 + 71), abs=0.01)
    assert result.lengths()["unchanged"] == pytest.approx(250.3, abs=0.01)
    # and from the other survey, whose removed road is cut at the same place
    back = compare_networks(flown, old, area=area)
    assert back.changes["kind"].tolist() == ["removed"]
    assert back.changes["length_m"].tolist() == pytest.approx([71], abs=0.01)


def test_the_border_of_the_area_makes_no_change():
    # the same road, by another registration, once inside and once outside of the border that it follows
    beside = ground((0, -50, 400, 1))
    assert found(survey(ROAD), survey([(0, 2), (400, 2)]), beside) == []
    result = compare_networks(survey(ROAD), survey([(0, 2), (400, 2)]), area=beside)
    assert (result.old_m, result.new_m) == pytest.approx((400, 0))
    # a cut is no end of a road: up to there it is widened
    wide, narrow = survey(ROAD, width=30), survey(ROAD, width=20)
    assert found(narrow, wide, ground((100, -9, 200, 9))) == [("widened", 100)]
    # what is left inside of a stretch must be long enough; two areas cut it in two, and touching ones do not
    assert found(survey(ROAD), survey([(0, 0), (450, 0)]), ground((0, -9, 412, 9))) == []
    moved = survey([(0, 8), (400, 8)])
    assert found(survey(ROAD), moved, ground((0, -9, 100, 9), (103, -9, 200, 9))) == [("shifted", 97), ("shifted", 100)]
    assert found(survey(ROAD), moved, ground((0, -9, 100, 9), (100, -9, 200, 9))) == [("shifted", 200)]


def test_a_flight_over_half_of_the_mine_finds_the_changes_of_that_half(flight):
    before, after, _ = planted(generate_mine(2, 700, 1.0).roads)
    old, new = flight(before, 1), flight(after, 2, shift=(0.8, -0.6))
    half = ground((0, -700, 350, 0))
    flown = Survey(new.edges.clip(half).explode().reset_index(drop=True), new.surface.clip(half))
    whole = compare_networks(old, new).changes
    result = compare_networks(old, flown, area=half)
    for kind, length_m in result.lengths().items():
        if kind != "unchanged":
            wanted = whole[whole["kind"] == kind].clip(half).length.sum()
            assert length_m == pytest.approx(wanted, abs=25), kind
    assert result.old_m == pytest.approx(old.edges.clip(half).length.sum(), abs=0.1)
    assert result.new_m == pytest.approx(flown.edges.length.sum(), abs=0.1)
    assert result.changes.within(half.geometry[0].buffer(0.01)).all()
    gone = compare_networks(old, flown).lengths()["removed"]  # without the area, what was not flown is removed
    assert gone > result.lengths()["removed"] + 500


def test_an_area_is_read_and_repaired(tmp_path, caplog):
    path = str(tmp_path / "areas.gpkg")
    bow = shapely.Polygon(np.array([(0, -9), (200, 9), (200, -9), (0, 9)]) + ORIGIN)
    gpd.GeoDataFrame(geometry=[bow, bow], crs="EPSG:32612").to_file(path, layer="flown")
    survey(ROAD).edges.to_file(path, layer="roads")
    assert found(survey(ROAD), survey([(0, 0)] * 2, [(300, 0), (400, 0)]), read_area(f"{path}:flown")) == [
        ("removed", 200)
    ]
    assert "areas.gpkg:flown: 2 invalid geometries are repaired (features 1, 2)" in caplog.text
    with pytest.raises(DataError, match=r"areas.gpkg: has the layers flown, roads; choose one as"):
        read_area(path)
    with pytest.raises(DataError, match=r"areas.gpkg:roads: areas are polygons, it has lines; give another"):
        read_area(f"{path}:roads")
    with pytest.raises(DataError, match="the area has no road of either survey in it; give the ground that both cover"):
        found(survey(ROAD), survey(ROAD), ground((0, 20, 400, 50)))
    nothing = Survey(survey(ROAD).edges.iloc[:0])
    assert found(nothing, nothing, ground((0, 20, 400, 50))) == []


def test_an_invalid_surface_is_repaired(raster, crossing, tmp_path, caplog):
    layers = extract_network(raster(crossing))
    bow = shapely.Polygon(np.array([(60, -9), (90, -30), (90, -9), (60, -30)]) + ORIGIN)
    broken = gpd.GeoDataFrame(geometry=[*layers.surface.geometry, bow, None], crs=layers.surface.crs)
    path = str(tmp_path / "roads.gpkg")
    write_layers(path, {"edges": layers.edges, "surface": broken})
    read = read_survey(path)
    assert read.surface.area.sum() == pytest.approx(layers.surface.area.sum() + 2 * 30 * 21 / 4)
    assert "roads.gpkg:surface: 1 invalid geometries are repaired (features 2)" in caplog.text
    assert compare_networks(read, Survey(layers.edges, broken.iloc[:2])).changes.empty
    assert compare_networks(read, Survey(layers.edges, layers.surface.iloc[:0])).changes.empty


def test_a_width_of_nothing_is_unknown():
    assert found(survey(ROAD, width=0), survey(ROAD, width=12)) == []
    assert found(survey(ROAD, width=np.inf), survey(ROAD, width=12)) == []


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojson"])
def test_surveys_are_read_with_their_surface(raster, crossing, suffix, tmp_path):
    layers = extract_network(raster(crossing))
    path = write_layers(str(tmp_path / f"roads{suffix}"), layers.named())[0]
    read = read_survey(path)
    assert len(read.edges) == len(layers.edges) == 4
    assert read.edges["width_median_m"].tolist() == layers.edges["width_median_m"].tolist()
    assert read.surface.to_crs(32612).area.sum() == pytest.approx(layers.surface.area.sum(), rel=1e-4)
    assert compare_networks(read, Survey(layers.edges, layers.surface)).changes.empty


def test_lines_without_length_are_named(tmp_path, caplog):
    good = shapely.MultiLineString([[(0, 0), (9, 0)], [(0, 5, 1), (9, 5, 1)]])
    bad = [shapely.LineString([(3, 3), (3, 3)]), None, shapely.LineString([(0, 0), (np.nan, 1)]), shapely.LineString()]
    path = str(tmp_path / "lines.gpkg")
    gpd.GeoDataFrame(geometry=[bad[0], good, *bad[1:]], crs="EPSG:32612").to_file(path, layer="any")
    edges = read_survey(path).edges
    assert [line.length for line in edges.geometry] == [9, 9] and not edges.has_z.any()
    assert (
        "4 geometries are left out, they are empty, points, damaged or of an unreadable kind (features 1, 3, 4, 5)"
        in caplog.text
    )


def test_what_cannot_be_compared_is_refused(tmp_path):
    path = str(tmp_path / "roads.gpkg")
    survey(ROAD).edges.to_file(path, layer="north")
    survey(ROAD).edges.to_file(path, layer="south")
    with pytest.raises(DataError, match=r"roads.gpkg: has the layers north, south; choose one as .*roads.gpkg:north"):
        read_survey(path)
    assert len(read_survey(f"{path}:south").edges) == 1
    with pytest.raises(DataError, match=r"roads.gpkg:west: has no such layer of lines or polygons; it has north, sou"):
        read_survey(f"{path}:west")
    survey(ROAD).edges.to_file(path, layer="edges")
    assert len(read_survey(path).edges) == 1
    twice = tmp_path / "twice.kml"
    line = "<Placemark><LineString><coordinates>15,60 15.01,60</coordinates></LineString></Placemark>"
    folders = f"<Folder><name>roads</name>{line}</Folder>" * 2
    twice.write_text(f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{folders}</Document></kml>')
    with pytest.raises(DataError, match=r"twice.kml: has the layers roads, roads \(#2\); choose one"):
        read_survey(str(twice))
    twins = tmp_path / "twins.vrt"
    entry = f'<OGRVRTLayer name="edges"><SrcDataSource>{path}</SrcDataSource><SrcLayer>north</SrcLayer></OGRVRTLayer>'
    twins.write_text(f"<OGRVRTDataSource>{entry}{entry}</OGRVRTDataSource>")
    with pytest.raises(DataError, match=r"twins.vrt: has two layers of the name edges; rename one"):
        read_survey(str(twins))
    points = str(tmp_path / "no_lines.geojson")
    gpd.GeoDataFrame(geometry=[shapely.Point(1, 2)], crs=4326).to_file(points)
    with pytest.raises(DataError, match=r"no_lines.geojson: has no layer of lines or polygons"):
        read_survey(points)
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(points)
    with pytest.raises(DataError, match=r"no_lines.geojson: has no lines; give road lines"):
        read_survey(points)
    many = gpd.GeoDataFrame(geometry=[shapely.MultiLineString([[(0, 0), (9, 0)], [(0, 5), (9, 5)]])], crs=32612)
    with pytest.raises(DataError, match="the new survey: has other edges than LineStrings; take them apart"):
        compare_networks(survey(ROAD), Survey(many))
    for name in ("text.gpkg", "text.parquet"):
        (tmp_path / name).write_text("no vectors")
        with pytest.raises(DataError, match=f"{name}: cannot be read as vector data"):
            read_survey(str(tmp_path / name))
    with pytest.raises(DataError, match=r"none.gpkg: no such file"):
        read_survey(str(tmp_path / "none.gpkg"))
    wrong = survey([(0, 0), (1, 1)], crs=4326)  # metres that claim to be degrees
    with pytest.raises(DataError, match="the new survey: is said to be in degrees .EPSG:4326. but reaches to 4000001"):
        compare_networks(survey(ROAD), wrong)
    with pytest.raises(DataError, match="the old survey: is said to be in degrees .EPSG:4326. but reaches to 4000001"):
        compare_networks(wrong, survey(ROAD))
    far = gpd.GeoDataFrame(geometry=[shapely.LineString([(1e30, 0), (2e30, 5)])], crs="EPSG:32633")
    with pytest.raises(
        DataError, match="the new survey: has coordinates that are not of WGS 84 / UTM zone 33N, which it cla"
    ):
        compare_networks(survey(ROAD), Survey(far))
    unnumbered = Survey(survey(ROAD).edges.assign(width_median_m="wide"))
    with pytest.raises(DataError, match="survey: the field width_median_m is not numeric"):
        compare_networks(survey(ROAD), unnumbered)
    with pytest.raises(ConfigError, match=r"a shift of 2 m is below the tolerance, 3 m"):
        ComparisonSettings(shift=2)
    with pytest.raises(ConfigError, match="min length of -1: give 0 or more"):
        ComparisonSettings(min_length=-1)


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".geojson"])
def test_a_network_without_roads_is_read_as_one(raster, crossing, suffix, tmp_path):
    layers = extract_network(raster(np.zeros_like(crossing)))
    nothing = read_survey(write_layers(str(tmp_path / f"none{suffix}"), layers.named())[0])
    assert len(nothing.edges) == 0
    assert found(nothing, survey(ROAD)) == [("new", 400)]
    assert found(survey(ROAD), nothing) == [("removed", 400)]
    assert found(nothing, nothing) == []


def test_the_tool_compares_on_the_area(run_tool, tmp_path):
    old, new, area = tmp_path / "old.gpkg", tmp_path / "new.geojson", tmp_path / "areas.gpkg"
    survey([(0, 0), (3000, 0)]).edges.to_file(old, layer="june")
    survey([(0, 0), (1000, 0)], [(500, 100), (500, 1300)]).edges.to_crs(4326).to_file(new)
    ground((-9, -9, 999, 700)).to_file(area, layer="flown")
    surveys = [f"{old}:june", new, "--area", f"{area}:flown"]
    done = run_tool("compare_networks.py", *surveys, "--out", tmp_path / "changes.gpkg")
    assert done.returncode == 0, done.stderr
    lengths = {line[:11].strip(): float(line[11:20]) for line in done.stdout.splitlines()}
    assert lengths == pytest.approx(
        dict(new=0.6, removed=0, shifted=0, widened=0, narrowed=0, unchanged=1) | {"old survey": 1, "new survey": 1.6}
    )
    assert read_survey(str(tmp_path / "changes.gpkg")).edges.length.tolist() == pytest.approx([600], abs=0.1)
    local = tmp_path / "local.gpkg"
    survey(ROAD, crs=GRID).edges.to_file(local)
    refused = run_tool("compare_networks.py", local, local, "--out", tmp_path / "x.geojson")
    assert refused.returncode == 2 and not list(tmp_path.glob("x*"))
    assert refused.stderr.startswith(
        "error: GeoJSON is in WGS 84, but the map has no coordinate reference system or is a"
    )
    refused = run_tool("compare_networks.py", *surveys, "--out", area, "--overwrite")
    assert refused.returncode == 2
    assert refused.stderr == f"error: {area}: is a file to compare; give another --out\n"
