import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from mmseg_ext.checks import check_datasets, examine, splits_of_folder
from mmseg_ext.converters import convert
from mmseg_ext.datasets import RoadDataset
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.imagery import ImageReading
from mmseg_ext.pretrain.image_folder import ImageFolder
from mmseg_ext.scoring import pair_predictions


def convert_folder_pair(images, masks, dest, **settings):
    return convert(
        "pair",
        os.path.dirname(images),
        dest,
        images=os.path.basename(images),
        masks=os.path.basename(masks),
        **settings,
    )


ROAD = np.zeros((12, 16), bool)
ROAD[4:8] = True


def image(seed=0, bands=3):
    return np.random.default_rng(seed).integers(0, 256, (12, 16, bands), dtype=np.uint8)


def soft(road):
    grey = np.where(road, 255, 0).astype(np.uint8)
    grey[3], grey[8] = 90, 40  # an anti-aliased edge
    return grey


def palette_mask(road, first, second):
    picture = Image.fromarray(road.astype(np.uint8), mode="P")
    picture.putpalette([*first, *second])
    return picture


MASKS = {
    "labels": lambda: ROAD.astype(np.uint8),
    "0/255": lambda: ROAD.astype(np.uint8) * 255,
    "3 channels": lambda: np.repeat(ROAD[:, :, None], 3, 2).astype(np.uint8) * 255,
    "colour": lambda: ROAD[:, :, None].astype(np.uint8) * np.array([128, 0, 0], np.uint8),
    "grey edges": lambda: soft(ROAD),
    "rgba": lambda: np.dstack([np.repeat(ROAD[:, :, None], 3, 2) * 255, np.full(ROAD.shape, 255)]).astype(np.uint8),
    "1 bit": lambda: Image.fromarray(ROAD),
    "voc palette": lambda: palette_mask(ROAD, (0, 0, 0), (128, 0, 0)),
    "white first": lambda: palette_mask(~ROAD, (255, 255, 255), (0, 0, 0)),
    "16 bit": lambda: ROAD.astype(np.uint16) * 65535,
}


def save(what, path):
    (what if isinstance(what, Image.Image) else Image.fromarray(what)).save(path)


@pytest.fixture()
def source(tmp_path):
    def make(mask, count=4, image_end="", mask_end="", suffix=".png", same_folder=False, bands=3):
        images, masks = tmp_path / "images", tmp_path / ("images" if same_folder else "masks")
        images.mkdir(exist_ok=True)
        masks.mkdir(exist_ok=True)
        for i in range(count):
            save(image(i, bands), images / f"a{i}{image_end}{suffix}")
            save(mask() if callable(mask) else mask, masks / f"a{i}{mask_end}.png")
        return str(images), str(masks)

    return make


def converted_masks(dest):
    folder = os.path.join(dest, "SegmentationClass")
    return [np.array(Image.open(os.path.join(folder, name))) for name in sorted(os.listdir(folder))]


@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_mask_becomes_labels(kind, source, tmp_path):
    dest = str(tmp_path / "out")
    made = convert_folder_pair(*source(MASKS[kind]), dest, val=1)
    assert made.counts == dict(train=3, val=1, test=0)
    assert made.road_share == pytest.approx(ROAD.mean())
    for mask in converted_masks(dest):
        assert np.array_equal(mask, ROAD)
    dataset = RoadDataset([dict(type="LoadRoadImage")], split="ImageSets/Segmentation/train.txt", data_root=dest)
    check_datasets(test=dataset)


def test_255_is_ignore_where_labels_say_road(source, tmp_path):
    images, masks = source(ROAD.astype(np.uint8))
    only_ignore = np.zeros(ROAD.shape, np.uint8)
    only_ignore[0] = 255
    save(only_ignore, os.path.join(masks, "a0.png"))
    convert_folder_pair(images, masks, str(tmp_path / "out"), val=1)
    assert set(np.unique(converted_masks(str(tmp_path / "out"))[0])) == {0, 255}


def test_deepglobes_names_in_one_folder(source, tmp_path):
    images, masks = source(MASKS["3 channels"], image_end="_sat", mask_end="_mask", suffix=".jpg", same_folder=True)
    dest = tmp_path / "out"
    convert_folder_pair(images, masks, str(dest), val=1)
    assert sorted(os.listdir(dest / "JPEGImages")) == [f"a{i}.jpg" for i in range(4)]
    assert (dest / "JPEGImages" / "a2.jpg").read_bytes() == (tmp_path / "images" / "a2_sat.jpg").read_bytes()


