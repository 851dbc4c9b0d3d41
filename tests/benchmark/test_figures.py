import json

import numpy as np
import pytest
from matplotlib.image import imread

from mmseg_ext.benchmark import (
    Cell,
    Record,
    figures,
    machine_facts,
    parse_contender,
    scaling_cells,
    scaling_markdown,
    scaling_rows,
    speed_bars,
    speed_markdown,
)
from mmseg_ext.benchmark.energy import energy_counter
from mmseg_ext.benchmark.machine import machine_line
from mmseg_ext.benchmark.worker import Turn, _turn
from mmseg_ext.errors import ConfigError
from mmseg_ext.report.speed_chart import save_speed_chart, speed_figure

MIB = 2**20


def record(name, rounds, size=1000, batch=2, tiles=None, failed=None, joules=None):
    """A record whose rounds have these seconds, and a peak of 1, 2, ... MiB."""
    turns = [Turn(tuple(seconds), joules, i * MIB) for i, seconds in enumerate(rounds, 1)]
    cell = Cell(parse_contender(name), size, batch, tiles)
    return Record(cell, None if failed else "torch", None if failed else "fp32", turns, failed)


FIRST = record("unet@plain", [[2, 4, 3], [6], [1]])
SECOND = record("unet@torch", [[1], [1, 3], [2]])
LOST = record("dunet@torch", [[1]], failed="killed")


def test_figures_follow_from_the_calls():
    first, second, lost = figures([FIRST, SECOND, LOST])
    assert first["latency_s"] == 3  # of 1 2 3 4 6
    assert first["latency_p90_s"] == pytest.approx(np.quantile([1, 2, 3, 4, 6], 0.9))
    assert first["images_per_s"] == pytest.approx(2 / 3)
    assert first["megapixels_per_s"] == pytest.approx(2 / 3)  # images of 1 megapixel
    assert (first["speedup"], first["calls"], first["peak_bytes"], first["joules"]) == (1, 5, 3 * MIB, None)
    assert second["round_seconds"] == [1, 2, 2]
    assert second["speedup"] == 3  # of 3 / 1, 6 / 2 and 1 / 2
    assert lost["failed"] == "killed" and lost["latency_s"] is lost["speedup"] is None


def test_ratios_are_to_the_first_cell_of_the_same_size_and_batch():
    rows = figures([FIRST, record("unet@torch", [[3]], size=500), record("dunet@torch", [[1]], size=500), SECOND])
    assert [row["speedup"] for row in rows] == [1, 1, 3, 3]
    assert [row["speedup"] for row in figures([LOST, FIRST])] == [None, None]


def test_a_stop_within_a_round_compares_what_both_have():
    rows = figures([FIRST, record("unet@torch", [[1], [2]]), record("dunet@torch", [])])
    assert rows[1]["speedup"] == 3 and rows[2]["latency_s"] is None and rows[2]["failed"] is None


def test_energy_is_that_of_an_image():
    (row,) = figures([record("unet@torch", [[1], [1]], joules=12.0)])
    assert row["joules"] == 6


def test_markdown_has_a_table_per_size_and_a_line_per_cell():
    facts = machine_facts(3)
    small = record("unet@torch", [[0.5]], size=500, joules=7.0)
    page = speed_markdown(facts, figures([FIRST, SECOND, LOST]))
    assert machine_line(facts) in page and "this machine does not tell" in page and "J/image" not in page
    assert "**2 x 1000 x 1000 px**" in page
    assert "| unet@plain | plain fp32" not in page
    assert "| unet@torch | torch fp32 | 1500.0 | 2700.0 | 1.33 | 1.33 | 3.00 | 3 |" in page
    assert "| dunet@torch |  | killed |  |  |  |  |  |" in page
    page = speed_markdown(facts, figures([FIRST, small]))
    assert "**2 x 500 x 500 px**" in page and "J/image" in page
    assert "| unet@torch | torch fp32 | 500.0 | 500.0 | 4 | 1 | 1.00 | 1 | 3.50 |" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert widths == {10}


def test_the_machine_is_stated():
    facts = json.loads(json.dumps(machine_facts(3)))
    assert facts["threads"] == 3 and facts["cores"] >= 1 and facts["memory_gib"] > 0.5
    limits = facts["limits"]
    assert limits.keys() == {"fp32", "bf16", "copy"} and all(0.1 < value < 1e6 for value in limits.values())
    assert f"copies of {limits['copy']:.0f} GB/s" in machine_line(facts)
    assert "3 threads" in machine_line(facts) and f"torch {facts['versions']['torch']}" in machine_line(facts)


