"""Road networks of masks and probability maps, in metres."""

import math

import cv2
import geopandas as gpd
import networkx as nx
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.warp import transform as warped
from scipy import ndimage
from scipy.ndimage import gaussian_filter

from mmseg_ext.datasets.synthetic_mine import generate_mine
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.networks import NetworkSettings, extract_network
from mmseg_ext.networks.extraction import RoadRaster
from mmseg_ext.networks.layer_files import write_layers
from mmseg_ext.roads import graph_from_lines, road_graph


def kinds(layers):
    return sorted(layers.nodes["kind"])


def test_a_crossing_has_four_roads_in_metres(raster, crossing):
    layers = extract_network(raster(crossing))
    assert layers.edges.crs.to_epsg() == layers.nodes.crs.to_epsg() == layers.surface.crs.to_epsg() == 32612
    assert kinds(layers) == ["border", "border", "end", "end", "junction"]
    assert list(layers.edges.columns) == [
        "edge_id", "node_from", "node_to", "length_m", "width_median_m", "width_p10_m", "width_p90_m", "closed_gap",
        "geometry",
    ]  # fmt: skip
    # half a metre a pixel: the level road lies from pixel 0 to 159, the upright one from 32 to 167
    level = layers.edges[layers.edges["width_median_m"] > 3]
    assert level["width_median_m"].tolist() == [4.5, 4.5] and level["length_m"].sum() == pytest.approx(159 / 2, abs=0.3)
    upright = layers.edges[layers.edges["width_median_m"] < 3]
    assert upright["width_median_m"].tolist() == [2.5, 2.5]
    assert upright["length_m"].sum() == pytest.approx(135 / 2, abs=1.5)
    junction = layers.nodes[layers.nodes["kind"] == "junction"].geometry.iloc[0]
    assert junction.distance(shapely.Point(500_000 + 62.5 / 2, 4_000_000 - 100.5 / 2)) < 0.5
    assert layers.surface["area_m2"].tolist() == [crossing.sum() / 4] == layers.surface.area.tolist()
    for _, edge in layers.edges.iterrows():
        for node, point in ((edge["node_from"], 0), (edge["node_to"], -1)):
            place = layers.nodes.set_index("node_id").geometry[node]
            assert place.coords[0] == edge.geometry.coords[point]
        assert edge["length_m"] == pytest.approx(edge.geometry.length)
    assert layers.wide == ()


@pytest.mark.parametrize("seed", [2, 5])
def test_tiles_give_the_network_of_one_piece(raster, seed):
    mine = generate_mine(seed, 700, 1.5)
    path = raster(mine.mask, transform=(1.5, 0, 0, 0, -1.5, 0))
    whole = extract_network(path, NetworkSettings(tile_px=700))
    tiled = extract_network(path, NetworkSettings(tile_px=150, halo_px=64))
    for name, table in whole.named().items():
        other = tiled.named()[name]
        assert table.drop(columns="geometry").equals(other.drop(columns="geometry"))
        assert table.geometry.geom_equals(other.geometry).all()


def ellipse(centre, a, b, turn, end=2 * np.pi):
    """Return a closed line (N, 2) of pixels, or the part of it up to an angle."""
    angle = np.linspace(0, end, 121)
    across = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.stack([a * np.cos(angle), b * np.sin(angle)], axis=1) @ across + centre


def ring(centre, ahead, turn, size):
    """A closed ring, without any junction."""
    return [ellipse(centre, size, 0.7 * size, turn)]


def rings(centre, ahead, turn, size):
    """A ring in a ring."""
    return [ellipse(centre, size, 0.9 * size, turn), ellipse(centre, 0.5 * size, 0.4 * size, turn)]


def parallels(centre, ahead, turn, size):
    """Two ways between two nodes, and a road that goes on from each."""
    halves = [ellipse(centre, size, height * size, turn, np.pi) for height in (0.8, -0.6)]
    return [*halves, *(centre + sign * np.outer([size, size + 40], ahead) for sign in (1, -1))]


def three_ways(centre, ahead, turn, size):
    """Three ways between two nodes."""
    return [ellipse(centre, size, 0.7 * size, turn), centre + np.outer([-size, size], ahead)]


def dumbbell(centre, ahead, turn, size):
    """Two loops and a road between them."""
    ends = [centre + sign * size * ahead for sign in (1, -1)]
    return [ellipse(end, 0.5 * size, 0.4 * size, turn) for end in ends] + [
        ends[0] + np.outer([-0.5, -1.5], size * ahead)
    ]


