"""What all converters share: tiling, depth, resuming, refusing."""

import errno
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mmseg_ext.checks import examine, splits_of_folder
from mmseg_ext.converters import VocWriter, convert, repair_dataset
from mmseg_ext.datasets import RoadDataset
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import raster_info, write_geotiff
from mmseg_ext.imagery import ImageReading, read_metadata, reading_of

UTM = (0.5, 0.0, 500_000.0, 0.0, -0.5, 4_000_000.0)


def write_source(folder, count=4, shape=(12, 16)):
    rng = np.random.default_rng(0)
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / "images" / f"a{i}.png")
        mask = np.zeros(shape, np.uint8)
        mask[i % 4 : i % 4 + 3] = 255
        Image.fromarray(mask).save(folder / "masks" / f"a{i}.png")
    return str(folder)


def contents(folder):
    found = {}
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def test_the_same_again_does_nothing_and_others_are_refused(tmp_path):
    source, dest = write_source(tmp_path / "raw"), str(tmp_path / "out")
    first = convert("pair", source, dest, val=1)
    before = {p: os.stat(os.path.join(dest, p)).st_mtime_ns for p in contents(dest)}
    again = convert("pair", source, dest, val=1)
    assert (first.found_done, again.found_done) == (False, True)
    assert (again.counts, again.mean, again.std, again.road_share) == (
        first.counts,
        first.mean,
        first.std,
        first.road_share,
    )
    assert {p: os.stat(os.path.join(dest, p)).st_mtime_ns for p in contents(dest)} == before
    with pytest.raises(DataError, match="exists already, made from other files or with other settings"):
        convert("pair", source, dest, val=2)
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(os.path.join(source, "images", "a0.png"))
    with pytest.raises(DataError, match="exists already"):
        convert("pair", source, dest, val=1)


def test_any_number_of_workers_makes_the_same(tmp_path):
    source = write_source(tmp_path / "raw", count=12, shape=(40, 50))
    for workers in (1, 5):
        convert("pair", source, str(tmp_path / f"w{workers}"), val=3, workers=workers, tile=20, overlap=4)
    assert contents(tmp_path / "w1") == contents(tmp_path / "w5")


def _convert_slowly(source, dest, count):
    from mmseg_ext.converters import conversion

    plain = conversion._ImagesAndMasks.write

    def slowly(self, writer, scene):
        if len(writer.records) >= count:
            time.sleep(60)
        plain(self, writer, scene)

    conversion._ImagesAndMasks.write = slowly
    convert("pair", source, dest, val=1, workers=1)


def test_a_killed_conversion_goes_on_where_it_was(tmp_path):
    source, dest = write_source(tmp_path / "raw", count=8), tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=_convert_slowly, args=(source, str(dest), 3))
    process.start()
    records = tmp_path / "out.partial" / ".scenes"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (records.is_dir() and len(list(records.glob("*.json"))) >= 3):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not dest.exists()
    partial = tmp_path / "out.partial"
    assert not (partial / "ImageSets").exists() and not (partial / "dataset.json").exists()
    done = {name: os.stat(partial / "SegmentationClass" / name).st_mtime_ns for name in ("a0.png", "a1.png", "a2.png")}
    (partial / "JPEGImages" / "a3.png").write_bytes(b"half an ima")  # what the kill left of the fourth
    convert("pair", source, str(dest), val=1)
    assert {n: os.stat(dest / "SegmentationClass" / n).st_mtime_ns for n in done} == done
    assert not partial.exists()
    convert("pair", source, str(tmp_path / "straight"), val=1)
    assert contents(dest) == contents(tmp_path / "straight")


