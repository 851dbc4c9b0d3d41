"""ONNX files as networks that map: ours as the network itself, others' as one says, and one line for the rest."""

import dataclasses
import json
import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest
import rasterio
from deepness_double import DeepnessSegmentor
from onnx import TensorProto
from scipy.ndimage import median_filter
from scipy.special import softmax
from small_onnx import SmallNetwork, export_small, network_model, small_facts

from mmseg_ext.errors import ConfigError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.mapping import MapSettings, map_raster
from mmseg_ext.runtime import onnx as runtime_onnx
from mmseg_ext.runtime.facts import predict_at_scales
from mmseg_ext.runtime.onnx import OnnxNetwork, default_threads, raw_pixels

DEEP = dict(bands=(4, 3, 2, 1), low=(100.0,), high=(4100.0,))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    "facts",
    [
        small_facts(),
        small_facts(to_rgb=False),
        small_facts(outputs=1, threshold=0.3),
        small_facts(4, **DEEP),
        small_facts(to_rgb=False, low=(0.0, 10.0, 20.0), high=(1.0, 900.0, 65535.0)),
    ],
    ids=["plain", "bgr", "one output", "four deep bands", "bgr deep"],
)
def test_a_file_maps_as_the_network(facts, tmp_path, monkeypatch):
    network = OnnxNetwork.load(export_small(tmp_path / "roads.onnx", facts, monkeypatch))
    assert network.facts == facts and network.precision == "fp32"
    for size in [(16, 24), (1, 1), (9, 30)]:
        images = [noise(*size, facts.bands, seed=seed) for seed in range(2)]
        found, expected = network.predict(images), SmallNetwork(facts).predict(images)
        assert found.shape == expected.shape == (2, 2, *size) and found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-5
    with pytest.raises(ConfigError, match=rf"roads.onnx: takes {facts.bands} bands, but the image to predict has 5"):
        network.predict([noise(8, 8, 5)])


def test_the_graph_scales_depth_as_a_raster_is_read(tmp_path, monkeypatch):
    facts = small_facts(4, **DEEP)
    network = OnnxNetwork.load(export_small(tmp_path / "roads.onnx", facts, monkeypatch))
    raw = np.random.default_rng(0).integers(0, 5000, (16, 16, 4), np.uint16)
    eight_bits = facts.reading.with_settings(bands=(1, 2, 3, 4)).scale(raw, "a.tif")
    (given,) = network.session.get_inputs()
    pixels = raw.transpose(2, 0, 1)[None].astype(np.float32)
    (found,) = network.session.run(None, {given.name: pixels})
    assert np.abs(found - SmallNetwork(facts).predict([eight_bits])).max() < 1e-5
    pixels[0, :, 3, 3] = np.nan  # nodata of float rasters counts as 0, as where rasters are read
    holed = raw.copy()
    holed[3, 3] = 0
    (found,) = network.session.run(None, {given.name: pixels})
    eight_bits = facts.reading.with_settings(bands=(1, 2, 3, 4)).scale(holed, "a.tif")
    assert np.abs(found - SmallNetwork(facts).predict([eight_bits])).max() < 1e-5
    back = raw_pixels(facts.reading, eight_bits[None])[0].transpose(1, 2, 0)
    assert np.array_equal(facts.reading.with_settings(bands=(1, 2, 3, 4)).scale(back, "a.tif"), eight_bits)


def test_old_runtimes_can_read_the_file(tmp_path, monkeypatch):
    path = export_small(tmp_path / "roads.onnx", small_facts(), monkeypatch)
    model = onnx.load(path)
    assert model.ir_version == 9 and model.opset_import[0].version <= 20  # those of ONNX Runtime 1.17
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("pixels", "probabilities")
    monkeypatch.setattr("onnxruntime.__version__", "1.16.3")
    with pytest.raises(ConfigError, match=r"needs ONNX Runtime 1.17 or newer, here is 1.16.3; pip install -U onnxrun"):
        OnnxNetwork.load(path)
    monkeypatch.setattr("onnxruntime.__version__", "2.0.0")
    assert OnnxNetwork.load(path).software == {"onnxruntime": "2.0.0"}


def test_the_threads_are_those_of_pytorch(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert default_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "no number")
    cores = default_threads()
    assert cores >= 1
    monkeypatch.setattr(runtime_onnx.os, "sched_getaffinity", lambda process: {0}, raising=False)
    assert default_threads() == 1


MAPS = """
import sys
import mmseg_ext
for name in ("torch", "mmcv", "mmseg", "safetensors", "onnx"):
    sys.modules[name] = None  # importing it is an ImportError
from mmseg_ext.cli import main
sys.argv[0] = "dsegnext"
main()
"""


def dsegnext(*arguments):
    return subprocess.run([sys.executable, "-c", MAPS, *map(str, arguments)], capture_output=True, text=True)