def figure_of_eight(centre, ahead, turn, size):
    """Two loops at one node."""
    angle = np.linspace(0, 2 * np.pi, 161)
    aside = np.array([-ahead[1], ahead[0]])
    return [centre + 1.4 * size * (np.outer(np.cos(angle), ahead) + np.outer(np.sin(angle) * np.cos(angle), aside))]


# what they are: edges, loops among them, and the degrees and kinds of their nodes
LAYOUTS = {
    ring: (1, 1, [(2, "ring")]),
    rings: (2, 2, [(2, "ring"), (2, "ring")]),
    parallels: (4, 0, [(1, "end"), (1, "end"), (3, "junction"), (3, "junction")]),
    three_ways: (3, 0, [(3, "junction"), (3, "junction")]),
    dumbbell: (3, 2, [(3, "junction"), (3, "junction")]),
    figure_of_eight: (2, 2, [(4, "junction")]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), tile_px=st.integers(9, 150))
@example(seed=1534, tile_px=79)  # two surfaces
@example(seed=10000, tile_px=9)  # of three ways, a hole of some pixels where two roads part
def test_rings_loops_and_parallel_edges_are_the_same_across_tiles(raster, layout, seed, tile_px):
    random = np.random.default_rng(seed)
    turn, width = random.uniform(0, np.pi), random.uniform(4, 10)
    ahead = np.array([np.cos(turn), np.sin(turn)])
    lines = shapely.MultiLineString(layout(150 + random.uniform(-9, 9, 2), ahead, turn, random.uniform(70, 85)))
    x, y = np.meshgrid(np.arange(300), np.arange(300))
    shapely.prepare(lines)
    mask = shapely.dwithin(lines, shapely.points(x, y), width / 2)
    path = raster(mask.astype(np.uint8), "EPSG:32612")
    halo_px = int(random.uniform(2, 4) * (width + 2))
    whole, tiled = (
        extract_network(path, NetworkSettings(tile_px=size, halo_px=halo))
        for size, halo in ((300, 8), (tile_px, halo_px))
    )
    edges, loops, nodes = LAYOUTS[layout]
    as_drawn = (
        1 + edges - len(nodes) + ndimage.label(mask, np.ones((3, 3)))[1]
    )  # the outside, and a piece in each cycle
    holes = ndimage.label(~mask)[1] - as_drawn
    assert len(whole.edges) == edges + holes
    if not holes:
        assert (whole.edges["node_from"] == whole.edges["node_to"]).sum() == loops
        assert sorted(zip(whole.nodes["degree"], whole.nodes["kind"], strict=True)) == nodes
    assert whole.edges["length_m"].sum() == pytest.approx(lines.length / 2, rel=0.02)  # half a metre a pixel
    for name, table in whole.named().items():
        other = tiled.named()[name]
        assert table.drop(columns="geometry").equals(other.drop(columns="geometry"))
        assert table.geometry.geom_equals(other.geometry).all()


