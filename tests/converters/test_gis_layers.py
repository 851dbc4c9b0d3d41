"""Orthomosaics and road layers become data sets that train."""

import json
import os
import re

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.features import shapes as outlines

from mmseg_ext.checks import examine, splits_of_folder
from mmseg_ext.converters import ConversionSettings, RoadDrawing, VocWriter, convert_layers
from mmseg_ext.datasets import generate_mine
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import raster_info, read_raster, reprojected, write_geotiff
from mmseg_ext.imagery import read_metadata, reading_of

UTM, PLACE = "EPSG:32612", (2.0, 0.0, 500_000.0, 0.0, -2.0, 4_000_000.0)
SMALL = dict(tile=32, overlap=0, workers=2, val=0.2, test=0.2)


def layer(path, shapes, crs=UTM, **fields):
    values = [np.array(v, dtype=object if isinstance(v[0], str) else float) for v in fields.values()]
    kind = shapes[0].geom_type
    pyogrio.raw.write(str(path), shapely.to_wkb(shapes), values, list(fields), crs=crs, geometry_type=kind)
    return str(path)


def in_degrees(shapes):
    return shapely.transform(shapes, lambda points: reprojected([points], UTM, "EPSG:4326")[0])


@pytest.fixture(scope="module")
def mine():
    return generate_mine(3, 256, 2.0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, mine):
    """A mine as an orthomosaic, its roads as polygons of the mask's pixels, the same in degrees, and as lines."""
    folder = tmp_path_factory.mktemp("sources")
    write_geotiff(str(folder / "mine.tif"), mine.image, UTM, PLACE)
    found = outlines(mine.mask, mine.mask > 0, transform=rasterio.Affine(*PLACE))
    polygons = [shapely.geometry.shape(shape) for shape, _ in found]
    layer(folder / "polygons.gpkg", polygons)
    layer(folder / "degrees.geojson", in_degrees(polygons), "EPSG:4326")
    lines = [shapely.LineString(road.xy_m * [1, -1] + [500_000, 4_000_000]) for road in mine.roads]
    widths = [np.median(road.width_m) for road in mine.roads]
    layer(folder / "lines.gpkg", lines, width_m=widths, kind=[road.kind for road in mine.roads])
    return folder


def make(sources, roads, dest, rasters=("mine.tif",), block_m=None, gap_m=None, settings=SMALL, **drawing):
    paths = [str(sources / name) for name in rasters]
    settings = ConversionSettings(**{**SMALL, **settings})
    return convert_layers(paths, RoadDrawing(str(sources / roads), **drawing), str(dest), settings, block_m, gap_m)


