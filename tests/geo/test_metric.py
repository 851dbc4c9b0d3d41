"""Where maps are measured, against lengths on the ellipsoid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.warp import transform

from mmseg_ext.errors import DataError
from mmseg_ext.geo import (
    PixelFrame,
    RasterInfo,
    check_same_ground,
    grid_of,
    ground_sampling_distance,
    is_placed,
    metric_crs,
    metric_of,
    raster_info,
    reprojected,
    same_map,
    write_geotiff,
)
from mmseg_ext.imagery import ImageReading
from mmseg_ext.mapping import MapSettings
from mmseg_ext.mapping.road_map import chosen_scale

LOCAL = 'LOCAL_CS["mine grid",UNIT["foot",0.3048],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
LONGITUDE, LATITUDE = -111.3, 36.0


def degrees_m(latitude):
    """Return the metres of a degree of longitude and one of latitude on WGS 84, from its radii of curvature."""
    a, e2, sine = 6_378_137.0, 0.00669437999014, np.sin(np.radians(latitude))
    across, along = a / np.sqrt(1 - e2 * sine**2), a * (1 - e2) / (1 - e2 * sine**2) ** 1.5
    return np.radians(across) * np.cos(np.radians(latitude)), np.radians(along)


@pytest.mark.parametrize(
    ("crs", "measured_in", "unit_m"),
    [
        ("EPSG:32612", "EPSG:32612", 1),
        ("EPSG:2223", "EPSG:2223", 0.3048),  # a state's map in feet
        ("EPSG:4326", "EPSG:32612", 1),
        ("EPSG:3857", "EPSG:32612", 1),
        ("EPSG:3395", "EPSG:32612", 1),
        ("EPSG:3413", "EPSG:32612", 1),  # an arctic map
        ("EPSG:32617", "EPSG:32612", 1),  # a zone far from here
    ],
)
def test_maps_are_measured_where_lengths_are_true(crs, measured_in, unit_m):
    (x,), (y,) = transform("EPSG:4326", crs, [LONGITUDE], [LATITUDE])
    assert metric_of(crs, np.array([x, y]), "roads") == (measured_in, pytest.approx(unit_m))
    for step, degree_m in zip(np.eye(2) * 0.001, degrees_m(LATITUDE), strict=True):
        ends = np.array([LONGITUDE, LATITUDE]) + np.stack([-step, step])
        (line,) = reprojected([ends], "EPSG:4326", measured_in)
        assert np.hypot(*(line[1] - line[0])) * unit_m == pytest.approx(0.002 * degree_m, rel=1e-3)


def test_a_web_map_is_true_nowhere_and_longitudes_may_go_to_360():
    assert metric_of("EPSG:3857", np.array([-12_390_000.0, 0.0]), "roads")[0] == "EPSG:32612"
    assert metric_of("EPSG:4326", np.array([248.7, 36.0]), "roads")[0] == "EPSG:32612"


def test_where_two_zones_meet_it_does_not_matter_which_is_taken():
    zones = [metric_of("EPSG:4326", np.array([longitude, 36.0]), "roads")[0] for longitude in (-108.01, -107.99)]
    assert zones == ["EPSG:32612", "EPSG:32613"]
    line = np.array([(-108.03, 36.0), (-107.99, 36.02)])  # 4 km of road, 3 km to one side
    lengths = [np.hypot(*np.diff(reprojected([line], "EPSG:4326", zone)[0], axis=0)[0]) for zone in zones]
    assert lengths[0] == pytest.approx(lengths[1], rel=5e-5)


@pytest.mark.parametrize(
    ("longitude", "latitude", "zone"),
    [
        (-180, 10, 32601), (179.99, 10, 32660), (180, -10, 32701), (-108, 36, 32613), (9, 0, 32632),
        (0, -1e-9, 32731), (5, 60, 32631), (15, 78, 32633), (6, 85, 32632), (5, -89, 32731), (248.7, 36, 32612),
    ],
)  # fmt: skip
def test_the_utm_zone_of_a_place_on_a_border_is_the_one_to_the_east_or_north(longitude, latitude, zone):
    assert metric_crs("EPSG:4326", (longitude, latitude), "roads") == f"EPSG:{zone}"


def local(name="mine grid", unit='"foot",0.3048', datum="", axes=("EAST", "NORTH")):
    return f'LOCAL_CS["{name}",{datum}UNIT[{unit}],AXIS["x",{axes[0]}],AXIS["y",{axes[1]}]]'


ENGINEERING = (
    """ENGCRS["Mine_Grid",EDATUM["Pit"],CS[Cartesian,2],AXIS["(E)",east],AXIS["(N)",north],LENGTHUNIT["foot",0.3048]]"""
)
HEIGHTS = 'VERT_CS["heights",VERT_DATUM["heights",2005],UNIT["metre",1],AXIS["up",UP]]'
AFFINE = """DERIVEDPROJCRS["mine plane",BASEPROJCRS["WGS 84 / UTM zone 12N",BASEGEOGCRS["WGS 84",DATUM["World
Geodetic System 1984",ELLIPSOID["WGS 84",6378137,298.257223563]]],CONVERSION["UTM zone 12N",
METHOD["Transverse Mercator"],PARAMETER["Longitude of natural origin",-111],
PARAMETER["Scale factor at natural origin",0.9996],PARAMETER["False easting",500000]]],
DERIVINGCONVERSION["turned",METHOD["Affine parametric transformation"],
PARAMETER["A0",1000,LENGTHUNIT["metre",1]],PARAMETER["A1",1],PARAMETER["A2",0],
PARAMETER["B0",0,LENGTHUNIT["metre",1]],PARAMETER["B1",0],PARAMETER["B2",1]],
CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]"""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (LOCAL, local(), True),
        (LOCAL, local(datum='LOCAL_DATUM["Pit",32767],'), True),  # a GeoTIFF does not keep it
        (LOCAL, ENGINEERING, True),
        (LOCAL, f'COMPD_CS["both",{LOCAL},{HEIGHTS}]', True),
        (LOCAL, local(name="north grid"), False),  # PROJ says that they are equal
        (LOCAL, local(unit='"metre",1'), False),
        (LOCAL, local(axes=("WEST", "SOUTH")), False),
        (LOCAL, None, False),
        (None, None, True),
        (LOCAL, "EPSG:32612", False),
        ("EPSG:32612", "EPSG:32613", False),
        ("EPSG:4326", "OGC:CRS84", True),
    ],
)
def test_maps_are_the_same_however_they_are_spelled(one, other, same):
    assert same_map(one, other) == same_map(other, one) == same


def test_only_local_grids_have_no_place_on_earth():
    placed = ["EPSG:32612", "EPSG:4326", "EPSG:32612+5703", "EPSG:2223", "EPSG:4807", AFFINE]
    assert all(map(is_placed, placed))
    assert not any(map(is_placed, [None, LOCAL, ENGINEERING, f'COMPD_CS["both",{LOCAL},{HEIGHTS}]']))


def test_maps_without_a_way_to_each_other_are_refused():
    for crs in (None, LOCAL, "EPSG:32612"):
        check_same_ground("a.tif", crs, "b.gpkg", crs)
    check_same_ground("a.tif", "EPSG:32612", "b.gpkg", "EPSG:4326")
    with pytest.raises(DataError, match="^b.gpkg: has no coordinate reference system, but a.tif has one; give it its"):
        check_same_ground("a.tif", LOCAL, "b.gpkg", None)
    words = "^a.tif: is on the map 'mine grid' .foot., but b.gpkg on 'WGS 84' .degree., and from a local"
    with pytest.raises(DataError, match=words):
        check_same_ground("a.tif", LOCAL, "b.gpkg", "EPSG:4326")


def test_a_place_that_is_not_known_has_the_units_that_are_stated():
    assert metric_of(None, np.zeros(2), "roads") == (None, 1)
    assert metric_of(LOCAL, np.zeros(2), "roads") == (LOCAL, pytest.approx(0.3048))
    unknown = local(unit='"unknown",0')
    assert metric_of(unknown, np.zeros(2), "roads") == (unknown, 1)
    frame = PixelFrame(RasterInfo("mine.tif", 10, 10, 1, "uint8", crs=LOCAL, transform=(2.0, 0, 0, 0, -2.0, 0)))
    assert frame.pixel_size == pytest.approx(0.6096)


@pytest.mark.parametrize(
    ("crs", "x", "y"), [("EPSG:4326", 500_000.0, 4e6), ("EPSG:32612", 1e12, 1e12), ("EPSG:32612", np.nan, 0.0)]
)
def test_a_place_that_the_coordinates_cannot_be_is_refused(crs, x, y):
    with pytest.raises(DataError, match=f"^roads.tif: lies around .* nowhere in {crs}; correct the coordinate"):
        metric_of(crs, np.array([x, y]), "roads.tif")


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32632", (0.4, 0, 500_000, 0, -0.9, 5_000_000), 0.6),  # the mean of both sides: sqrt(0.4 * 0.9)
        ("EPSG:32632", (0.3, 0.4, 0, 0.4, -0.3, 0), 0.5),  # turned: a pixel of 0.5 m
        ("EPSG:2227", (1, 0, 6e6, 0, -1, 2e6), 1200 / 3937),  # US survey feet
        ("EPSG:4326", (1e-5, 0, 10, 0, -2e-5, 60), 1.1132),  # at 60 N a degree of longitude is half as long
    ],
)
def test_metres_per_pixel(crs, transform, metres):
    info = RasterInfo("x.tif", 10, 10, 1, "uint8", crs=crs, transform=transform)
    assert ground_sampling_distance(info) == pytest.approx(metres, rel=1e-4)


def test_no_metres_without_a_georeference():
    assert ground_sampling_distance(RasterInfo("x.png", 10, 10, 1, "uint8")) is None


WORLD = {  # where each map is made for, in degrees: (longitudes, latitudes)
    "EPSG:3857": ((-179, 179), (-80, 80)),
    "EPSG:3395": ((-179, 179), (-80, 80)),
    "EPSG:4326": ((-179, 179), (-80, 80)),
    "EPSG:4807": ((-4, 8), (42, 51)),  # grads from Paris
    "EPSG:3413": ((-179, 179), (55, 83)),
    "EPSG:3035": ((-10, 35), (35, 70)),
    "EPSG:32612": ((-114, -108), (0, 80)),
    "EPSG:32612+5703": ((-114, -108), (0, 80)),
    "EPSG:32617": ((-114, -60), (0, 60)),  # also far beyond its zone
    "EPSG:2223": ((-114, -112), (31, 37)),
}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_metres_per_pixel_are_those_of_the_ellipsoid_on_every_map(data):
    crs = data.draw(st.sampled_from(sorted(WORLD)))
    longitude, latitude = (data.draw(st.floats(*limits, allow_subnormal=False)) for limits in WORLD[crs])
    (x,), (y,) = transform("EPSG:4326", crs, [longitude], [latitude])
    unit = 1e-5 if crs in ("EPSG:4326", "EPSG:4807") else 1.0
    step, turn = data.draw(st.floats(0.05, 2)) * unit, data.draw(st.floats(0, 2 * np.pi, allow_subnormal=False))
    a, d = step * np.cos(turn), step * np.sin(turn)
    info = RasterInfo("x.tif", 10, 10, 1, "uint8", crs=crs, transform=(a, d, x, d, -a, y))
    right, down = 10 * np.array([a, d]), 10 * np.array([d, -a])
    corners = np.add([0 * right, right, right + down, down], (x, y))
    area_m2, _ = Geod(ellps="WGS84").polygon_area_perimeter(*transform(crs, "EPSG:4326", *corners.T))
    assert ground_sampling_distance(info) == pytest.approx(np.sqrt(abs(area_m2)) / 10, rel=0.006)


def test_a_web_map_at_60_north_has_half_the_metres_wherever_they_are_asked_for(tmp_path):
    (x,), (y,) = transform("EPSG:4326", "EPSG:3857", [25.0], [60.0])
    path = str(tmp_path / "a.tif")
    write_geotiff(path, np.ones((64, 64, 3), np.uint8), "EPSG:3857", (0.5, 0, x, 0, -0.5, y))
    info = raster_info(path)
    assert ground_sampling_distance(info) == pytest.approx(0.25, rel=3e-3)
    assert chosen_scale(info, ImageReading(gsd_m=0.5), MapSettings()) == pytest.approx(0.5, rel=3e-3)
    assert chosen_scale(info, ImageReading(gsd_m=0.25), MapSettings()) == 1
    assert grid_of(info).gsd_m == pytest.approx(0.25, rel=3e-3)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32612"])
def test_no_metres_where_the_map_is_not(crs):
    info = RasterInfo("x.tif", 10, 10, 1, "uint8", crs=crs, transform=(1, 0, 1e12, 0, -1, 1e12))
    with pytest.raises(DataError, match=f"^x.tif: lies around .* nowhere in {crs}"):
        ground_sampling_distance(info)
