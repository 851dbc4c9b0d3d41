import itertools
import os
import signal

import cells
import pytest
import torch
from cells import Cell, Settings, calls, measure, prepare
from methods import Contender, build_method, method_configs, parse_contender
from networks import figures, scaling_cells

from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine import load_config
from mmseg_ext.errors import ConfigError
from mmseg_ext.mapping import TilePlan

QUICK = Settings(threads=1, turn_seconds=0.05)


def test_contenders_are_read(root):
    assert parse_contender("dsegnext-t") == Contender("dsegnext-t", "auto", None)
    assert parse_contender("dsegnext-t@openvino+bf16") == Contender("dsegnext-t", "openvino", "bf16")
    assert parse_contender("unet@plain") == Contender("unet", "plain", None)
    assert parse_contender("mmseg:segformer-b0") == Contender("mmseg:segformer-b0", "plain", None)
    path = str(root / "myconfigs/linknets/unet.256x256.EPFL.1.5k.py")
    assert parse_contender(f"{path}@torch") == Contender(path, "torch", None)
    for text in ("dsegnext-t@openvino+bf16", "dsegnext-t@auto", "mmseg:segformer-b0@plain"):
        assert str(parse_contender(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("segnet@plain", "no such method.*dsegnext-t"),
        ("dsegnext-t@cuda", "no backend is called cuda"),
        ("dsegnext-t@torch+fp8", "no precision is called fp8"),
        ("dsegnext-t+bf16", "dsegnext-t[+]bf16: no such method"),
        ("dsegnext-t@torch@plain", "write METHOD"),
        ("mmseg:segformer-b0@openvino", "a peer runs as its users run it"),
        ("smp:unet", "smp:ARCHITECTURE-ENCODER"),
    ],
)
def test_what_cannot_be_read_is_said(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_contender(text)


def test_every_method_of_the_paper_has_a_name():
    configs = method_configs()
    assert set(configs) == {
        *(f"{family}-{size}" for family in ("dsegnext", "segnext") for size in "tsbl"),
        *("segformer-b0", "segformer-b1", "segformer-b2"),
        *("linknet", "dlinknet", "nllinknet", "unet", "dunet"),
    }
    assert load_config(configs["dsegnext-t"]).model.backbone.embed_dims == (32, 64, 160, 256)
    assert load_config(configs["dsegnext-b"]).model.backbone.gating_unit.type == "HDMSCA"
    assert load_config(configs["nllinknet"]).model.backbone.type == "NLLinkNet34"


@pytest.mark.parametrize("method", ["smp:unet-resnet34", "smp:linknet-resnet34", "smp:segformer-mit_b0"])
def test_peers_score_every_pixel(method):
    pytest.importorskip("segmentation_models_pytorch")
    peer = build_method(method)
    with torch.no_grad():
        scores = peer.network(torch.randn(1, peer.bands, 64, 96))
    assert scores.shape == (1, 2, 64, 96) and not peer.network.training


def test_mmsegmentations_segformer_is_the_one_of_our_table():
    ours, theirs = build_method("segformer-b0"), build_method("mmseg:segformer-b0")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs.network.network.load_state_dict(ours.network.state_dict())
        expected = ours.network.encode_decode(image, [{}])
        assert torch.equal(theirs.network(image), expected)


def test_an_unknown_peer_is_one_line():
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(ConfigError, match="smp:unet-none34: segmentation_models_pytorch cannot build it"):
        build_method("smp:unet-none34")


def test_weights_are_the_same_every_time_and_those_of_the_checkpoint(tmp_path):
    first, second = build_method("unet").network.state_dict(), build_method("unet").network.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    moved = {key: value + 1 if value.is_floating_point() else value for key, value in first.items()}
    torch.save(dict(state_dict=moved), tmp_path / "moved.pth")
    loaded = build_method("unet", str(tmp_path / "moved.pth")).network.state_dict()
    assert all(torch.equal(loaded[key], moved[key]) for key in moved)


def test_sizes_of_cells():
    cell = Cell(parse_contender("unet"), 512, 4)
    assert (cell.images, cell.megapixels, cell.computed) == (4, 4 * 512**2 / 1e6, 1)
    tiled = Cell(parse_contender("unet"), 128, 4, (96, 32))
    assert (tiled.images, tiled.megapixels, tiled.computed) == (1, 128**2 / 1e6, 4 * 96**2 / 128**2)


def test_a_turn_leaves_the_cold_call_out():
    seconds = iter([0.03, 0.01, 0.02, 0.5])
    assert calls(lambda: next(seconds), 0.055) == (0.01, 0.02)
    assert calls(lambda: 2.0, 0.0) == (2.0,)


@pytest.fixture(scope="module")
def measured():
    """Two that run, one that fits no such size, and one that cannot run."""
    names = ("dsegnext-t@plain", "dsegnext-t@torch", "unet@plain", "dsegnext-t@tensorrt")
    return measure([Cell(parse_contender(name), 96, 2) for name in names], 2, QUICK)


def test_cells_are_measured_beside_each_other(measured):
    records, complete = measured
    assert complete and [len(record.turns) for record in records] == [2, 2, 0, 0]
    assert [(record.backend, record.precision) for record in records[:2]] == [("plain", "fp32"), ("torch", "fp32")]
    plain, torch_row = figures(records)[:2]
    assert plain["speedup"] == 1
    pairs = zip(plain["round_seconds"], torch_row["round_seconds"], strict=True)
    assert torch_row["speedup"] == pytest.approx(sum(a / b for a, b in pairs) / 2)
    for row in (plain, torch_row):
        # more than the weights (5.3 M float32), less than what importing torch takes
        assert 5.2e6 * 4 < row["peak_bytes"] < 400e6


def test_a_cell_that_cannot_run_is_a_line_with_its_reason(measured):
    records, _ = measured
    assert records[2].failed == "96 px is no multiple of 128"
    assert "tensorrt" in records[3].failed and "\n" not in records[3].failed


def test_more_pixels_need_more_memory():
    both = [Cell(parse_contender("mmseg:segformer-b0"), size) for size in (64, 512)]
    (small, large), _ = measure(both, 1, QUICK)
    # the logits of the head's four stages at a quarter of the size: 4 x 256 channels
    assert large.turns[0][1] - small.turns[0][1] > 4 * 256 * 128**2 * 4


def test_a_killed_process_and_a_stop(monkeypatch):
    """The first cell's process is killed before its second turn; then Ctrl-C ends the run."""
    turns = itertools.count()
    take_turn = cells._take_turn

    def sabotaged(record, worker, bar):
        number = next(turns)
        if number == 2:
            os.kill(worker.process.pid, signal.SIGKILL)
        if number == 5:
            raise KeyboardInterrupt
        take_turn(record, worker, bar)

    monkeypatch.setattr(cells, "_take_turn", sabotaged)
    both = [Cell(parse_contender(name), 64) for name in ("mmseg:segformer-b0", "segformer-b0@plain")]
    (first, second), complete = measure(both, 4, QUICK)
    assert not complete
    assert (len(first.turns), first.failed) == (1, "killed, out of memory?")
    assert (len(second.turns), second.failed) == (2, None)


def test_a_raster_goes_through_the_network_tile_by_tile(monkeypatch):
    seen = []
    predict = TrainedNetwork.predict
    monkeypatch.setattr(
        TrainedNetwork, "predict", lambda self, images: seen.append(len(images)) or predict(self, images)
    )
    cell = scaling_cells(parse_contender("segformer-b0@torch"), [160], (64, 32), batch=2)[1]
    call, *ran = prepare(cell, torch.device("cpu"), QUICK)
    call()
    plan = TilePlan(160, 160, 64, 32, stride=32)
    assert sum(seen) == len(plan.row_starts) * len(plan.column_starts) == 16 and max(seen) == 2
    assert ran == ["torch", "fp32"]
    peer = Cell(parse_contender("mmseg:segformer-b0"), 160, tiles=(64, 32))
    with pytest.raises(ConfigError, match="a peer does not map rasters"):
        prepare(peer, torch.device("cpu"), QUICK)
