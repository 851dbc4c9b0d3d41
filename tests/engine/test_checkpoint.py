import os
import pickle
import stat

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmseg_ext.engine.checkpoint import (
    latest_checkpoint,
    load_fitting,
    load_pretrained,
    load_start_weights,
    load_weights,
    point_to,
    read_checkpoint,
    remove_partial_files,
    write_checkpoint,
)
from mmseg_ext.errors import CheckpointError
from mmseg_ext.models import MSCAN


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
        ("page.pth", b"<!DOCTYPE html><html>login</html>", "is not a checkpoint"),
        ("empty.pth", b"", "is not a checkpoint"),
        ("x.safetensors", b"\x00" * 20, "is not a checkpoint"),
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
    for name in ("torn.pth", "missing.pth", "none.pth"):
        with pytest.raises(CheckpointError, match=name):
            read_checkpoint(str(tmp_path / name))


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


def test_what_does_not_fit_is_named(tmp_path):
    path = state_file(tmp_path / "wide.pth", small(8, extra=True))
    network = small(4)
    with pytest.raises(CheckpointError) as error:
        load_weights(network, path)
    line = str(error.value)
    assert "\n" not in line
    assert "2 unexpected (2.weight, 2.bias)" in line
    assert "6 reshaped (0.weight: (8, 3, 1, 1) in the file, (4, 3, 1, 1) in the network" in line
    with pytest.raises(CheckpointError, match=r"2 missing \(2.weight, 2.bias\)"):
        load_weights(small(4, extra=True), state_file(tmp_path / "short.pth", small(4)))


def test_start_weights_may_lack_the_classifier_but_not_the_network(tmp_path):
    network = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 5))
    source = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 2))
    load_start_weights(network, state_file(tmp_path / "two.pth", source))
    assert torch.equal(network[0].weight, source[0].weight)
    with pytest.raises(CheckpointError, match="fills only"):
        load_start_weights(network, state_file(tmp_path / "other.pth", nn.Sequential(nn.Linear(9, 9))))


def test_fit_counts():
    fit = load_fitting(small(4, extra=True), small(4).state_dict())
    assert (len(fit.loaded), fit.missing, fit.unexpected, fit.reshaped) == (7, ["2.weight", "2.bias"], [], [])
    assert fit.share == pytest.approx((12 + 4 + 4 * 4 + 1) / (12 + 4 + 4 * 4 + 1 + 5))


SIZE = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2))


def test_authors_encoder_files_load_into_the_backbone(tmp_path):
    source, target = MSCAN(**SIZE), MSCAN(**SIZE)
    source.init_weights()
    state = {**source.state_dict(), "head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)}
    torch.save(dict(state_dict=state, epoch=300), tmp_path / "encoder.pth")
    load_pretrained(target, str(tmp_path / "encoder.pth"))
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_missing_encoder_says_where_to_get_it_and_how_to_do_without():
    with pytest.raises(CheckpointError) as error:
        load_pretrained(MSCAN(**SIZE), "pretrained/AttentionModuleK5D1259Cat_tiny.pth")
    line = str(error.value)
    assert line.startswith("pretrained/AttentionModuleK5D1259Cat_tiny.pth: no such pretrained encoder; get it from")
    assert line.endswith("--cfg-options model.backbone.init_cfg=None")
    assert "\n" not in line


def test_unreachable_address_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        load_pretrained(MSCAN(**SIZE), "http://127.0.0.1:9/mscan.pth")
    line = str(error.value)
    assert line.startswith("http://127.0.0.1:9/mscan.pth: cannot be downloaded")
    assert str(tmp_path / "hub" / "checkpoints" / "mscan.pth") in line
    assert "init_cfg=None" in line
    assert "\n" not in line


def test_encoder_of_another_size_is_refused(tmp_path):
    torch.save(dict(state_dict=MSCAN(**{**SIZE, "embed_dims": (16, 16, 24, 48)}).state_dict()), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="of the encoder"):
        load_pretrained(MSCAN(**SIZE), str(tmp_path / "other.pth"))
