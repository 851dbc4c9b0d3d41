import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import mmseg_ext
from mmseg_ext.checks import examine, splits_of_config, splits_of_folder, write_doctor_sheet
from mmseg_ext.checks.findings import KINDS
from mmseg_ext.converters import convert, write_synthetic_mines
from mmseg_ext.datasets import generate_mine
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.imagery.voc import REMEDIES

TRAIN, VAL = "mine0001_r00000_c00000", "mine0005_r00064_c00064"


@pytest.fixture()
def voc(mine_data, tmp_path):
    """A copy of the clean data set: 16 tiles train, 4 validate, one image of 128 px tests."""
    return shutil.copytree(mine_data, tmp_path / "voc")


def image_of(voc, stem=TRAIN):
    return voc / "JPEGImages" / f"{stem}.png"


def mask_of(voc, stem=TRAIN):
    return voc / "SegmentationClass" / f"{stem}.png"


def list_of(voc, split="train"):
    return voc / "ImageSets" / "Segmentation" / f"{split}.txt"


def masks(voc):
    return sorted((voc / "SegmentationClass").iterdir())


def read(path):
    return np.array(Image.open(path))


def save(array, path):
    Image.fromarray(array).save(path)


def diagnose(folder, **options):
    return examine(str(folder), *splits_of_folder(str(folder)), **options)


def found(diagnosis):
    """Return {code: (severity, names of the files)}."""
    return {f.code: (f.severity, [os.path.basename(path) for path in f.files]) for f in diagnosis.findings}


def words(diagnosis, code):
    (finding,) = (f for f in diagnosis.findings if f.code == code)
    return next(iter(finding.files.values()))


# --- clean data sets ---------------------------------------------------------------------------------------------


def test_a_clean_data_set_has_no_finding_and_its_figures_are_right(voc):
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {}
    assert diagnosis.exit_code == 0
    train, val, test = diagnosis.statistics
    assert (train.names, val.names, test.names) == (("train",), ("val",), ("test",))
    assert (train.pairs, val.pairs, test.pairs) == (16, 4, 1)
    assert test.sizes == {"128x128": 1}
    stems = list_of(voc).read_text().split()
    truth = np.stack([read(mask_of(voc, stem)) for stem in stems])
    pixels = np.concatenate([read(image_of(voc, stem)).reshape(-1, 3) for stem in stems]).astype(float)
    assert train.label_pixels == dict(background=int((truth == 0).sum()), road=int((truth == 1).sum()), ignored=0)
    assert train.without_road == sum(not mask.any() for mask in truth)
    assert train.mean == pytest.approx(pixels.mean(0), abs=0.006)
    assert train.std == pytest.approx(pixels.std(0), abs=0.006)
    assert train.class_weights == pytest.approx([0.5 / (1 - truth.mean()), 0.5 / truth.mean()], abs=6e-4)
    assert val.mean is None
    assert "nothing wrong was found" in diagnosis.text()


def test_larger_mines_with_ignored_corners_and_palettes_are_clean(tmp_path):
    write_synthetic_mines(str(tmp_path / "voc"), [11, 12], [13], [14], size_px=256, tile_px=128, gsd_m=2.0)
    for path in masks(tmp_path / "voc")[::2]:
        labels = read(path)
        if labels.any():  # 255 beside labels is ignore
            labels[:9, :9] = 255
        picture = Image.fromarray(labels, mode="P")
        picture.putpalette([0, 0, 0, 128, 0, 0])
        picture.save(path)
    assert found(diagnose(tmp_path / "voc")) == {}


def test_geotiffs_that_agree_are_clean(tmp_path):
    assert found(diagnose(geo_voc(tmp_path))) == {}