def test_where_alpha_is_0_nothing_is_labelled(source, tmp_path):
    images, masks = source(MASKS["0/255"], bands=4)
    picture = image(3, 4)
    picture[:, :, 3] = 255
    picture[:, :5, 3] = 0
    save(picture, os.path.join(images, "a3.png"))
    dest = str(tmp_path / "out")
    convert_folder_pair(images, masks, dest, val=3)
    expected = ROAD.astype(np.uint8)
    expected[:, :5] = 255
    assert np.array_equal(converted_masks(dest)[3], expected)
    read, valid = ImageReading().read(os.path.join(dest, "JPEGImages", "a3.png"))
    assert np.array_equal(valid, expected != 255)
    assert np.array_equal(read[:, 5:], picture[:, 5:, :3])
    assert np.array_equal(read[0, 0], np.rint(picture[:, 5:, :3].reshape(-1, 3).mean(0)))


def test_statistics_are_those_of_the_training_images(source, tmp_path):
    made = convert_folder_pair(*source(MASKS["labels"]), str(tmp_path / "out"), val=1, by_name=True)
    pixels = np.concatenate([image(i).reshape(-1, 3) for i in range(3)]).astype(float)
    assert made.mean == pytest.approx(pixels.mean(0), abs=0.006)
    assert made.std == pytest.approx(pixels.std(0), abs=0.006)


def splits(dest):
    folder = os.path.join(dest, "ImageSets", "Segmentation")
    return {name[:-4]: open(os.path.join(folder, name)).read().split() for name in os.listdir(folder)}


def test_splits_are_reproducible_disjoint_and_complete(source, tmp_path):
    pair = source(MASKS["labels"], count=10)
    parts = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        convert_folder_pair(*pair, str(tmp_path / name), val=0.3, test=2, seed=seed)
        parts.append(splits(str(tmp_path / name)))
    assert parts[0] == parts[1] != parts[2]
    assert [len(parts[0][s]) for s in ("train", "val", "test")] == [5, 3, 2]
    assert sorted(stem for part in parts[0].values() for stem in part) == [f"a{i}" for i in range(10)]
    convert_folder_pair(*pair, str(tmp_path / "d"), val=3, by_name=True)
    by_name = splits(str(tmp_path / "d"))
    assert by_name["val"] == by_name["test"] == ["a7", "a8", "a9"]


def digest(folder):
    return {
        n: hashlib.sha256(open(os.path.join(folder, n), "rb").read()).hexdigest() for n in sorted(os.listdir(folder))
    }


def five_classes():
    return np.resize([0, 50, 100, 150, 200], (12, 16)).astype(np.uint8)


def two_colours():
    picture = np.zeros((12, 16, 3), np.uint8)
    picture[:4], picture[4:8] = (255, 0, 0), (0, 0, 255)
    return picture


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (five_classes, "a2.png: values 0, 50, 100, 150, 200 are neither 0/1 labels nor a road mask"),
        (two_colours, "a2.png: 3 colours, not black and one other"),
        (lambda: np.zeros((12, 17), np.uint8), "a2.png: the mask is 17x12 px but its image .*a2.png is 16x12 px"),
        (lambda: ROAD.astype(np.float32) / 2, "a2.tif: floating-point pixels"),
        (None, "a2.png: no mask named like it"),
        (b"nothing", "a2.png: cannot be read as a mask"),
    ],
)
def test_what_is_not_understood_is_named_and_nothing_is_left(spoil, words, source, tmp_path):
    images, masks = source(MASKS["0/255"])
    target = os.path.join(masks, "a2.png")
    os.remove(target)
    if isinstance(spoil, bytes):
        open(target, "wb").write(spoil)
    elif spoil is not None:
        made = spoil()
        save(made, target if made.dtype == np.uint8 else target.replace(".png", ".tif"))
    before = digest(images), digest(masks)
    with pytest.raises(DataError, match=words) as error:
        convert_folder_pair(images, masks, str(tmp_path / "out"), val=1)
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == ["images", "masks"]
    assert (digest(images), digest(masks)) == before


def test_deep_and_truncated_images_are_named(source, tmp_path):
    images, masks = source(MASKS["labels"])
    path = os.path.join(images, "a1.png")
    content = open(path, "rb").read()
    open(path, "wb").write(content[:100])
    with pytest.raises(DataError, match="a1.png: cannot be read as an image"):
        convert_folder_pair(images, masks, str(tmp_path / "out"), val=1)
    Image.fromarray(np.zeros((12, 16), np.uint16)).save(path)
    with pytest.raises(DataError, match="a1.png: uint16 pixels, but .*a0.png has uint8"):
        convert_folder_pair(images, masks, str(tmp_path / "out"), val=1)


