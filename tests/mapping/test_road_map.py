"""Whole rasters to maps: what is written, where it lies, what a kill leaves, what is refused."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import geopandas as gpd
import numpy as np
import pytest
import rasterio
from bright_network import BrightNetwork
from mmcv import Config

from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine import train
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.mapping import MapSettings, check_rasters, find_rasters, map_files, map_raster, map_strips, road_map
from mmseg_ext.mapping.road_map import chosen_scale
from mmseg_ext.networks import extract_network

UTM, PLACE = "EPSG:32719", (0.5, 0.1, 400_000.25, 0.1, -0.5, 7_400_000.75)
SMALL = MapSettings(tile_px=64, overlap_px=16, batch=2)


@pytest.fixture(scope="module")
def checkpoint(one_config, tmp_path_factory):
    cfg = Config.fromfile(str(one_config))
    cfg.runner.max_iters = 2
    folder = train(cfg, str(tmp_path_factory.mktemp("run")), validate=False)
    return os.path.join(folder, "latest.pth")


@pytest.fixture(scope="module")
def network(checkpoint):
    return TrainedNetwork.load(checkpoint)


def raster(path, height=150, width=130, seed=0, valid=None, **place):
    values = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    values = values.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    write_geotiff(str(path), values, valid=valid, **place)
    return str(path)


def pixels(path):
    with rasterio.open(path) as opened:
        return opened.read(1)


def test_the_threshold_of_map_and_network_is_the_settings_else_the_checkpoints(network):
    facts = replace(network.facts, threshold=0.3)
    assert SMALL.threshold_for(network.facts) is None
    assert SMALL.threshold_for(facts) == 0.3
    assert replace(SMALL, threshold=0.9).threshold_for(facts) == 0.9


def test_scales_are_the_settings_else_the_checkpoints(network, tmp_path):
    facts = replace(network.facts, scales=(0.5, 1.0))
    assert SMALL.scales_for(facts) == (0.5, 1.0)
    assert replace(SMALL, scales=(0.25,)).scales_for(facts) == (0.25,)
    path = raster(tmp_path / "pit.tif", 40, 40)  # one tile, so that nothing is blended
    both = replace(SMALL, scales=(0.5, 1.0), threshold=0.4)
    assert map_raster(path, network, str(tmp_path / "both"), both)["settings"]["scales"] == [0.5, 1.0]
    for scale in both.scales:
        map_raster(path, network, str(tmp_path / str(scale)), replace(SMALL, scales=(scale,)))
    first, second = (pixels(tmp_path / name / "pit_probability.tif").astype(float) for name in ("0.5", "1.0"))
    mean = pixels(tmp_path / "both" / "pit_probability.tif")
    assert (first != second).any()
    assert np.abs(mean - (first + second) / 2).max() <= 1  # steps of 1/250, each rounded
    sure = np.abs(mean - 0.4 * 250) > 1
    assert ((pixels(tmp_path / "both" / "pit_roads.tif") == 1) == (mean > 0.4 * 250))[sure].all()


@pytest.mark.parametrize("scales", [(), (0.0, 1.0), (5.0,)])
def test_scales_that_show_nothing_are_refused(scales):
    with pytest.raises(ConfigError, match=r"--scales .*: give one or more factors above 0 and up to 4"):
        MapSettings(scales=scales)


def test_a_map_lies_where_its_raster_does_and_says_what_it_is(network, tmp_path):
    valid = np.ones((150, 130), bool)
    valid[:40, :50] = False
    path = raster(tmp_path / "pit.tif", valid=valid, crs=UTM, transform=PLACE)
    record = map_raster(path, network, str(tmp_path / "out"), MapSettings(64, 16, 2, scale=1, uncertainty=True))
    names = {"pit_roads.tif", "pit_probability.tif", "pit_uncertainty.tif", "pit_preview.png", "pit.json"}
    styles = {"pit_roads.qml", "pit_probability.qml", "pit_uncertainty.qml"}
    assert set(os.listdir(tmp_path / "out")) == names | styles
    for layer in ("roads", "probability", "uncertainty"):
        with rasterio.open(tmp_path / "out" / f"pit_{layer}.tif") as opened:
            assert opened.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert opened.crs.to_string() == UTM and opened.nodata == 255 and opened.shape == (150, 130)
            assert tuple(opened.transform)[:6] == pytest.approx(PLACE, rel=1e-12)
            assert ((opened.read(1) == 255) == ~valid).all()
            if layer == "roads":
                assert opened.colormap(1)[1][:3] == (128, 0, 0)
            else:
                assert opened.scales == (1 / 250,)
    road, chance = pixels(tmp_path / "out" / "pit_roads.tif"), pixels(tmp_path / "out" / "pit_probability.tif")
    sure = valid & (np.abs(chance.astype(int) - 125) > 1)
    assert ((road == 1) == (chance > 125))[sure].all()
    assert json.loads((tmp_path / "out" / "pit.json").read_text()) == json.loads(json.dumps(record, default=float))
    assert record["valid_share"] == pytest.approx(valid.mean())
    assert record["class_share"]["road"] == pytest.approx((road == 1).sum() / valid.sum())
    assert record["weights_sha256"] == network.facts.weights_sha256 and record["settings"]["tile_px"] == 64


def test_a_killed_run_goes_on_and_ends_like_a_straight_one(network, tmp_path, monkeypatch):
    path = raster(tmp_path / "pit.tif", 300, 90)
    map_raster(path, network, str(tmp_path / "straight"), SMALL)

    class Killed(Exception):
        pass

    def failing(*args, **kwargs):
        for count, strip in enumerate(map_strips(*args, **kwargs)):
            if count == 2:
                raise Killed
            made.append(strip.index)
            yield strip

    made = []
    monkeypatch.setattr(road_map, "map_strips", failing)
    for _ in range(2):  # two strips each time
        with pytest.raises(Killed):
            map_raster(path, network, str(tmp_path / "broken"), SMALL)
    assert made == [0, 1, 2, 3]
    assert not [name for name in os.listdir(tmp_path / "broken") if name.endswith((".tif", ".json"))]
    monkeypatch.undo()
    map_raster(path, network, str(tmp_path / "broken"), SMALL)
    for layer in ("roads", "probability"):
        straight, broken = (tmp_path / folder / f"pit_{layer}.tif" for folder in ("straight", "broken"))
        assert np.array_equal(pixels(straight), pixels(broken))
    one, other = (json.loads((tmp_path / folder / "pit.json").read_text()) for folder in ("straight", "broken"))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_parts_of_other_settings_are_not_taken_up(network, tmp_path, monkeypatch):
    path = raster(tmp_path / "pit.tif")
    map_raster(path, network, str(tmp_path / "direct"), MapSettings(64, 16, 2, threshold=0.9))

    def one_strip(*args, **kwargs):
        yield next(iter(map_strips(*args, **kwargs)))
        raise KeyboardInterrupt

    monkeypatch.setattr(road_map, "map_strips", one_strip)
    with pytest.raises(KeyboardInterrupt):
        map_raster(path, network, str(tmp_path / "out"), SMALL)
    monkeypatch.undo()
    map_raster(path, network, str(tmp_path / "out"), MapSettings(64, 16, 2, threshold=0.9))
    assert np.array_equal(pixels(tmp_path / "out" / "pit_roads.tif"), pixels(tmp_path / "direct" / "pit_roads.tif"))


@pytest.mark.parametrize(
    "other", [dict(mean=(100.0, 110.0, 120.0)), dict(to_rgb=False), dict(threshold=0.3), dict(classes=("rock", "road"))]
)
def test_a_map_of_another_normalisation_or_threshold_is_not_kept(tmp_path, other):
    network, out, path = BrightNetwork(), str(tmp_path / "out"), raster(tmp_path / "pit.tif")
    map_raster(path, network, out, SMALL)
    made = os.stat(tmp_path / "out" / "pit.json").st_mtime_ns
    network.facts = replace(network.facts, version="next")
    map_raster(path, network, out, SMALL)
    assert os.stat(tmp_path / "out" / "pit.json").st_mtime_ns == made
    network.facts = replace(network.facts, **other)
    with pytest.raises(ConfigError, match="pit.json: .*--overwrite"):
        map_raster(path, network, out, SMALL)
    assert map_raster(path, network, out, SMALL, overwrite=True)["key"] != ""


def stopped_after_two_strips(monkeypatch, *arguments):
    def two(*args, **kwargs):
        yield from itertools.islice(map_strips(*args, **kwargs), 2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(road_map, "map_strips", two)
        map_raster(*arguments)


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped", "other"])
def test_a_strip_that_cannot_be_read_is_named_and_its_rows_are_mapped_again(network, tmp_path, monkeypatch, damage):
    arguments = raster(tmp_path / "pit.tif", 200, 90), network, str(tmp_path / "out"), SMALL
    stopped_after_two_strips(monkeypatch, *arguments)
    (strip,) = (tmp_path / "out" / "pit.parts").glob("000001.*.npz")
    whole = bytearray(strip.read_bytes())
    flipped = bytes(whole[:200]) + bytes(~byte & 255 for byte in whole[200:300]) + bytes(whole[300:])
    damaged = dict(empty=b"", cut=bytes(whole[: len(whole) // 2]), flipped=flipped, other=b"PK no archive")
    if damage == "gone":  # while the map is put together
        monkeypatch.setattr(map_files, "write_qgis_style", lambda *_: strip.unlink())
    else:
        strip.write_bytes(damaged[damage])
    with pytest.raises(DataError, match=r"000001\.\w+\.npz: cannot be read \(\w+\); remove it and re-run") as caught:
        map_raster(*arguments)
    assert "\n" not in str(caught.value) and not list((tmp_path / "out").glob("*.tif"))
    monkeypatch.undo()
    strip.unlink(missing_ok=True)
    map_raster(*arguments)
    map_raster(arguments[0], network, str(tmp_path / "straight"), SMALL)
    assert np.array_equal(*(pixels(tmp_path / folder / "pit_roads.tif") for folder in ("out", "straight")))


def test_a_map_that_was_half_replaced_counts_as_unfinished(network, tmp_path, monkeypatch):
    path, out = raster(tmp_path / "pit.tif"), tmp_path / "out"
    map_raster(path, network, str(out), SMALL)
    before = pixels(out / "pit_roads.tif")
    other = replace(SMALL, threshold=0.99)
    stopped_after_two_strips(monkeypatch, path, network, str(out), other, True)
    assert (out / "pit.json").exists()  # the strips replace nothing
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(map_files.MapFiles, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        map_raster(path, network, str(out), other, overwrite=True)
    assert (pixels(out / "pit_roads.tif") != before).any()
    map_raster(path, network, str(out), SMALL)
    assert np.array_equal(pixels(out / "pit_roads.tif"), before)


@pytest.mark.parametrize(("height", "width"), [(1, 97), (37, 1), (20, 20), (131, 67)])
def test_every_size_is_mapped(network, tmp_path, height, width):
    map_raster(raster(tmp_path / "a.tif", height, width), network, str(tmp_path / "out"), SMALL)
    assert pixels(tmp_path / "out" / "a_roads.tif").shape == (height, width)


@pytest.mark.slow
def test_two_processes_map_like_one(checkpoint, tmp_path, run_tool, root):
    path = raster(tmp_path / "pit.tif", 300, 90)
    options = ["--tile", 64, "--overlap", 16, "--backend", "torch"]
    one = run_tool("predict.py", checkpoint, path, "--out", tmp_path / "one", "--network", *options)
    assert one.returncode == 0, one.stderr
    layers = extract_network(str(tmp_path / "one" / "pit_probability.tif"))
    for name, table in layers.named().items():
        written = gpd.read_file(tmp_path / "one" / "pit_network.gpkg", layer=name)
        assert len(written) == len(table) and table.geometry.geom_equals(written.geometry).all()
    assert "pit.tif: 90 x 300 px, no coordinate reference system: the map is in pixels" in one.stderr
    assert "18 tile(s) of 64 px to map by torch fp32" in one.stderr and "pit_roads.tif: " in one.stderr
    launcher = [sys.executable, "-m", "mmseg_ext.engine.launch", "2", "tools/predict.py"]
    two = subprocess.run(
        [*launcher, checkpoint, path, "--out", str(tmp_path / "two"), *map(str, options)],
        cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert two.returncode == 0, two.stderr
    for layer in ("roads", "probability"):
        assert np.array_equal(*(pixels(tmp_path / n / f"pit_{layer}.tif") for n in ("one", "two")))


def test_a_process_that_is_late_shares_the_strips_all_the_same(network, tmp_path, monkeypatch):
    path, meeting = raster(tmp_path / "pit.tif", 300, 90), threading.Barrier(2)
    late, isfile = [True], os.path.isfile

    def slow_isfile(name):
        if threading.current_thread().name == "0" and late and str(name).endswith(".npz"):
            late.clear()  # until the other has nothing to do but wait: without a word from this one it would map
            while meeting.n_waiting == 0:
                time.sleep(0.01)
        return isfile(name)

    monkeypatch.setattr(road_map.os.path, "isfile", slow_isfile)

    def work(rank):
        threading.current_thread().name = str(rank)
        group = road_map.Group(rank, 2, lambda: meeting.wait(60))
        try:
            map_raster(path, network, str(tmp_path / "two"), SMALL, group=group)
        except BaseException:
            meeting.abort()
            raise

    with ThreadPoolExecutor(2) as threads:
        done = [threads.submit(work, rank) for rank in (0, 1)]
    assert [one.exception() for one in done] == [None, None]
    map_raster(path, network, str(tmp_path / "one"), SMALL)
    for layer in ("roads", "probability"):
        assert np.array_equal(*(pixels(tmp_path / n / f"pit_{layer}.tif") for n in ("one", "two")))


def test_the_scale_follows_the_metres_of_raster_and_training(network, tmp_path, caplog):
    info = road_map.RasterSource(raster(tmp_path / "a.tif", crs=UTM, transform=(0.5, 0, 0, 0, -0.5, 0))).info
    reading = network.facts.reading.with_settings(gsd_m=1.0)
    assert chosen_scale(info, reading, SMALL) == 0.5
    assert "has 0.5 m per pixel, the training images had 1 m" in caplog.text
    assert chosen_scale(info, reading.with_settings(gsd_m=0.52), SMALL) == 1
    assert chosen_scale(info, reading, MapSettings(scale=2.0)) == 2
    caplog.clear()
    assert chosen_scale(info, type(reading)(), SMALL) == 1
    assert "a.tif: the checkpoint knows no metres per pixel, so it is mapped at its own scale; give --scale, or" in (
        caplog.text
    )
    assert "--cfg-options data.test.step_args.LoadRoadImage.gsd_m=METRES" in caplog.text
    caplog.clear()
    assert chosen_scale(info, reading, SMALL, limits=(0.4, 2.5)) == 0.5
    assert not caplog.text
    assert chosen_scale(info, reading, SMALL, limits=(0.6, 2.5)) == 0.5
    assert "has 0.5 m per pixel, the training images had 0.6 to 2.5 m" in caplog.text
    plain = road_map.RasterSource(raster(tmp_path / "plain.tif")).info
    assert chosen_scale(plain, reading, SMALL) == 1
    assert "so it is mapped at its own scale; give --scale: your metres per pixel / 1\n" in caplog.text


def test_the_metres_of_a_data_set_reach_the_checkpoint(network):
    assert network.facts.reading.gsd_m == 4.0  # as mine_data says


def test_what_cannot_be_mapped_is_refused(network, tmp_path, monkeypatch):
    path = raster(tmp_path / "pit.tif")
    map_raster(path, network, str(tmp_path / "out"), SMALL)
    other = replace(SMALL, batch=3)
    with pytest.raises(ConfigError, match="pit.json: is there already, of another raster, checkpoint or setting"):
        map_raster(path, network, str(tmp_path / "out"), other)
    map_raster(path, network, str(tmp_path / "out"), other, overwrite=True)
    monkeypatch.setattr(map_files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ConfigError, match="0.0 GiB are free, but mapping .*pit.tif may need"):
        map_raster(path, network, str(tmp_path / "full"), SMALL)
    monkeypatch.undo()
    write_geotiff(str(tmp_path / "five.tif"), np.zeros((70, 70, 5), np.uint8))
    with pytest.raises(DataError, match="five.tif: has 5 bands"):
        map_raster(str(tmp_path / "five.tif"), network, str(tmp_path / "five"), SMALL)
    with pytest.raises(DataError, match=r"1 band\(s\) to read, but the network takes 3; say which: --bands"):
        map_raster(path, network, str(tmp_path / "one"), replace(SMALL, bands=(1,)))
    # all are looked at before the first is mapped
    with pytest.raises(DataError, match=r"none of 2 rasters can be mapped: .*five.tif: has 5.*; .*none.tif"):
        check_rasters([str(tmp_path / "five.tif"), str(tmp_path / "none.tif")], network, SMALL)
    outcomes = check_rasters([str(tmp_path / "five.tif"), path], network, SMALL)
    assert outcomes.failed == [str(tmp_path / "five.tif")] and list(outcomes.of)[1] == path
    write_geotiff(str(tmp_path / "deep.tif"), np.zeros((70, 70, 3), np.uint16))
    with pytest.raises(DataError, match="deep.tif: uint16 pixels, but the network was trained on 8-bit images"):
        map_raster(str(tmp_path / "deep.tif"), network, str(tmp_path / "deep"), SMALL)
    assert not (tmp_path / "deep").exists()
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(DataError, match="text.tif: cannot be read as a raster"):
        map_raster(str(tmp_path / "text.tif"), network, str(tmp_path / "text"), SMALL)


def test_a_finished_map_is_kept(network, tmp_path, caplog):
    path = raster(tmp_path / "pit.tif", valid=np.arange(150 * 130).reshape(150, 130) >= 150 * 30)
    record = map_raster(path, network, str(tmp_path / "out"), SMALL)
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    with caplog.at_level("INFO"):
        assert map_raster(path, network, str(tmp_path / "out"), SMALL) == record
    assert "pit.json: exists and is kept" in caplog.text
    assert before == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    # what the raster does not hold is white in the preview
    preview, labels = cv2.imread(str(tmp_path / "out" / "pit_preview.png")), pixels(tmp_path / "out" / "pit_roads.tif")
    assert (preview[labels == 255] == 255).all() and (preview[labels != 255] != 255).any(axis=-1).mean() > 0.99


def test_a_raster_that_holds_nothing_gives_an_empty_map(network, tmp_path, caplog):
    path = raster(tmp_path / "a.tif", valid=np.zeros((150, 130), bool))
    record = map_raster(path, network, str(tmp_path / "out"), SMALL)
    assert (pixels(tmp_path / "out" / "a_roads.tif") == 255).all()
    assert record["valid_share"] == 0 and record["class_share"] == {"background": None, "road": None}
    assert "no valid pixel in it; its map is empty" in caplog.text


def test_inputs_are_files_folders_and_patterns_and_names_are_unique(tmp_path):
    for name in ("b/x.tif", "a/x.tif", "a/y.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = str(tmp_path / "a")
    assert find_rasters([folder]) == [f"{folder}/x.tif", f"{folder}/y.png"]
    assert find_rasters([f"{folder}/*.tif", f"{folder}/x.tif", f"{folder}/y.png"]) == find_rasters([folder])
    with pytest.raises(ConfigError, match="both are called x; map them into two folders"):
        find_rasters([folder, str(tmp_path / "b")])
    with pytest.raises(DataError, match="none.tif: no such file, folder or pattern"):
        find_rasters([str(tmp_path / "none.tif")])
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="c: no raster in this folder"):
        find_rasters([str(tmp_path / "c")])


@pytest.mark.parametrize(("batch", "largest"), [(1, 1), (2, 2), (9, 3)])
def test_the_trial_before_a_map_takes_no_more_tiles_at_once_than_the_map(tmp_path, batch, largest):
    sizes = []

    class Counting(BrightNetwork):
        """Notes how many tiles it gets at once."""

        def predict(self, images):
            sizes.append(len(images))
            return super().predict(images)

    write_geotiff(str(tmp_path / "a.tif"), np.full((110, 160, 3), 99, np.uint8), UTM, PLACE)
    map_raster(str(tmp_path / "a.tif"), Counting(), str(tmp_path), MapSettings(64, 16, batch=batch))
    assert sizes[:2] == [largest] * 2 and max(sizes) == largest
    assert sum(sizes[2:]) == 6
