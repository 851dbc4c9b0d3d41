import json

import pytest
from matplotlib.image import imread


@pytest.mark.slow
def test_one_command_writes_all(run_tool, tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("before\n<!-- speed cpu: start -->\nold\n<!-- speed cpu: end -->\nafter\n")
    cells = ("segformer-b0@plain", "mmseg:segformer-b0", "unet@torch")
    options = ("--sizes", 64, "--rounds", 2, "--threads", 1, "--out", tmp_path / "out", "--docs", page)
    done = run_tool("benchmark.py", *cells, *options, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = results["rows"]
    assert [row["contender"] for row in rows] == ["segformer-b0@plain", "mmseg:segformer-b0@plain", "unet@torch"]
    assert results["complete"] and results["machine"]["threads"] == 1 and rows[0]["speedup"] == 1
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
    done = run_tool("benchmark.py", "unet", "dunet", "--scaling", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--scaling measures one cell" in done.stderr and not list(tmp_path.glob("out/*"))


@pytest.mark.slow
def test_scaling(run_tool, tmp_path):
    options = ("--sizes", 64, 96, 128, "--tile", 96, "--overlap", 32, "--rounds", 1, "--threads", 1)
    done = run_tool("benchmark.py", "segformer-b0@plain", "--scaling", *options, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["size_px"], row["tiles"]) for row in rows] == [
        *((size, None) for size in (64, 96, 128)),
        *((size, [96, 32]) for size in (96, 128)),
    ]
    assert rows[3]["relative"] == 1 and rows[4]["computed"] == 4 * 96**2 / 128**2
    seconds = [row["round_seconds"][0] for row in rows]
    assert rows[4]["relative"] == pytest.approx(seconds[4] / seconds[3] * 96**2 / 128**2)
    assert "In tiles: from 96 to 128 px" in (tmp_path / "results.md").read_text()


@pytest.mark.slow
def test_profile(run_tool, tmp_path):
    options = ("--profile", "--sizes", 64, "--out", tmp_path)
    done = run_tool("benchmark.py", "segformer-b0@openvino", *options)
    assert done.returncode == 0, done.stderr
    head, *_ = done.stdout.strip().splitlines()
    total = float(head.removeprefix("segformer-b0@openvino, 64 px: ").removesuffix(" ms"))
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ") and line.endswith("% |")]
    times = [float(row[1]) for row in rows]
    assert times == sorted(times, reverse=True) and 0.9 * total - 1 < sum(times) < total + 1
    assert any(row[0].startswith("| Convolution, ") for row in rows)
    done = run_tool("benchmark.py", "segformer-b0@torch", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--profile segformer-b0@torch: OpenVINO tells" in done.stderr
