"""Each converter on a miniature in its publisher's layout: real names, modes and sizes."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.checks import check_datasets, examine, splits_of_folder
from mmseg_ext.converters import CATALOGUE, convert
from mmseg_ext.datasets import RoadDataset, generate_mine
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import raster_info, read_raster, write_geotiff
from mmseg_ext.imagery import ImageReading, read_metadata, reading_of

STEPS = [dict(type="LoadRoadImage"), dict(type="LoadRoadMask")]


def scene(seed, size):
    """Return an image and the roads (H, W) bool of a piece of a synthetic mine, of the size wanted."""
    side = max(512, -(-size // 512) * 512)
    mine = generate_mine(seed, 512, 2.0)
    times = side // 512
    image = mine.image.repeat(times, 0).repeat(times, 1)[:size, :size]
    return image, (mine.mask == 1).repeat(times, 0).repeat(times, 1)[:size, :size]


def soft(road):
    """Return the mask as DeepGlobe and EPFL have it: grey at the edges."""
    grey = np.where(road, 255, 0).astype(np.uint8)
    edge = road ^ np.roll(road, 1, 0)
    grey[edge & road], grey[edge & ~road] = 200, 40
    return grey


def save(array, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def splits(dest):
    folder = dest / "ImageSets" / "Segmentation"
    return {name: (folder / f"{name}.txt").read_text().split() for name in ("train", "val", "test")}


def masks(dest):
    folder = dest / "SegmentationClass"
    return {p.stem: np.array(Image.open(p)) for p in sorted(folder.iterdir())}


def trains(dest, *warnings):
    """Assert that the data set can be trained on, and that the label doctor has no more than ``warnings``."""
    diagnosis = examine(str(dest), *splits_of_folder(str(dest)))
    assert [f.code for f in diagnosis.findings] == list(warnings), diagnosis.text()
    assert diagnosis.exit_code == (1 if warnings else 0)
    for split in ("train", "val", "test"):
        dataset = RoadDataset(STEPS, split=f"ImageSets/Segmentation/{split}.txt", data_root=str(dest))
        check_datasets(test=dataset)
        sample = dataset[0]
        assert sample["img"].dtype == np.uint8
        assert sample["img"].shape[:2] == sample["gt_semantic_seg"].shape
    return dataset


def test_deepglobe(tmp_path):
    roads = {}
    for i, name in enumerate(("104", "100034", "388", "206133")):
        image, road = scene(i, 1024)
        save(image, tmp_path / "raw" / "train" / f"{name}_sat.jpg", quality=90)
        save(np.repeat(soft(road)[:, :, None], 3, 2), tmp_path / "raw" / "train" / f"{name}_mask.png")
        roads[name] = road
    save(scene(9, 1024)[0], tmp_path / "raw" / "valid" / "19438_sat.jpg")
    dest = tmp_path / "dg"
    made = convert("deepglobe", str(tmp_path / "raw"), str(dest))
    assert made.counts == dict(train=3, val=1, test=0)
    trains(dest)
    for name, mask in masks(dest).items():
        assert np.array_equal(mask, roads[name])
    assert (dest / "JPEGImages" / "104.jpg").read_bytes() == (tmp_path / "raw/train/104_sat.jpg").read_bytes()
    assert reading_of(str(dest)).gsd_m == 0.5
    (tmp_path / "val.txt").write_text("388\n104_sat.jpg\n")
    with pytest.raises(DataError, match="104_sat.jpg is not an image of this data set"):
        convert("deepglobe", str(tmp_path / "raw"), str(tmp_path / "d2"), val_list=str(tmp_path / "val.txt"))
    (tmp_path / "val.txt").write_text("388\n104\n")
    convert("deepglobe", str(tmp_path / "raw"), str(tmp_path / "d2"), val_list=str(tmp_path / "val.txt"))
    assert splits(tmp_path / "d2")["val"] == ["104", "388"]


def test_deepglobes_usual_split_has_1530_of_6226():
    from mmseg_ext.converters.scenes import ConversionSettings, assign_splits

    chosen = list(
        assign_splits([str(i) for i in range(6226)], ConversionSettings(**CATALOGUE["deepglobe"].defaults)).values()
    )
    assert (chosen.count("train"), chosen.count("val"), chosen.count("test")) == (4696, 1530, 0)


LAYOUTS = {
    "publisher": lambda s: (f"{s}/sat", f"{s}/map", {"val": "valid"}),
    "kaggle": lambda s: (f"tiff/{s}", f"tiff/{s}_labels", {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_massachusetts(layout, tmp_path):
    names = dict(train="10078660_15", val="10228675_15", test="10378780_15")
    roads = {}
    for i, (split, name) in enumerate(names.items()):
        sat, label, renamed = LAYOUTS[layout](split)
        if split in renamed:
            sat, label, _ = LAYOUTS[layout](renamed[split])
        image, road = scene(i, 1500)
        if split == "train":
            image[:700, :300] = 255  # a white area without image, whose roads are drawn all the same
            image[900, 900] = 255  # a bright pixel is no hole
        save(image, tmp_path / "raw" / sat / f"{name}.tiff")
        save(np.where(road, 255, 0).astype(np.uint8), tmp_path / "raw" / label / f"{name}.tif")
        roads[name] = road.astype(np.uint8)
    roads[names["train"]][:700, :300] = 255
    dest = tmp_path / "mass"
    made = convert("massachusetts", str(tmp_path / "raw"), str(dest))
    assert made.counts == dict(train=1, val=1, test=1)
    assert {k: v for k, v in splits(dest).items()} == {k: [v] for k, v in names.items()}
    trains(dest)
    for name, mask in masks(dest).items():
        assert np.array_equal(mask, roads[name])
    assert (dest / "JPEGImages" / f"{names['test']}.tiff").is_file()
    image, valid = ImageReading().read(str(dest / "JPEGImages" / f"{names['train']}.png"))
    assert np.array_equal(~valid, roads[names["train"]] == 255)
    assert image[0, 0].tolist() == np.rint(image[valid].mean(0)).tolist()
    mean, std = image[valid].mean(0), image[valid].astype(float).std(0)
    assert made.mean == pytest.approx(mean, abs=0.01)
    assert made.std == pytest.approx(std, abs=0.01)


def test_massachusetts_in_tiles(tmp_path):
    for i, split in enumerate(("train", "valid", "test")):
        image, road = scene(i, 1500)
        save(image, tmp_path / "raw" / split / "sat" / f"1007867{i}_15.tiff")
        save(np.where(road, 255, 0).astype(np.uint8), tmp_path / "raw" / split / "map" / f"1007867{i}_15.tif")
    dest = tmp_path / "mass"
    made = convert("massachusetts", str(tmp_path / "raw"), str(dest), tile=800, overlap=64)
    assert made.counts == dict(train=4, val=4, test=4)
    found = splits(dest)
    assert found["train"] == [f"10078670_15_r{r:05d}_c{c:05d}" for r in (0, 700) for c in (0, 700)]
    assert found["val"] == [f"10078671_15_r{r:05d}_c{c:05d}" for r in (0, 750) for c in (0, 750)]
    image, road = scene(1, 1500)
    labels = masks(dest)
    for row in (0, 750):
        for column in (0, 750):
            stem = f"10078671_15_r{row:05d}_c{column:05d}"
            part = (slice(row, row + 750), slice(column, column + 750))
            assert np.array_equal(labels[stem], road[part])
            assert np.array_equal(np.array(Image.open(dest / "JPEGImages" / f"{stem}.png")), image[part])
    trains(dest)


def test_dubai(tmp_path):
    colours = np.array(
        [(60, 16, 152), (132, 41, 246), (226, 169, 41), (254, 221, 58), (110, 193, 228), (155, 155, 155), (0, 0, 0)]
    )
    road, unlabeled, unpainted = 4, 5, 6
    drawn = {}
    for i, tile in enumerate((1, 3, 6, 10)):
        image, there = scene(i, 512)
        shown = np.where(there, road, np.arange(512) % 4)
        shown[:40, :60], shown[300:310, :20] = unlabeled, unpainted
        save(image, tmp_path / "raw" / f"Tile {tile}" / "images" / "image_part_001.jpg")
        save(colours.astype(np.uint8)[shown], tmp_path / "raw" / f"Tile {tile}" / "masks" / "image_part_001.png")
        drawn[f"tile{tile}_001"] = np.choose(shown, (0, 0, 0, 0, 1, 255, 255))
    dest = tmp_path / "dubai"
    made = convert("dubai", str(tmp_path / "raw"), str(dest))
    assert made.counts == dict(train=2, val=2, test=0)
    held_out = ["tile3_001", "tile6_001"]
    assert splits(dest) == dict(train=["tile10_001", "tile1_001"], val=held_out, test=held_out)
    for name, mask in masks(dest).items():
        assert np.array_equal(mask, drawn[name])
    trains(dest)
    with pytest.raises(DataError, match="holds no folder 'Tile 1'; name the folder that holds the tiles"):
        convert("dubai", str(tmp_path / "raw" / "Tile 1"), str(tmp_path / "other"))


def test_chn6_cug(tmp_path):
    for i, (split, name) in enumerate((("train", "am100001"), ("train", "bj100012"), ("val", "hk100003"))):
        image, road = scene(i, 512)
        save(image, tmp_path / "CHN6-CUG" / split / "images" / f"{name}_sat.jpg")
        save(np.where(road, 255, 0).astype(np.uint8), tmp_path / "CHN6-CUG" / split / "gt" / f"{name}_mask.png")
    dest = tmp_path / "chn6"
    made = convert("chn6_cug", str(tmp_path / "CHN6-CUG"), str(dest))
    assert made.counts == dict(train=2, val=1, test=0)
    assert splits(dest) == dict(train=["am100001", "bj100012"], val=["hk100003"], test=["hk100003"])
    assert np.array_equal(masks(dest)["hk100003"], scene(2, 512)[1])
    trains(dest)
    with pytest.raises(DataError, match="holds no train/images; name the folder that holds train/ and val/"):
        convert("chn6_cug", str(tmp_path), str(tmp_path / "other"))


VEGAS = (2.7e-06, 0.0, -115.2092376, 0.0, -2.7e-06, 36.2055177)
SPACENET_LAYOUTS = {
    "new": ("AOI_2_Vegas/PS-RGB/SN3_roads_train_AOI_2_Vegas_PS-RGB_img{}.tif",
            "AOI_2_Vegas/geojson_roads/SN3_roads_train_AOI_2_Vegas_geojson_roads_img{}.geojson"),
    "old": ("AOI_2_Vegas_Roads_Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img{}.tif",
            "AOI_2_Vegas_Roads_Train/geojson/spacenetroads/spacenetroads_AOI_2_Vegas_img{}.geojson"),
}  # fmt: skip


def spacenet_chip(folder, layout, number, rows=(650,), columns=(), size=1300):
    """Write one chip: 11 bits in uint16, black at its left edge, with straight roads along pixel rows and columns."""
    image_name, line_name = (folder / part.format(number) for part in SPACENET_LAYOUTS[layout])
    rng = np.random.default_rng(number)
    image = rng.integers(200, 1400, (size, size, 3)).astype(np.uint16)
    image[:, :40] = 0
    image_name.parent.mkdir(parents=True, exist_ok=True)
    line_name.parent.mkdir(parents=True, exist_ok=True)
    a, _, x, _, e, y = VEGAS
    x += number * a * size
    write_geotiff(str(image_name), image, "EPSG:4326", (a, 0, x, 0, e, y))
    lines = [[[x, y + e * (row + 0.5)], [x + a * size, y + e * (row + 0.5)]] for row in rows]
    lines += [[[x + a * (c + 0.5), y], [x + a * (c + 0.5), y + e * size]] for c in columns]
    features = [
        dict(
            type="Feature",
            properties=dict(road_type="5", lane_numbe="2", lane_number="2", paved="1", bridge_typ="2", one_way_ty="2"),
            geometry=dict(type="LineString", coordinates=line),
        )
        for line in lines
    ]
    crs = dict(type="name", properties=dict(name="urn:ogc:def:crs:OGC:1.3:CRS84"))
    line_name.write_text(json.dumps(dict(type="FeatureCollection", crs=crs, features=features)))
    return image


@pytest.mark.parametrize("layout", SPACENET_LAYOUTS)
def test_spacenet3(layout, tmp_path):
    raw, dest = tmp_path / "raw", tmp_path / "sn3"
    images = {
        n: spacenet_chip(raw, layout, n, *lines) for n, lines in {1: ((650,),), 7: ((), (500,)), 997: ((20,),)}.items()
    }
    made = convert("spacenet3", str(raw), str(dest), val=1, by_name=True, road_width=6)
    assert made.counts == dict(train=2, val=1, test=0)
    assert splits(dest)["val"] == ["AOI_2_Vegas_img997"]
    trains(dest)
    labels = masks(dest)
    # a road 6 m wide: pixels are 0.300 m high and 0.243 m wide at this latitude
    along = labels["AOI_2_Vegas_img1"][:, 600] == 1
    across = labels["AOI_2_Vegas_img7"][600] == 1
    assert abs(along.sum() - 6 / 0.2996) <= 1.5
    assert abs(across.sum() - 6 / 0.2427) <= 1.5
    assert np.flatnonzero(along).mean() == pytest.approx(650, abs=1)
    assert np.flatnonzero(across).mean() == pytest.approx(500, abs=1)
    assert all((mask[:, :40] == 255).all() and not (mask[:, 40:] == 255).any() for mask in labels.values())
    # one scaling for all images, from the training pixels that hold an image
    reading = reading_of(str(dest))
    training = np.concatenate([images[n][:, 40:].reshape(-1, 3) for n in (1, 7)])
    assert reading.low == pytest.approx(np.percentile(training, 2, axis=0), abs=5)
    assert reading.high == pytest.approx(np.percentile(training, 98, axis=0), abs=5)
    assert reading.gsd_m == 0.3
    read, _ = reading.read(str(dest / "JPEGImages" / "AOI_2_Vegas_img997.tif"))
    raw_values = images[997][:, 40:].astype(float)
    low, high = np.array(reading.low), np.array(reading.high)
    expected = np.clip(np.rint((raw_values - low) / (high - low) * 255), 0, 255)
    assert np.array_equal(read[:, 40:], expected)
    info = raster_info(str(dest / "JPEGImages" / "AOI_2_Vegas_img1.tif"))
    chip = (VEGAS[0], 0, VEGAS[2] + VEGAS[0] * 1300, *VEGAS[3:])
    assert (info.crs, info.transform, info.dtype, info.nodata) == ("EPSG:4326", pytest.approx(chip), "uint16", 0)
    assert np.array_equal(read_raster(info.path)[0], images[1])


def test_spacenet3_chooses_areas_and_leaves_out_chips_without_lines(tmp_path):
    for n in (1, 2, 3):
        spacenet_chip(tmp_path / "raw", "new", n)
    os.remove(tmp_path / "raw" / SPACENET_LAYOUTS["new"][1].format(2))
    made = convert("spacenet3", str(tmp_path / "raw"), str(tmp_path / "a"), val=1, areas=("vegas",))
    assert sum(made.counts.values()) == 2
    with pytest.raises(DataError, match=r"no area with PS-RGB and geojson_roads .* named like Paris"):
        convert("spacenet3", str(tmp_path / "raw"), str(tmp_path / "b"), areas=("Paris",))
    target = tmp_path / "raw" / SPACENET_LAYOUTS["new"][1].format(3)
    target.write_text("{not json")
    with pytest.raises(DataError, match="img3.geojson: cannot be read as vector data"):
        convert("spacenet3", str(tmp_path / "raw"), str(tmp_path / "c"), val=1)
    assert not (tmp_path / "c").exists() and not (tmp_path / "c.partial").exists()


@pytest.mark.parametrize("course", ["EPFL", "ETH"])
def test_epfl_and_eth(course, tmp_path):
    names = [f"satImage_{i:03d}" for i in range(1, 6)] if course == "EPFL" else [f"satimage_{i}" for i in range(5)]
    for i, name in enumerate(names):
        image, road = scene(i, 400)
        if course == "ETH":
            image = np.dstack([image, np.full((400, 400), 255, np.uint8)])
        save(image, tmp_path / "training" / "images" / f"{name}.png")
        save(soft(road), tmp_path / "training" / "groundtruth" / f"{name}.png")
    dest = tmp_path / "out"
    made = convert("epfl", str(tmp_path / "training"), str(dest))
    assert made.counts == dict(train=4, val=1, test=0)
    assert splits(dest)["val"] == names[-1:]
    assert np.array_equal(masks(dest)[names[0]], scene(0, 400)[1])
    trains(dest)


def test_opm_is_verified_and_repaired(tmp_path):
    raw, dest = tmp_path / "OpenPitMine", tmp_path / "opm"
    names = [f"{i:06d}" for i in range(1, 6)]
    for i, name in enumerate(names):
        image, road = scene(i, 512)
        save(image, raw / "JPEGImages" / f"{name}.png")
        picture = Image.fromarray(road.astype(np.uint8), mode="P")
        picture.putpalette([0, 0, 0, 128, 0, 0])
        target = raw / "SegmentationClass" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        if i == 1:
            picture = picture.convert("RGB")
        picture.save(target)
    lists = raw / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, part in (("train", names[:3]), ("val", names[3:4]), ("test", names[4:]), ("trainval", names[:4])):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in part))
    made = convert("opm", str(raw), str(dest))
    assert made.counts == dict(train=3, val=1, test=1)
    assert splits(dest) == dict(train=names[:3], val=names[3:4], test=names[4:])
    for i, name in enumerate(names):
        assert np.array_equal(masks(dest)[name], scene(i, 512)[1])
    trains(dest)
    (lists / "val.txt").write_text(f"{names[0]}\n")
    with pytest.raises(DataError, match="000001 is listed for train and val"):
        convert("opm", str(raw), str(tmp_path / "o2"))
    (lists / "val.txt").write_text("000009\n")
    with pytest.raises(DataError, match=r"val.txt: lists 000009, but .* do not both hold it"):
        convert("opm", str(raw), str(tmp_path / "o2"))


def test_a_setting_that_does_not_apply_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--road-width does not apply to pair"):
        convert("pair", str(tmp_path), str(tmp_path / "out"), road_width=4.0)
    with pytest.raises(ConfigError, match="massachusets: no converter has this name; did you mean massachusetts?"):
        convert("massachusets", str(tmp_path), str(tmp_path / "out"))


def test_every_converter_is_described():
    for raw in CATALOGUE.values():
        assert raw.layout and raw.split and raw.images
        assert raw.name == "pair" or (raw.licence and raw.citation and raw.home.startswith("https://"))


def test_metadata_tells_the_origin(tmp_path):
    test_chn6_cug(tmp_path)
    metadata = read_metadata(str(tmp_path / "chn6"))
    assert metadata["data_set"] == "chn6_cug"
    assert metadata["home"] == "https://github.com/CUG-URS/CHN6-CUG-Roads-Dataset"
    assert metadata["gsd_m"] == 0.5
    assert metadata["images"] == dict(train=2, val=1, test=0)
    roads = [scene(i, 512)[1].sum() for i in range(3)]
    assert metadata["label_pixels"]["train"]["1"] == roads[0] + roads[1]