def test_predict_maps_with_a_file_and_no_pytorch(tmp_path, monkeypatch):
    facts = small_facts(threshold=0.4, scales=(0.5, 1.0), gsd_m=0.5)
    path = export_small(tmp_path / "roads.onnx", facts, monkeypatch)
    raster = str(tmp_path / "pit.tif")
    coarse = noise(10, 13, 3).repeat(8, axis=0).repeat(8, axis=1)
    write_geotiff(raster, coarse, "EPSG:32719", rasterio.Affine(0.5, 0, 500000, 0, -0.5, 7400000))
    done = dsegnext("predict", path, raster, "--out", tmp_path / "maps", "--tile", 64, "--overlap", 16)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "maps" / "pit.json").read_text())
    assert record["weights_sha256"] == facts.weights_sha256
    assert (record["settings"]["backend"], record["settings"]["precision"]) == ("onnxruntime", "fp32")
    expected = SmallNetwork(facts)
    expected.execution, expected.software = dict(backend="none", precision="fp32", exported_sha256=None, threads=1), {}
    map_raster(raster, expected, str(tmp_path / "expected"), MapSettings(64, 16))
    for name in ("roads", "probability"):
        found, wanted = (rasterio.open(tmp_path / f / f"pit_{name}.tif").read(1) for f in ("maps", "expected"))
        # rounding may turn a pixel at a boundary, or a step of 1/250
        assert (found == wanted).mean() > 0.999 and np.unique(found).size > 1
    for options, words in (
        (["--backend", "torch", "--precision", "fp32"], "leave --backend, --precision out, or give the checkpoint"),
        (["--config", "a.py"], "leave --config out"),
        (["--classes", "a,b"], "says itself that its classes are"),
    ):
        refused = dsegnext("predict", path, raster, "--out", tmp_path / "other", *options)
        assert refused.returncode == 2 and words in refused.stderr and refused.stderr.count("\n") == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.UINT8])
def test_a_file_of_others_runs_as_one_says(tmp_path, caplog, dtype):
    facts = small_facts()
    path = str(tmp_path / "foreign.onnx")
    onnx.save(network_model(facts, "x", "y", ("N", "H", "W"), dtype), path)
    with pytest.raises(ConfigError, match=r"does not say what .*, or say it: --bands 1,2,3 --classes background,road"):
        OnnxNetwork.load(path)
    with caplog.at_level(logging.WARNING):
        network = OnnxNetwork.load(path, (3, 2, 1), ("background", "road"))
    assert "taken: bands 3, 2, 1 as values from 0 to 255, logits as outputs" in caplog.text
    assert network.facts.reading.bands == (3, 2, 1) and network.facts.stride == 32
    image = noise(40, 64, 3)
    padded = np.pad(image, ((0, 24), (0, 0), (0, 0)), mode="reflect").transpose(2, 0, 1)[None]
    numpy_type = np.float32 if dtype == TensorProto.FLOAT else np.uint8
    (scores,) = network.session.run(None, {"x": padded.astype(numpy_type)})
    assert np.allclose(network.predict([image]), softmax(scores, axis=1)[:, :, :40], atol=1e-6)
    with pytest.raises(ConfigError, match=r"is no network from 4 bands to 2 classes: it has x tensor\("):
        OnnxNetwork.load(path, (1, 2, 3, 4), ("background", "road"))
    with pytest.raises(ConfigError, match=r"is no network from 3 bands to 3 classes"):
        OnnxNetwork.load(path, (1, 2, 3), ("background", "road", "water"))


def test_a_file_of_others_with_one_size_and_probabilities(tmp_path, caplog, monkeypatch):
    path = export_small(tmp_path / "tile.onnx", small_facts(), monkeypatch, program="deepness", tile_px=48)
    with pytest.raises(ConfigError, match=r"tile.onnx: was exported for deepness; give the checkpoint, or one"):
        OnnxNetwork.load(path)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    network = OnnxNetwork.load(path, (1, 2, 3), ("background", "road"))
    assert "probabilities as outputs" in caplog.text and network.facts.stride == 48
    images = [noise(30, 48, 3, seed=seed) for seed in range(3)]  # one at a time, as the file takes them
    found = network.predict(images)
    assert found.shape == (3, 2, 30, 48) and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(ConfigError, match="takes images of 48 x 48 px only; give --tile 48"):
        network.predict([noise(96, 48, 3)])


def test_files_that_are_none(tmp_path, monkeypatch):
    path = tmp_path / "roads.onnx"
    whole = open(export_small(path, small_facts(), monkeypatch), "rb").read()
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>", whole[:-40]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"roads.onnx: is no ONNX file, or is truncated|what it says of itself"):
            OnnxNetwork.load(str(path))
    with pytest.raises(ConfigError, match=r"none.onnx: no such file"):
        OnnxNetwork.load(str(tmp_path / "none.onnx"))
    model = onnx.load_from_string(whole)
    model.ir_version = 99
    onnx.save(model, path)
    with pytest.raises(ConfigError, match=r"roads.onnx: is newer than this ONNX Runtime; pip install -U onnxruntime"):
        OnnxNetwork.load(str(path))
    earlier = network_model(small_facts())
    onnx.helper.set_model_props(earlier, small_facts().as_metadata())
    onnx.save(earlier, path)
    with pytest.raises(ConfigError, match=r"was exported by an earlier version, for normalised images; export it agai"):
        OnnxNetwork.load(str(path))


