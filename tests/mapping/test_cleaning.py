"""Small pieces of road and small holes in roads, against labelling of the whole mask at once."""

import importlib.util
import json
import os
from dataclasses import replace
from itertools import pairwise

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
from bright_network import PLAIN, BrightNetwork
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import PixelFrame, RasterInfo, write_geotiff
from mmseg_ext.mapping import MapFiles, MapSettings, cleaning, map_raster, map_strips, road_map
from mmseg_ext.mapping.cleaning import Cleaning
from mmseg_ext.networks import NetworkSettings, extract_network

UTM, PLACE = "EPSG:32719", (0.5, 0, 400_000.0, 0, -0.5, 7_400_000.0)
NODATA = 255


def whole(labels, roads, min_area, fill_holes, pixel=1.0):
    """The same, of all pixels at once, one piece after the other; labels are 0 and 1."""
    road = np.isin(labels, roads)
    numbers, count = ndimage.label(~road)
    for number in range(1, count + 1):
        hole = numbers == number
        border = hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any()
        if not border and (np.ones(hole.shape) * pixel)[hole].sum() < fill_holes * (1 - 1e-6):
            road |= hole & (labels != NODATA)
    numbers, count = ndimage.label(road, np.ones((3, 3)))
    for number in range(1, count + 1):
        piece = numbers == number
        if (np.ones(piece.shape) * pixel)[piece].sum() < min_area * (1 - 1e-6):
            road &= ~piece
    return np.where(labels == NODATA, NODATA, road).astype(np.uint8)


def info(shape, crs=UTM, transform=PLACE):
    return RasterInfo("a", *shape, 1, "uint8", crs=crs, transform=transform)


def strips_of(labels, cuts):
    """A function that yields the mask in strips that end at ``cuts``."""
    other = np.where(labels == NODATA, NODATA, 1 - labels).astype(np.uint8)
    edges = [0, *cuts, len(labels)]

    def strips():
        for start, end in pairwise(edges):
            if start < end:
                yield start, np.stack([labels[start:end], other[start:end]])

    return strips


@st.composite
def masks(draw):
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    random = np.random.default_rng(draw(st.integers(0, 9999)))
    blurred = ndimage.gaussian_filter(random.random(shape), draw(st.sampled_from([0, 0.7, 1.5])))
    labels = (blurred > np.quantile(blurred, draw(st.sampled_from([0.2, 0.5, 0.8])))).astype(np.uint8)
    if draw(st.booleans()):
        labels[ndimage.gaussian_filter(random.random(shape), 1) > 0.6] = NODATA
    return labels