def test_a_full_disk_is_one_line_and_finished_scenes_stay(tmp_path, monkeypatch):
    source, dest = write_source(tmp_path / "raw"), tmp_path / "out"
    write_mask = VocWriter.write_mask

    def full(self, stem, mask):
        if len(self.records) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_mask(self, stem, mask)

    monkeypatch.setattr(VocWriter, "write_mask", full)
    with pytest.raises(DataError, match=r"out: cannot be written \(No space left on device\); free some disk space"):
        convert("pair", source, str(dest), val=1, workers=1)
    assert not dest.exists() and len(list((tmp_path / "out.partial" / ".scenes").iterdir())) == 2
    monkeypatch.undo()
    convert("pair", source, str(dest), val=1)
    convert("pair", source, str(tmp_path / "straight"), val=1)
    assert contents(dest) == contents(tmp_path / "straight")


def test_unfinished_work_of_other_settings_is_thrown_away(tmp_path):
    source, dest = write_source(tmp_path / "raw"), tmp_path / "out"
    content = (tmp_path / "raw" / "images" / "a3.png").read_bytes()
    (tmp_path / "raw" / "images" / "a3.png").write_bytes(content[:-40])
    with pytest.raises(DataError, match=r"a3.png: cannot be read .* \[3 done; re-run the command to resume\]"):
        convert("pair", source, str(dest), val=1)
    assert (tmp_path / "out.partial").is_dir() and not dest.exists()
    (tmp_path / "raw" / "images" / "a3.png").write_bytes(content)
    convert("pair", source, str(dest), val=2, tile=8, overlap=2)
    assert not (tmp_path / "out.partial").exists()
    assert all("_r" in name for name in os.listdir(dest / "JPEGImages"))


def test_all_bad_files_are_named_at_once(tmp_path):
    source = write_source(tmp_path / "raw", count=12)
    for i in range(8):
        (tmp_path / "raw" / "masks" / f"a{i}.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as error:
        convert("pair", source, str(tmp_path / "out"), val=1)
    line = str(error.value)
    assert [f"a{i}.png" in line for i in range(8)] == [True] * 5 + [False] * 3
    assert line.endswith("[and 3 more files]") and "\n" not in line
    assert sorted(os.listdir(tmp_path)) == ["raw"]


def test_two_conversions_do_not_write_one_folder(tmp_path):
    with VocWriter(str(tmp_path / "out"), key="a") as writer:
        with pytest.raises(DataError, match="another conversion is writing it"), VocWriter(writer.dest, key="a"):
            pass
        writer.add("t", np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8), "train")
    assert read_metadata(str(tmp_path / "out"))["images"]["train"] == 1


def test_the_source_must_not_be_the_destination(tmp_path):
    source = write_source(tmp_path / "raw")
    before = contents(source)
    for dest in (source, str(tmp_path)):
        with pytest.raises(DataError, match="holds the source"):
            convert("pair", source, dest, val=1, overwrite=True)
    assert contents(source) == before


