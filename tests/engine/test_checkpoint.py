import os
import pickle
import stat

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmseg_ext.engine.checkpoint import (
    latest_checkpoint,
    point_to,
    read_checkpoint,
    remove_partial_files,
    weights_sha256,
    write_checkpoint,
    write_safetensors,
)
from mmseg_ext.errors import CheckpointError


def small(width=4, extra=False):
    layers = [nn.Conv2d(3, width, 1), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, *([nn.Conv2d(width, 1, 1)] if extra else []))


def state_file(path, network, **more):
    torch.save(dict(state_dict=network.state_dict(), meta=dict(iter=3), **more), path)
    return str(path)


def test_what_is_written_is_read(tmp_path):
    network = small()
    path = str(tmp_path / "a.pth")
    write_checkpoint(dict(state_dict=network.state_dict(), meta=dict(iter=7, CLASSES=["a"])), path)
    read = read_checkpoint(path)
    assert read["meta"] == dict(iter=7, CLASSES=["a"])
    assert all(torch.equal(read["state_dict"][k], v) for k, v in network.state_dict().items())
    assert os.listdir(tmp_path) == ["a.pth"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o666 & ~umask


def test_safetensors_and_bare_state_dicts_and_ddp_prefixes_are_read(tmp_path):
    state = {k: v.contiguous() for k, v in small().state_dict().items()}
    save_file(state, str(tmp_path / "a.safetensors"))
    torch.save({f"module.{k}": v for k, v in state.items()}, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        read = read_checkpoint(str(tmp_path / name))["state_dict"]
        assert read.keys() == state.keys()
        assert torch.equal(read["0.weight"], state["0.weight"])


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    target = str(tmp_path / "was_run")
    torch.save(dict(state_dict=small().state_dict(), extra=Payload(target)), tmp_path / "evil.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Payload(target)))
    for name in ("evil.pth", "plain.pkl"):
        with pytest.raises(CheckpointError):
            read_checkpoint(str(tmp_path / name))
    assert not os.path.exists(target)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("page.pth", b"<!DOCTYPE html><html>login</html>", "is a web page, not a checkpoint: a login or an error page"),
        ("page.safetensors", b"\n  <HTML>", "is a web page"),
        ("pointer.pth", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("empty.pth", b"", "the file is empty"),
        ("x.safetensors", b"\x00" * 20, "is cut off or damaged"),
        ("text.pth", b"hello" * 100, "is not a checkpoint"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as error:
        read_checkpoint(str(tmp_path / name))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_truncated_checkpoint_a_missing_one_and_one_without_weights_are_named(tmp_path):
    path = tmp_path / "torn.pth"
    state_file(path, small(64))
    path.write_bytes(path.read_bytes()[:-200])
    torch.save(dict(epoch=3), tmp_path / "none.pth")
    for name, words in (("torn", "is cut off or damaged"), ("missing", "no such"), ("none", "holds no weights")):
        with pytest.raises(CheckpointError, match=f"{name}.pth: .*{words}"):
            read_checkpoint(str(tmp_path / f"{name}.pth"))


def test_safetensors_carry_meta_data_and_a_hash_of_their_weights(tmp_path):
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.ones(2, dtype=torch.bfloat16)}
    meta = dict(schema_version=1, CLASSES=["road"], weights_sha256=weights_sha256(weights))
    path = str(tmp_path / "a.safetensors")
    write_safetensors(weights, meta, path)
    assert read_checkpoint(path)["meta"] == meta
    assert weights_sha256(read_checkpoint(path)["state_dict"]) == meta["weights_sha256"]
    assert os.listdir(tmp_path) == ["a.safetensors"]
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x41")
    with pytest.raises(CheckpointError, match="its weights are not those that its SHA-256 was made of"):
        read_checkpoint(path)
    write_safetensors(weights, {**meta, "schema_version": 99}, path)
    with pytest.raises(CheckpointError, match="schema 99, this version knows 1; update mmseg_ext"):
        read_checkpoint(path)


def test_the_hash_knows_names_types_shapes_and_values_but_no_order():
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.zeros(8)[::2]}
    assert weights_sha256(base) == weights_sha256(same)
    others = [
        {"c": base["a"], "b": base["b"]},
        {**base, "a": torch.zeros(4, dtype=torch.float64)},
        {**base, "a": torch.zeros(2, 2)},
        {**base, "b": torch.tensor([1.0, 2.0])},
    ]
    assert len({weights_sha256(weights) for weights in (base, *others)}) == 5


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = str(tmp_path / "a.pth")
    write_checkpoint(dict(state_dict=small().state_dict(), meta=dict(iter=1)), path)

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_checkpoint(dict(meta=dict(iter=2)), path)
    assert read_checkpoint(path)["meta"]["iter"] == 1
    assert os.listdir(tmp_path) == ["a.pth"]


def test_the_newest_complete_checkpoint_is_found(tmp_path):
    for n in (2, 10, 9):
        state_file(tmp_path / f"iter_{n}.pth", small(), optimizer={})
    (tmp_path / "iter_30.pth").write_bytes(b"torn")
    torch.save(dict(state_dict=small().state_dict()), tmp_path / "iter_20.pth")
    (tmp_path / ".iter_40.pth.1.partial").write_bytes(b"torn")
    assert latest_checkpoint(str(tmp_path)) == str(tmp_path / "iter_10.pth")
    remove_partial_files(str(tmp_path))
    assert not (tmp_path / ".iter_40.pth.1.partial").exists()
    assert latest_checkpoint(str(tmp_path / "nowhere")) is None


def test_a_link_is_moved_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        point_to(str(tmp_path / name), str(tmp_path / "latest"))
        assert (tmp_path / "latest").read_text() == name
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "latest"]
