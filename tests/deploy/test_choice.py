import json
import time

import pytest

from mmseg_ext.deploy import choice as choice_module
from mmseg_ext.deploy.choice import choose_backend


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSEG_EXT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture()
def made(monkeypatch):
    """Replace the backends by ones of known speed; return what was made."""
    calls = []
    seconds = {
        ("torch", "fp32"): 0.03,
        ("openvino", "fp32"): 0.015,
        ("openvino", "bf16"): 0.004,
        ("torch", "bf16"): 0.02,
    }

    def make(network, backend, precision, device):
        calls.append((backend, precision))
        if backend == "onnxruntime":
            raise RuntimeError("no such library\nand more")
        return lambda image: time.sleep(seconds[backend, precision])

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
    assert list(only.seconds) == ["openvino fp32", "torch fp32"]
    assert 0.015 <= only.seconds["openvino fp32"] < 0.03
    best = choose_backend(network, (1, 3, 64, 64), ("fp32", "bf16"))
    assert (best.backend, best.precision) == ("openvino", "bf16")
    assert not {"plain", "compile"} & {backend for backend, _ in made}


def test_it_is_measured_once(network, folder, made, caplog):
    caplog.set_level("INFO")
    first = choose_backend(network, (1, 3, 50, 64))
    count = len(made)
    assert choose_backend(network, (1, 3, 64, 64)) == first  # the same size after rounding up
    assert len(made) == count
    assert caplog.text.count("measuring") == 1
    assert caplog.text.count(": openvino fp32 (openvino fp32 0.0") == 2
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
