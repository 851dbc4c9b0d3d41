"""The check of GPUs: each part is a row of its page, whatever it does; the parts themselves with their stand-ins."""

import json
import sys
import time

import gpu_check
import pytest
from gpu_check import Check, FailedError, LeftOutError

PYTHON = (sys.executable, "-c")


@pytest.fixture()
def check(tmp_path):
    return Check(tmp_path, time.monotonic() + 1000)


def rows(check):
    lines = (check.out / "gpu_check.md").read_text().splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {cells[0]: cells[1:2] + cells[3:] for cells in table[2:]}


def raises(error):
    raise error


def test_every_part_is_a_row_and_none_is_the_end(check):
    check.part("good", "CPU", lambda: "12 | 3")
    check.part("bad", "CPU", lambda: check.run(*PYTHON, "print('first'); print('last'); raise SystemExit(3)"))
    check.part("strange", "CPU", lambda: raises(KeyError("x")))
    check.part("slow", "CPU", lambda: check.run(*PYTHON, "import time; time.sleep(60)", seconds=1))
    check.part("elsewhere", "CPU", lambda: raises(LeftOutError("not here")))
    check.end = time.monotonic() - 1
    check.part("late", "CPU", lambda: "done")
    found = rows(check)
    assert found["good"] == ["ok", "CPU", "12 / 3"]
    assert found["bad"] == ["**failed**", "CPU", "exit code 3: last"]
    assert found["strange"] == ["**failed**", "CPU", "KeyError: 'x'"]
    assert found["slow"][0] == "**failed**" and found["slow"][2].endswith(": not done in 1 s")
    assert found["elsewhere"] == ["left out", "CPU", "not here"]
    assert found["late"] == ["left out", "CPU", "the 20 minutes were over"]
    page = (check.out / "gpu_check.md").read_text()
    assert "```\nfirst\nlast\n```" in page
    assert "No GPU was found: what follows ran with stand-ins" in page
    check.gpus = 2
    check.write()
    assert "No GPU was found" not in (check.out / "gpu_check.md").read_text()


def test_an_old_driver_is_named(check, monkeypatch):
    cards = "Quadro RTX 5000, 470.1, 16125 MiB, 7.5\n"
    monkeypatch.setattr(
        gpu_check.subprocess, "run", lambda *rest, **options: gpu_check.subprocess.CompletedProcess(rest, 0, cards)
    )
    found = dict(torch="2.11.0", built_for="13.0", gpus=0, native_bf16=True, nccl=None)
    monkeypatch.setattr(Check, "run", lambda self, *command, **options: f"a warning\n{json.dumps(found)}\n")
    with pytest.raises(FailedError, match=r"torch sees no GPU; its CUDA needs driver 580 or newer.*RTX 5000, 470.1"):
        gpu_check.machine(check)
    found |= dict(gpus=2, native_bf16=False, nccl="2.28")
    assert gpu_check.machine(check).endswith("torch 2.11.0 for CUDA 13.0, NCCL 2.28; 2 GPU(s)")
    assert (check.gpus, check.half, check.ranks) == (2, "fp16", 2)
    assert {"2", "precision=fp16", "runner.max_iters=7"} <= set(gpu_check.training(check, 7))


def test_scores_that_differ_fail(check, monkeypatch):
    found = dict(by_1=dict(mIoU=0.5), by_2=dict(mIoU=0.5), torch=dict(mIoU=0.52))
    monkeypatch.setattr(gpu_check, "scores", lambda check, name, *rest, **options: found[name])
    assert gpu_check.evaluation(check) == "mIoU 50.000 in 1 and 2 process(es), largest difference 0"
    found["by_2"] = dict(mIoU=0.51)
    with pytest.raises(FailedError, match=r"scores of 1 and 2 process\(es\) differ by 0.01"):
        gpu_check.evaluation(check)
    (check.out / "plain.json").write_text(json.dumps(dict(metrics=dict(mIoU=0.5))))
    with pytest.raises(FailedError, match="fp32: scores differ from those of the plain network by 0.02"):
        gpu_check.backend(check, "torch")
    missing = "exit code 2: error: --backend tensorrt cannot run here: it runs on an NVIDIA GPU only"
    monkeypatch.setattr(gpu_check, "scores", lambda *rest, **options: raises(FailedError(missing)))
    with pytest.raises(LeftOutError, match="runs on an NVIDIA GPU only"):
        gpu_check.backend(check, "tensorrt")


@pytest.mark.slow
def test_the_whole_check_with_its_stand_ins(run_tool, tmp_path):
    done = run_tool("gpu_check.sh", tmp_path / "check", timeout=1500)
    assert done.returncode == 0, (tmp_path / "check" / "gpu_check.md").read_text()
    found = rows(Check(tmp_path / "check", 0))
    assert {cells[0] for cells in found.values()} == {"ok", "left out"}
    assert found["a killed process"][2].endswith(
        "was ended by SIGKILL; the kernel does that when memory runs out; all processes are stopped"
    )
    refused = run_tool("gpu_check.sh", tmp_path / "check")
    assert refused.returncode == 2 and "has a check already; give another folder" in refused.stderr