def tiles(dest):
    """Return {name: (image, mask, transform, split)} of a data set."""
    found = {}
    for split in ("train", "val", "test"):
        for stem in (dest / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split():
            path = str(dest / "JPEGImages" / f"{stem}.tif")
            mask = np.array(Image.open(dest / "SegmentationClass" / f"{stem}.png"))
            assert stem not in found
            found[stem] = read_raster(path)[0], mask, raster_info(path).transform, split
    assert len(found) == len(os.listdir(dest / "JPEGImages"))
    return found


def place(stem):
    return tuple(map(int, re.search(r"_r(\d+)_c(\d+)$", stem).groups()))


def mosaic(dest, size=256):
    """Return the masks put together again, 254 where there is no tile."""
    whole = np.full((size + 64, size + 64), 254, np.uint8)
    for stem, (_, mask, _, _) in tiles(dest).items():
        row, column = place(stem)
        assert (whole[row : row + 32, column : column + 32] == 254).all()
        whole[row : row + 32, column : column + 32] = mask
    return whole[:size, :size]


def test_tiles_on_the_image_s_own_pixels_are_exact(sources, mine, tmp_path):
    dest = tmp_path / "out"
    made = make(sources, "polygons.gpkg", dest, gap_m=0)
    found = tiles(dest)
    assert len(found) == 64 == sum(made.counts.values())
    for stem, (image, mask, transform, _) in found.items():
        row, column = place(stem)
        part = slice(row, row + 32), slice(column, column + 32)
        assert np.array_equal(image, mine.image[part]) and np.array_equal(mask, mine.mask[part])
        assert transform == (2.0, 0, 500_000 + 2 * column, 0, -2.0, 4_000_000 - 2 * row)
    assert made.road_share == mine.mask.mean()
    training = np.concatenate([image.reshape(-1, 3) for image, _, _, split in found.values() if split == "train"])
    assert made.mean == pytest.approx(training.mean(axis=0).tolist(), abs=0.01)
    about = read_metadata(str(dest))
    assert (about["gsd_m"], about["crs"], about["classes"]) == (2.0, [UTM], ["background", "road"])


def test_splits_do_not_touch_and_each_has_road(sources, tmp_path):
    for seed in range(3):
        dest = tmp_path / str(seed)
        made = make(sources, "polygons.gpkg", dest, settings=dict(seed=seed))
        ground = {"train": [], "val": [], "test": []}
        road = dict.fromkeys(ground, 0)
        for _, mask, (a, _, left, _, e, top), split in tiles(dest).values():
            ground[split].append(shapely.box(left, top + 32 * e, left + 32 * a, top))
            road[split] += np.count_nonzero(mask == 1)
        areas = {split: shapely.union_all(boxes) for split, boxes in ground.items()}
        for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
            assert areas[a].distance(areas[b]) >= 8  # an eighth of a tile of 64 m
        assert min(road.values()) > 0
        assert 0.1 < made.counts["val"] / sum(made.counts.values()) < 0.3


def test_the_doctor_finds_no_error(sources, tmp_path):
    make(sources, "polygons.gpkg", tmp_path / "out")
    diagnosis = examine(str(tmp_path / "out"), *splits_of_folder(str(tmp_path / "out")))
    assert [finding.code for finding in diagnosis.findings] == ["same-scene"]  # blocks of one mine are alike
    assert diagnosis.exit_code == 1


@pytest.mark.slow
def test_a_network_trains_on_it(sources, tmp_path, run_tool, tiny_config, mine_data):
    make(sources, "polygons.gpkg", tmp_path / "out", settings=dict(tile=64))
    tiny_config.write_text(tiny_config.read_text().replace(str(mine_data), str(tmp_path / "out")))
    run = run_tool("train.py", tiny_config, "--work-dir", tmp_path / "work")
    assert run.returncode == 0, run.stderr[-2000:]
    (log,) = (tmp_path / "work").glob("*.log.json")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["iter"] for line in lines if line.get("mode") == "train"] == [1, 2, 3, 4]
    assert any("mIoU" in line for line in lines)


def iou(a, b):
    known = (a < 2) & (b < 2)
    return np.count_nonzero((a == 1) & (b == 1) & known) / np.count_nonzero(((a == 1) | (b == 1)) & known)


def test_polygons_on_another_map_are_placed(sources, mine, tmp_path):
    make(sources, "degrees.geojson", tmp_path / "out", gap_m=0)
    assert iou(mosaic(tmp_path / "out"), mine.mask) > 0.999


LOCAL = 'LOCAL_CS["pit grid",LOCAL_DATUM["pit",32767],UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


@pytest.mark.parametrize("gsd", [None, 4.0])
@pytest.mark.parametrize("crs", [LOCAL, None])
def test_a_local_grid_gives_the_tiles_of_any_map(sources, mine, tmp_path, crs, gsd, caplog):
    write_geotiff(str(tmp_path / "mine.tif"), mine.image, crs, PLACE)
    lines = pyogrio.read_dataframe(sources / "lines.gpkg")
    layer(tmp_path / "lines.gpkg", lines.geometry.to_numpy(), crs, width_m=lines["width_m"].tolist())
    layer(tmp_path / "area.gpkg", [shapely.box(500_000, 3_999_600, 500_400, 4_000_000)], crs)
    layer(tmp_path / "area_utm.gpkg", [shapely.box(500_000, 3_999_600, 500_400, 4_000_000)], UTM)
    how = dict(width_field="width_m", settings=dict(gsd=gsd))
    make(tmp_path, "lines.gpkg", tmp_path / "out", area=str(tmp_path / "area.gpkg"), **how)
    assert ("its units are assumed to be metres" in caplog.text) == (crs is None)
    make(sources, "lines.gpkg", tmp_path / "placed", area=str(tmp_path / "area_utm.gpkg"), **how)
    found, placed = tiles(tmp_path / "out"), tiles(tmp_path / "placed")
    assert found.keys() == placed.keys()
    for stem, tile in found.items():
        for ours, theirs in zip(tile, placed[stem], strict=True):
            assert np.array_equal(ours, theirs)
    about = read_metadata(str(tmp_path / "out"))
    assert about["gsd_m"] == (gsd or 2.0) and len(about["crs"]) == (crs is not None)


