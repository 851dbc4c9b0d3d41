"""What a mask does not know is ignored, whatever its type and however the file says it, wherever masks are read."""

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp

from mmseg_ext.checks import examine, splits_of_folder
from mmseg_ext.converters import convert, repair_dataset
from mmseg_ext.datasets.loading import read_mask
from mmseg_ext.errors import DataError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.imagery.raw_mask import read_grey, repaired_labels
from mmseg_ext.scoring import FolderEvaluation, ScoringSettings, pair_predictions

ROAD = np.zeros((12, 16), np.uint8)
ROAD[4:8] = 1
HOLE = np.zeros(ROAD.shape, bool)
HOLE[:, :3] = True  # of road and of background
TRUTH = np.where(HOLE, 255, ROAD).astype(np.uint8)
NODATA = {
    "uint8": (9, 254, 255),
    "int8": (-1, -128),
    "uint16": (9, 255, 65535),
    "int16": (-9999, -32768, 255),
    "uint32": (2**32 - 1,),
    "int32": (-(2**31), -1, 2**31 - 1),
    "float32": (-9999.0, float(np.finfo(np.float32).min), np.nan, 255.0),
    "float64": (-1.5, 1e20, np.nan),
}


def write(path, road, dtype, how, nodata=None):
    """Write ``road`` with HOLE said as ``how``: by value, by an alpha band or by a mask inside the file."""
    hidden = nodata if how == "nodata" else 1 - road.clip(0, 1)  # what stands below alpha or a mask means nothing
    values = np.where(HOLE, hidden, road).astype(dtype)
    profile = dict(driver="GTiff", height=12, width=16, dtype=dtype, nodata=nodata if how == "nodata" else None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=2 if how == "alpha" else 1, **profile) as file,
    ):
        if how == "alpha":
            file.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
            file.write(np.where(HOLE, 0, 1).astype(dtype), 2)
        file.write(values, 1)
        if how == "mask":
            file.write_mask(~HOLE)
    return str(path)


@st.composite
def masks(draw):
    dtype = draw(st.sampled_from(sorted(NODATA)))
    how = draw(st.sampled_from(["nodata", "nodata", "alpha", "mask"]))
    return dtype, how, draw(st.sampled_from(NODATA[dtype]))


@settings(max_examples=80, deadline=None)
@given(masks(), st.sampled_from([1, 255, 65535]))
def test_the_labels_of_any_mask_are_255_where_it_knows_nothing(tmp_path_factory, mask, white):
    dtype, how, nodata = mask
    limit = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 65535
    white = white if white <= limit and white != nodata else 1
    path = write(tmp_path_factory.mktemp("m") / "a.tif", ROAD.astype(np.int64) * white, dtype, how, nodata)
    grey, valid = read_grey(path)
    assert np.array_equal(valid, ~HOLE)
    assert np.array_equal(grey > 0, (ROAD > 0) & ~HOLE)
    assert np.array_equal(repaired_labels(path, road_is_ignore=white == 255), TRUTH)


@pytest.mark.parametrize(("how", "nodata"), [("nodata", 255), ("nodata", 9), ("alpha", None), ("mask", None)])
def test_training_the_doctor_and_the_scores_ignore_it_too(tmp_path, how, nodata):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        image = np.random.default_rng(ord(name)).integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
        path = write(tmp_path / "masks" / f"{name}.tif", ROAD, "uint8", how, nodata)
    assert np.array_equal(read_mask(path), TRUTH)
    made = convert("pair", str(tmp_path), str(tmp_path / "made"), val=1)
    assert made.road_share == pytest.approx(4 / 12)
    for name in "abc":
        assert np.array_equal(np.array(Image.open(tmp_path / "made" / "SegmentationClass" / f"{name}.png")), TRUTH)
        # the same masks in a data set that is not converted
        (tmp_path / "made" / "SegmentationClass" / f"{name}.png").unlink()
        write(tmp_path / "made" / "SegmentationClass" / f"{name}.tif", ROAD, "uint8", how, nodata)
    found = examine(str(tmp_path / "made"), *splits_of_folder(str(tmp_path / "made")))
    assert found.exit_code == 0, found.text()
    assert all(facts[0].counts[255] == HOLE.sum() for _, facts in found.examined)
    repair_dataset(str(tmp_path / "made"), str(tmp_path / "fixed"))
    assert np.array_equal(np.array(Image.open(tmp_path / "fixed" / "SegmentationClass" / "a.png")), TRUTH)
    Image.fromarray(np.where(HOLE, 1 - ROAD, ROAD).astype(np.uint8)).save(tmp_path / "prediction.png")
    pairs = pair_predictions(str(tmp_path / "prediction.png"), str(tmp_path / "masks" / "a.tif"))
    (scores,) = FolderEvaluation(pairs, ScoringSettings()).score()
    assert np.array_equal(scores.confusion, [[8 * 13, 0], [0, 4 * 13]])


