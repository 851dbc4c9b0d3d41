import json
from types import SimpleNamespace

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import shapely.ops
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmseg_ext.errors import DataError
from mmseg_ext.geo import RasterSource, write_geotiff
from mmseg_ext.imagery.reading import ImageReading
from mmseg_ext.mapping.map_files import MapFiles
from mmseg_ext.scoring import (
    FolderEvaluation,
    ScoringSettings,
    pair_predictions,
    remarks,
    score_image,
    write_report,
    write_scores,
)
from mmseg_ext.scoring.folder_scores import FilePair, read_masks
from mmseg_ext.scoring.results import image_values

UTM = "EPSG:32632"


def road(size=100, row=50):
    mask = np.zeros((size, size), bool)
    mask[row - 5 : row + 5] = True
    return mask


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def score(prediction, truth, probability=False, **options):
    pairs = pair_predictions(str(prediction), str(truth))
    return FolderEvaluation(pairs, ScoringSettings(**options), probability).score()


def test_masks_of_every_kind_score_as_their_arrays(tmp_path):
    truth, prediction = road(), road(row=52)
    expected = image_values(score_image("a", prediction, truth, ScoringSettings()))
    save(tmp_path / "white" / "a_mask.png", prediction * 255)
    save(tmp_path / "labels" / "a.png", prediction)
    save(tmp_path / "truth" / "a_label.png", truth * 255)
    for folder in ("white", "labels"):
        (found,) = score(tmp_path / folder, tmp_path / "truth")
        assert found.name == "a" and image_values(found) == pytest.approx(expected, nan_ok=True)
    (single,) = score(tmp_path / "white" / "a_mask.png", tmp_path / "truth" / "a_label.png")
    assert image_values(single) == pytest.approx(expected, nan_ok=True)


def test_255_is_ignored_where_masks_hold_labels(tmp_path):
    truth, prediction = road().astype(np.uint8), road()
    truth[:, :50] = 255
    prediction[80:, :50] = True
    save(tmp_path / "p" / "a.png", prediction * 255)
    save(tmp_path / "t" / "a.png", truth)
    (found,) = score(tmp_path / "p", tmp_path / "t")
    assert image_values(found)["IoU"] == 1 and found.counts["pixels"] == 5000
    hidden = road().astype(np.uint8)
    hidden[:, 60:] = 255  # a prediction cannot take pixels out: there it is no road
    save(tmp_path / "p" / "a.png", hidden)
    (found,) = score(tmp_path / "p", tmp_path / "t")
    assert image_values(found)["recall"] == pytest.approx(0.2) and found.counts["pixels"] == 5000


def test_probabilities_and_their_threshold(tmp_path):
    chance = np.where(road(), 204, 51)  # 0.8 and 0.2
    chance[:20] = 102  # 0.4
    save(tmp_path / "p" / "a.png", chance)
    save(tmp_path / "t" / "a.png", road() * 255)
    (found,) = score(tmp_path / "p", tmp_path / "t", True)
    assert image_values(found)["IoU"] == 1 and image_values(found)["best_F1"] == 1
    (low,) = score(tmp_path / "p", tmp_path / "t", True, threshold=0.4)
    assert image_values(low)["IoU"] == pytest.approx(1000 / 3000)
    assert image_values(found)["calibration_error"] == pytest.approx(0.2 * 0.1 + 0.4 * 0.2 + 0.2 * 0.7)
    (tmp_path / "f").mkdir()
    write_geotiff(str(tmp_path / "f" / "a.tif"), (chance / 255).astype(np.float32))
    assert image_values(score(tmp_path / "f", tmp_path / "t")[0]) == pytest.approx(image_values(found), nan_ok=True)
    write_geotiff(str(tmp_path / "f" / "a.tif"), chance.astype(np.float32))
    with pytest.raises(DataError, match=r"a.tif: values from 51 to 204 are not probabilities \(0 to 1\)"):
        score(tmp_path / "f", tmp_path / "t")
    with pytest.raises(DataError, match="neither a road mask nor labels 0, 1, 255; give --probability"):
        save(tmp_path / "p" / "a.png", np.arange(10000).reshape(100, 100) % 250)
        score(tmp_path / "p", tmp_path / "t")


