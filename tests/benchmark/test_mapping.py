import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import mapping
import numpy as np
import pytest
import torch
from mapping import RepeatedRaster, write_raster

from mmseg_ext.geo import read_raster


def test_a_raster_of_any_size_takes_no_memory():
    values = np.random.default_rng(0).integers(0, 256, (256, 200, 3), np.uint8)
    raster = RepeatedRaster(values, 10**6, 10**6)
    part, valid = raster.read(999_000, 500, 300, 250)
    assert valid is None
    assert (part == np.tile(values, (2, 3, 1))[999_000 % 256 :, 100:][:300, :250]).all()


def test_the_raster_is_written_strip_by_strip(tmp_path):
    write_raster(str(tmp_path / "a.tif"), 600, 300)
    values = read_raster(str(tmp_path / "a.tif"))[0]
    assert values.shape == (600, 300, 3)
    assert (values[:64, :64] == values[0, 0]).all() and (values[576:, :64] == values[576, 0]).all()
    assert (values[0, 0] != values[64, 0]).any()


def test_the_raster_is_mapped_at_its_own_scale(tmp_path, monkeypatch):
    reading = mapping.Brightness.facts.reading.with_settings(gsd_m=1.0)  # the raster has 0.1 m
    monkeypatch.setattr(mapping.Brightness, "facts", replace(mapping.Brightness.facts, reading=reading))
    write_raster(str(tmp_path / "a.tif"), 200, 300)
    mapping.mapped(str(tmp_path / "a.tif"), None, str(tmp_path))
    assert json.loads((tmp_path / "a.json").read_text())["settings"]["scale"] == 1


def test_a_mapping_is_measured_in_a_process_of_its_own(run_tool, tmp_path):
    done = run_tool("benchmark/mapping.py", "memory", 200, 300, "--folder", tmp_path)
    assert done.returncode == 0, done.stderr
    head, *words = done.stdout.split(" GiB")
    assert head.startswith("200 x 300 px: peak ") and not list(tmp_path.iterdir())
    assert float(head.split()[-1]) >= float(words[0].split("(")[-1]) > 0.1


def test_slide_inference_gets_its_image_where_the_network_is(monkeypatch, capsys):
    given, meta = [], torch.device("meta")  # stands for a GPU
    model = SimpleNamespace(test_cfg={}, inference=lambda image, metas, rescale: given.append(image.device))
    network = mapping.Brightness()
    monkeypatch.setattr(network, "model", model, raising=False)
    monkeypatch.setattr(network, "device", meta, raising=False)
    monkeypatch.setattr(mapping.TrainedNetwork, "load", lambda *args, **options: network)
    monkeypatch.setattr(sys, "argv", ["mapping.py", "speed", "a.pth", "a.py", "--tile", "512", "--rounds", "1"])
    mapping.main()
    assert set(given) == {meta} and "megapixels a minute: " in capsys.readouterr().out


@pytest.mark.slow
def test_speed_beside_slide_inference(run_tool, tiny_config, tmp_path):
    from mmseg_ext.engine import build_network, load_config

    weights = tmp_path / "tiny.pth"
    torch.save(dict(state_dict=build_network(load_config(str(tiny_config))).state_dict()), weights)
    options = ("--tile", 512, "--overlap", 128, "--rounds", 1)
    done = run_tool("benchmark/mapping.py", "speed", weights, tiny_config, *options)
    assert done.returncode == 0, done.stderr
    assert "megapixels a minute: " in done.stdout and "lost around the network" in done.stdout