FRAMES = {
    "north up": ("EPSG:32612", (0.5, 0, 500_000, 0, -0.5, 4_000_000)),
    "south up": ("EPSG:32719", (0.5, 0, 500_000, 0, 0.5, 7_000_000)),
    "rotated": ("EPSG:32633", (0.4, 0.3, 300_000, 0.3, -0.4, 5_000_000)),
    "feet": ("EPSG:2230", (1.64, 0, 6_500_000, 0, -1.64, 2_000_000)),
    "degrees": ("EPSG:4326", (1e-5, 0, 15.5, 0, -5e-6, 60)),
    "web mercator": ("EPSG:3857", (1.0, 0, 1_000_000, 0, -1.0, 100_000)),
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_places_are_exact_in_every_format(raster, crossing, name, suffix, tmp_path):
    crs, transform = FRAMES[name]
    layers = extract_network(raster(crossing, crs, transform), NetworkSettings(simplify=0))
    files = write_layers(str(tmp_path / f"out{suffix}"), layers.named())
    nodes = gpd.read_parquet(files[1]) if suffix == ".parquet" else gpd.read_file(files[-2 if len(files) > 1 else 0], layer=None if len(files) > 1 else "nodes")  # fmt: skip  # noqa: E501
    graph = road_graph(crossing)
    affine = rasterio.Affine(*transform)
    wanted = {affine @ (data["x"] + 0.5, data["y"] + 0.5) for _, data in graph.nodes(data=True)}
    if suffix == ".geojson":
        x, y = warped(crs, "EPSG:4326", *zip(*wanted, strict=True))
        wanted = set(zip(x, y, strict=True))
    assert nodes.crs == ("EPSG:4326" if suffix == ".geojson" else crs)
    tolerance = 1e-9 if suffix == ".geojson" else 1e-9 * max(abs(transform[2]), abs(transform[5]))
    found = shapely.get_coordinates(nodes.geometry)
    assert len(found) == len(wanted) == 5
    assert all(min(math.dist(place, other) for other in found) <= tolerance for place in wanted)


def test_metres_are_measured_where_the_map_has_none(raster):
    # at 60 degrees north a degree of longitude is half one of latitude: these pixels are 0.556 m wide, 1.114 m high
    mask = np.zeros((120, 240), np.uint8)
    mask[50:61] = 1
    mask[:, 100:121] = 1
    edges = extract_network(raster(mask, "EPSG:4326", (1e-5, 0, 15.5, 0, -1e-5, 60))).edges
    dx, dy = (
        math.dist(*zip(*warped("EPSG:4326", "EPSG:32633", [15.5, 15.5 + east], [60, 60 + north]), strict=True))
        for east, north in ((1e-5, 0), (0, 1e-5))
    )
    assert (round(dx, 2), round(dy, 2)) == (0.56, 1.11)
    level = edges[edges.geometry.apply(lambda line: abs(line.coords[0][1] - line.coords[-1][1]) < 3e-5)]
    upright = edges.drop(level.index)
    assert level["width_median_m"].tolist() == pytest.approx([11 * dy] * 2, rel=0.01)
    assert upright["width_median_m"].tolist() == pytest.approx([21 * dx] * 2, rel=0.01)
    assert level["length_m"].sum() == pytest.approx(239 * dx, rel=0.01)
    feet = extract_network(raster(mask, "EPSG:2230", (1, 0, 6_500_000, 0, -1, 2_000_000), name="feet.tif")).edges
    assert feet["width_median_m"].max() == pytest.approx(21 * 1200 / 3937)


def test_a_probability_map_has_a_threshold_and_means(raster, crossing):
    values = np.where(crossing, 200, 20).astype(np.uint8)
    values[:90, 60:65] = 120
    path = raster(values, nodata=255)
    with rasterio.open(path, "r+") as file:
        file.scales = (1 / 250,)
    edges = extract_network(path).edges
    assert sorted(edges["probability"].round(2)) == [0.8, 0.8, 0.8]  # 120 / 250 is no road
    edges = extract_network(path, NetworkSettings(threshold=0.4)).edges
    assert sorted(edges["probability"].round(1)) == [0.5, 0.8, 0.8, 0.8]
    floats = raster((values / 250).astype(np.float32), name="floats.tif")
    assert sorted(extract_network(floats).edges["probability"].round(2)) == [0.8, 0.8, 0.8]


def test_roads_that_leave_what_is_valid_are_cut_not_ended(raster, crossing):
    holes = crossing.copy()
    holes[:60] = 255
    layers = extract_network(raster(holes, nodata=255))
    assert kinds(layers) == ["border", "border", "border", "end", "junction"]
    top = layers.nodes.geometry.y.idxmax()
    assert layers.nodes["kind"][top] == "border"


@pytest.mark.parametrize("smooth", [None, 30, 1000])
def test_smooth_lines_keep_nodes_widths_and_surface_and_stay_on_the_road(raster, smooth):
    mine = generate_mine(0, 700, 1.0)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=mine.mask.shape), 3)
    mask = (cv2.GaussianBlur(mine.mask.astype(float), (0, 0), 3) + 4 * noise > 0.5).astype(np.uint8)
    path = raster(mask, transform=(1.0, 0, 500_000, 0, -1.0, 4_000_000))
    # to be told apart from what simplifying does
    pixels, smoothed = (extract_network(path, NetworkSettings(smooth=each, simplify=0)) for each in (0, smooth))
    assert pixels.nodes.equals(smoothed.nodes) and pixels.surface.equals(smoothed.surface)
    for name in ("node_from", "node_to", "width_median_m", "width_p10_m", "width_p90_m"):
        assert smoothed.edges[name].to_numpy() == pytest.approx(pixels.edges[name].to_numpy())
    assert smoothed.edges["length_m"].to_numpy() == pytest.approx(smoothed.edges.length.to_numpy())
    assert 0.8 * pixels.edges.length.sum() < smoothed.edges.length.sum() < pixels.edges.length.sum()
    road = smoothed.surface.union_all()
    wide = (smoothed.edges["width_median_m"] >= 3).to_numpy()
    outside = [layers.edges[wide].difference(road).length for layers in (pixels, smoothed)]
    assert wide.sum() > 5 and (outside[1] <= outside[0] + 0.05).all()
    # as far as they are simplified, they are on it
    found = extract_network(path, NetworkSettings(smooth=smooth)).edges[wide]
    assert len(shapely.get_coordinates(found.geometry)) < 0.3 * len(
        shapely.get_coordinates(smoothed.edges[wide].geometry)
    )
    assert found.difference(road.buffer(0.3)).length.sum() < outside[0].sum() + 0.5