@given(masks(), st.lists(st.integers(0, 40), max_size=5), st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=150, deadline=None)
def test_pieces_and_holes_are_measured_whole_however_the_mask_is_cut(labels, cuts, rows, min_px, hole_px):
    clean = Cleaning(PixelFrame(info(labels.shape)), labels.shape, [1], NODATA, min_px / 4, hole_px / 4)
    cuts = sorted(cut for cut in cuts if cut < len(labels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cleaning, "_BAND_ROWS", rows)
        parts = list(clean(strips_of(labels, cuts)))
    assert [row for row, _ in parts] == np.cumsum([0, *(len(part) for _, part in parts)])[:-1].tolist()
    found = np.concatenate([part for _, part in parts])
    assert np.array_equal(found, whole(labels, [1], min_px, hole_px))
    with pytest.MonkeyPatch.context() as patch:  # what is clean stays as it is
        patch.setattr(cleaning, "_BAND_ROWS", rows)
        again = np.concatenate([part for _, part in clean(strips_of(found, []))])
    assert np.array_equal(again, found)


def test_corners_join_pieces_and_not_holes():
    labels = np.zeros((9, 9), np.uint8)
    labels[[1, 2, 3], [1, 2, 3]] = 1  # a piece of 3 pixels
    labels[5:9, 4:8] = 1
    labels[6, 5] = labels[7, 6] = 0  # two holes of 1 pixel
    frame = PixelFrame(info(labels.shape, None, None))
    for smallest, kept in ((3, 3), (4, 0)):
        ((_, found),) = Cleaning(frame, labels.shape, [1], NODATA, smallest, 2)(strips_of(labels, []))
        assert found[:5].sum() == kept and found[5:].sum() == 16


def test_a_hole_with_nodata_is_filled_around_it_and_open_ones_are_not():
    labels = np.ones((12, 12), np.uint8)
    labels[2:5, 2:5], labels[3, 3] = 0, NODATA  # enclosed: 9 pixels, one of them nodata
    labels[8:10, 10:], labels[9, 11] = 0, NODATA  # open at the border
    frame = PixelFrame(info(labels.shape, None, None))
    ((_, found),) = Cleaning(frame, labels.shape, [1], NODATA, 0, 10)(strips_of(labels, []))
    expected = labels.copy()
    expected[2:5, 2:5], expected[3, 3] = 1, NODATA
    assert np.array_equal(found, expected)
    ((_, found),) = Cleaning(frame, labels.shape, [1], NODATA, 0, 9)(strips_of(labels, []))
    assert np.array_equal(found, labels)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", (1e-5, 0, -70.0, 0, -8e-3, 60.0)),  # 3 degrees from north to south
        ("EPSG:3857", (1.0, 0, 1_670_000.0, 0, -1500.0, 8_400_000.0)),
        ("EPSG:2230", (1.0, 0, 6_500_000.0, 0, -1.0, 2_000_000.0)),  # feet
    ],
)
def test_square_metres_are_those_on_the_ground(crs, transform):
    shape, size = (400, 30), 3
    labels = np.zeros(shape, np.uint8)
    for row in range(10, 390, 20):
        labels[row : row + size, 10 : 10 + size] = 1
    rows = np.arange(0, 401)
    to_globe = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    edges = [rasterio.Affine(*transform) @ (np.full(401, column), rows) for column in (10, 13)]
    left, right = (np.stack(to_globe.transform(*edge)) for edge in edges)
    geod = pyproj.Geod(ellps="WGS84")
    true_m2 = [
        abs(geod.polygon_area_perimeter(*np.stack([left[:, r], right[:, r], right[:, r + 3], left[:, r + 3]], 1))[0])
        for r in range(10, 390, 20)
    ]
    limit = np.median(true_m2) if crs != "EPSG:2230" else (3 * 1200 / 3937) ** 2 * 1.001
    clean = Cleaning(PixelFrame(info(shape, crs, transform)), shape, [1], NODATA, limit)
    found = np.concatenate([part for _, part in clean(strips_of(labels, [100, 333]))])
    kept = np.array([found[row, 10] for row in range(10, 390, 20)])
    clear = np.abs(np.array(true_m2) / limit - 1) > 0.004  # a UTM zone is within that
    assert np.array_equal(kept[clear] == 1, (np.array(true_m2) > limit)[clear])
    assert clear.sum() > 10 if crs != "EPSG:2230" else not kept.any()


def specks(seed=3, shape=(300, 130)):
    values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    values = ndimage.gaussian_filter(values.astype(float), 2.5)
    values = np.clip((values - values.mean()) / values.std() * 60 + 128, 0, 255).astype(np.uint8)
    return np.repeat(values[:, :, None], 3, axis=2)


def pixels(path):
    with rasterio.open(path) as opened:
        return opened.read(1)


def test_a_map_is_cleaned_across_its_strips_and_resumes(tmp_path, monkeypatch):
    valid = np.ones((300, 130), bool)
    valid[100:140, 20:60] = False
    path = str(tmp_path / "pit.tif")
    write_geotiff(path, specks(), UTM, PLACE, valid)
    cleaned = MapSettings(64, 16, 2, min_area_m2=40, fill_holes_m2=20)
    map_raster(path, BrightNetwork(), str(tmp_path / "raw"), PLAIN)

    def two(*args, **kwargs):
        for count, strip in enumerate(map_strips(*args, **kwargs)):
            if count == 2:
                raise KeyboardInterrupt
            yield strip

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(road_map, "map_strips", two)
        map_raster(path, BrightNetwork(), str(tmp_path / "clean"), cleaned)
    record = map_raster(path, BrightNetwork(), str(tmp_path / "clean"), cleaned)
    raw, found = (pixels(tmp_path / folder / "pit_roads.tif") for folder in ("raw", "clean"))
    expected = whole(raw, [1], 160, 80)
    assert np.array_equal(found, expected) and ((raw == 1) & (found == 0)).any() and ((raw == 0) & (found == 1)).any()
    assert record["class_share"]["road"] == pytest.approx((found == 1).sum() / valid.sum())
    assert record["settings"]["min_area_m2"] == 40 and record["settings"]["fill_holes_m2"] == 20
    # the probability stays as it is
    one, other = (tmp_path / folder / "pit_probability.tif" for folder in ("raw", "clean"))
    assert one.read_bytes() == other.read_bytes()
    assert (tmp_path / "raw" / "pit_preview.png").read_bytes() != (tmp_path / "clean" / "pit_preview.png").read_bytes()
    with pytest.raises(ConfigError, match="pit.json: is there already, of another raster, checkpoint or setting"):
        map_raster(path, BrightNetwork(), str(tmp_path / "clean"), PLAIN)
    assert json.loads((tmp_path / "clean" / "pit.json").read_text())["key"] == record["key"]
    assert sorted(os.listdir(tmp_path / "clean")) == sorted(os.listdir(tmp_path / "raw"))


