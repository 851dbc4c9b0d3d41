"""What is asked for on the command line, what is fastest, and what then runs."""

import argparse
import json
from types import SimpleNamespace

import pytest
import torch

from mmseg_ext.deploy import choice as choice_module
from mmseg_ext.deploy.choice import Choice, choose_backend, run_on
from mmseg_ext.deploy.options import BackendSettings, add_backend_options, backend_settings
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.distributed import seed_everything
from mmseg_ext.errors import ConfigError

CPU, SHAPE = torch.device("cpu"), (1, 3, 64, 64)


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSEG_EXT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture()
def made(monkeypatch):
    """Replace the backends by ones of known speed, and the clock; return what was made."""
    calls, clock = [], [0.0]
    seconds = {("torch", "fp32"): 4, ("openvino", "fp32"): 2, ("openvino", "bf16"): 1, ("torch", "bf16"): 3}

    def make(network, backend, precision, device):
        calls.append((backend, precision))
        if backend == "onnxruntime":
            raise RuntimeError("no such library\nand more")

        def run(image):
            clock[0] += seconds[backend, precision]

        return run

    monkeypatch.setattr(choice_module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    monkeypatch.setattr(choice_module, "make_runner", make)
    monkeypatch.setattr(
        choice_module, "available_backends", lambda device: ("plain", "torch", "compile", "onnxruntime", "openvino")
    )
    monkeypatch.setattr(
        choice_module,
        "possible_precisions",
        lambda backend, device: ("fp32",) if backend == "onnxruntime" else ("fp32", "bf16"),
    )
    return calls


def test_the_fastest_of_the_precisions_is_taken(network, folder, made):
    only = choose_backend(network, (1, 3, 64, 64))
    assert (only.backend, only.precision) == ("openvino", "fp32")
    assert list(only.seconds.items()) == [("openvino fp32", 2), ("torch fp32", 4)]
    best = choose_backend(network, (1, 3, 64, 64), ("fp32", "bf16"))
    assert (best.backend, best.precision) == ("openvino", "bf16")
    assert not {"plain", "compile"} & {backend for backend, _ in made}


def test_what_fails_at_its_first_image_is_left_out(network, folder, made, monkeypatch, caplog):
    make = choice_module.make_runner

    def lazy(network, backend, precision, device):
        def fail(image):
            raise RuntimeError("no kernel image is available for this card\nand more")

        return fail if (backend, precision) == broken else make(network, backend, precision, device)

    monkeypatch.setattr(choice_module, "make_runner", lazy)
    broken = "openvino", "bf16"
    found = choose_backend(network, (1, 3, 64, 64), ("fp32", "bf16"))
    assert list(found.seconds) == ["openvino fp32", "torch bf16", "torch fp32"]
    assert "openvino bf16 does not run here: no kernel image is available for this card\n" in caplog.text
    broken = "torch", "fp32"  # what always runs is no candidate that may fail
    with pytest.raises(RuntimeError, match="no kernel image"):
        choose_backend(network, (1, 3, 96, 64), ("fp32", "bf16"))


def test_what_does_not_fit_into_the_gpu_is_left_out(network, folder, made, monkeypatch):
    make = choice_module.make_runner

    def full(network, backend, precision, device):
        if (backend, precision) in large:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(network, backend, precision, device)

    monkeypatch.setattr(choice_module, "make_runner", full)
    large = [("torch", "fp32"), ("openvino", "fp32")]
    found = choose_backend(network, (1, 3, 64, 64), ("fp32", "bf16"))
    assert list(found.seconds) == ["openvino bf16", "torch bf16"]
    large += [("torch", "bf16"), ("openvino", "bf16")]
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        choose_backend(network, (1, 3, 96, 64), ("fp32", "bf16"))


def test_it_is_measured_once(network, folder, made, caplog):
    caplog.set_level("INFO")
    first = choose_backend(network, (1, 3, 50, 64))
    count = len(made)
    assert choose_backend(network, (1, 3, 64, 64)) == first  # the same size after rounding up
    assert len(made) == count
    assert caplog.text.count("measuring") == 1
    assert caplog.text.count(": openvino fp32 (openvino fp32 2 s, torch fp32 4 s)") == 2
    assert caplog.text.count("fastest for 1x3x64x64, measured now: ") == 1
    assert caplog.text.count("fastest for 1x3x64x64, measured before: ") == 1
    choose_backend(network, (1, 3, 96, 64))
    assert len(made) == 2 * count


@pytest.mark.parametrize(
    "text", ["", "[]", '{"seconds": {}}', '{"seconds": {"torch": 1}}', '{"seconds": {"torch fp32": "x"}}']
)
def test_damaged_memory_is_measured_anew(network, folder, made, text):
    first = choose_backend(network, (1, 3, 64, 64))
    (file,) = folder.glob("*/choice.json")
    file.write_text(text)
    again = choose_backend(network, (1, 3, 64, 64))
    assert (again.backend, again.precision) == (first.backend, first.precision)
    assert json.loads(file.read_text())["seconds"] == again.seconds


def test_real_backends_can_be_compared(network):
    found = choose_backend(network, (1, 3, 64, 64))
    assert set(found.seconds) == {"torch fp32", "onnxruntime fp32", "openvino fp32"}
    assert found.seconds[f"{found.backend} {found.precision}"] == min(found.seconds.values())


@pytest.fixture(scope="module")
def tiny(one_config):
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


def test_what_is_named_runs_and_gives_the_same_scores(tiny):
    image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    found = {}
    for backend in ("plain", "torch"):
        fast, *names = run_on(tiny, BackendSettings(backend), "fp32", CPU, SHAPE)
        assert names == [backend, "fp32"]
        found[backend] = fast.encode_decode(image, [{}])
    assert (found["plain"] - found["torch"]).abs().max() < 1e-4
    assert torch.equal(found["plain"], tiny.encode_decode(image, [{}]))


def test_auto_takes_the_choice_among_the_precisions_that_are_allowed(tiny, monkeypatch):
    asked = []

    def choose(_network, shape, precisions, device):
        asked.append((shape, tuple(precisions)))
        return Choice("torch", precisions[-1], {})

    monkeypatch.setattr(choice_module, "choose_backend", choose)
    monkeypatch.setattr(choice_module, "fast_precisions", lambda device: ("fp32", "bf16"))
    assert run_on(tiny, BackendSettings("auto"), "fp32", CPU, SHAPE)[1:] == ("torch", "fp32")
    assert run_on(tiny, BackendSettings("auto", "auto"), "fp32", CPU, SHAPE)[1:] == ("torch", "bf16")
    assert asked == [(SHAPE, ("fp32",)), (SHAPE, ("fp32", "bf16"))]
    # of a named backend, auto is the shortest type that backend and hardware have
    assert run_on(tiny, BackendSettings("torch", "auto"), "fp32", CPU, SHAPE)[2] == "bf16"
    assert run_on(tiny, BackendSettings("plain", "auto"), "fp32", CPU, SHAPE)[2] == "fp32"


@pytest.mark.parametrize(
    "device, found, common",
    [
        ("cuda", [("fp32", "bf16"), ("fp32", "fp16")], "fp16"),
        ("cuda", [("fp32", "bf16"), ("fp32", "bf16")], "bf16"),
        ("cpu", [("fp32", "bf16"), ("fp32",)], "fp32"),
    ],
)
def test_processes_on_unlike_hardware_compute_alike(tiny, monkeypatch, device, found, common):
    monkeypatch.setattr(choice_module, "fast_precisions", lambda device: found[0])
    monkeypatch.setattr(choice_module, "gathered", lambda mine: found if mine == found[0] else [mine] * 2)
    monkeypatch.setattr(choice_module, "accelerated", lambda network, *rest, **options: network)
    asked = []

    def choose(_network, shape, precisions, device):
        asked.extend(precisions)
        return Choice("torch", precisions[-1], {})

    monkeypatch.setattr(choice_module, "choose_backend", choose)
    network = SimpleNamespace(to=lambda device: SimpleNamespace(eval=lambda: tiny))
    settings = BackendSettings("torch", "auto"), BackendSettings("auto", "auto")
    assert [run_on(network, one, "fp32", torch.device(device), SHAPE)[1:] for one in settings] == [
        ("torch", common)
    ] * 2
    assert asked[-1] == common


def test_exported_files_are_of_the_same_weights(tiny, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"--exported a.pth: give a .onnx or .xml file"):
        run_on(tiny, BackendSettings(exported="a.pth"), "fp32", CPU, SHAPE)
    with pytest.raises(ConfigError, match=r"none.onnx: no such file"):
        run_on(tiny, BackendSettings(exported=str(tmp_path / "none.onnx")), "fp32", CPU, SHAPE)

    def metadata(path):
        return dict(precision=json.dumps(path[:4]), weights_sha256=json.dumps(weights))

    monkeypatch.setattr(choice_module, "read_metadata", metadata)
    weights = choice_module.weights_sha256(tiny.state_dict())
    for backend, precision, file, words in [
        ("onnxruntime", None, "int8.xml", "int8.xml: runs on openvino, not on --backend onnxruntime"),
        ("torch", None, "fp32.onnx", "runs on onnxruntime or tensorrt, not on --backend torch"),
        ("auto", "fp32", "int8.xml", "int8.xml: is in int8, not in fp32; leave --precision out"),
        ("auto", "int8", "fp32.onnx", "fp32.onnx: is in fp32, not in int8"),
        ("auto", "fp32", "fp16.onnx", "fp16.onnx: is in fp16, not in fp32"),
    ]:
        with pytest.raises(ConfigError, match=words):
            run_on(tiny, BackendSettings(backend, precision, file), "fp32", CPU, SHAPE)
    monkeypatch.setattr(choice_module, "accelerated", lambda network, *rest, **options: network)
    for backend, precision, file, found in [
        ("auto", None, "int8.xml", ("openvino", "int8")),
        ("auto", "auto", "fp32.onnx", ("onnxruntime", "fp32")),
        ("openvino", "bf16", "fp32.xml", ("openvino", "bf16")),
        ("auto", None, "fp16.xml", ("openvino", "fp32")),
    ]:
        assert run_on(tiny, BackendSettings(backend, precision, file), "fp32", CPU, SHAPE)[1:] == found
    weights = "other"
    with pytest.raises(ConfigError, match=r"fp32.onnx: was made from other weights; export this checkpoint"):
        run_on(tiny, BackendSettings("auto", exported="fp32.onnx"), "fp32", CPU, SHAPE)