PROGRAM_FACTS = [
    small_facts(threshold=0.4, scales=(0.5, 0.75, 1.0), gsd_m=0.3),
    small_facts(to_rgb=False, outputs=1, threshold=0.7, scales=(0.6,)),
    small_facts(low=(100.0,), high=(4100.0,)),
]


@pytest.mark.parametrize("facts", PROGRAM_FACTS, ids=["scales", "one output", "deep"])
@pytest.mark.parametrize("program", ["deepness", "geodeep"])
def test_a_file_for_a_program_shows_a_tile_as_a_map_does(tmp_path, monkeypatch, facts, program):
    side = 100  # no multiple of the stride at any scale
    path = export_small(tmp_path / "tile.onnx", facts, monkeypatch, program=program, tile_px=side)
    session = runtime_onnx.open_session(path, 1)
    pixels = noise(25, 25, 3).repeat(4, axis=0).repeat(4, axis=1)
    largest = 65535 if program == "geodeep" and facts.reading.low else 255
    given = (raw_pixels(facts.reading, pixels[None]) / largest).astype(np.float32)
    (found,) = session.run(None, {session.get_inputs()[0].name: given})
    wanted = predict_at_scales(SmallNetwork(facts), [pixels], facts.scales)
    road = wanted[:, 1] >= (facts.threshold or 0.5)
    sure = np.abs(wanted[:, 1] - (facts.threshold or 0.5)) > 1e-4
    assert np.array_equal((found[:, 1] >= 0.5)[sure], road[sure]) and sure.mean() > 0.99
    assert 0.01 < road.mean() < 0.99 and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    if facts.threshold is None:
        assert np.abs(found - wanted).max() < 1e-4


def our_classes(facts, pixels):
    wanted = predict_at_scales(SmallNetwork(facts), [pixels], facts.scales)[0]
    return wanted[1] >= (facts.threshold or 0.5)


@pytest.mark.parametrize("facts", PROGRAM_FACTS, ids=["scales", "one output", "deep"])
def test_deepness_finds_the_same_classes(tmp_path, monkeypatch, facts):
    """On a double of the plugin, which says what it mimics."""
    facts = dataclasses.replace(facts, reading=facts.reading.with_settings(gsd_m=0.3))
    path = export_small(tmp_path / "qgis.onnx", facts, monkeypatch, program="deepness", tile_px=96)
    plugin = DeepnessSegmentor(path)
    assert (plugin.class_names, plugin.resolution_cm, plugin.overlap_percent) == (["background", "road"], 30, 25)
    assert (plugin.threshold, plugin.small_segment) == (0.5, 0)
    pixels = noise(24, 24, 3).repeat(4, axis=0).repeat(4, axis=1)
    raster = raw_pixels(facts.reading, pixels[None]).transpose(0, 2, 3, 1)
    raster = np.rint(raster).astype(np.uint8 if facts.reading.low is None else np.uint16)
    pixels = facts.reading.scale(raster[0], "a.tif")
    assert (plugin.classes(raster)[0] == our_classes(facts, pixels)).mean() > 0.999


@pytest.mark.parametrize("facts", PROGRAM_FACTS, ids=["scales", "one output", "deep"])
def test_geodeep_finds_the_same_classes(tmp_path, monkeypatch, facts):
    geodeep = pytest.importorskip("geodeep", reason="the package geodeep is not installed")
    facts = dataclasses.replace(facts, reading=facts.reading.with_settings(gsd_m=0.3))
    path = export_small(tmp_path / "webodm.onnx", facts, monkeypatch, program="geodeep", tile_px=96)
    pixels = noise(12, 12, 3).repeat(8, axis=0).repeat(8, axis=1)
    raster = raw_pixels(facts.reading, pixels[None])[0].transpose(1, 2, 0)
    raster = np.rint(raster).astype(np.uint8 if facts.reading.low is None else np.uint16)
    file = str(tmp_path / "pit.tif")
    write_geotiff(file, raster, "EPSG:32719", rasterio.Affine(0.3, 0, 500000, 0, -0.3, 7400000))
    ours = our_classes(facts, facts.reading.scale(raster, "a.tif"))
    found = geodeep.run(file, path, output_type="raw", max_threads=1)
    assert (found == median_filter(ours.astype(np.uint8), 5)).mean() > 0.999  # which GeoDeep does at the end
    assert 0.01 < found.mean() < 0.99