@pytest.mark.parametrize(("crs", "east", "metre"), [("EPSG:32612", 500_000, 1), ("EPSG:2230", 6_500_000, 3937 / 1200)])
def test_the_wavelength_is_in_metres(raster, crs, east, metre):
    mask, side = generate_mine(2, 500, 1.5).mask, 1.5 * metre
    path = raster(mask, crs, (side, 0, east, 0, -side, 2_000_000))
    edges = extract_network(path, NetworkSettings(smooth=60, simplify=0)).edges
    found = shapely.transform(
        shapely.MultiLineString(list(edges.geometry)), lambda xy: (xy - [east, 2_000_000]) / [side, -side] - 0.5
    )
    graphs = [road_graph(mask, smooth_px=wavelength, simplify_px=0) for wavelength in (40, 50)]
    same, other = (shapely.MultiLineString([line for *_, line in graph.edges(data="line")]) for graph in graphs)
    assert found.hausdorff_distance(same) < 1e-6 < 0.1 < found.hausdorff_distance(other)


def test_a_ring_has_a_node(raster):
    mask = np.zeros((100, 100), np.uint8)
    mask[20:80, 20:80] = 1
    mask[26:74, 26:74] = 0
    layers = extract_network(raster(mask))
    assert kinds(layers) == ["ring"]
    assert layers.edges["node_from"].tolist() == layers.edges["node_to"].tolist()
    assert len(layers.surface.geometry[0].interiors) == 1
    line, node = layers.edges.geometry[0], layers.nodes.geometry[0]
    assert line.is_ring and line.coords[0] == node.coords[0] and layers.surface.geometry[0].covers(line)


def test_small_and_narrow_roads_are_left_out_and_gaps_closed(raster, crossing):
    crossing[10:13, 130:150] = 1  # 10 m long, 1.5 m wide
    crossing[96:105, 100:110] = 0  # a gap, 5 m between the pixels, more between the centrelines' ends
    path = raster(crossing)
    layers = extract_network(path)
    areas = sorted(layers.surface["area_m2"])
    assert (len(layers.edges), areas[0]) == (6, 3 * 20 / 4)
    long = extract_network(path, NetworkSettings(min_length=20))
    assert len(long.edges) == 5
    assert sorted(long.surface["area_m2"]) == areas[1:]
    narrow = extract_network(path, NetworkSettings(min_width=3))
    assert narrow.edges["width_median_m"].tolist() == [4.5] * 3
    assert kinds(narrow).count("joint") == 1
    assert sorted(narrow.surface["area_m2"]) == areas[1:]
    assert len(extract_network(path, NetworkSettings(min_length=1000)).surface) == 0
    joined = extract_network(path, NetworkSettings(close_gaps=12, min_length=20))
    closed = joined.edges
    assert closed["closed_gap"].sum() == 1
    assert kinds(joined) == ["border", "border", "end", "end", "joint", "joint", "junction"]
    assert (
        closed[closed["closed_gap"]]
        .geometry.iloc[0]
        .centroid.distance(shapely.Point(500_000 + 105 / 2, 4_000_000 - 100.5 / 2))
        < 1
    )


def test_what_is_too_wide_for_the_halo_is_told(raster, crossing):
    crossing[110:190, 80:150] = 1
    layers = extract_network(raster(crossing), NetworkSettings(tile_px=100, halo_px=40))
    assert len(layers.wide) >= 1
    assert all(10 < width <= 35 for _, _, width in layers.wide)