def test_an_existing_destination_is_kept_unless_told_otherwise(source, tmp_path):
    pair, dest = source(MASKS["labels"]), tmp_path / "out"
    dest.mkdir()
    (dest / "precious").write_text("x")
    with pytest.raises(DataError, match="exists already"):
        convert_folder_pair(*pair, str(dest), val=1)
    assert (dest / "precious").exists()
    convert_folder_pair(*pair, str(dest), val=1, overwrite=True)
    assert not (dest / "precious").exists()
    assert len(converted_masks(str(dest))) == 4


@pytest.mark.parametrize("share", [dict(val=0.01), dict(val=4), dict(val=2, test=2)])
def test_shares_that_leave_nothing_are_refused(source, tmp_path, share):
    with pytest.raises(DataError, match="change --val or --test"):
        convert_folder_pair(*source(MASKS["labels"]), str(tmp_path / "out"), **share)


def test_more_classes_pass_as_indices(source, tmp_path):
    mask = np.resize([0, 1, 2, 255], (12, 16)).astype(np.uint8)
    convert_folder_pair(*source(mask), str(tmp_path / "out"), val=1, num_classes=3)
    assert all(np.array_equal(m, mask) for m in converted_masks(str(tmp_path / "out")))
    with pytest.raises(DataError, match="class indices of 3 classes are 0 to 2"):
        convert_folder_pair(*source(np.full((12, 16), 3, np.uint8)), str(tmp_path / "o2"), val=1, num_classes=3)


def test_real_epfl_images(shared, tmp_path):
    folder = shared / "data" / "epfl"
    dest = str(tmp_path / "epfl")
    made = convert_folder_pair(str(folder / "images"), str(folder / "groundtruth"), dest, val=20, by_name=True)
    assert made.counts == dict(train=80, val=20, test=0)
    assert splits(dest)["val"][0] == "satImage_081"
    assert examine(dest, *splits_of_folder(dest)).findings == ()
    raw = np.array(Image.open(folder / "groundtruth" / "satImage_081.png"))
    out = np.array(Image.open(os.path.join(dest, "SegmentationClass", "satImage_081.png")))
    assert np.array_equal(out, raw >= 128)


def test_real_deepglobe_sample(shared, tmp_path):
    folder = str(shared / "data" / "deepglobe_sample" / "train")
    made = convert_folder_pair(folder, folder, str(tmp_path / "dg"), val=1)
    assert sum(made.counts.values()) == 3
    assert examine(str(tmp_path / "dg"), *splits_of_folder(str(tmp_path / "dg"))).findings == ()
    raw = np.array(Image.open(os.path.join(folder, "104_mask.png")))[:, :, 0]
    out = np.array(Image.open(tmp_path / "dg" / "SegmentationClass" / "104.png"))
    assert np.array_equal(out, raw >= 128)


def test_hidden_files_are_no_input(tmp_path, write_pairs):
    images, masks = write_pairs(tmp_path, {name: (image(ord(name)), ROAD.astype(np.uint8)) for name in ("a", "b")})
    (tmp_path / "classes" / "train" / "road").mkdir(parents=True)
    (tmp_path / "classes" / "train" / ".ipynb_checkpoints").mkdir()
    Image.fromarray(image()).save(tmp_path / "classes" / "train" / "road" / "a.png")
    for folder in (tmp_path, images, masks, tmp_path / "classes" / "train" / "road"):
        for name in ("._a.png", "._a.tif", ".DS_Store", "Thumbs.db"):
            Path(folder, name).write_bytes(b"\0")
    Path(tmp_path, ".masks").mkdir()
    assert convert("pair", str(tmp_path), str(tmp_path / "made"), val=1).counts == dict(train=1, val=1, test=0)
    assert [pair.name for pair in pair_predictions(masks, masks)] == ["a", "b"]
    splits, problems = splits_of_folder(str(tmp_path))
    assert [pair.stem for pair in splits[0].pairs] == ["a", "b"] and not problems
    folder = ImageFolder(str(tmp_path / "classes"), "train")
    assert folder.classes == ["road"] and len(folder) == 1


