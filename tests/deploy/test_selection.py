"""What is asked for on the command line, and what then runs."""

import argparse
import json

import pytest
import torch

from mmseg_ext.deploy import choice as selection
from mmseg_ext.deploy.choice import Choice, run_on
from mmseg_ext.deploy.options import BackendSettings, add_backend_options, backend_settings
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.distributed import seed_everything
from mmseg_ext.errors import ConfigError

CPU, SHAPE = torch.device("cpu"), (1, 3, 64, 64)


@pytest.fixture(scope="module")
def network(one_config):
    seed_everything(0)
    return build_network(load_config(str(one_config))).eval()


def test_the_command_line_is_read():
    parser = argparse.ArgumentParser()
    add_backend_options(parser, "auto")
    assert backend_settings(parser.parse_args([])) == BackendSettings("auto", None, None)
    found = backend_settings(parser.parse_args(["--backend", "openvino", "--precision", "int8", "--exported", "a.xml"]))
    assert found == BackendSettings("openvino", "int8", "a.xml")
    eager = argparse.ArgumentParser()
    add_backend_options(eager, None)
    assert backend_settings(eager.parse_args([])).backend == "torch"
    assert backend_settings(eager.parse_args(["--exported", "a.xml"])).backend == "auto"  # the file says what runs it


def test_what_is_named_runs_and_gives_the_same_scores(network):
    image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    found = {}
    for backend in ("plain", "torch"):
        fast, *names = run_on(network, BackendSettings(backend), "fp32", CPU, SHAPE)
        assert names == [backend, "fp32"]
        found[backend] = fast.encode_decode(image, [{}])
    assert (found["plain"] - found["torch"]).abs().max() < 1e-4
    assert torch.equal(found["plain"], network.encode_decode(image, [{}]))


def test_auto_takes_the_choice_among_the_precisions_that_are_allowed(network, monkeypatch):
    asked = []

    def choose(_network, shape, precisions, device):
        asked.append((shape, tuple(precisions)))
        return Choice("torch", precisions[-1], {})

    monkeypatch.setattr(selection, "choose_backend", choose)
    monkeypatch.setattr(selection, "fast_precisions", lambda device: ("fp32", "bf16"))
    assert run_on(network, BackendSettings("auto"), "fp32", CPU, SHAPE)[1:] == ("torch", "fp32")
    assert run_on(network, BackendSettings("auto", "auto"), "fp32", CPU, SHAPE)[1:] == ("torch", "bf16")
    assert asked == [(SHAPE, ("fp32",)), (SHAPE, ("fp32", "bf16"))]
    # of a named backend, auto is the shortest type that backend and hardware have
    assert run_on(network, BackendSettings("torch", "auto"), "fp32", CPU, SHAPE)[2] == "bf16"
    assert run_on(network, BackendSettings("plain", "auto"), "fp32", CPU, SHAPE)[2] == "fp32"


def test_exported_files_are_of_the_same_weights(network, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"--exported a.pth: give a .onnx or .xml file"):
        run_on(network, BackendSettings(exported="a.pth"), "fp32", CPU, SHAPE)
    with pytest.raises(ConfigError, match=r"none.onnx: no such file"):
        run_on(network, BackendSettings(exported=str(tmp_path / "none.onnx")), "fp32", CPU, SHAPE)

    def metadata(path):
        return dict(precision=json.dumps(path[:4]), weights_sha256=json.dumps(weights))

    monkeypatch.setattr(selection, "read_metadata", metadata)
    weights = selection.weights_sha256(network.state_dict())
    for backend, precision, file, words in [
        ("onnxruntime", None, "int8.xml", "int8.xml: runs on openvino, not on --backend onnxruntime"),
        ("torch", None, "fp32.onnx", "runs on onnxruntime or openvino or tensorrt, not on --backend torch"),
        ("auto", "fp32", "int8.xml", "int8.xml: is in int8, not in fp32; leave --precision out"),
        ("auto", "int8", "fp32.onnx", "fp32.onnx: is in fp32, not in int8"),
        ("auto", "fp32", "fp16.onnx", "fp16.onnx: is in fp16, not in fp32"),
    ]:
        with pytest.raises(ConfigError, match=words):
            run_on(network, BackendSettings(backend, precision, file), "fp32", CPU, SHAPE)
    monkeypatch.setattr(selection, "accelerated", lambda network, *rest, **options: network)
    for backend, precision, file, found in [
        ("auto", None, "int8.xml", ("openvino", "int8")),
        ("auto", "auto", "fp32.onnx", ("onnxruntime", "fp32")),
        ("openvino", "bf16", "fp32.onnx", ("openvino", "bf16")),
        ("auto", None, "fp16.xml", ("openvino", "fp32")),
    ]:
        assert run_on(network, BackendSettings(backend, precision, file), "fp32", CPU, SHAPE)[1:] == found
    weights = "other"
    with pytest.raises(ConfigError, match=r"fp32.onnx: was made from other weights; export this checkpoint"):
        run_on(network, BackendSettings("auto", exported="fp32.onnx"), "fp32", CPU, SHAPE)
