"""tools/export.py: files with their records, or one line and nothing written."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_ext.deploy import exporting
from mmseg_ext.deploy.facts import facts_of, normalized
from mmseg_ext.deploy.formats import FORMATS, read_facts
from mmseg_ext.deploy.int8 import calibration_images
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.checkpoint import weights_sha256
from mmseg_ext.errors import ConfigError, DataError
from mmseg_ext.models.folding import Scores

OPTIONS = {"model.decode_head.ham_cfg.eval_steps": 2}


@pytest.fixture(scope="module")
def trained(one_config, tmp_path_factory):
    """Path of a checkpoint with its config inside, and its network."""
    cfg = load_config(str(one_config), OPTIONS)
    torch.manual_seed(0)
    network = build_network(cfg).eval()
    path = tmp_path_factory.mktemp("trained") / "roads.pth"
    torch.save(dict(state_dict=network.state_dict(), meta=dict(config=cfg.pretty_text, gsd_m=0.5)), path)
    return str(path), network


@pytest.mark.slow
def test_several_formats_at_once(trained, run_tool, tmp_path):
    checkpoint, network = trained
    out = tmp_path / "files"
    command = ("export.py", checkpoint, "--out", out, "--format", "openvino", "torchscript", "--shape", 96, 64)
    done = run_tool(*command)
    assert done.returncode == 0, done.stderr
    names = ["roads_fp32.bin", "roads_fp32.pt", "roads_fp32.pt.json", "roads_fp32.xml", "roads_fp32.xml.json"]
    assert sorted(os.listdir(out)) == names
    digest = weights_sha256(network.state_dict())
    image = torch.randn(1, 3, 64, 32)
    for name, kind in (("roads_fp32.pt", "torchscript"), ("roads_fp32.xml", "openvino")):
        record = json.loads((out / f"{name}.json").read_text())
        assert record["parity"]["max_difference"] < 1e-4
        assert record["parity"]["class_agreement"] > 0.999
        assert record["parity"]["shapes"] == [[2, 3, 96, 64], [1, 3, 192, 96]]
        assert (record["precision"], record["weights_sha256"]) == ("fp32", digest)
        assert f"{name}: probabilities within" in done.stderr
        facts = read_facts(str(out / name))
        assert (facts.weights_sha256, facts.reading.gsd_m, facts.mean[0]) == (digest, 0.5, 150.0)
        found = FORMATS[kind].open(str(out / name))(image)
        assert (found - Scores(network)(image)).abs().max() < 1e-4
    refused = run_tool(*command)
    assert refused.returncode == 2
    assert refused.stderr == f"error: {out}/roads_fp32.xml: is there already; give --overwrite to replace it\n"
    before = (out / "roads_fp32.pt").stat().st_mtime_ns
    exporting.export_checkpoint(checkpoint, str(out), ["torchscript"], overwrite=True)
    assert (out / "roads_fp32.pt").stat().st_mtime_ns > before
    assert sorted(os.listdir(out)) == names


def test_int8_states_what_it_costs(trained, mine_data, tmp_path, caplog):
    checkpoint, _ = trained
    out = str(tmp_path / "roads.xml")
    caplog.set_level("INFO")
    assert exporting.export_checkpoint(checkpoint, out, ["openvino"], "int8") == [out]
    assert sorted(os.listdir(tmp_path)) == ["roads.bin", "roads.xml", "roads.xml.json"]
    record = json.loads((tmp_path / "roads.xml.json").read_text())
    assert record["mIoU"]["images"] == 4
    assert abs(record["mIoU"]["fp32"] - record["mIoU"]["int8"]) < 0.1
    assert 0 < record["mIoU"]["fp32"] < 1
    assert record["parity"]["max_difference"] > 1e-6
    assert f"{out}: probabilities within" in caplog.text
    assert f"mIoU {100 * record['mIoU']['fp32']:.2f} before" in caplog.text
    assert 'element_type="i8"' in (tmp_path / "roads.xml").read_text()


def test_calibration_images_are_what_the_network_sees(trained, one_config, mine_data, tmp_path):
    _, network = trained
    cfg = load_config(str(one_config))
    facts = facts_of(cfg, {}, network)
    images = calibration_images(None, cfg, facts)
    assert len(images) == 16
    stem = (mine_data / "ImageSets" / "Segmentation" / "train.txt").read_text().split()[0]
    (path,) = (mine_data / "JPEGImages").glob(f"{stem}.*")
    pixels = np.asarray(Image.open(path))
    assert np.allclose(images[0][0], normalized(facts, pixels, "a.png").transpose(2, 0, 1), atol=1e-5)
    Image.fromarray(pixels[:50, :40]).save(tmp_path / "a.png")
    (image,) = calibration_images(str(tmp_path), cfg, facts)
    assert image.shape == (1, 3, 64, 64)
    assert np.allclose(image[0, :, 10, 20], (pixels[10, 20] - np.array(facts.mean)) / facts.std, atol=1e-5)
    with pytest.raises(DataError, match="no such folder; --calibration takes"):
        calibration_images(str(tmp_path / "none"), cfg, facts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images in it"):
        calibration_images(str(tmp_path / "empty"), cfg, facts)
    cfg.data.train.data_root = "/nowhere"
    with pytest.raises(DataError, match="int8 needs images to calibrate with, and .*/nowhere: no such folder.*--cal"):
        calibration_images(None, cfg, facts)


def test_a_file_that_differs_is_not_kept(trained, tmp_path, monkeypatch):
    checkpoint, _ = trained
    wrong = dataclasses.replace(FORMATS["torchscript"], open=lambda path: lambda image: image[:, :2])
    monkeypatch.setitem(exporting.FORMATS, "torchscript", wrong)
    with pytest.raises(ConfigError, match=r"roads.pt: differs from the network in PyTorch .* so it was not kept"):
        exporting.export_checkpoint(checkpoint, str(tmp_path / "roads.pt"), ["torchscript"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.onnx", ["torchscript"]], "a file of --format torchscript ends in .pt"),
        (["a.pt", ["torchscript", "torch"]], "is one file, but several formats"),
        (["a.pt", ["torchscript"], "int8"], "--format torchscript: --precision int8 is not possible"),
        (["a", ["torchscript"], "fp32", None, None, "images"], "--calibration is for int8"),
        (
            ["a", ["torchscript"], "fp32", None, None, None, (50, 64)],
            "--shape 50 64: this network takes multiples of 32",
        ),
    ],
)
def test_what_does_not_fit_is_refused_first(trained, tmp_path, arguments, message):
    checkpoint, _ = trained
    out, *others = arguments
    with pytest.raises(ConfigError, match=message):
        exporting.export_checkpoint(checkpoint, str(tmp_path / out), *others)
    assert os.listdir(tmp_path) == []


def test_files_are_folded_for_their_device(trained, tmp_path):
    checkpoint, _ = trained
    pads = {}
    for target in ("cpu", "cuda"):
        out = str(tmp_path / f"{target}.pt")
        exporting.export_checkpoint(checkpoint, out, ["torchscript"], target=target)
        pads[target] = str(torch.jit.load(out).inlined_graph).count("aten::pad(")
    assert pads["cuda"] == 0 < pads["cpu"]
    with pytest.raises(ConfigError, match="--target cuda: files of --format openvino run on a CPU"):
        exporting.export_checkpoint(checkpoint, str(tmp_path), ["onnx", "openvino"], target="cuda")


def test_a_folder_that_cannot_be_written(trained, tmp_path):
    checkpoint, _ = trained
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigError, match="a/roads_fp32.pt: cannot be written"):
        exporting.export_checkpoint(checkpoint, str(tmp_path / "a"), ["torchscript"])