def test_images_and_layers_without_a_way_to_each_other_are_refused(sources, mine, tmp_path):
    for name, crs in (
        ("local", LOCAL),
        ("other", LOCAL.replace("pit grid", "north grid")),
        ("none", None),
        ("utm", UTM),
    ):
        write_geotiff(str(tmp_path / f"{name}.tif"), mine.image, crs, PLACE)
        layer(tmp_path / f"{name}.gpkg", [shapely.box(500_000, 3_999_900, 500_060, 4_000_000)], crs)
    no_way, bare = "is on the map '.*, but the image on '.*, and from a local grid", "has no coordinate reference sys"
    for rasters, roads, words in (
        (["local"], "other", f"other.gpkg: {no_way}"),
        (["local"], "utm", f"utm.gpkg: {no_way}"),
        (["local"], "none", f"none.gpkg: {bare}"),
        (["none"], "local", f"the image: {bare}"),
        (
            ["local", "utm"],
            "local",
            "utm.tif: is on the map 'WGS 84 / UTM zone 12N' .metre., but .*local.tif on 'pit grid'",
        ),
        (["local", "none"], "local", f"none.tif: {bare}"),
    ):
        with pytest.raises(DataError, match=words):
            make(tmp_path, f"{roads}.gpkg", tmp_path / "out", [f"{name}.tif" for name in rasters])
        assert not any(tmp_path.glob("out*"))


def test_roads_of_the_whole_world_are_no_hindrance(sources, mine, tmp_path):
    own = in_degrees([shapely.box(500_000, 3_999_800, 500_512, 3_999_900)])
    far = [shapely.box(x, y, x + 9, y + 9) for x in (-180, 60) for y in (-90, 81)]
    layer(tmp_path / "r.gpkg", [*own, *far], "EPSG:4326")
    os.symlink(sources / "mine.tif", tmp_path / "mine.tif")
    make(tmp_path, "r.gpkg", tmp_path / "out", gap_m=0)
    expected = np.zeros((256, 256), bool)
    expected[50:100] = True
    assert np.count_nonzero((mosaic(tmp_path / "out") == 1) ^ expected) < 256  # less than a row of pixels


def test_lines_are_as_wide_as_their_field_says(sources, mine, tmp_path):
    make(sources, "lines.gpkg", tmp_path / "field", gap_m=0, width_field="width_m")
    assert iou(mosaic(tmp_path / "field"), mine.mask) > 0.9  # true widths vary by a fifth around their medians
    make(sources, "lines.gpkg", tmp_path / "one", gap_m=0, width_m=30.0)
    centres = PLACE[2] + 2 * (np.arange(256) + 0.5), PLACE[5] - 2 * (np.arange(256) + 0.5)
    points = shapely.points(*np.meshgrid(*centres))
    away = np.min([shapely.distance(points, shapely.LineString(r.xy_m * [1, -1] + PLACE[2::3])) for r in mine.roads], 0)
    sure = np.abs(away - 15) > 0.05  # a buffer's corners are cut a little
    assert np.array_equal(mosaic(tmp_path / "one")[sure], (away < 15)[sure])


def test_an_empty_width_takes_the_default(tmp_path):
    write_geotiff(str(tmp_path / "mine.tif"), np.full((256, 256, 3), 90, np.uint8), UTM, PLACE)
    lines = [shapely.LineString([(500_000, y), (500_512, y)]) for y in (3_999_900, 3_999_700)]
    layer(tmp_path / "r.gpkg", lines, w=[12.0, np.nan])
    make(tmp_path, "r.gpkg", tmp_path / "out", gap_m=0, width_field="w", width_m=20.0)
    assert np.count_nonzero(mosaic(tmp_path / "out")[:, 128] == 1) == (12 + 20) / 2
    with pytest.raises(DataError, match=r"r.gpkg: no w \(features 2\); give --width for those"):
        make(tmp_path, "r.gpkg", tmp_path / "no", width_field="w")