@pytest.mark.parametrize("scale, offset", [(1 / 250, 0.0), (-1 / 250, 1.0), (1.0, 0.0)])
def test_integers_are_probabilities_by_their_scale_and_offset_and_nodata_is_no_road(tmp_path, scale, offset):
    chance = np.where(road(row=52), 0.804, 0.204).astype(np.float32)  # no edges of bins
    valid = np.ones((100, 100), bool)
    valid[:30], valid[49:52, :20] = False, False
    plain = (scale, offset) == (1, 0)
    stored = np.rint((chance - offset) / (1 / 255 if plain else scale)).astype(np.uint8)
    for name, values, nodata in (("f", chance, -1), ("p", stored, 255)):
        (tmp_path / name).mkdir()
        write_geotiff(
            str(tmp_path / name / "a.tif"), np.where(valid, values, nodata).astype(values.dtype), nodata=nodata
        )
    with rasterio.open(tmp_path / "p" / "a.tif", "r+") as raster:
        raster.scales, raster.offsets = (scale,), (offset,)
    save(tmp_path / "t" / "a.png", road() * 255)
    (found,), (floats,) = score(tmp_path / "p", tmp_path / "t", plain), score(tmp_path / "f", tmp_path / "t")
    assert image_values(found) == pytest.approx(image_values(floats), abs=5e-4, nan_ok=True)
    # rows 47 to 56 against 45 to 54, and what lies at no data is missed
    assert image_values(found)["IoU"] == pytest.approx((800 - 60) / 1200)


@given(data=st.data(), dtype=st.sampled_from(["uint8", "uint16", "int16", "int32", "float32", "float64"]))
@settings(max_examples=40, deadline=None)
def test_probabilities_of_any_type_scale_offset_nodata_and_mask_are_what_the_file_says(tmp_path_factory, data, dtype):
    folder = tmp_path_factory.mktemp("any")
    whole = np.issubdtype(dtype, np.integer)
    steps = data.draw(st.integers(50, 250)) if whole else 1
    scale = data.draw(st.sampled_from([1, -1])) / steps
    offset = 0.0 if scale > 0 else 1.0
    if whole and np.iinfo(dtype).min < 0 and data.draw(st.booleans()):
        offset += 50 * scale
    chance = np.array(data.draw(st.lists(st.integers(0, steps), min_size=6, max_size=6)), float).reshape(2, 3) / steps
    stored = np.array((chance - offset) / scale)
    stored = (stored.round() if whole else stored).astype(dtype)
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=6, max_size=6))).reshape(2, 3)
    by = data.draw(st.sampled_from(["nothing", "nodata", "mask"]))
    nodata = 255 if dtype == "uint8" else np.iinfo(dtype).max if whole else float("nan")
    if by == "nodata":
        stored[~valid] = nodata
    path = str(folder / "a.tif")
    with rasterio.open(path, "w", "GTiff", 3, 2, 1, dtype=dtype, nodata=nodata if by == "nodata" else None) as raster:
        raster.write(stored, 1)
        raster.scales, raster.offsets = (scale,), (offset,)
        if by == "mask":
            raster.write_mask(valid)
    save(folder / "t.png", [[0, 255, 0], [255, 0, 255]])
    pair = FilePair("a", path, str(folder / "t.png"))
    found = read_masks(pair, (False, False), ScoringSettings(), probability=False)
    wanted = chance if by == "nothing" else np.where(valid, chance, 0)
    np.testing.assert_allclose(found.probability, wanted, atol=1e-6)