@pytest.mark.parametrize("kind", ["soft grey", "palette", "jpeg in one folder", "16 bit"])
def test_raw_folders_of_any_kind_that_converts_are_clean(kind, tmp_path):
    mine = generate_mine(3, 256, 2.0)
    in_one = kind == "jpeg in one folder"
    images, labels = (tmp_path,) * 2 if in_one else (tmp_path / "Images", tmp_path / "gt")
    for folder in {images, labels}:
        folder.mkdir(exist_ok=True)
    for i in range(4):
        window = np.s_[i // 2 * 128 : i // 2 * 128 + 128, i % 2 * 128 : i % 2 * 128 + 128]
        image, road = mine.image[window], mine.mask[window] * 255
        if kind == "16 bit":
            cv2.imwrite(str(images / f"a{i}.png"), image.astype(np.uint16) * 37)
        else:
            Image.fromarray(image).save(images / (f"a{i}_sat.jpg" if in_one else f"a{i}.png"))
        mask = Image.fromarray(cv2.GaussianBlur(road, (3, 3), 0) if kind == "soft grey" else road)
        if kind == "palette":
            mask = Image.fromarray(road // 255, mode="P")
            mask.putpalette([0, 0, 0, 255, 255, 255])
        mask.save(labels / (f"a{i}_mask.png" if in_one else f"a{i}.png"))
    diagnosis = diagnose(tmp_path)
    assert found(diagnosis) == {}
    (statistics,) = diagnosis.statistics
    assert statistics.pairs == 4
    assert statistics.label_pixels["road"] == pytest.approx((mine.mask == 1).sum(), rel=0.05)


def test_lists_as_windows_editors_write_them_are_read_by_every_tool(voc, tmp_path, run_tool):
    for split in ("train", "val", "test"):
        content = list_of(voc, split).read_text().replace("\n", "\r\n")
        list_of(voc, split).write_bytes(b"\xef\xbb\xbf" + content.encode())
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"split-encoding": ("warning", ["train.txt", "val.txt", "test.txt"])}
    assert [statistics.pairs for statistics in diagnosis.statistics] == [16, 4, 1]
    assert convert("opm", str(voc), str(tmp_path / "again")).counts == dict(train=16, val=4, test=1)
    lists = dict(val_list=str(list_of(voc, "val")), test_list=str(list_of(voc, "test")))
    assert convert("pair", str(voc), str(tmp_path / "pair"), **lists).counts == dict(train=16, val=4, test=1)
    done = run_tool("evaluate.py", voc / "SegmentationClass", voc / "SegmentationClass", "--split", list_of(voc, "val"))
    assert done.returncode == 0 and done.stdout.startswith("4 image(s): "), done.stderr


# --- the fourteen planted defects --------------------------------------------------------------------------------


def test_exchanged_folders(voc):
    (voc / "JPEGImages").rename(voc / "x")
    (voc / "SegmentationClass").rename(voc / "JPEGImages")
    (voc / "x").rename(voc / "SegmentationClass")
    diagnosis = diagnose(voc)
    assert set(found(diagnosis)) == {"folders-exchanged"}
    severity, files = found(diagnosis)["folders-exchanged"]
    assert (severity, len(files), files[0]) == ("error", 21, f"{TRAIN}.png")
    assert diagnosis.exit_code == 2


def test_every_mask_0_255(voc):
    for path in masks(voc):
        save(read(path) * 255, path)
    diagnosis = diagnose(voc)
    severity, files = found(diagnosis)["mask-0-255"]
    assert severity == "error"
    assert files[0] == f"{TRAIN}.png"
    assert all(finding.kind.fixable for finding in diagnosis.findings)
    assert diagnosis.exit_code == 2


def test_one_mask_0_255(voc):
    assert read(mask_of(voc)).any()
    save(read(mask_of(voc)) * 255, mask_of(voc))
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"mask-0-255": ("error", [f"{TRAIN}.png"])}
    assert diagnosis.exit_code == 2


def test_a_tile_that_nobody_labelled_is_no_0_255_mask(voc):
    labels = np.full((64, 64), 255, np.uint8)
    labels[:9] = 0
    save(labels, mask_of(voc))
    assert found(diagnose(voc)) == {}


def test_a_colour_mask(voc):
    save(read(mask_of(voc))[:, :, None] * np.array([255, 0, 0], np.uint8), mask_of(voc))
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"mask-colour": ("error", [f"{TRAIN}.png"])}
    assert all(finding.kind.fixable for finding in diagnosis.findings)
    assert diagnosis.exit_code == 2


def test_a_grey_mask_with_soft_edges(voc):
    save(cv2.GaussianBlur(read(mask_of(voc)) * 255, (3, 3), 0), mask_of(voc))
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"mask-grey": ("error", [f"{TRAIN}.png"])}
    assert all(finding.kind.fixable for finding in diagnosis.findings)
    assert diagnosis.exit_code == 2