def test_classes_are_numbers_or_names(sources, mine, tmp_path):
    make(sources, "lines.gpkg", tmp_path / "out", gap_m=0, width_m=10.0, class_field="kind")
    assert read_metadata(str(tmp_path / "out"))["classes"] == ["background", "haul", "ramp", "ring"]
    found = mosaic(tmp_path / "out")
    last = mine.roads[-1]  # lies above the others
    column, row = (last.xy_m[(last.xy_m > 0).all(1) & (last.xy_m < 512).all(1)] / 2).astype(int).T
    assert (found[row, column] == 1).all() and last.kind == "haul"
    assert set(np.unique(found)) == {0, 1, 2, 3}
    boxes = [shapely.box(500_000, y - 200, 500_512, y) for y in (4_000_000, 3_999_700)]
    layer(tmp_path / "n.gpkg", boxes, label=[2.0, 255.0])
    os.symlink(sources / "mine.tif", tmp_path / "mine.tif")
    make(tmp_path, "n.gpkg", tmp_path / "numbers", gap_m=0, class_field="label")
    found = mosaic(tmp_path / "numbers")
    assert (found[:100] == 2).all() and (found[100:150] == 0).all() and (found[150:250] >= 254).all()
    layer(tmp_path / "n.gpkg", boxes, label=[2.0, 1.5])
    with pytest.raises(DataError, match=r"n.gpkg: label is not a label from 0 to 255 \(features 2\)"):
        make(tmp_path, "n.gpkg", tmp_path / "no", class_field="label")


def test_unknown_ground_is_ignored(sources, mine, tmp_path):
    image, known = mine.image, np.ones((256, 256), bool)
    known[:40, :200] = False
    write_geotiff(str(tmp_path / "a.tif"), image, UTM, PLACE, known)
    layer(tmp_path / "area.geojson", in_degrees([shapely.box(500_000, 3_999_488, 500_400, 4_000_000)]), "EPSG:4326")
    layer(tmp_path / "nogo.gpkg", [shapely.box(500_100, 3_999_700, 500_200, 3_999_800)])
    layer(tmp_path / "r.gpkg", [shapely.box(500_000, 3_999_488, 500_512, 3_999_900)])
    areas = dict(area=str(tmp_path / "area.geojson"), nogo=str(tmp_path / "nogo.gpkg"))
    make(tmp_path, "r.gpkg", tmp_path / "out", rasters=("a.tif",), gap_m=0, **areas)
    expected = np.zeros((256, 256), np.uint8)
    expected[50:] = 1
    expected[~known] = expected[:, 200:] = expected[100:150, 50:100] = 255
    found = mosaic(tmp_path / "out")
    there = found != 254
    assert np.array_equal(found[there], expected[there])
    whole = expected.reshape(8, 32, 8, 32).min(axis=(1, 3)) == 255  # tiles of which nothing is known
    assert np.array_equal(~there[::32, ::32], whole) and whole.sum() == 8 + 7
    image, valid = read_raster(str(tmp_path / "out" / "JPEGImages" / "a_r00032_c00000.tif"))
    assert np.array_equal(valid, known[32:64, :32])


def test_another_resolution_averages_the_image_and_draws_the_mask_anew(sources, mine, tmp_path):
    make(sources, "polygons.gpkg", tmp_path / "out", gap_m=0, settings=dict(gsd=4.0, tile=16))
    halved = mine.image.reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert read_metadata(str(tmp_path / "out"))["gsd_m"] == 4.0
    for stem, (image, mask, transform, _) in tiles(tmp_path / "out").items():
        row, column = place(stem)
        assert transform[0] == 4 and mask.shape == (16, 16)
        assert np.abs(image - halved[row : row + 16, column : column + 16]).max() <= 0.5
        share = mine.mask[2 * row : 2 * row + 32, 2 * column : 2 * column + 32].reshape(16, 2, 16, 2).mean(axis=(1, 3))
        assert (mask[share == 1] == 1).all() and (mask[share == 0] == 0).all()