def test_a_map_of_our_own_scores_the_same_as_classes_and_as_probabilities(tmp_path):
    chance = np.where(road(row=52), 200, 50).astype(np.uint8)
    labels, none = (chance >= 125).astype(np.uint8), np.zeros((100, 100), np.uint8)
    facts = SimpleNamespace(palette=[(0, 0, 0), (128, 0, 0)], classes=["background", "road"])
    place = dict(crs=UTM, transform=(0.5, 0, 500_000, 0, -0.5, 5_000_050))
    write_geotiff(str(tmp_path / "pit.tif"), np.zeros((100, 100, 3), np.uint8), **place)
    save(tmp_path / "t.png", road() * 255)
    for name, layers in (
        ("road", dict(labels=labels, probability=chance)),
        ("none", dict(labels=none, probability=none)),
    ):
        files = MapFiles(str(tmp_path / name), "pit")
        for values in layers.values():
            values[:20] = 255
        files.save_strip(0, 0, layers)
        with RasterSource(str(tmp_path / "pit.tif")) as source:
            files.write_maps([0], source, ImageReading(), facts, list(layers))
    (classes,) = score(tmp_path / "road" / "pit_roads.tif", tmp_path / "t.png")
    (chances,) = score(tmp_path / "road" / "pit_probability.tif", tmp_path / "t.png")
    assert image_values(chances)["IoU"] == image_values(classes)["IoU"] == pytest.approx(800 / 1200)
    # 2 000 pixels of nodata at 0, 1 000 at 0.8 of which 0.8 are road, 7 000 at 0.2 of which 200 are road
    assert image_values(chances)["calibration_error"] == pytest.approx(0.7 * (0.2 - 200 / 7000), abs=1e-6)
    for layer in ("roads", "probability"):  # nodata in a map without any road
        (found,) = score(tmp_path / "none" / f"pit_{layer}.tif", tmp_path / "t.png")
        assert image_values(found)["recall"] == 0 and image_values(found)["accuracy"] == 0.9
    save(tmp_path / "p.png", road() * 255)
    with pytest.raises(DataError, match=r"pit_probability.tif: holds probabilities, but the truth is a mask; give one"):
        score(tmp_path / "p.png", tmp_path / "road" / "pit_probability.tif")


def test_the_metres_of_a_georeference_count(tmp_path):
    placed = dict(crs=UTM, transform=(2.0, 0, 500_000, 0, -2.0, 5_000_000))
    for name, mask in (("p", road(row=52)), ("t", road())):
        (tmp_path / name).mkdir()
        write_geotiff(str(tmp_path / name / "a.tif"), mask.astype(np.uint8) * 255, **placed)
    (found,) = score(tmp_path / "p", tmp_path / "t", tolerance_m=4)
    assert found.counts["truth_km"] == pytest.approx(0.2, rel=0.03)  # 100 px of 2 m
    # 4 m are 2 px: all that is off by two rows matches
    assert image_values(found)["relaxed_F1"] == 1
    assert image_values(score(tmp_path / "p", tmp_path / "t", tolerance_m=3)[0])["relaxed_F1"] < 1


CORNER = 500_000, 5_000_000
NORTH_UP = (0.5, 0, 0, -0.5)
SKEW = (0.4, 0.3, 0.3, -0.4)


def placed(path, values, right=0.0, down=0.0, crs=UTM, pixel=NORTH_UP):
    """Write a raster whose corner lies ``right`` and ``down`` pixels of CORNER."""
    path.parent.mkdir(parents=True, exist_ok=True)
    a, b, d, e = pixel
    x, y = CORNER[0] + a * right + b * down, CORNER[1] + d * right + e * down
    write_geotiff(str(path), values, crs, (a, b, x, d, e, y))
    return path


def winding(size=120):
    rows, columns = np.mgrid[:size, :size]
    return np.abs(rows - 60 - 20 * np.sin(columns / 15)) < 5


@pytest.mark.parametrize("pixel", [NORTH_UP, SKEW, (0.5, 0, 0, 0.5)])
@pytest.mark.parametrize(
    ("window", "truth_share", "prediction_share"),
    [
        ((20, 10, 60, 100), 6000 / 14400, 1),  # inside the truth
        ((-20, -30, 200, 210), 1, 14400 / 42000),  # around it
        ((40, -30, 120, 100), 80 * 70 / 14400, 80 * 70 / 12000),  # over a corner
        ((0, 5, 120, 120), 115 / 120, 115 / 120),  # of one size, beside it
    ],
)
def test_what_both_cover_is_scored_as_if_cut_to_it(tmp_path, pixel, window, truth_share, prediction_share):
    truth, everywhere = winding(), np.pad(np.roll(winding(), 2, 0), 300)
    row, column, height, width = window
    prediction = everywhere[300 + row :, 300 + column :][:height, :width]
    placed(tmp_path / "t.tif", truth.astype(np.uint8), pixel=pixel)
    part = slice(max(row, 0), row + height), slice(max(column, 0), column + width)
    settings = ScoringSettings(gsd_m=0.5)
    cut = image_values(score_image("t", np.roll(truth, 2, 0)[part], truth[part], settings))
    placed(tmp_path / "p.tif", prediction.astype(np.uint8) * 255, column, row, pixel=pixel)
    (found,) = score(tmp_path / "p.tif", tmp_path / "t.tif")
    assert image_values(found) == pytest.approx(cut, nan_ok=True)
    (remark,) = remarks([found])
    shares = f"{100 * truth_share:.2f} % of the truth's area, {100 * prediction_share:.2f} % of the prediction's."
    said = "Not the same ground in prediction and truth: 1 of 1 image(s). Only the ground that both cover is scored: "
    assert remark == said + shares
    # probabilities are cut the same, and so is what is ignored
    chance = np.where(prediction, 0.9, 0.2).astype(np.float32)
    placed(tmp_path / "p.tif", chance, column, row, pixel=pixel)
    labels = truth.astype(np.uint8)
    labels[:, 50:] = 255
    placed(tmp_path / "t.tif", labels, pixel=pixel)
    (found,) = score(tmp_path / "p.tif", tmp_path / "t.tif")
    known = (labels < 255)[part]
    by_array = score_image("t", np.roll(truth, 2, 0)[part], truth[part], settings, known, np.where(np.roll(truth, 2, 0), 0.9, 0.2)[part])  # fmt: skip  # noqa: E501
    assert image_values(found) == pytest.approx(image_values(by_array), nan_ok=True)