def test_without_georeference_all_is_in_pixels(raster, crossing, caplog, tmp_path):
    layers = extract_network(raster(crossing, None, None))
    assert "roads.tif: has no georeference; lengths and places are in pixels" in caplog.text
    assert "length_px" in layers.edges and "width_median_px" in layers.edges and layers.edges.crs is None
    assert layers.edges["width_median_px"].max() == 9
    assert layers.nodes.total_bounds == pytest.approx([0.5, -167.5, 159.5, -32.5], abs=1)
    write_layers(str(tmp_path / "pixels.gpkg"), layers.named())
    with pytest.raises(ConfigError, match="GeoJSON is in WGS 84, but the map has no coordinate"):
        write_layers(str(tmp_path / "pixels.geojson"), layers.named())
    assert not list(tmp_path.glob("pixels*json*"))
    extract_network(raster(crossing, None))
    assert "no coordinate reference system; its units are assumed to be metres" in caplog.text


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".parquet"])
def test_an_empty_map_has_empty_layers(raster, suffix, tmp_path):
    layers = extract_network(raster(np.zeros((50, 60), np.uint8)))
    files = write_layers(str(tmp_path / f"none{suffix}"), layers.named())
    for name in ("edges", "nodes", "surface"):
        if suffix == ".parquet":
            table = gpd.read_parquet(str(tmp_path / f"none_{name}.parquet"))
        else:
            table = gpd.read_file(files[0] if len(files) == 1 else str(tmp_path / f"none_{name}.geojson"), layer=name if len(files) == 1 else None)  # fmt: skip  # noqa: E501
        assert len(table) == 0


def test_what_is_no_map_of_roads_is_refused(raster, crossing, tmp_path):
    with pytest.raises(DataError, match="has 3 bands; give a mask or a probability map"):
        extract_network(raster(np.zeros((9, 9, 3), np.uint8), name="rgb.tif"))
    with pytest.raises(DataError, match=r"holds 0 to 7, which are no probabilities"):
        extract_network(raster((crossing * 7).astype(np.float32), name="heights.tif"))
    with pytest.raises(DataError, match="no such file"):
        extract_network(str(tmp_path / "none.tif"))
    with pytest.raises(ConfigError, match="a threshold of 7"):
        NetworkSettings(threshold=7)
    with pytest.raises(ConfigError, match="min length of -1: give 0 or more"):
        NetworkSettings(min_length=-1)


def test_layers_make_the_graph_again(raster):
    mine = generate_mine(3, 600, 1.5)
    layers = extract_network(raster(mine.mask))
    lines = [np.array(line.coords) for line in layers.edges.geometry]
    again = graph_from_lines(lines)
    assert again.number_of_edges() == len(layers.edges)
    assert nx.number_connected_components(again) == nx.number_connected_components(
        nx.MultiGraph(list(zip(layers.edges["node_from"], layers.edges["node_to"], strict=True)))
    )


def stored(path, scale, offset):
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,), (offset,)
    return path


def test_probabilities_are_scaled_and_shifted_as_the_file_says(raster):
    values = np.array([[50, 100, 150], [99, 101, 255]], np.uint8)
    path = stored(raster(values, nodata=255), 0.01, -0.5)
    with RoadRaster(path, threshold=0.495) as roads:
        found, valid = roads.values(0, 0, 2, 3)
        assert roads.is_probability
        assert found == pytest.approx(np.array([[0, 0.5, 1], [0.49, 0.51, 0]]), abs=1e-6)
        assert roads.road(found, valid).tolist() == [[False, True, True], [False, True, False]]


def test_an_offset_alone_makes_probabilities(raster):
    with RoadRaster(stored(raster(np.array([[1, 2]], np.uint8)), 1.0, -1.0)) as roads:
        found, valid = roads.values(0, 0, 1, 2)
        assert roads.is_probability and roads.road(found, valid).tolist() == [[False, True]]


def test_what_the_offset_takes_out_of_0_to_1_is_refused(raster):
    with RoadRaster(stored(raster(np.array([[0, 100]], np.uint8), name="low.tif"), 0.01, -0.5)) as roads:
        with pytest.raises(DataError, match="low.tif: holds -0.5 to 0.5, which are no probabilities"):
            roads.values(0, 0, 1, 2)
