import itertools
import os
import signal

import pytest
import torch

from mmseg_ext.benchmark import Cell, Settings, figures, measure, parse_contender, scaling_cells
from mmseg_ext.benchmark.prepared import SyntheticRaster, prepare
from mmseg_ext.mapping import TilePlan

QUICK = Settings(threads=1, turn_seconds=0.05)


@pytest.fixture(scope="module")
def measured():
    """Two that run, one that fits no such size, and one that cannot run."""
    names = ("dsegnext-t@plain", "dsegnext-t@torch", "unet@plain", "dsegnext-t@tensorrt")
    cells = [Cell(parse_contender(name), 96, 2) for name in names]
    return measure(cells, 2, QUICK)


def test_cells_are_measured_beside_each_other(measured):
    records, complete = measured
    assert complete and [len(record.turns) for record in records] == [2, 2, 0, 0]
    assert [(record.backend, record.precision) for record in records[:2]] == [("plain", "fp32"), ("torch", "fp32")]
    plain, torch_row = figures(records)[:2]
    assert plain["speedup"] == 1
    pairs = zip(plain["round_seconds"], torch_row["round_seconds"], strict=True)
    assert torch_row["speedup"] == pytest.approx(sum(a / b for a, b in pairs) / 2)
    for row in (plain, torch_row):
        assert 0 < row["latency_s"] <= row["latency_p90_s"] < 60
        assert row["images_per_s"] == 2 / row["latency_s"]
        assert row["megapixels_per_s"] == pytest.approx(2 * 96**2 / 1e6 / row["latency_s"])
        # more than the weights (5.3 M float32), less than what importing torch takes
        assert 5.2e6 * 4 < row["peak_bytes"] < 400e6


def test_a_cell_that_cannot_run_is_a_line_with_its_reason(measured):
    records, _ = measured
    assert records[2].failed == "96 px is no multiple of 128"
    assert "tensorrt" in records[3].failed and "\n" not in records[3].failed


def test_more_pixels_need_more_memory():
    cells = [Cell(parse_contender("mmseg:segformer-b0"), size) for size in (64, 512)]
    (small, large), _ = measure(cells, 1, QUICK)
    # the logits of the head's four stages at a quarter of the size: 4 x 256 channels
    assert large.turns[0].peak_bytes - small.turns[0].peak_bytes > 4 * 256 * 128**2 * 4


def test_a_killed_process_and_a_stop(monkeypatch):
    """The first cell's process is killed before its second turn; then Ctrl-C ends the run."""
    from mmseg_ext.benchmark import measuring

    turns = itertools.count()
    take_turn = measuring._Worker.take_turn

    def sabotaged(worker):
        number = next(turns)
        if number == 2:
            os.kill(worker._process.pid, signal.SIGKILL)
        if number == 5:
            raise KeyboardInterrupt
        take_turn(worker)

    monkeypatch.setattr(measuring._Worker, "take_turn", sabotaged)
    cells = [Cell(parse_contender(name), 64) for name in ("mmseg:segformer-b0", "segformer-b0@plain")]
    (first, second), complete = measure(cells, 4, QUICK)
    assert not complete
    assert (len(first.turns), first.failed) == (1, "killed, as for lack of memory")
    assert (len(second.turns), second.failed) == (2, None)


def test_tiles_of_a_raster_that_takes_no_memory():
    raster = SyntheticRaster(10**6, 3)
    values, valid = raster.read(999_000, 500, 300, 200)
    assert values.shape == (300, 200, 3) and valid is None and values.std() > 50
    again, _ = raster.read(999_000 - 256, 500 + 2 * 256, 300, 200)
    assert (values == again).all()
    moved, _ = raster.read(999_007, 503, 293, 197)
    assert (moved == values[7:, 3:]).all()


def test_a_raster_goes_through_the_network_tile_by_tile(monkeypatch):
    seen = []
    from mmseg_ext.deploy.trained import TrainedNetwork

    predict = TrainedNetwork.predict
    monkeypatch.setattr(
        TrainedNetwork, "predict", lambda self, images: seen.append(len(images)) or predict(self, images)
    )
    cell = scaling_cells(parse_contender("segformer-b0@torch"), [160], (64, 32), batch=2)[1]
    prepare(cell, torch.device("cpu"), QUICK).call()
    plan = TilePlan(160, 160, 64, 32, stride=32)
    assert sum(seen) == len(plan.row_starts) * len(plan.column_starts) == 16 and max(seen) == 2