def test_the_ground_of_a_folder_is_told_with_the_least_and_not_where_all_is_the_same(tmp_path):
    for name, height in (("a", 120), ("b", 30), ("c", 60)):
        placed(tmp_path / "t" / f"{name}.tif", winding().astype(np.uint8))
        placed(tmp_path / "p" / f"{name}.tif", winding()[:height].astype(np.uint8))
    images = score(tmp_path / "p", tmp_path / "t")
    (remark,) = remarks(images)
    assert (
        "prediction and truth: 2 of 3 image(s) (least in b). Only the ground that both cover is scored: 58.33 % of the"
        in remark
    )
    assert "100.00 % of the prediction's" in remark
    assert remarks(score(tmp_path / "t", tmp_path / "t")) == []
    pairs = pair_predictions(str(tmp_path / "p"), str(tmp_path / "t"))
    save(tmp_path / "i" / "b.png", np.arange(120)[:, None].repeat(120, 1))
    for name in "ac":
        save(tmp_path / "i" / f"{name}.png", np.zeros((120, 120)))
    shown = FolderEvaluation(pairs, ScoringSettings(), images_dir=str(tmp_path / "i")).show(1)
    assert shown.image[:, 0, 0].tolist() == list(range(30)) and shown.truth.shape == shown.prediction.shape == (30, 120)


@pytest.mark.parametrize(
    ("shape", "place", "words"),
    [
        ((50, 60), dict(right=120), r"has no ground in common with .*t.tif, it begins \+120 px right and \+0 px down"),
        ((50, 60), dict(right=10.5, down=3), r"begins \+10.50 px right and \+3.00 px .* -tr 0.5 0.5 -te "),
        ((120, 120), dict(down=0.7), r"begins \+0.00 px right and \+0.70 px down of .*, not whole pixels"),
        ((60, 60), dict(pixel=(1.0, 0, 0, -1.0)), r"has pixels of 1 x 1, but .*t.tif of 0.5 x 0.5; .* 500060"),
        ((60, 60), dict(pixel=SKEW), r"is rotated or turned over beside .*t.tif; bring it"),
        ((60, 60), dict(pixel=(0.5, 0, 0, 0.5)), r"is rotated or turned over beside .*t.tif; bring it"),
        ((60, 60), dict(crs=None), r"has no coordinate reference system, but .*t.tif has one; give it its own"),
        ((60, 60), dict(crs='LOCAL_CS["mine",UNIT["metre",1]]'), r"is on the map 'mine' .* there is no way to another"),
        ((60, 60), dict(crs="EPSG:32633"), r"is in EPSG:32633, but .*t.tif in EPSG:32632; .* -t_srs 'EPSG:32632' -tr"),
    ],
)  # fmt: skip
def test_what_has_not_the_truths_pixels_is_refused_before_the_work(tmp_path, shape, place, words):
    save(tmp_path / "t" / "a.png", road() * 255)
    save(tmp_path / "p" / "a.png", road() * 99)  # which would be refused later
    placed(tmp_path / "t" / "t.tif", winding().astype(np.uint8))
    placed(tmp_path / "p" / "t.tif", np.ones(shape, np.uint8), **place)
    with pytest.raises(DataError, match=rf"p/t.tif: {words}"):
        score(tmp_path / "p", tmp_path / "t")


