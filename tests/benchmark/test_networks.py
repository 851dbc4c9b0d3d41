import json
import sys

import networks
import numpy as np
import pytest
from cells import Cell, Record
from matplotlib.image import imread
from methods import parse_contender
from networks import contenders, figures, parse_args, save_chart, scaling_cells, scaling_markdown, speed_markdown

from mmseg_ext.errors import ConfigError

MIB = 2**20


def record(name, rounds, size=1000, batch=2, tiles=None, failed=None):
    """A record whose rounds have these seconds, and a peak of 1, 2, ... MiB."""
    turns = [(tuple(seconds), i * MIB) for i, seconds in enumerate(rounds, 1)]
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
    assert (first["speedup"], first["peak_bytes"]) == (1, 3 * MIB)
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


def test_markdown_has_a_table_per_size_and_a_line_per_cell():
    page = speed_markdown("Machine: mine.", figures([FIRST, SECOND, LOST, record("unet@torch", [[0.5]], size=500)]))
    assert page.startswith("Machine: mine.\n")
    assert "**2 x 1000 x 1000 px**" in page and "**2 x 500 x 500 px**" in page
    assert "| unet@plain | torch fp32 | 3000.0 | 5200.0 | 0.667 | 0.667 | 1.00 | 3 |" in page
    assert "| unet@torch | torch fp32 | 1500.0 | 2700.0 | 1.33 | 1.33 | 3.00 | 3 |" in page
    assert "| dunet@torch |  | killed |  |  |  |  |  |" in page
    assert "| unet@torch | torch fp32 | 500.0 | 500.0 | 4 | 1 | 1.00 | 1 |" in page


def test_a_bar_for_every_cell(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    saved = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: saved.append(self) or savefig(self, *a, **k))
    save_chart(figures([FIRST, SECOND, LOST, record("unet@torch", [[0.5]], size=500)]), tmp_path / "chart.png")
    (figure,) = saved
    assert [axis.get_title() for axis in figure.axes] == ["2 x 1000 x 1000 px", "2 x 500 x 500 px"]
    large, small = figure.axes
    assert [bar.get_width() for bar in large.patches] == pytest.approx([2 / 3, 2 / 1.5, 0])
    assert [label.get_text() for label in large.get_yticklabels()] == ["unet@plain", "unet@torch", "dunet@torch"]
    assert [text.get_text() for text in large.texts] == ["0.667 (1.00 x)", "1.33 (3.00 x)", "failed"]
    assert [bar.get_width() for bar in small.patches] == [1]
    assert large.get_ylim()[0] > large.get_ylim()[1]  # the first on top
    assert imread(tmp_path / "chart.png").shape[1] == 9 * 120


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
    rows = figures(records)
    assert [1 / row["speedup"] for row in rows] == pytest.approx([2, 1, 2, 1, 1.1])
    assert [1 / row["megapixels_per_s"] for row in rows] == pytest.approx([4, 2, 4, 2, 2.2])
    assert [row["computed"] for row in rows] == [1, 1, 1, 1, 9 / 4]
    page = scaling_markdown("Machine: mine.", contender, rows)
    assert "| 2,000 | 16.000 | 4.000 | 2.00 | 3 | 8.800 | 2.200 | 1.10 | 3 |" in page
    assert "| 500 | 1.000 | 4.000 | 2.00 | 3 |  |  |  |  |" in page
    assert "In tiles: from 1,000 to 2,000 px" in page and "at most 10 % from that at 1,000 px, so it is linear" in page
    assert "at most 100 % from that at 1,000 px, so it is not linear within 15 %" in page
    failed = figures([*records[:4], record("unet@torch", [], 2000, 2, (1000, 250), failed="killed")])
    page = scaling_markdown("Machine: mine.", contender, failed)
    assert "| killed |  |  |  |" in page and "In tiles: from" not in page