GRID = dict(crs="EPSG:32632", transform=(2.0, 0.0, 500_000.0, 0.0, -2.0, 4_000_000.0))


def geo_voc(folder, shift_m=0.0, val_at_m=5000.0):
    """Two GeoTIFF tiles that train, side by side, and one that validates."""
    root = folder / "geo"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    mines = [generate_mine(seed, 64, 4.0) for seed in (21, 22, 23)]
    for stem, mine, at in zip("abc", mines, (0.0, 128.0, val_at_m), strict=True):
        place = dict(GRID, transform=(2.0, 0.0, 500_000.0 + at, *GRID["transform"][3:]))
        write_geotiff(str(root / "JPEGImages" / f"{stem}.tif"), mine.image, **place)
        if stem == "b":
            place["transform"] = (2.0, 0.0, place["transform"][2] + shift_m, *place["transform"][3:])
        write_geotiff(str(root / "SegmentationClass" / f"{stem}.tif"), mine.mask, **place)
    list_of(root).write_text("a\nb\n")
    list_of(root, "val").write_text("c\n")
    return root


def test_a_mask_shifted_against_its_georeference(tmp_path):
    diagnosis = diagnose(geo_voc(tmp_path, shift_m=6.0))
    assert found(diagnosis) == {"georeference": ("error", ["b.tif"])}
    assert "+3.0 px right" in words(diagnosis, "georeference")
    assert diagnosis.exit_code == 2


@pytest.mark.parametrize("which", [image_of, mask_of])
def test_a_truncated_png(voc, which):
    content = which(voc).read_bytes()
    which(voc).write_bytes(content[: len(content) * 2 // 3])
    diagnosis = diagnose(voc)
    code = "image-unreadable" if which is image_of else "mask-unreadable"
    assert found(diagnosis) == {code: ("error", [f"{TRAIN}.png"])}
    assert diagnosis.exit_code == 2


def test_an_empty_split_file(voc):
    list_of(voc, "val").write_text("\n \n")
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"empty-split": ("error", ["val.txt"])}
    assert diagnosis.unlisted == 4
    assert diagnosis.exit_code == 2


def test_a_split_file_that_names_a_missing_tile(voc):
    with list_of(voc).open("a") as lines:
        lines.write("no_such_tile\n")
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"no-image": ("error", ["no_such_tile.*"])}
    assert "train.txt lists it" in words(diagnosis, "no-image")
    assert diagnosis.exit_code == 2


@pytest.mark.parametrize(("stems", "severity", "code"), [([TRAIN], "warning", 1), (None, "error", 2)])
def test_16_bit_data_squeezed_into_16_levels(voc, stems, severity, code):
    stems = stems or list_of(voc).read_text().split()
    for stem in stems:
        save((read(image_of(voc, stem)).astype(np.uint16) * 257 >> 12).astype(np.uint8) * 17, image_of(voc, stem))
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"few-grey-levels": (severity, [f"{stem}.png" for stem in stems])}
    assert diagnosis.exit_code == code


def test_an_alpha_border_labelled_as_road(voc):
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:, :12] = 0
    save(np.concatenate([read(image_of(voc)), alpha], axis=2), image_of(voc))
    assert found(diagnose(voc)) == {}
    labels = read(mask_of(voc))
    labels[:, :12] = 1
    save(labels, mask_of(voc))
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"road-on-nothing": ("warning", [f"{TRAIN}.png"])}
    assert "100%" in words(diagnosis, "road-on-nothing")
    assert diagnosis.exit_code == 1


@pytest.mark.parametrize("how", ["copied", "re-encoded", "turned"])
def test_a_tile_that_trains_and_validates(voc, how):
    picture, name = Image.open(image_of(voc)), "copy.png"
    if how == "re-encoded":
        name = "copy.jpg"
    elif how == "turned":
        picture = picture.transpose(Image.Transpose.ROTATE_90)
    picture.save(voc / "JPEGImages" / name)
    shutil.copy(mask_of(voc), mask_of(voc, "copy"))
    with list_of(voc, "val").open("a") as lines:
        lines.write("copy\n")
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"same-picture": ("error", [name])}
    assert f"{TRAIN}.png of train" in words(diagnosis, "same-picture")
    assert diagnosis.exit_code == 2