def test_a_bar_for_every_cell(tmp_path):
    rows = figures([FIRST, SECOND, LOST, record("unet@torch", [[0.5]], size=500)])
    panels = speed_bars(rows)
    figure = speed_figure(panels)
    assert [axis.get_title() for axis in figure.axes] == ["2 x 1000 x 1000 px", "2 x 500 x 500 px"]
    large, small = figure.axes
    assert [bar.get_width() for bar in large.patches] == pytest.approx([2 / 3, 2 / 1.5, 0])
    assert [label.get_text() for label in large.get_yticklabels()] == ["unet@plain", "unet@torch", "dunet@torch"]
    assert [text.get_text() for text in large.texts] == ["0.667 (1.00 x)", "1.33 (3.00 x)", "failed"]
    assert [bar.get_width() for bar in small.patches] == [1]
    assert large.get_ylim()[0] > large.get_ylim()[1]  # the first on top
    save_speed_chart(panels, str(tmp_path / "new" / "chart.png"))
    assert imread(tmp_path / "new" / "chart.png").shape[1] == 9 * 120
    with pytest.raises(ConfigError, match="chart.xyz: cannot be written"):
        save_speed_chart(panels, str(tmp_path / "chart.xyz"))


def test_a_turn_leaves_the_cold_call_out():
    waits, used = iter([0.03, 0.01, 0.02, 0.5]), iter([100.0, 130.0])
    import time

    turn = _turn(lambda: time.sleep(next(waits)), 0.055, lambda: next(used), lambda: 5)
    assert np.array(turn.seconds) == pytest.approx([0.01, 0.02], abs=0.008)
    assert (turn.joules, turn.peak_bytes) == (10, 5)
    once = _turn(lambda: time.sleep(0.01), 0.0, None, lambda: None)
    assert len(once.seconds) == 1 and once.joules is None
    used = iter([130.0, 2.0])  # the counter began again
    assert _turn(lambda: None, 0.0, lambda: next(used), lambda: 5).joules is None


def test_energy_of_packages(tmp_path):
    import torch

    cpu = torch.device("cpu")
    assert energy_counter(cpu, tmp_path) is None
    for zone, name, value in (
        ("intel-rapl:0", "package-0", 3_000_000),
        ("intel-rapl:1", "package-1", 500_000),
        ("intel-rapl:0:0", "core", 9_000_000),  # a part of the package
        ("intel-rapl:2", "psys", 9_000_000),
    ):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "energy_uj").write_text(f"{value}\n")
    read = energy_counter(cpu, tmp_path)
    assert read() == 3.5
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("700000")
    assert read() == 3.7


def test_scaling_says_whether_time_is_linear():
    contender = parse_contender("unet@torch")
    cells = scaling_cells(contender, [500, 1000, 2000], (1000, 250), batch=2)
    assert [(c.size_px, c.batch, c.tiles) for c in cells] == [
        *((size, 1, None) for size in (500, 1000, 2000)),
        *((size, 2, (1000, 250)) for size in (1000, 2000)),
    ]
    seconds = [[0.5, 1, 1.5], [1, 2, 3], [12, 16, 20], [1, 2, 3], [4.4, 8.8, 13.2]]
    records = [
        record("unet@torch", [[s] for s in rounds], c.size_px, c.batch, c.tiles)
        for c, rounds in zip(cells, seconds, strict=True)
    ]
    rows = scaling_rows(records)
    assert [row["relative"] for row in rows] == pytest.approx([2, 1, 2, 1, 1.1])
    assert [row["seconds_per_megapixel"] for row in rows] == [4, 2, 4, 2, 2.2]
    assert [row["computed"] for row in rows] == [1, 1, 1, 1, 9 / 4]
    page = scaling_markdown(machine_facts(), contender, rows)
    assert "| 2,000 | 16.000 | 4.000 | 2.00 | 3 | 8.800 | 2.200 | 1.10 | 3 |" in page
    assert "| 500 | 1.000 | 4.000 | 2.00 | 3 |  |  |  |  |" in page
    assert "In tiles: from 1,000 to 2,000 px" in page and "at most 10 % from that at 1,000 px, so it is linear" in page
    assert "at most 100 % from that at 1,000 px, so it is not linear within 15 %" in page
    failed = scaling_rows([*records[:4], record("unet@torch", [], 2000, 2, (1000, 250), failed="killed")])
    page = scaling_markdown(machine_facts(), contender, failed)
    assert "| killed |  |  |  |" in page and "In tiles: from" not in page
