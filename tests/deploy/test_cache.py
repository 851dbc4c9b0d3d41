import copy
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mmseg_ext.deploy import cache as cache_module
from mmseg_ext.deploy.cache import architecture_sha256, network_identity, through_cache
from mmseg_ext.deploy.runner import make_runner
from mmseg_ext.errors import ConfigError
from mmseg_ext.files import CACHE_VARIABLE, cache_folder


@pytest.fixture()
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def writer(calls, text="content"):
    def write(path):
        calls.append(path)
        with open(path, "w") as file:
            file.write(text)

    return write


def read(path):
    with open(path) as file:
        text = file.read()
    if text != "content":
        raise ValueError("damaged")
    return text


def test_the_folder_follows_its_variables(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mmseg_ext"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_what_was_written_is_not_written_again(folder):
    calls = []
    for facts in ({"a": 1}, {"a": 1}, {"a": 2}):
        assert through_cache(facts, "x.txt", writer(calls), read) == "content"
    assert len(calls) == 2
    assert len(list(folder.iterdir())) == 2  # nothing half-made stays


def test_damaged_files_are_made_anew(folder):
    calls = []
    through_cache({}, "x.txt", writer(calls), read)
    (entry,) = folder.iterdir()
    (entry / "x.txt").write_text("conte")
    assert through_cache({}, "x.txt", writer(calls), read) == "content"
    assert (entry / "x.txt").read_text() == "content"
    assert len(calls) == 2


def test_what_the_reader_lacks_is_no_damage(folder):
    calls = []
    through_cache({}, "x.txt", writer(calls), read)

    def refuse(path):
        raise ConfigError("a library is missing")

    with pytest.raises(ConfigError, match="a library is missing"):
        through_cache({}, "x.txt", writer(calls), refuse)
    assert through_cache({}, "x.txt", writer(calls), read) == "content" and len(calls) == 1


def test_failed_work_leaves_nothing(folder):
    def fail(path):
        writer([])(path)
        raise RuntimeError("no export")

    with pytest.raises(RuntimeError, match="no export"):
        through_cache({}, "x.txt", fail, read)
    assert list(folder.iterdir()) == []


def test_those_who_come_together_all_get_the_content(folder):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: through_cache({}, "x.txt", writer([]), read), range(32)))
    assert found == ["content"] * 32
    assert len(list(folder.iterdir())) == 1


def test_only_the_last_used_stay(folder, monkeypatch):
    monkeypatch.setattr(cache_module, "_KEPT", 2)
    calls = []
    for number in (1, 2):
        through_cache({"n": number}, "x.txt", writer(calls), read)
    for age, entry in enumerate(sorted(folder.iterdir())):
        os.utime(entry, (age, age))
    through_cache({"n": 1}, "x.txt", writer(calls), read)  # used, so that 2 is the oldest
    through_cache({"n": 3}, "x.txt", writer(calls), read)
    assert len(list(folder.iterdir())) == 2 and len(calls) == 3
    through_cache({"n": 1}, "x.txt", writer(calls), read)
    assert len(calls) == 3
    through_cache({"n": 2}, "x.txt", writer(calls), read)
    assert len(calls) == 4


def test_a_folder_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=f"name another folder in {CACHE_VARIABLE}"):
        through_cache({}, "x.txt", writer([]), read)


def test_facts_follow_weights_and_settings(network, build):
    before = network_identity(network)
    json.dumps(before)
    moved = copy.deepcopy(network)
    moved.decode_head.hamburger.fixed_bases.add_(1)  # in no state dict
    assert network_identity(moved) == {**before, "weights": network_identity(moved)["weights"]} != before

    config = "dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py"
    depths = {"model.backbone.depths": (1, 1, 1, 1)}
    assert architecture_sha256(build(config, **depths)) == before["architecture"]
    other = build(config, **depths, **{"model.decode_head.align_corners": True})
    assert architecture_sha256(other) != before["architecture"]


def test_a_network_is_exported_once_and_again_with_other_weights(network, images, cache, folder, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    make_runner(network, "onnxruntime")
    exported = next(cache.glob("*/network.onnx"))
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    calls = []

    def export(_network, path, precision, target):
        calls.append(precision)
        assert target == "cpu"
        shutil.copy(exported, path)

    monkeypatch.setattr("mmseg_ext.deploy.runner.export_onnx", export)
    first = make_runner(network, "onnxruntime")(images)
    assert torch.equal(make_runner(network, "onnxruntime")(images), first)
    make_runner(network, "openvino")
    assert calls == ["fp32"]
    moved = copy.deepcopy(network)
    moved.decode_head.conv_seg.bias.add_(1)
    make_runner(moved, "onnxruntime")
    assert calls == ["fp32"] * 2

    for file in folder.glob("*/network.onnx"):
        file.write_bytes(file.read_bytes()[:-1000])
    assert torch.equal(make_runner(network, "onnxruntime")(images), first)
    assert len(calls) == 3