def test_a_mask_of_another_size(voc):
    save(np.zeros((64, 60), np.uint8), mask_of(voc))
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"size": ("error", [f"{TRAIN}.png"])}
    assert "60x64 px but its image" in words(diagnosis, "size")
    assert diagnosis.exit_code == 2


@pytest.mark.parametrize("listed", [True, False])
def test_a_file_name_that_is_no_utf8(voc, listed, tmp_path):
    stem = os.fsdecode(b"stra\xdfe")
    for path in (image_of(voc), mask_of(voc)):
        path.rename(path.with_name(f"{stem}.png"))
    lines = list_of(voc).read_bytes().replace(TRAIN.encode(), b"stra\xdfe" if listed else b"")
    list_of(voc).write_bytes(lines)
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"name-encoding": ("error", [f"{stem}.png"] * 2)}
    assert diagnosis.exit_code == 2
    assert sum(statistics.pairs for statistics in diagnosis.statistics) == 20
    assert json.loads(json.dumps(diagnosis.as_dict()))["findings"][0]["files"][0]["path"].endswith("stra\\xdfe.png")
    diagnosis.text().encode("utf-8")
    write_doctor_sheet(diagnosis, str(tmp_path / "sheet.html"))
    assert "stra\\xdfe.png" in (tmp_path / "sheet.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("split", "severity", "code"), [("train", "error", 2), ("val", "warning", 1)])
def test_a_split_without_a_road_pixel(voc, split, severity, code):
    for stem in list_of(voc, split).read_text().split():
        save(np.zeros((64, 64), np.uint8), mask_of(voc, stem))
    diagnosis = diagnose(voc)
    assert found(diagnosis) == {"no-road": (severity, [f"{split}.txt"])}
    assert diagnosis.exit_code == code


# --- further defects ---------------------------------------------------------------------------------------------


def spoil_lists(voc):
    list_of(voc, "val").write_bytes(b"\xef\xbb\xbf" + list_of(voc, "val").read_bytes())
    lines = list_of(voc).read_text().splitlines()
    list_of(voc).write_text("\r\n".join([*lines, lines[0], f"{VAL}", "  "]))


def spoil_names(voc):
    shutil.copy(image_of(voc), image_of(voc).with_suffix(".jpg"))
    for path in (image_of(voc, VAL), mask_of(voc, VAL)):
        path.rename(path.with_name(" tile.png"))
    list_of(voc, "val").write_text(list_of(voc, "val").read_text().replace(VAL, " tile"))


def spoil_masks(voc):
    many = np.zeros((64, 64, 3), np.uint8)
    many[:9], many[9:20] = (255, 0, 0), (0, 0, 255)
    stems = list_of(voc).read_text().split()
    save(many, mask_of(voc, stems[0]))
    save(read(image_of(voc, stems[1])), mask_of(voc, stems[1]))
    save(read(mask_of(voc, stems[2])) + np.uint8(3), mask_of(voc, stems[2]))
    save(read(mask_of(voc, stems[3])).astype(np.uint16) * 65535, mask_of(voc, stems[3]))
    picture = Image.fromarray(1 - read(mask_of(voc, stems[4])), mode="P")
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(mask_of(voc, stems[4]))
    Image.open(mask_of(voc, stems[5])).save(mask_of(voc, stems[5]).with_suffix(".jpg"))
    mask_of(voc, stems[5]).unlink()
    save(np.ones((64, 64), np.uint8), mask_of(voc, stems[6]))


def spoil_images(voc):
    stems = list_of(voc).read_text().split()
    save(np.full((64, 64, 3), 7, np.uint8), image_of(voc, stems[0]))
    save(np.zeros((64, 64), np.uint16), image_of(voc, stems[1]))
    shutil.copy(image_of(voc, stems[2]), image_of(voc, stems[3]))
    image_of(voc, stems[4]).write_bytes(b"\x89PNG nothing")


def all_road(voc):
    for path in masks(voc):
        save(1 - read(path), path)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            spoil_lists,
            {"split-encoding": "warning", "line-twice": "warning", "same-name": "error", "same-scene": "warning"},
        ),
        (spoil_names, {"two-files": "error", "name-spaces": "error"}),
        (
            spoil_masks,
            {
                "mask-many-colours": "error",
                "mask-photograph": "error",
                "mask-labels": "error",
                "mask-deep": "error",
                "mask-palette": "error",
                "no-mask": "error",
                "all-road": "warning",
            },
        ),
        (
            spoil_images,
            {"blank-image": "warning", "image-unfit": "error", "duplicate": "warning", "image-unreadable": "error"},
        ),
        (lambda voc: list_of(voc).unlink(), {"no-split-file": "error"}),
        (lambda voc: shutil.rmtree(voc / "SegmentationClass"), {"no-folder": "error"}),
    ],
)
def test_many_defects_are_collected(voc, spoil, expected):
    spoil(voc)
    assert {f.code: f.severity for f in diagnose(voc).findings} == expected


