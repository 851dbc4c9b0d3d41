"""Weights for others: one file that is evaluated without a config."""

import errno
import hashlib
import json

import pytest
import torch

from mmseg_ext.engine import build_network, load_config, publish_checkpoint, publishing
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.engine.weights import load_weights
from mmseg_ext.errors import CheckpointError, ConfigError


@pytest.fixture()
def trained(tiny_config, tmp_path):
    """Config and path of a training checkpoint with optimizer state and the config inside."""
    cfg = load_config(str(tiny_config))
    torch.manual_seed(0)
    network = build_network(cfg)
    optimizer = torch.optim.AdamW(network.parameters())
    path = tmp_path / "iter_4.pth"
    meta = dict(config=cfg.pretty_text, iter=4, CLASSES=["background", "road"], PALETTE=[[0, 0, 0], [128, 0, 0]])
    torch.save(dict(state_dict=network.state_dict(), optimizer=optimizer.state_dict(), meta=meta), path)
    return cfg, str(path)


@pytest.mark.slow
def test_a_published_file_is_evaluated_without_a_config(trained, run_tool, tmp_path):
    cfg, checkpoint = trained
    options = ("--eval", "mIoU", "--out")
    done = run_tool("test.py", cfg.filename, checkpoint, *options, tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "to" / "roads.safetensors"
    command = ("publish_checkpoint.py", checkpoint, out, "--licence", "CC-BY-4.0", "--gsd-m", 4)
    done = run_tool(*command, "--metrics", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    meta = json.loads(out.with_suffix(".json").read_text())
    assert meta["file_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert meta["file_sha256"] in done.stdout
    assert (meta["schema_version"], meta["licence"], meta["gsd_m"], meta["iterations"]) == (1, "CC-BY-4.0", 4.0, 4)
    assert (meta["CLASSES"], meta["PALETTE"]) == (["background", "road"], [[0, 0, 0], [128, 0, 0]])
    assert (meta["mean"], meta["std"]) == ([150.0, 138.0, 112.0], [27.0, 24.0, 24.0])
    assert meta["git_revision"]
    scores = json.loads((tmp_path / "a.json").read_text())["metrics"]
    assert meta["metrics"] == scores
    torch.save(
        dict(state_dict=build_network(cfg).state_dict(), meta=dict(config=cfg.pretty_text)), tmp_path / "other.pth"
    )
    other = ("publish_checkpoint.py", tmp_path / "other.pth", tmp_path / "b.safetensors", "--licence", "x")
    refused = run_tool(*other, "--metrics", tmp_path / "a.json")
    assert refused.returncode == 2
    assert f"a.json: was measured with other weights ({checkpoint}), not {tmp_path / 'other.pth'}" in refused.stderr
    published = read_checkpoint(str(out))
    assert published.keys() == {"state_dict", "meta"}
    assert published["meta"].items() <= meta.items()
    done = run_tool("test.py", out, *options, tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    assert f"{out}: 1 image(s) of {cfg.data.test.data_root}" in done.stdout + done.stderr
    again = json.loads((tmp_path / "b.json").read_text())
    assert (again["metrics"], again["weights_sha256"]) == (scores, meta["weights_sha256"])


def test_a_temperature_divides_the_scores_and_half_precision_halves_the_file(trained, tmp_path):
    cfg, checkpoint = trained
    whole, half = str(tmp_path / "whole.safetensors"), str(tmp_path / "half.safetensors")
    publish_checkpoint(checkpoint, whole, cfg, "CC0-1.0")
    publish_checkpoint(checkpoint, half, cfg, "CC0-1.0", temperature=1.7, half=True)
    sizes = [sum(value.nbytes for value in read_checkpoint(path)["state_dict"].values()) for path in (whole, half)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.01)
    image, scores = torch.randn(1, 3, 64, 96), []
    for path in (whole, half):
        network = build_network(cfg, initialise=False)
        load_weights(network, path)
        with torch.no_grad():
            scores.append(network.eval().encode_decode(image, [{}]))
    assert torch.allclose(scores[0], 1.7 * scores[1], rtol=0.02, atol=0.02 * scores[0].abs().max())
    with pytest.raises(ConfigError, match=r"--temperature 0: give a number above 0"):
        publish_checkpoint(checkpoint, str(tmp_path / "zero.safetensors"), cfg, "CC0-1.0", temperature=0)


def test_what_cannot_be_published(trained, tmp_path, build):
    cfg, checkpoint = trained
    with pytest.raises(ConfigError, match=r"roads.pth: .*its name must end in .safetensors"):
        publish_checkpoint(checkpoint, str(tmp_path / "roads.pth"), cfg, "CC0-1.0")
    (tmp_path / "there.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"there.json: exists already"):
        publish_checkpoint(checkpoint, str(tmp_path / "there.safetensors"), cfg, "CC0-1.0")
    assert (tmp_path / "there.json").read_text() == "{}"
    torch.save(dict(state_dict=build("linknets/unet.1024x1024.OPM.20k.py").state_dict()), tmp_path / "unet.pth")
    with pytest.raises(CheckpointError, match="unet.pth: does not fit the config"):
        publish_checkpoint(str(tmp_path / "unet.pth"), str(tmp_path / "a.safetensors"), cfg, "CC0-1.0")
    assert not (tmp_path / "a.safetensors").exists()
    cfg.data.test.pipeline = [dict(type="LoadRoadImage")]
    with pytest.raises(ConfigError, match="data.test has no Normalize"):
        publish_checkpoint(checkpoint, str(tmp_path / "a.safetensors"), cfg, "CC0-1.0")


def test_both_files_are_written_or_none(trained, tmp_path, monkeypatch):
    cfg, checkpoint = trained
    with pytest.raises(CheckpointError, match=r"a.safetensors: cannot be written \(.*\); choose another place$"):
        publish_checkpoint(checkpoint, "/dev/null/a.safetensors", cfg, "CC0-1.0")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(publishing.Path, "write_text", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"a.json: cannot be written \(No space .*\); choose another place$"):
        publish_checkpoint(checkpoint, str(tmp_path / "a.safetensors"), cfg, "CC0-1.0")
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_arguments_are_one_line(trained, run_tool, tmp_path):
    _, checkpoint = trained
    done = run_tool(
        "publish_checkpoint.py", checkpoint, tmp_path / "a.safetensors", "--licence", "x", "--metrics", "no"
    )
    assert done.returncode == 2
    assert done.stderr == "error: no: contains no metrics; give the file that tools/test.py --out wrote\n"