@pytest.mark.parametrize(
    ("classes", "shares"),
    [
        # a speck of road on what else is a building
        (("ground", "building", "road"), {"around": (120, 60, 40), "spot": (40, 60, 120)}),
        # a hole in a ramp, in which a haul road is likelier than a ramp
        (("ground", "haul", "ramp"), {"around": (40, 60, 120), "spot": (120, 70, 20)}),
    ],
)
def test_of_several_classes_the_likeliest_of_the_other_side_is_taken(tmp_path, classes, shares):
    class Three(BrightNetwork):
        """The three bands are the scores of the classes."""

        def __init__(self):
            super().__init__()
            self.facts = replace(self.facts, classes=classes, palette=((0, 0, 0), (9, 9, 9), (255, 0, 0)), outputs=3)

        def predict(self, images):
            return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255

    image = np.full((40, 40, 3), shares["around"], np.uint8)
    image[12:14, 12:14] = shares["spot"]
    write_geotiff(str(tmp_path / "a.tif"), image, UTM, PLACE)
    map_raster(str(tmp_path / "a.tif"), Three(), str(tmp_path), MapSettings(64, 16, min_area_m2=2, fill_holes_m2=2))
    expected = np.full((40, 40), np.argmax(shares["around"]), np.uint8)
    expected[12:14, 12:14] = 1
    assert np.array_equal(pixels(tmp_path / "a_roads.tif"), expected)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_areas_that_are_none_are_refused(value):
    with pytest.raises(ConfigError, match="--min-area .*: give square metres, 0 or more"):
        MapSettings(min_area_m2=value)
    with pytest.raises(ConfigError, match="--fill-holes .*: give square metres, 0 or more"):
        MapSettings(fill_holes_m2=value)


def test_the_network_of_a_cleaned_map_is_that_of_its_mask(tmp_path, root):
    spec = importlib.util.spec_from_file_location("predict", root / "tools" / "predict.py")
    predict = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(predict)
    write_geotiff(str(tmp_path / "pit.tif"), specks(4), UTM, PLACE)
    network, found = BrightNetwork(), {}
    for name, smallest in (("raw", 0), ("clean", 60)):
        limits, files = MapSettings(64, 16, 2, min_area_m2=smallest), MapFiles(str(tmp_path / name), "pit")
        map_raster(str(tmp_path / "pit.tif"), network, files.folder, limits)
        predict.write_network(files, limits, network.facts)
        found[name] = [gpd.read_file(files.path("_network.gpkg"), layer=layer) for layer in ("edges", "surface")]
    mask = str(tmp_path / "clean" / "pit_roads.tif")
    alone = extract_network(mask, NetworkSettings(road_values=[1]))
    edges, surface = found["clean"]
    assert alone.edges.geometry.geom_equals(edges.geometry).all() and len(edges) > 0
    assert alone.surface.geometry.geom_equals(surface.geometry).all() and len(found["raw"][1]) > len(surface)
    assert edges["probability"].between(0.4, 1).all() and "probability" not in alone.edges
    with pytest.raises(DataError, match="pit.tif: has another size than .*pit_probability.tif; give the mask of that"):
        write_geotiff(str(tmp_path / "pit.tif"), np.zeros((9, 9), np.uint8))
        extract_network(mask.replace("_roads", "_probability"), mask=str(tmp_path / "pit.tif"))
