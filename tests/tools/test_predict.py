"""The weights that come with the package: what they say of themselves, and the real site that they map."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

import mmseg_ext
from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.errors import CheckpointError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.mapping import MapSettings, map_raster
from mmseg_ext.runtime.onnx import OnnxNetwork
from mmseg_ext.scoring import FolderEvaluation, ScoringSettings, pair_predictions, summarise
from mmseg_ext.weights import DEFAULT_WEIGHTS, is_checkpoint, shipped_file, shipped_names

SAMPLES = Path(mmseg_ext.__file__).parent / "samples"
SITE, TRACED = str(SAMPLES / "caliterra.tif"), str(SAMPLES / "caliterra_roads.fgb")


def test_what_is_a_checkpoint():
    assert DEFAULT_WEIGHTS in shipped_names()
    assert is_checkpoint(DEFAULT_WEIGHTS) and is_checkpoint("run/latest.pth") and is_checkpoint("A.SAFETENSORS")
    assert not is_checkpoint("flights") and not is_checkpoint("pit.tif") and not is_checkpoint("unet-lite0")


@pytest.mark.parametrize("name", shipped_names())
def test_shipped_weights_are_small_and_say_what_they_are(name):
    file = Path(shipped_file(name))
    assert file.stat().st_size < 11e6
    checkpoint = read_checkpoint(name)
    assert all(value.dtype.itemsize == 2 for value in checkpoint["state_dict"].values() if value.is_floating_point())
    assert checkpoint["meta"]["licence"] and checkpoint["meta"]["gsd_m"] > 0
    facts = TrainedNetwork.load(name).facts
    assert facts.classes == ("background", "road") and 0 < facts.threshold < 1
    low, high = facts.gsd_range_m
    assert low < facts.reading.gsd_m < high


@pytest.mark.parametrize("name", shipped_names())
def test_the_onnx_file_of_shipped_weights_is_theirs(name):
    file = Path(shipped_file(name, ".onnx"))
    assert file.stat().st_size < 11e6
    ours, theirs = OnnxNetwork.load(str(file)), TrainedNetwork.load(name)
    assert ours.facts == theirs.facts and ours.precision == "fp16"
    with rasterio.open(SITE) as site:
        image = np.moveaxis(site.read([1, 2, 3])[:, 200:456, 200:456], 0, 2)
    found, expected = (network.predict([image])[0, 1] for network in (ours, theirs))
    assert np.abs(found - expected).max() < 0.05
    assert ((found >= ours.facts.threshold) == (expected >= ours.facts.threshold)).mean() > 0.997


def test_a_file_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT_WEIGHTS).write_bytes(b"mine")
    assert shipped_file(DEFAULT_WEIGHTS) == DEFAULT_WEIGHTS
    with pytest.raises(CheckpointError, match=rf"^{DEFAULT_WEIGHTS}: is not a checkpoint"):
        read_checkpoint(DEFAULT_WEIGHTS)


def test_damaged_weights_are_one_line(tmp_path):
    damaged = bytearray(Path(shipped_file(DEFAULT_WEIGHTS)).read_bytes())
    damaged[-1000] ^= 1
    (tmp_path / "a.safetensors").write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"a.safetensors: its weights do not match their SHA-256; download"):
        read_checkpoint(str(tmp_path / "a.safetensors"))
    (tmp_path / "b.safetensors").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(CheckpointError, match=r"b.safetensors: is truncated or damaged; download or copy it again"):
        read_checkpoint(str(tmp_path / "b.safetensors"))


def test_the_default_weights_find_the_roads_of_a_real_site(tmp_path):
    record = map_raster(SITE, TrainedNetwork.load(DEFAULT_WEIGHTS), str(tmp_path), MapSettings())
    with rasterio.open(SITE) as site, rasterio.open(tmp_path / "caliterra_roads.tif") as roads:
        assert ((roads.read(1) == 255) == (site.dataset_mask() == 0)).mean() > 0.98  # resampled, so edges are coarse
    pairs = pair_predictions(str(tmp_path / "caliterra_roads.tif"), TRACED, None)
    totals = summarise(FolderEvaluation(pairs, ScoringSettings(tolerance_m=3.0)).score())
    (quality,) = (total.pooled for total in totals if total.measure.key == "quality")
    assert quality > 0.5
    assert record["settings"]["scales"] == list(TrainedNetwork.load(DEFAULT_WEIGHTS).facts.scales)
    assert 0.1 < record["class_share"]["road"] < 0.4


def test_predict_needs_no_checkpoint(run_tool, tmp_path):
    shutil.copy(SITE, tmp_path / "site.tif")
    done = run_tool("predict.py", tmp_path / "site.tif", "--out", tmp_path / "maps", "--network", "--backend", "torch")
    assert done.returncode == 0, done.stderr
    assert f"no checkpoint is given: mapping with {DEFAULT_WEIGHTS}, the default (docs/weights.md)" in done.stderr
    record = json.loads((tmp_path / "maps" / "site.json").read_text())
    meta = read_checkpoint(DEFAULT_WEIGHTS)["meta"]
    assert record["settings"]["scale"] == pytest.approx(0.2 / meta["gsd_m"])
    named = run_tool(
        "predict.py", DEFAULT_WEIGHTS, tmp_path / "site.tif", "--out", tmp_path / "named", "--backend", "torch"
    )
    assert named.returncode == 0, named.stderr
    maps = [rasterio.open(tmp_path / name / "site_probability.tif").read() for name in ("maps", "named")]
    assert np.array_equal(*maps)
    misspelt = run_tool("predict.py", "unet-lite0", tmp_path / "site.tif", "--out", tmp_path / "maps")
    assert (misspelt.returncode, misspelt.stderr) == (
        2,
        f"error: unet-lite0: no such file; the weights are called {DEFAULT_WEIGHTS}\n",
    )
    nothing = run_tool("predict.py", DEFAULT_WEIGHTS, "--out", tmp_path / "maps")
    assert (nothing.returncode, nothing.stderr) == (
        2,
        f"error: {DEFAULT_WEIGHTS}: means a checkpoint; give the rasters to map after it\n",
    )


@pytest.mark.slow
def test_a_broken_raster_and_a_job_array(run_tool, tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (140, 90, 3), np.uint8)
    for name in ("a.tif", "b.tif"):
        write_geotiff(str(tmp_path / name), values, "EPSG:32719", (0.5, 0, 4e5, 0, -0.5, 7e6))
    (tmp_path / "text.tif").write_text("no raster")
    options = [tmp_path / name for name in ("a.tif", "b.tif", "text.tif")] + ["--tile", 64, "--overlap", 32]
    one = run_tool("predict.py", *options, "--out", tmp_path / "one", "--network")
    assert one.returncode == 2
    assert one.stderr.endswith("error: 1 of 3 rasters failed, for the reasons above; the others are fine\n")
    assert "| raster | seconds | road, % | warnings | failure |" in one.stderr
    for task in ("1", "2"):
        array = dict(
            SLURM_ARRAY_TASK_ID=task, SLURM_ARRAY_TASK_MIN="1", SLURM_ARRAY_TASK_MAX="2", SLURM_ARRAY_TASK_COUNT="2"
        )
        share = run_tool(
            "predict.py", *options[:2], *options[3:], "--out", tmp_path / "two", "--shard", "auto", **array
        )
        assert share.returncode == 0, share.stderr
        assert not list((tmp_path / "two").glob("*.tif"))
    done = run_tool("predict.py", *options[:2], *options[3:], "--out", tmp_path / "two", "--finish", "--network")
    assert done.returncode == 0, done.stderr
    for name in ("a_roads.tif", "b_probability.tif"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == sorted(
        path.name for path in (tmp_path / "two").iterdir()
    )
    refused = run_tool("predict.py", *options, "--out", tmp_path / "two", "--shard", "1/2", "--network")
    assert refused.returncode == 2 and refused.stderr.startswith("error: --shard: maps strips only; leave --network")
