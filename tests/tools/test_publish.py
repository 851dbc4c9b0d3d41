"""The command that makes a folder to upload, and the map that its weights give from a URL."""

import hashlib
import json
import os

import numpy as np
import onnxruntime
import pytest
import rasterio
import torch
from file_server import serving

import mmseg_ext
from mmseg_ext.deploy import model_folder
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.errors import ConfigError
from mmseg_ext.files import CACHE_VARIABLE
from mmseg_ext.weights import DEFAULT_WEIGHTS, shipped_file


@pytest.fixture()
def publish(load_tool, monkeypatch):
    """Return a function that runs the command without its export: (*args)."""
    tool = load_tool("publish")
    monkeypatch.setattr(model_folder, "export_checkpoint", lambda *_: None)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["publish", *map(str, arguments)])
        tool.main()

    return run


def test_a_checkpoint_of_a_training_is_published_first(publish, tiny_config, tmp_path):
    cfg, checkpoint = load_config(str(tiny_config)), tmp_path / "latest.pth"
    torch.save(dict(state_dict=build_network(cfg).state_dict(), meta=dict(config=cfg.pretty_text)), checkpoint)
    with pytest.raises(ConfigError, match="--licence is missing: say under which others may use the weights"):
        publish(checkpoint, tmp_path / "mine")
    publish(checkpoint, tmp_path / "mine", "--licence", "CC-BY-4.0", "--gsd-m", 0.5, "--half")
    content = read_checkpoint(str(tmp_path / "mine" / "mine.safetensors"))
    assert (content["meta"]["licence"], content["meta"]["gsd_m"]) == ("CC-BY-4.0", 0.5)
    assert {value.dtype for value in content["state_dict"].values()} == {torch.float16, torch.int64}
    assert "license: cc-by-4.0\n" in (tmp_path / "mine" / "README.md").read_text()


def test_published_weights_stay_as_they_are(publish, tmp_path, capsys):
    with pytest.raises(
        ConfigError, match=r"is published already .*; leave --gsd-m, --half out, or give the checkpoint"
    ):
        publish(DEFAULT_WEIGHTS, tmp_path / "pit", "--half", "--gsd-m", 1)
    assert os.listdir(tmp_path) == []
    measured = dict(
        weights_sha256=read_checkpoint(DEFAULT_WEIGHTS)["meta"]["weights_sha256"], metrics={"IoU.road": 0.378}
    )
    (tmp_path / "metrics.json").write_text(json.dumps(measured))
    publish(DEFAULT_WEIGHTS, tmp_path / "pit", "--metrics", tmp_path / "metrics.json")
    assert "| IoU.road | 37.80 |\n" in (tmp_path / "pit" / "README.md").read_text()
    with open(shipped_file(DEFAULT_WEIGHTS), "rb") as file:
        content = file.read()
    assert (tmp_path / "pit" / "pit.safetensors").read_bytes() == content
    digest = hashlib.sha256(content).hexdigest()
    assert capsys.readouterr().out == f"{tmp_path / 'pit'}: ready to upload; weights #sha256={digest}\n"


@pytest.mark.slow
def test_the_default_weights_map_from_their_url_as_by_their_name(run_tool, tmp_path):
    folder = tmp_path / DEFAULT_WEIGHTS
    done = run_tool("publish.py", DEFAULT_WEIGHTS, folder)
    assert done.returncode == 0, done.stderr
    file = f"{DEFAULT_WEIGHTS}.safetensors"
    session = onnxruntime.InferenceSession(str(folder / f"{DEFAULT_WEIGHTS}.onnx"), providers=["CPUExecutionProvider"])
    said = json.loads((folder / "item.json").read_text())["assets"][f"{DEFAULT_WEIGHTS}.onnx"]["description"]
    assert said.startswith(f"{session.get_inputs()[0].name} ") and f" -> {session.get_outputs()[0].name} " in said
    site = os.path.join(os.path.dirname(mmseg_ext.__file__), "samples", "caliterra.tif")
    with rasterio.open(site) as raster:
        window = rasterio.windows.Window(300, 300, 256, 256)
        profile = raster.profile | dict(width=256, height=256, transform=raster.window_transform(window))
        with rasterio.open(tmp_path / "site.tif", "w", **profile) as small:
            small.write(raster.read(window=window))
    maps, options = [], ("--backend", "torch", "--tile", 512)
    with serving(folder) as server:
        server.cuts = [3_000_000]
        for name, weights in (("by_url", server.url(file)), ("by_name", DEFAULT_WEIGHTS)):
            done = run_tool(
                "predict.py", weights, tmp_path / "site.tif", "--out", tmp_path / name, *options,
                **{CACHE_VARIABLE: str(tmp_path / "cache")},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            maps.append(rasterio.open(tmp_path / name / "site_probability.tif").read())
        assert server.requests == [None, "bytes=3000000-"]
    assert np.array_equal(*maps) and np.ptp(maps[0]) > 0