def test_two_flights_over_one_ground_are_split_alike(sources, mine, tmp_path):
    for folder, shift in (("2023", 0), ("2024", 100)):
        (tmp_path / folder).mkdir()
        place = (2.0, 0.0, 500_000.0 + shift, 0.0, -2.0, 4_000_000.0 + shift)
        write_geotiff(str(tmp_path / folder / "ortho.tif"), mine.image, UTM, place)
    os.symlink(sources / "polygons.gpkg", tmp_path / "r.gpkg")
    flights = ("2023/ortho.tif", "2024/ortho.tif")
    make(tmp_path, "r.gpkg", tmp_path / "out", rasters=flights)
    found = tiles(tmp_path / "out")
    assert {stem[:10] for stem in found} == {"2023_ortho", "2024_ortho"}
    ground = {}
    for stem, (_, _, transform, split) in found.items():
        ground.setdefault(transform[2::3], []).append((stem[:4], split))
    both = [seen for seen in ground.values() if len(seen) == 2]
    assert len(both) > 20 and all(a[1] == b[1] for a, b in both)
    boxes = {
        s: [shapely.box(t[2], t[5] - 64, t[2] + 64, t[5]) for *_, t, x in found.values() if x == s]
        for s in ("val", "test")
    }
    assert shapely.union_all(boxes["val"]).disjoint(shapely.union_all(boxes["test"]))
    with pytest.raises(DataError, match="2023/ortho.tif: given twice, or another raster has its name"):
        make(tmp_path, "r.gpkg", tmp_path / "no", rasters=(flights[0], flights[0]))


def test_deep_images_get_one_scaling_from_the_training_tiles(sources, mine, tmp_path):
    deep = np.concatenate([mine.image, mine.image[:, :, :1]], axis=2).astype(np.uint16) * 200
    write_geotiff(str(tmp_path / "mine.tif"), deep, UTM, PLACE)
    os.symlink(sources / "polygons.gpkg", tmp_path / "r.gpkg")
    with pytest.raises(DataError, match="mine.tif: has 4 bands; say which are to be read"):
        make(tmp_path, "r.gpkg", tmp_path / "no")
    assert not (tmp_path / "no.partial").exists()
    make(tmp_path, "r.gpkg", tmp_path / "out", gap_m=0, settings=dict(bands=(3, 2, 4)))
    reading = reading_of(str(tmp_path / "out"))
    found = tiles(tmp_path / "out")
    training = np.concatenate([i.reshape(-1, 4)[:, [2, 1, 3]] for i, _, _, split in found.values() if split == "train"])
    assert reading.bands == (3, 2, 4)
    assert reading.low == pytest.approx(np.percentile(training, 2, axis=0), rel=0.01)
    assert reading.high == pytest.approx(np.percentile(training, 98, axis=0), rel=0.01)