def georeferenced(folder, count=3, bands=4, dtype=np.uint16, shape=(30, 40), mask_shift_px=0, nodata=None):
    rng = np.random.default_rng(1)
    values = {}
    for sub in ("images", "masks"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        values[i] = rng.integers(1, 4000, (*shape, bands)).astype(dtype)
        if nodata is not None:
            values[i][:5] = nodata
        write_geotiff(str(folder / "images" / f"o{i}.tif"), values[i], "EPSG:32612", UTM, nodata=nodata)
        mask = np.zeros(shape, np.uint8)
        mask[:, 10:20] = 1
        a, b, c, d, e, f = UTM
        write_geotiff(str(folder / "masks" / f"o{i}.tif"), mask, "EPSG:32612", (a, b, c + a * mask_shift_px, d, e, f))
    return values


def test_four_bands_of_16_bits_are_tiled_and_scaled_alike(tmp_path):
    values = georeferenced(tmp_path / "raw", nodata=0)
    dest = tmp_path / "out"
    with pytest.raises(DataError, match=r"has 4 bands; say which are to be read"):
        convert("pair", str(tmp_path / "raw"), str(dest), val=1)
    made = convert(
        "pair", str(tmp_path / "raw"), str(dest), val=1, by_name=True, bands=(4, 2, 1, 3), tile=16, overlap=4,
        percentiles=(0.0, 100.0),
    )  # fmt: skip
    assert made.counts == dict(train=18, val=6, test=0)
    reading = reading_of(str(dest))
    assert (reading.bands, reading.gsd_m) == ((4, 2, 1, 3), 0.5)
    training = np.concatenate([values[i][5:].reshape(-1, 4) for i in (0, 1)])[:, [3, 1, 0, 2]]
    assert reading.low == pytest.approx(training.min(0))
    assert reading.high == pytest.approx(training.max(0))
    path = str(dest / "JPEGImages" / "o2_r00015_c00013.tif")
    info = raster_info(path)
    assert (info.bands, info.dtype, info.nodata) == (4, "uint16", 0)
    assert info.transform == pytest.approx((0.5, 0, 500_000 + 13 * 0.5, 0, -0.5, 4_000_000 - 15 * 0.5))
    raw = values[2][15:30, 13:27][:, :, [3, 1, 0, 2]].astype(float)
    low, high = np.array(reading.low), np.array(reading.high)
    read, _ = reading.read(path)
    assert np.array_equal(read, np.clip(np.rint((raw - low) / (high - low) * 255), 0, 255))
    steps = [
        dict(type="LoadRoadImage"),
        dict(type="LoadRoadMask"),
        dict(type="Normalize", mean=made.mean, std=made.std),
    ]
    make = dict(split="ImageSets/Segmentation/train.txt", data_root=str(dest))
    with pytest.raises(ConfigError, match=r"4 bands are read .* set step_args=dict\(Normalize=dict\(to_rgb=False"):
        RoadDataset(steps, **make)
    dataset = RoadDataset([*steps[:2], {**steps[2], "to_rgb": False}], **make)
    sample = dataset[0]
    assert sample["img"].shape == (16, 16, 4)
    assert (sample["gt_semantic_seg"][:5] == 255).all()
    assert np.array_equal(np.unique(sample["gt_semantic_seg"][5:]), [0, 1])
    assert np.array_equal(dataset.get_gt_seg_map_by_idx(0), sample["gt_semantic_seg"])
    assert dataset.picture(0).shape == (16, 16, 3)


def test_statistics_leave_out_what_holds_no_image(tmp_path):
    values = georeferenced(tmp_path / "raw", bands=3, nodata=0)
    made = convert("pair", str(tmp_path / "raw"), str(tmp_path / "out"), val=1, by_name=True)
    reading = reading_of(str(tmp_path / "out"))
    pixels = np.concatenate([values[i][5:].reshape(-1, 3) for i in (0, 1)]).astype(float)
    low, high = np.array(reading.low), np.array(reading.high)
    scaled = np.clip(np.rint((pixels - low) / (high - low) * 255), 0, 255)
    assert made.mean == pytest.approx(scaled.mean(0), abs=0.006)
    assert made.std == pytest.approx(scaled.std(0), abs=0.006)
    assert made.road_share == pytest.approx(10 / 40)


def test_a_shifted_mask_is_refused(tmp_path):
    georeferenced(tmp_path / "raw", bands=3, mask_shift_px=7)
    with pytest.raises(DataError, match=r"o0.tif: the mask lies \+7.0 px right and \+0.0 px down of its image"):
        convert("pair", str(tmp_path / "raw"), str(tmp_path / "out"), val=1)
    assert not (tmp_path / "out.partial").exists()


def test_tiles_of_one_scene_stay_in_one_split(tmp_path):
    source = tmp_path / "raw"
    write_source(source, count=12)
    for i in range(12):
        for sub in ("images", "masks"):
            os.rename(source / sub / f"a{i}.png", source / sub / f"mine{i // 4}_{i % 4}.png")
    made = convert("pair", str(source), str(tmp_path / "out"), val=1, scene=r"(.+)_\d+$")
    assert made.counts == dict(train=8, val=4, test=0)
    val = (tmp_path / "out" / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    assert len({name.split("_")[0] for name in val}) == 1
    with pytest.raises(ConfigError, match="finds no group in the name mine0_0"):
        convert("pair", str(source), str(tmp_path / "o2"), val=1, scene="x")


def test_lists_decide_the_splits(tmp_path):
    source = write_source(tmp_path / "raw", count=5)
    (tmp_path / "val").write_text("a4\na0.png\n")
    (tmp_path / "test").write_text("a2\n")
    made = convert(
        "pair", source, str(tmp_path / "out"), val_list=str(tmp_path / "val"), test_list=str(tmp_path / "test")
    )
    assert made.counts == dict(train=2, val=2, test=1)
    (tmp_path / "test").write_text("a0\n")
    with pytest.raises(DataError, match="a0 is listed twice, or for validation and test"):
        convert("pair", source, str(tmp_path / "o2"), val_list=str(tmp_path / "val"), test_list=str(tmp_path / "test"))


def test_repair_keeps_images_and_splits(tmp_path):
    with VocWriter(str(tmp_path / "voc")) as writer:
        writer.reading = ImageReading(bands=(3, 2, 1), gsd_m=0.5)
        for i in range(3):
            mask = np.zeros((8, 8), np.uint8)
            mask[i : i + 2] = 255
            writer.add(f"t{i}", np.full((8, 8, 3), 60 * i, np.uint8), mask, ("train", "train", "val")[i])
    before = contents(tmp_path / "voc")
    made = repair_dataset(str(tmp_path / "voc"), str(tmp_path / "fixed"))
    assert contents(tmp_path / "voc") == before
    assert made.counts == dict(train=2, val=1, test=1)
    assert reading_of(str(tmp_path / "fixed")) == ImageReading(bands=(3, 2, 1), gsd_m=0.5)
    for i in range(3):
        mask = np.array(Image.open(tmp_path / "fixed" / "SegmentationClass" / f"t{i}.png"))
        assert np.array_equal(np.flatnonzero(mask[:, 0]), [i, i + 1]) and mask.max() == 1
    for name in ("train", "val", "test"):
        part = os.path.join("ImageSets", "Segmentation", f"{name}.txt")
        assert contents(tmp_path / "fixed")[part] == before[part]


def test_reading_at_the_same_time_as_one_after_the_other(tmp_path):
    georeferenced(tmp_path / "raw", bands=3)
    convert("pair", str(tmp_path / "raw"), str(tmp_path / "out"), val=1)
    reading, path = reading_of(str(tmp_path / "out")), str(tmp_path / "out" / "JPEGImages" / "o0.tif")
    alone = reading.read(path)[0]
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(alone, read) for read, _ in pool.map(reading.read, [path] * 32))


def test_images_of_more_than_8_bits_need_a_scaling(tmp_path):
    write_geotiff(str(tmp_path / "deep.tif"), np.full((4, 4, 3), 900, np.uint16))
    with pytest.raises(DataError, match=r"deep.tif: uint16 pixels, and no scaling to 8 bits is known"):
        ImageReading().read(str(tmp_path / "deep.tif"))
    read, _ = ImageReading(low=(800,), high=(1055,)).read(str(tmp_path / "deep.tif"))
    assert np.array_equal(np.unique(read), [100])


def test_a_world_file_is_not_lost(tmp_path):
    source = write_source(tmp_path / "raw", count=2)
    for i in range(2):
        (tmp_path / "raw" / "images" / f"a{i}.pgw").write_text("0.5\n0\n0\n-0.5\n500000.25\n3999999.75\n")
    convert("pair", source, str(tmp_path / "out"), val=1)
    info = raster_info(str(tmp_path / "out" / "JPEGImages" / "a0.tif"))
    assert info.transform == pytest.approx(UTM)
    original = np.array(Image.open(tmp_path / "raw" / "images" / "a0.png"))
    assert np.array_equal(ImageReading().read(info.path)[0], original)


def test_each_mask_of_a_mixed_set_is_repaired_by_itself(tmp_path):
    rng = np.random.default_rng(0)
    road = np.zeros((32, 32), bool)
    road[10:16] = True
    label = road.astype(np.uint8)
    soft = np.where(road, 255, 0).astype(np.uint8)
    soft[9], soft[16] = 90, 40
    palette = Image.fromarray(road.astype(np.uint8) * 15, mode="P")
    palette.putpalette([0, 0, 0] * 15 + [255, 255, 255])
    kinds = dict(
        a_label=Image.fromarray(label),
        b_white=Image.fromarray(label * 255),
        c_soft=Image.fromarray(soft),
        d_colour=Image.fromarray(label[:, :, None] * np.array([128, 0, 0], np.uint8)),
        e_channels=Image.fromarray(np.repeat(label[:, :, None] * 255, 3, 2)),
        f_deep=Image.fromarray(label.astype(np.uint16) * 65535),
        g_palette=palette,
        h_label=Image.fromarray(label),
    )
    source = tmp_path / "voc"
    with VocWriter(str(source)) as writer:
        for name in kinds:
            image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            writer.add(name, image, label, "val" if name == "h_label" else "train")
    for name, mask in kinds.items():
        mask.save(source / "SegmentationClass" / f"{name}.png")
    sick = examine(str(source), *splits_of_folder(str(source)))
    assert sick.exit_code == 2
    assert all(finding.kind.fixable for finding in sick.findings)
    repair_dataset(str(source), str(tmp_path / "fixed"))
    for name in kinds:
        mask = np.array(Image.open(tmp_path / "fixed" / "SegmentationClass" / f"{name}.png"))
        assert np.array_equal(mask, label), name
    healthy = examine(str(tmp_path / "fixed"), *splits_of_folder(str(tmp_path / "fixed")))
    assert (healthy.findings, healthy.exit_code) == ((), 0)


def test_one_image_is_split_by_its_area(tmp_path):
    source = write_source(tmp_path / "raw", count=1, shape=(100, 40))
    with pytest.raises(DataError, match=r"1 image\(s\) cannot give 0.2 for validation .* --by-area"):
        convert("pair", source, str(tmp_path / "out"))
    made = convert("pair", source, str(tmp_path / "out"), by_area=True, val=0.2, test=0.1, tile=30, overlap=5)
    assert made.counts == dict(train=6, val=2, test=2)
    image = np.array(Image.open(tmp_path / "raw" / "images" / "a0.png"))
    rows = dict(train=set(), val=set(), test=set())
    for split in rows:
        names = (tmp_path / "out" / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        for name in names:
            row, column = (int(part) for part in name.replace("_c", "_r").split("_r")[1:])
            tile = np.array(Image.open(tmp_path / "out" / "JPEGImages" / f"{name}.png"))
            assert np.array_equal(tile, image[row : row + tile.shape[0], column : column + tile.shape[1]])
            rows[split] |= set(range(row, row + tile.shape[0]))
    assert rows == dict(train=set(range(70)), val=set(range(70, 90)), test=set(range(90, 100)))
    with pytest.raises(ConfigError, match="as shares of an image"):
        convert("pair", source, str(tmp_path / "o2"), by_area=True, val=3)


def test_a_test_split_that_was_asked_for_is_never_left_out(tmp_path):
    source = write_source(tmp_path / "raw", count=3)
    with pytest.raises(DataError, match=r"cannot give 0.4 for validation and 0.1 for test"):
        convert("pair", source, str(tmp_path / "out"), val=0.4, test=0.1)
    with pytest.raises(ConfigError, match=r"--val 2.5: give a share below 1 or a whole number"):
        convert("pair", source, str(tmp_path / "out"), val=2.5)