@pytest.mark.slow
def test_one_command_writes_all(run_tool, tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("before\n<!-- speed cpu: start -->\nold\n<!-- speed cpu: end -->\nafter\n")
    cells = ("segformer-b0@plain", "mmseg:segformer-b0", "unet@torch")
    options = ("--sizes", 64, "--rounds", 2, "--threads", 1, "--out", tmp_path / "out", "--docs", page)
    done = run_tool("benchmark/networks.py", *cells, *options, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = results["rows"]
    assert [row["contender"] for row in rows] == ["segformer-b0@plain", "mmseg:segformer-b0@plain", "unet@torch"]
    assert results["complete"] and ", 1 threads, " in results["machine"] and rows[0]["speedup"] == 1
    assert [len(row["round_seconds"]) for row in rows] == [2, 2, 0]
    table = (tmp_path / "out" / "results.md").read_text()
    assert f"| segformer-b0@plain | plain fp32 | {1000 * rows[0]['latency_s']:.1f} |" in table
    assert "64 px is no multiple of 128" in table and table.strip() in done.stdout
    chart = imread(tmp_path / "out" / "chart.png")
    assert (imread(tmp_path / "speed_cpu.png") == chart).all()
    text = page.read_text()
    assert table.strip() in text and results["command"] in text and "(speed_cpu.png)" in text
    assert (
        text.startswith("before\n<!-- speed cpu: start -->") and text.endswith("end -->\nafter\n") and "old" not in text
    )


def test_mistakes_end_before_anything_is_measured(run_tool, tmp_path):
    done = run_tool("benchmark/networks.py", "unet", "dunet", "--scaling", "--out", tmp_path / "out")
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: --scaling measures one cell")


def test_files_that_cannot_be_written_lose_no_results(tmp_path, monkeypatch, capsys):
    (tmp_path / "results.json").mkdir()
    monkeypatch.setattr(networks, "measure", lambda *_, **__: ([FIRST, SECOND], True))
    monkeypatch.setattr(networks, "machine_line", lambda _: "Machine: mine.")
    monkeypatch.setattr(sys, "argv", ["networks.py", "unet@plain", "unet@torch", "--out", str(tmp_path)])
    with pytest.raises(ConfigError, match=f"{tmp_path}/results.json: cannot be written .*; the results are above"):
        networks.main()
    assert capsys.readouterr().out == speed_markdown("Machine: mine.", figures([FIRST, SECOND])) + "\n\n"


def test_scaling_needs_a_size_that_holds_a_tile(monkeypatch):
    monkeypatch.setattr("sys.argv", ["networks.py", "unet", "--scaling", "--sizes", "256", "512"])
    with pytest.raises(ConfigError, match=r"^--scaling up to 512 px: no size has a tile of 640 px; give larger"):
        contenders(parse_args())
    monkeypatch.setattr("sys.argv", ["networks.py", "unet", "--scaling", "--sizes", "640"])
    assert contenders(parse_args()) == [parse_contender("unet")]


@pytest.mark.slow
def test_scaling(run_tool, tmp_path):
    options = ("--sizes", 64, 96, 128, "--tiles", 96, 32, "--rounds", 1, "--threads", 1)
    done = run_tool("benchmark/networks.py", "segformer-b0@plain", "--scaling", *options, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["size_px"], row["tiles"]) for row in rows] == [
        *((size, None) for size in (64, 96, 128)),
        *((size, [96, 32]) for size in (96, 128)),
    ]
    assert rows[3]["speedup"] == 1 and rows[4]["computed"] == 4 * 96**2 / 128**2
    seconds = [row["round_seconds"][0] for row in rows]
    assert rows[4]["speedup"] == pytest.approx(seconds[3] / seconds[4] * 128**2 / 96**2)
    assert "In tiles: from 96 to 128 px" in (tmp_path / "results.md").read_text()


@pytest.mark.slow
def test_profile(run_tool, tmp_path):
    options = ("--profile", "--sizes", 64, "--out", tmp_path)
    done = run_tool("benchmark/networks.py", "segformer-b0@openvino", *options)
    assert done.returncode == 0, done.stderr
    head, *_ = done.stdout.strip().splitlines()
    total = float(head.removeprefix("segformer-b0@openvino, 64 px: ").removesuffix(" ms"))
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ") and line.endswith("% |")]
    times = [float(row[1]) for row in rows]
    assert times == sorted(times, reverse=True) and 0.9 * total - 1 < sum(times) < total + 1
    assert any(row[0].startswith("| Convolution, ") for row in rows)
    done = run_tool("benchmark/networks.py", "segformer-b0@torch", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: --profile segformer-b0@torch: OpenVINO tells")