def test_the_same_again_does_nothing_and_interrupted_work_goes_on(sources, tmp_path, monkeypatch):
    make(sources, "polygons.gpkg", tmp_path / "whole")
    again = make(sources, "polygons.gpkg", tmp_path / "whole")
    assert again.found_done
    with pytest.raises(DataError, match="exists already"):
        make(sources, "polygons.gpkg", tmp_path / "whole", gap_m=0)
    finish, done = VocWriter.finish_scene, []

    def stop(self, name, *rest):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(name)
        finish(self, name, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(VocWriter, "finish_scene", stop)
        make(sources, "polygons.gpkg", tmp_path / "cut", settings=dict(workers=1))
    monkeypatch.setattr(VocWriter, "finish_scene", lambda self, name, *a: (done.append(name), finish(self, name, *a)))
    made = make(sources, "polygons.gpkg", tmp_path / "cut", settings=dict(workers=1))
    assert len(done) == len(set(done)) and made.counts == again.counts
    for one, other in zip(sorted(tmp_path.glob("whole/*/*.*")), sorted(tmp_path.glob("cut/*/*.*")), strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_lines_need_a_width(sources, tmp_path):
    with pytest.raises(ConfigError, match="lines.gpkg: holds lines; say how wide they are: --width or --width-field"):
        make(sources, "lines.gpkg", tmp_path / "out")
    with pytest.raises(ConfigError, match="--width 0: must be above 0"):
        RoadDrawing("r.gpkg", 0)


def test_what_cannot_become_a_data_set_is_said_in_one_line(sources, mine, tmp_path):
    os.symlink(sources / "mine.tif", tmp_path / "mine.tif")
    os.symlink(sources / "polygons.gpkg", tmp_path / "r.gpkg")
    far, corner = shapely.box(0, 0, 9, 9), shapely.box(500_000, 3_999_900, 500_060, 4_000_000)
    layer(tmp_path / "far.gpkg", [far])
    layer(tmp_path / "bare.shp", [far], crs=None)
    layer(tmp_path / "corner.gpkg", [corner])
    layer(tmp_path / "lost.gpkg", [shapely.box(3e9, 0, 4e9, 9)], crs="EPSG:3035")
    layer(tmp_path / "line.gpkg", [shapely.LineString([(0, 0), (1, 1)])])
    write_geotiff(str(tmp_path / "bare.tif"), mine.image)
    (corners,) = reprojected([np.array([[500_000.0, 4_000_000.0]])], UTM, "EPSG:32613")
    place = (2.0, 0.0, corners[0, 0], 0.0, -2.0, corners[0, 1])
    write_geotiff(str(tmp_path / "zone.tif"), mine.image, "EPSG:32613", place)
    write_geotiff(str(tmp_path / "grey.tif"), mine.image[:, :, 0], UTM, PLACE)
    for options, words in (
        (dict(roads="far.gpkg"), "far.gpkg: no road lies on the images; check its coordinates"),
        (dict(roads="lost.gpkg"), "lost.gpkg: no road lies on the images"),
        (dict(roads="bare.shp"), "bare.shp: has no coordinate reference system"),
        (dict(area=str(tmp_path / "far.gpkg")), "mine.tif: no valid pixel inside the area of interest"),
        (dict(area=str(tmp_path / "line.gpkg")), "line.gpkg: areas are polygons, it has lines; give another"),
        (dict(roads="corner.gpkg"), "1 blocks of ground with road cannot give 0.2 for validation and 0.2 for test"),
        (dict(rasters=("bare.tif",)), "bare.tif: has no georeference, so roads cannot be placed on it"),
        (dict(rasters=("mine.tif", "grey.tif")), "grey.tif: 1 bands of uint8, but .*mine.tif has 3 of uint8"),
        (
            dict(rasters=("mine.tif", "zone.tif")),
            "zone.tif: in EPSG:32613, but .*mine.tif, which shows the same ground",
        ),
        (dict(roads="none.gpkg"), "none.gpkg: no such file"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            make(tmp_path, dest=tmp_path / "out", **{"roads": "r.gpkg", **options})
        assert "\n" not in str(caught.value)
        assert not any(tmp_path.glob("out*"))
    for options, words in (
        (dict(block_m=20), "--block 20 is smaller than a tile of 64 m"),
        (dict(gap_m=-1), "--gap -1: must be 0 or above"),
        (dict(settings=dict(tile=0)), "--tile 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            make(tmp_path, "r.gpkg", tmp_path / "out", **options)


def test_the_tool_says_what_it_made(sources, tmp_path, run_tool):
    out = tmp_path / "out"
    command = [sources / "mine.tif", "--roads", sources / "lines.gpkg", "--width-field", "width_m", "--out", out]
    run = run_tool("make_dataset.py", *command, "--tile", 32, "--block", 128, "--gap", 16)
    assert run.returncode == 0, run.stderr
    found = read_metadata(str(out))
    assert f"{out}: {found['images']['train']} train, {found['images']['val']} val, the validation images" in run.stdout
    assert "2 m per pixel; split by blocks of 128 m, 16 m apart; labels: 0 background, 1 road" in run.stdout
    assert f"Normalize=dict(mean={found['mean']}" in run.stdout
    for row, column in [place(path.stem) for path in out.glob("SegmentationClass/*")]:
        assert row % 72 in (0, 32) and column % 72 in (0, 32)
    run = run_tool("make_dataset.py", *command[:3], "--out", tmp_path / "no")
    assert run.returncode == 2 and run.stderr.strip().endswith("say how wide they are: --width or --width-field")