def test_of_another_size_and_without_georeference_is_refused(tmp_path):
    save(tmp_path / "p.png", road(90) * 255)
    save(tmp_path / "t.png", road() * 255)
    with pytest.raises(
        DataError, match=r"p.png: 90x90 px without a georeference, but .*t.png has 100x100 px; bring both"
    ):
        score(tmp_path / "p.png", tmp_path / "t.png")
    placed(tmp_path / "t.tif", road().astype(np.uint8))
    with pytest.raises(DataError, match=r"p.png: 90x90 px without a georeference, but .*t.tif has 100x100 px"):
        score(tmp_path / "p.png", tmp_path / "t.tif")
    with pytest.raises(DataError, match=r"p.png: 90x90 px without a georeference, but .*t.tif has 100x100 px"):
        score(tmp_path / "t.tif", tmp_path / "p.png")


def lines(path, *coordinates, crs=UTM):
    path.parent.mkdir(parents=True, exist_ok=True)
    geometries = shapely.to_wkb([shapely.LineString(line) for line in coordinates])
    pyogrio.raw.write(str(path), geometries, [], [], crs=crs, geometry_type="LineString")


def test_lines_are_scored_in_metres(tmp_path):
    east, north = 500_000, 5_000_000
    lines(tmp_path / "t" / "a.gpkg", [(east, north), (east + 400, north)])
    lines(tmp_path / "p" / "a.geojson", [(east, north + 2), (east + 100, north + 2)])
    (found,) = score(tmp_path / "p", tmp_path / "t")
    values = image_values(found)
    assert values["completeness"] == pytest.approx((100 + np.sqrt(5)) / 400, abs=0.002)  # beyond the end, 3 m - 2 m off
    assert values["correctness"] == 1
    assert found.counts["truth_km"] == pytest.approx(0.4)
    assert "IoU" not in values and found.confusion is None
    assert values["APLS_spacenet"] == 0
    assert image_values(score(tmp_path / "t", tmp_path / "t")[0])["APLS_spacenet"] == 1


def test_lines_join_where_one_ends_on_another_and_far_ones_are_refused(tmp_path):
    east, north = 500_000, 5_000_000
    through, side = [(east, north), (east + 200, north)], [(east + 100, north), (east + 100, north + 100)]
    lines(tmp_path / "p" / "a.gpkg", through, side)
    lines(tmp_path / "t" / "a.gpkg", [through[0], side[0]], [side[0], through[1]], side)
    values = image_values(score(tmp_path / "p", tmp_path / "t")[0])
    assert values["components_prediction"] == 1 and values["pairs_kept"] == pytest.approx(1) and values["gaps"] == 0
    lines(tmp_path / "p" / "a.gpkg", through, crs="EPSG:32633")
    with pytest.raises(DataError, match=r"a.gpkg: lies 4\d\d km from its truth"):
        score(tmp_path / "p", tmp_path / "t")


def test_lines_that_are_nowhere_are_named(tmp_path):
    lines(tmp_path / "p" / "a.gpkg", [(500_000, 5_000_000), (500_200, 5_000_000)], crs="EPSG:4326")
    lines(tmp_path / "t" / "a.gpkg")
    with pytest.raises(DataError, match=r"p/a.gpkg: is said to be in degrees .EPSG:4326. but reaches to 5000000"):
        score(tmp_path / "p", tmp_path / "t")
    lines(tmp_path / "p" / "a.gpkg", [(10, 50), (10.001, 50)], crs="EPSG:4326")
    lines(tmp_path / "t" / "a.gpkg", [(500_000, 5_000_000), (500_200, 5_000_000)], crs="EPSG:4326")
    with pytest.raises(DataError, match=r"t/a.gpkg: is said to be in degrees"):
        score(tmp_path / "p", tmp_path / "t")


def test_lines_count_as_far_as_the_mask_reaches_and_probabilities_are_masks_too(tmp_path):
    placed = dict(crs=UTM, transform=(0.5, 0, 500_000, 0, -0.5, 5_000_050))
    (tmp_path / "p").mkdir()
    lines(tmp_path / "t" / "a.geojson", [(499_000, 5_000_025), (502_000, 5_000_025)])  # 3 km; the mask has 50 m
    for values in (road().astype(np.uint8), np.where(road(), 0.9, 0.1).astype(np.float32)):
        write_geotiff(str(tmp_path / "p" / "a.tif"), values, **placed)
        (found,) = score(tmp_path / "p", tmp_path / "t", tolerance_px=0.5)
        assert image_values(found)["completeness"] > 0.98
        assert found.counts["centreline_truth"] == pytest.approx(50, abs=0.1)