def test_nodata_0_is_background_as_gis_programs_write_it(tmp_path):
    for dtype in ("uint8", "int16", "float32"):
        write_geotiff(str(tmp_path / "a.tif"), ROAD.astype(dtype), nodata=0)
        assert np.array_equal(repaired_labels(str(tmp_path / "a.tif")), ROAD)
    assert np.array_equal(read_mask(write(tmp_path / "b.tif", ROAD, "uint8", "nodata", 0)), np.where(HOLE, 0, ROAD))
    Image.fromarray(ROAD * 255).save(tmp_path / "c.png", transparency=0)
    assert np.array_equal(read_grey(str(tmp_path / "c.png"))[0], ROAD * 255)


def test_masks_of_pictures_ignore_what_is_transparent(tmp_path):
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([ROAD * 255, alpha])).save(tmp_path / "la.png")
    Image.fromarray(np.dstack([ROAD * 255] * 3 + [alpha])).save(tmp_path / "rgba.png")
    palette = Image.fromarray(np.where(HOLE, 7, ROAD).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, *[0] * 762])
    palette.save(tmp_path / "p.png", transparency=7)
    for name in ("la", "rgba", "p"):
        assert np.array_equal(repaired_labels(str(tmp_path / f"{name}.png"), road_is_ignore=True), TRUTH), name


def test_masks_without_any_background_are_refused(tmp_path, write_pairs):
    image = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    overlay = np.dstack([ROAD * 255] * 3 + [ROAD * 255])  # roads painted on nothing
    write_pairs(tmp_path, {name: (image, overlay) for name in "abc"})
    with pytest.raises(DataError, match="a.png: no mask has background, all but roads is nodata or transparent; fill"):
        convert("pair", str(tmp_path), str(tmp_path / "made"), val=1)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("dtype", "hidden", "words"),
    [
        ("int16", -9999, "values such as -9999; declare"),
        ("uint16", 65535, "values 0, 1, 65535; declare 65535 as nodata"),
    ],
)
def test_nodata_that_the_file_does_not_declare_is_refused(tmp_path, dtype, hidden, words):
    write_geotiff(str(tmp_path / "a.tif"), np.where(HOLE, hidden, ROAD.astype(int)).astype(dtype))
    with pytest.raises(DataError, match=f"a.tif: {words}"):
        repaired_labels(str(tmp_path / "a.tif"))


def test_a_palette_of_labels_keeps_what_it_ignores(tmp_path, write_pairs):
    """255 in the coloured palette of the VOC data set is no road."""
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((12, 16, 3), np.uint8) + ord(name)).save(tmp_path / "images" / f"{name}.png")
        palette = Image.fromarray(TRUTH, mode="P")
        palette.putpalette([0, 0, 0, 128, 0, 0, *[0] * 759, 224, 224, 192])
        palette.save(tmp_path / "masks" / f"{name}.png")
    convert("pair", str(tmp_path), str(tmp_path / "made"), val=1)
    assert np.array_equal(np.array(Image.open(tmp_path / "made" / "SegmentationClass" / "a.png")), TRUTH)


def test_whole_valued_floats_are_masks_and_truths(tmp_path):
    """Float32 of 0 and 1 is what QGIS writes."""
    write_geotiff(str(tmp_path / "truth.tif"), ROAD.astype(np.float32))
    assert np.array_equal(repaired_labels(str(tmp_path / "truth.tif")), ROAD)
    Image.fromarray(ROAD * 255).save(tmp_path / "prediction.png")
    evaluation = FolderEvaluation(
        pair_predictions(str(tmp_path / "prediction.png"), str(tmp_path / "truth.tif")), ScoringSettings()
    )
    assert np.array_equal(evaluation.show(0).truth, ROAD > 0)