def test_images_of_another_scale_do_not_share_a_scaling(tmp_path):
    for sub in ("images", "masks"):
        (tmp_path / sub).mkdir()
    for name, offset in (("a", 0.0), ("b", -0.1)):
        write_geotiff(str(tmp_path / "images" / f"{name}.tif"), image().astype(np.uint16) * 9)
        with rasterio.open(tmp_path / "images" / f"{name}.tif", "r+") as file:
            file.scales, file.offsets = (1e-4,) * 3, (offset,) * 3
        Image.fromarray(ROAD.astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    with pytest.raises(
        DataError, match=r"b.tif: uint16 of scale 0.0001 and offset -0.1 pixels, but .*a.tif has uint16 of"
    ):
        convert("pair", str(tmp_path), str(tmp_path / "made"), val=1)


# --- splits that the data has ----------------------------------------------------------------------------------


def tree(folder, form, stems, splits=("train", "val", "test")):
    """Write one pair into each split's folders; return the images' values by split."""
    for i, split in enumerate(splits):
        for what, content in (("images", image(i)), ("masks", ROAD.astype(np.uint8) * 255)):
            place = folder / form.format(split=split, what=what, img_or_ann={"images": "img", "masks": "ann"}[what])
            place.mkdir(parents=True, exist_ok=True)
            save(content, place / f"{stems[i]}.png")


@pytest.mark.parametrize("form", ["{split}/{what}", "{what}/{split}", "{img_or_ann}_dir/{split}"])
@pytest.mark.parametrize("stems", ["abc", "aaa"])
def test_a_tree_keeps_its_splits(tmp_path, form, stems):
    tree(tmp_path / "raw", form, stems)
    made = convert("pair", str(tmp_path / "raw"), str(tmp_path / "out"))
    assert made.counts == dict(train=1, val=1, test=1)
    for i, split in enumerate(("train", "val", "test")):
        dataset = RoadDataset([], f"ImageSets/Segmentation/{split}.txt", str(tmp_path / "out"))
        assert np.array_equal(dataset.picture(0), image(i))
        assert np.array_equal(dataset.get_gt_seg_map_by_idx(0), ROAD)
    diagnosis = examine("raw", *splits_of_folder(str(tmp_path / "raw")))
    assert [(s.names, s.pairs) for s in diagnosis.statistics] == [((s,), 1) for s in ("train", "val", "test")]
    with pytest.raises(ConfigError, match="training and validation splits, which are kept; leave out"):
        convert("pair", str(tmp_path / "raw"), str(tmp_path / "o2"), by_name=True)


def test_a_tree_without_validation_takes_it_from_training(tmp_path):
    for stems in ("ab", "cd", "ef"):
        tree(tmp_path / "raw", "{split}ing/{what}", stems, ("train", "test"))
    made = convert("pair", str(tmp_path / "raw"), str(tmp_path / "out"), val=1)
    assert made.counts == dict(train=2, val=1, test=3)
    with pytest.raises(ConfigError, match="the data has a test split, which is kept; leave out --test"):
        convert("pair", str(tmp_path / "raw"), str(tmp_path / "o2"), val=1, test=1)
    (tmp_path / "raw" / "training" / "masks").rename(tmp_path / "raw" / "training" / "other")
    with pytest.raises(DataError, match="training: holds no folder of images beside a folder of masks"):
        convert("pair", str(tmp_path / "raw"), str(tmp_path / "o3"), val=1)


@pytest.mark.parametrize("separator", [" ", ",", "; ", "\t"])
@pytest.mark.parametrize("split", [True, False])
def test_one_list_names_images_and_masks(tmp_path, separator, split):
    lines = ["image,mask,split"] if split else []
    for i in range(3):
        (tmp_path / "raw" / f"p{i}").mkdir(parents=True)
        save(image(i), tmp_path / "raw" / f"p{i}" / "rgb.png")
        save(ROAD.astype(np.uint8), tmp_path / "raw" / f"p{i}" / "roads.png")
        lines.append(separator.join([f"p{i}/rgb.png", f"p{i}/roads.png"] + [["train", "valid", "test"][i]] * split))
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    options = dict(pairs=str(tmp_path / "list.csv"), **({} if split else dict(val=1, by_name=True)))
    made = convert("pair", str(tmp_path / "raw"), str(tmp_path / "out"), **options)
    assert made.counts == (dict(train=1, val=1, test=1) if split else dict(train=2, val=1, test=0))
    names = sorted(os.listdir(tmp_path / "out" / "JPEGImages"))
    assert names == ["p0_rgb.png", "p1_rgb.png", "p2_rgb.png"]
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "JPEGImages" / "p1_rgb.png")), image(1))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.png", "'a.png' is not an image and its mask"),
        ("a.png m.png nowhere", "'a.png m.png nowhere' is not an image and its mask"),
        ("a.png n.png", "lists n.png, which is neither in .* nor beside the list; fix the line"),
        ("a.png m.png train\na.png m.png", "some lines name a split and others none"),
    ],
)
def test_a_line_that_is_not_understood_is_named(tmp_path, line, words):
    for name in ("a.png", "m.png"):
        save(image(), tmp_path / name)
    (tmp_path / "list.txt").write_text(line)
    with pytest.raises(DataError, match=words):
        convert("pair", str(tmp_path), str(tmp_path / "out"), pairs=str(tmp_path / "list.txt"))