def test_road_and_background_exchanged(voc):
    all_road(voc)
    findings = found(diagnose(voc))
    assert findings["inverted"] == ("warning", ["train.txt", "val.txt", "test.txt"])


def test_hardly_any_road_and_an_absent_class(voc):
    for stem in list_of(voc).read_text().split()[1:]:
        save(np.zeros((64, 64), np.uint8), mask_of(voc, stem))
    only = np.zeros((64, 64), np.uint8)
    only[0, :3] = 1
    save(only, mask_of(voc))
    assert found(diagnose(voc)) == {
        "mostly-empty": ("warning", ["train.txt"]),
        "rare-class": ("warning", ["train.txt"]),
    }
    data = config_of(voc)
    data["train"]["classes"] = ("ground", "road", "pad")
    findings = found(examine("config", *splits_of_config(data)))
    assert findings["class-absent"] == ("warning", ["train.txt"])


def config_of(voc, mean=(150.0, 138.0, 112.0), std=(27.0, 24.0, 24.0)):
    steps = [dict(type="LoadRoadImage"), dict(type="Pad"), dict(type="Normalize", mean=[0.0] * 3, std=[1.0] * 3)]
    args = dict(Normalize=dict(mean=list(mean), std=list(std), to_rgb=True))
    return {
        name: dict(data_root=str(voc), split=f"ImageSets/Segmentation/{split}.txt", pipeline=steps, step_args=args)
        for name, split in (("train", "train"), ("val", "val"), ("test", "val"))
    }


def test_a_config_tests_on_its_validation_images_and_normalises(voc):
    diagnosis = examine("config", *splits_of_config(config_of(voc)))
    assert found(diagnosis) == {}
    assert [statistics.names for statistics in diagnosis.statistics] == [("train",), ("val", "test")]
    diagnosis = examine("config", *splits_of_config(config_of(voc, (0.0,) * 3, (255.0,) * 3)))
    assert found(diagnosis) == {"normalize": ("warning", ["train.txt"])}
    with pytest.raises(ConfigError, match="data.val is of type CityscapesDataset"):
        splits_of_config(dict(config_of(voc), val=dict(type="CityscapesDataset")))
    with pytest.raises(ConfigError, match="data.val names no split file"):
        splits_of_config(dict(config_of(voc), val=dict(data_root=str(voc))))


@pytest.mark.parametrize(
    ("val_at_m", "expected"), [(256.0, {}), (255.0, {}), (240.0, {"same-ground": ("error", ["c.tif"])})]
)
def test_tiles_that_overlap_on_the_map(tmp_path, val_at_m, expected):
    diagnosis = diagnose(geo_voc(tmp_path, val_at_m=val_at_m))
    assert found(diagnosis) == expected
    if expected:
        assert "shares 12% of its ground with" in words(diagnosis, "same-ground")


def rename(voc, old, new, split):
    for path in (image_of(voc, old), mask_of(voc, old)):
        path.rename(path.with_name(f"{new}.png"))
    list_of(voc, split).write_text(list_of(voc, split).read_text().replace(old, new))


def test_a_scene_in_two_splits_by_name(voc):
    rename(voc, VAL, "mine0001_r00128_c00000", "val")
    assert found(diagnose(voc)) == {"same-scene": ("warning", ["mine0001_r00128_c00000.png"])}
    rename(voc, "mine0001_r00128_c00000", "mine0001_r00032_c00032", "val")
    assert found(diagnose(voc)) == {"same-ground": ("error", ["mine0001_r00032_c00032.png"])}