def test_a_mask_against_lines(tmp_path):
    placed = dict(crs=UTM, transform=(0.5, 0, 500_000, 0, -0.5, 5_000_050))
    (tmp_path / "p").mkdir()
    write_geotiff(str(tmp_path / "p" / "a.tif"), road(100, 50).astype(np.uint8), **placed)
    lines(tmp_path / "t" / "a.geojson", [(500_000, 5_000_025), (500_050, 5_000_025)])  # the middle of rows 45 to 54
    values = image_values(score(tmp_path / "p", tmp_path / "t", tolerance_px=0.5)[0])
    assert values["completeness"] > 0.98 and values["correctness"] == 1
    write_geotiff(str(tmp_path / "p" / "a.tif"), road().astype(np.uint8))
    with pytest.raises(DataError, match="a.tif: has no georeference, so it does not compare to lines"):
        score(tmp_path / "p", tmp_path / "t")


def test_a_layer_of_lines_is_chosen(tmp_path):
    path, line = str(tmp_path / "a.gpkg"), shapely.LineString([(500_000, 5_000_000), (500_400, 5_000_000)])
    for name, part in (("west", 0.5), ("whole", 1.0)):
        shapes = shapely.to_wkb([shapely.ops.substring(line, 0, part, normalized=True)])
        pyogrio.raw.write(path, shapes, [], [], crs=UTM, geometry_type="LineString", layer=name, append=name == "whole")
    with pytest.raises(DataError, match=r"a.gpkg: has the layers west, whole; choose one as .*a.gpkg:west"):
        score(path, f"{path}:whole")
    (found,) = score(f"{path}:west", f"{path}:whole")
    assert found.name == "a" and image_values(found)["completeness"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(DataError, match="a.gpkg:east: has no such layer of lines or polygons; it has west, whole"):
        score(f"{path}:east", f"{path}:whole")
    with pytest.raises(DataError, match="b.gpkg:west: no such file or folder"):
        score(f"{tmp_path}/b.gpkg:west", f"{path}:whole")


GRID = 'LOCAL_CS["pit grid",UNIT["foot",0.3048],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'


@pytest.mark.parametrize(("crs", "unit_m"), [(GRID, 0.3048), (None, 1.0), (UTM, 1.0), ("EPSG:2223", 0.3048)])
def test_lines_and_masks_of_one_grid_are_scored_in_its_unit(tmp_path, crs, unit_m):
    east, north = (700_000, 1_000_000) if crs == "EPSG:2223" else (500_000, 5_000_000)
    for off, complete in ((2.9 / unit_m, 1), (3.1 / unit_m, 0)):  # the tolerance is 3 m
        lines(tmp_path / "t" / "a.gpkg", [(east, north), (east + 400, north)], crs=crs)
        lines(tmp_path / "p" / "a.gpkg", [(east, north + off), (east + 400, north + off)], crs=crs)
        (found,) = score(tmp_path / "p", tmp_path / "t")
        assert image_values(found)["completeness"] == pytest.approx(complete)
        assert found.counts["truth_km"] == pytest.approx(0.4 * unit_m, rel=1e-3)
    (tmp_path / "m").mkdir()
    write_geotiff(str(tmp_path / "m" / "a.tif"), road().astype(np.uint8), crs, (0.5, 0, east, 0, -0.5, north + 25))
    (found,) = score(tmp_path / "m", tmp_path / "t")
    assert found.counts["centreline_truth"] == pytest.approx(50 * unit_m, rel=1e-3)  # as far as the mask reaches
    values = image_values(found)
    assert [values["completeness"], values["correctness"]] == pytest.approx([1, 1])


def test_lines_whose_maps_have_no_way_to_each_other_are_refused(tmp_path):
    lines(tmp_path / "t" / "a.gpkg", [(500_000, 5_000_000), (500_400, 5_000_000)], crs=GRID)
    place = (0.5, 0, 500_000, 0, -0.5, 5_000_025)
    (tmp_path / "p").mkdir()
    for crs, words in (
        (UTM, "p/a.tif: is on the map 'WGS 84 / UTM zone 32N' .metre., but .*t/a.gpkg on 'pit grid' .foot., and"),
        (None, "p/a.tif: has no coordinate reference system, but .*t/a.gpkg has one; give it its own"),
    ):
        for mask in (road(), np.zeros((100, 100))):
            write_geotiff(str(tmp_path / "p" / "a.tif"), mask.astype(np.uint8), crs, place)
            with pytest.raises(DataError, match=words):
                score(tmp_path / "p", tmp_path / "t")


def test_what_does_not_pair_is_named(tmp_path):
    save(tmp_path / "t" / "a.png", road() * 255)
    save(tmp_path / "t" / "b.png", road() * 255)
    save(tmp_path / "p" / "a.png", road() * 255)
    with pytest.raises(DataError, match="b.png: has no prediction of its name in"):
        score(tmp_path / "p", tmp_path / "t")
    assert [p.name for p in pair_predictions(str(tmp_path / "p"), str(tmp_path / "t"), ["a"])] == ["a"]
    with pytest.raises(DataError, match="c.*: no such truth"):
        pair_predictions(str(tmp_path / "p"), str(tmp_path / "t"), ["c"])
    with pytest.raises(DataError, match="one is a folder, the other a file"):
        score(tmp_path / "p", tmp_path / "t" / "a.png")
    with pytest.raises(DataError, match="none: no such file or folder"):
        score(tmp_path / "none", tmp_path / "t")
    save(tmp_path / "p" / "a_mask.png", road() * 255)
    with pytest.raises(DataError, match="a.png and a_mask.png both stand for 'a'"):
        score(tmp_path / "p", tmp_path / "t")
    (tmp_path / "p" / "a_mask.png").unlink()
    save(tmp_path / "p" / "b.png", road(90) * 255)
    with pytest.raises(DataError, match=r"b.png.*90"):
        score(tmp_path / "p", tmp_path / "t")
    lines(tmp_path / "p" / "c.geojson", [(0, 0), (1, 1)])
    lines(tmp_path / "t" / "c.geojson", [(0, 0), (1, 1)])
    with pytest.raises(DataError, match="c.geojson: lines and masks are mixed"):
        score(tmp_path / "p", tmp_path / "t")


def test_a_missing_folder_of_images_is_named_with_its_option(tmp_path):
    save(tmp_path / "a.png", road() * 255)
    pairs = pair_predictions(str(tmp_path / "a.png"), str(tmp_path / "a.png"))
    with pytest.raises(
        DataError, match="none: no such folder; give --images the folder of the images, or leave it out$"
    ):
        FolderEvaluation(pairs, ScoringSettings(), images_dir=str(tmp_path / "none"))


def test_the_files_of_an_evaluation_agree(tmp_path):
    for name, shift in (("a", 0), ("b", 2), ("empty", None)):
        none = np.zeros((100, 100), bool)
        save(tmp_path / "p" / f"{name}.png", (none if shift is None else road(row=50 + shift)) * 255)
        save(tmp_path / "t" / f"{name}.png", (none if shift is None else road()) * 255)
    settings = ScoringSettings()
    evaluation = FolderEvaluation(pair_predictions(str(tmp_path / "p"), str(tmp_path / "t")), settings)
    images = evaluation.score()
    write_scores(str(tmp_path / "out"), images, settings, truth="t")
    write_report(str(tmp_path / "out"), "Roads", images, settings, evaluation.show)
    content = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert content["truth"] == "t" and content["settings"]["tolerance_px"] == 3
    assert content["road"]["IoU"]["undefined"] == 1
    assert content["road"]["IoU"]["pooled"] == pytest.approx((1000 + 800) / (1000 + 1200))
    assert content["road"]["IoU"]["mean"] == pytest.approx((1 + 800 / 1200) / 2)
    assert content["classes"]["pooled"]["road"]["IoU"] == content["road"]["IoU"]["pooled"]
    assert content["classes"]["mean"]["background"]["IoU"] == pytest.approx((1 + 8800 / 9200 + 1) / 3)
    rows = (tmp_path / "out" / "images.csv").read_text().splitlines()
    assert rows[0].startswith("image,IoU,F1") and rows[2].startswith("b,0.666667,0.8") and rows[3].startswith("empty,,")
    assert "| IoU, % | 81.82 | 83.33 | 1 |" in (tmp_path / "out" / "scores.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "81.82" in page and page.count("<figure") >= 6
    assert not list((tmp_path / "out").glob("*.partial"))