def test_the_quick_part_reads_no_image(voc):
    image_of(voc).write_bytes(image_of(voc).read_bytes()[:200])  # the header is whole
    shutil.copy(image_of(voc, VAL), image_of(voc, list_of(voc).read_text().split()[3]))
    assert found(diagnose(voc, quick=True)) == {}
    assert set(found(diagnose(voc))) == {"image-unreadable", "same-picture"}


def test_text_names_the_first_files_and_counts_the_rest(voc):
    for path in masks(voc):
        save(read(path) * 255, path)
    text = diagnose(voc).text()
    assert "error: road is written as 255" in text
    assert text.count(".png: values 0 and 255") == 3
    assert "... and " in text
    assert "-> --fix DEST writes a repaired copy" in text
    assert text.endswith("1 error\n")


def test_the_sheet_shows_findings_first(voc, tmp_path):
    save(np.zeros((64, 60), np.uint8), mask_of(voc))
    write_doctor_sheet(diagnose(voc), str(tmp_path / "sheet.html"), samples=2)
    page = (tmp_path / "sheet.html").read_text()
    assert page.index("[size]") < page.index("train: 2 of 16 at random") < page.index("test: 1 of 1 at random")
    assert page.count("<figure>") == 1 + 2 + 2 + 1


def codes_in(pattern, room):
    files = Path(mmseg_ext.__file__).with_name(room).glob("*.py")
    return {code for file in files for code in re.findall(pattern, file.read_text(encoding="utf-8"))}


def test_every_flaw_has_a_remedy_and_every_problem_a_kind():
    flaws = codes_in(r'\bFlaw\(\s*"([^"]+)"', "imagery")
    assert flaws == set(REMEDIES)
    problems = codes_in(r'(?:\bProblem\(|\bfacts?\.add\(|\bcode =|\belse)\s*"([a-z0-9-]+)"', "checks")
    assert flaws | problems - {"warning"} == set(KINDS)


def test_every_kind_can_be_told():
    for kind in KINDS.values():
        assert kind.severity in ("error", "warning")
        assert kind.message and kind.remedy and "\n" not in kind.message + kind.remedy


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        splits_of_folder(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="holds no folder of images beside a folder of masks"):
        splits_of_folder(str(tmp_path))


def test_deep_images_of_four_bands_are_examined_as_they_are_read(tmp_path):
    root = tmp_path / "deep"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for seed, stem in ((31, "a"), (32, "b"), (33, "c")):
        mine = generate_mine(seed, 64, 4.0)
        deep = np.concatenate([mine.image, mine.image[:, :, :1]], axis=2).astype(np.uint16) * 8 + 100
        write_geotiff(str(root / "JPEGImages" / f"{stem}.tif"), deep)
        save(mine.mask, root / "SegmentationClass" / f"{stem}.png")
    list_of(root).write_text("a\nb\n")
    list_of(root, "val").write_text("c\n")
    assert found(diagnose(root)) == {"image-unfit": ("error", ["a.tif", "b.tif", "c.tif"])}
    (root / "dataset.json").write_text(json.dumps(dict(bands=[1, 2, 3, 4], low=[100] * 4, high=[2140] * 4)))
    diagnosis = diagnose(root)
    assert found(diagnosis) == {}
    pixels = np.concatenate([generate_mine(seed, 64, 4.0).image.reshape(-1, 3) for seed in (31, 32)])
    assert diagnosis.statistics[0].mean == pytest.approx([*pixels.mean(0), pixels[:, 0].mean()], abs=0.006)
    assert diagnosis.statistics[0].bands == {"4 uint16": 2}


def test_a_single_0_255_mask_is_found_without_decoding_all_images(tmp_path):
    write_synthetic_mines(str(tmp_path / "d"), [1, 2], [3], [4], size_px=128, tile_px=64, gsd_m=4.0)
    folder = tmp_path / "d" / "SegmentationClass"
    victim = next(p for p in sorted(folder.iterdir()) if 0 < (np.array(Image.open(p)) == 1).mean() < 0.5)
    Image.fromarray(np.array(Image.open(victim)) * 255).save(victim)
    found = examine(str(tmp_path / "d"), *splits_of_folder(str(tmp_path / "d")), quick=True)
    assert [(finding.code, list(finding.files)) for finding in found.findings] == [("mask-0-255", [str(victim)])]
    assert found.exit_code == 2
