"""The check of GPUs: each part is a row of its page, whatever it does; the parts themselves with their stand-ins."""

import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import gpu_check
import pytest
from gpu_check import Check, FailedError, LeftOutError

PYTHON = (sys.executable, "-c")


@pytest.fixture()
def check(tmp_path):
    return Check(tmp_path, time.monotonic() + 1000)


def rows(check):
    page = (check.out / "gpu_check.md").read_text()
    lines = page[page.index("| part |") :].split("\n\n")[0].splitlines()[2:]  # other tables may follow
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {cells[0]: cells[1:2] + cells[3:] for cells in table}


def raises(error):
    raise error


def test_every_part_is_a_row_and_none_is_the_end(check):
    check.part("good", "CPU", lambda: "12 | 3")
    check.part("bad", "CPU", lambda: check.run(*PYTHON, "print('first'); print('last'); raise SystemExit(3)"))
    check.part("strange", "CPU", lambda: raises(KeyError("x")))
    slow = "import time; print('begun', flush=True); time.sleep(60)"
    check.part("slow", "CPU", lambda: check.run(*PYTHON, slow, seconds=3))
    check.part("elsewhere", "CPU", lambda: raises(LeftOutError("not here")))
    check.end = time.monotonic() - 1
    check.part("late", "CPU", lambda: "done")
    found = rows(check)
    assert found["good"] == ["ok", "CPU", "12 / 3"]
    assert found["bad"] == ["**failed**", "CPU", "exit code 3: last"]
    assert found["strange"] == ["**failed**", "CPU", "KeyError: 'x'"]
    assert found["slow"][0] == "**failed**" and found["slow"][2].endswith(": not done in 3 s")
    assert found["elsewhere"] == ["left out", "CPU", "not here"]
    assert found["late"] == ["left out", "CPU", "the 20 minutes were over"]
    page = (check.out / "gpu_check.md").read_text()
    assert "```\nfirst\nlast\n```" in page and "```\nbegun\n```" in page
    assert "No GPU was found: what follows ran with stand-ins" in page
    check.gpus = 2
    check.write()
    assert "No GPU was found" not in (check.out / "gpu_check.md").read_text()


def test_what_a_command_leaves_behind_does_not_hold_the_check(check):
    left = "['sleep', '60'], start_new_session=True"
    with pytest.raises(FailedError, match="not done in 2 s") as caught:
        check.run(*PYTHON, f"import subprocess; print(subprocess.Popen({left}).pid)", seconds=2)
    os.kill(int(caught.value.output.splitlines()[-2]), signal.SIGKILL)  # it still runs


def test_a_training_that_does_not_begin_shows_its_output(check, monkeypatch):
    for part in (gpu_check.resume, gpu_check.killed):  # it would take the same minutes to fail again
        with pytest.raises(LeftOutError, match="several processes"):
            part(check)
    (check.out / "run").mkdir()
    (check.out / "run" / "latest.pth").touch()
    script = "print('NCCL is not well'); raise SystemExit(5)"
    monkeypatch.setattr(gpu_check, "training", lambda *rest, **options: [*PYTHON, script])
    with pytest.raises(FailedError, match=r"did not begin \(exit code 5\)") as caught:
        gpu_check.killed(check)
    assert "```\nNCCL is not well\n```" in caught.value.output


def test_one_process_trains_where_several_could_not(check, monkeypatch):
    ran = []
    monkeypatch.setattr(Check, "run", lambda self, *command, **options: ran.append(command))
    with pytest.raises(FailedError, match="no training has left a network"):
        gpu_check.scores(check, "by_1")
    gpu_check.alone(check)
    assert ran[0][:6] == ("bash", "tools/dist_train.sh", gpu_check.CONFIG, "1", "--work-dir", str(check.out / "alone"))
    (check.out / "by_1.json").write_text(json.dumps(dict(metrics=dict(mIoU=0.5))))
    for name in ("alone", "run"):  # that of several comes first
        weights = check.out / name / "latest.pth"
        weights.parent.mkdir()
        weights.touch()
        assert gpu_check.scores(check, "by_1") == dict(mIoU=0.5) and ran[-1][3] == weights
    with pytest.raises(LeftOutError, match="several processes trained one"):
        gpu_check.alone(check)


@pytest.fixture()
def steps(check, monkeypatch):
    """Let commands do nothing; return how far maps are apart, and the commands."""
    found = dict(mean=0.2, largest=1, spread=40.0, ran=[])

    def run(self, *command, **options):
        found["ran"].append(command)
        return f"a word\n{json.dumps({key: found[key] for key in ('mean', 'largest', 'spread')})}\n"

    monkeypatch.setattr(Check, "run", run)
    check.gpus, weights = 2, check.out / "run" / "latest.pth"
    weights.parent.mkdir()
    weights.touch()
    return found


def test_a_map_is_made_by_one_process_and_by_several(check, steps):
    assert gpu_check.maps(check) == "fp16: maps of 1 and 2 process(es) differ by 1 of 250 steps at most"
    one, two, compared = steps["ran"]
    assert one[1] == "tools/predict.py" and two[1:5] == ("-m", "mmseg_ext.engine.launch", 2, "tools/predict.py")
    assert one[-1] == two[-1] == "fp16" and [path.parent.name for path in compared[-2:]] == ["map_by_1", "map_by_2"]
    steps["largest"] = 2
    with pytest.raises(FailedError, match="differ by 2 of 250 steps"):
        gpu_check.maps(check)
    steps.update(largest=0, spread=0.5)
    with pytest.raises(FailedError, match="the same nearly everywhere, so it compares nothing"):
        gpu_check.maps(check)


def test_the_map_of_a_backend_is_near_that_of_the_plain_network(check, steps):
    with pytest.raises(FailedError, match="fp16: it runs, but there is no map of the plain network"):
        gpu_check.backend(check, "torch")
    plain = check.out / "map_plain" / "mine0004_probability.tif"
    plain.parent.mkdir()
    plain.touch()
    said = "fp16: 0.20 of 250 steps from plain on average, 1 at most; the map's own spread is 40.0"
    assert gpu_check.backend(check, "torch") == said
    assert steps["ran"][-1][-2:] == (plain, check.out / "map_torch" / "mine0004_probability.tif")
    steps["mean"] = 5
    with pytest.raises(FailedError, match="fp16: 5.00 of 250 steps from plain on average"):
        gpu_check.backend(check, "torch")


def test_networks_for_which_no_time_is_left_have_not_failed(check, monkeypatch):
    check.gpus = 1

    def run(self, *command, **options):
        check.end = time.monotonic() - 1
        if "get_memory" in command[1]:
            return "| a | 1024x1024 | 4 | 5.0 |"
        machine = "Machine: matrix products of 9000 (fp32) and 40000 (fp16) GFLOP/s"
        return f"{machine}\n| a | 12.3 (1.00), 5.5 GiB, 800 GFLOP/s |"

    monkeypatch.setattr(Check, "run", run)
    assert gpu_check.memory(check) == "16 network(s); the table is below"
    first, *others = check.details[-1].splitlines()[4:]
    assert first.endswith("| 1024x1024 | 4 | 5.0 | 5.5 | 12.3 at 1024 px | 2 % |")
    assert len(others) == 15 and all(row.endswith("| left out: the 20 minutes were over |  |") for row in others)


def test_an_old_driver_is_named(check, monkeypatch):
    cards = "Quadro RTX 5000, 470.1, 16125 MiB, 7.5\n"
    monkeypatch.setattr(
        gpu_check.subprocess, "run", lambda *rest, **options: gpu_check.subprocess.CompletedProcess(rest, 0, cards)
    )
    found = dict(torch="2.11.0", built_for="13.0", gpus=0, native_bf16=True, nccl=None)
    monkeypatch.setattr(Check, "run", lambda self, *command, **options: f"a warning\n{json.dumps(found)}\n")
    with pytest.raises(FailedError, match=r"torch sees no GPU; its CUDA needs driver 580 or newer.*RTX 5000, 470.1"):
        gpu_check.machine(check)
    found["why"] = "The NVIDIA driver on your system is too old"
    with pytest.raises(FailedError, match=r"is too old; its CUDA needs driver 580 or newer.*RTX 5000, 470.1"):
        gpu_check.machine(check)
    cards = ""  # there is no nvidia-smi in a container
    with pytest.raises(FailedError, match=r"is too old; its CUDA needs driver 580 or newer.*no nvidia-smi"):
        gpu_check.machine(check)
    assert not check.details
    cards = "Quadro RTX 5000, 580.95, 16125 MiB, 7.5\n" * 2
    found |= dict(gpus=2, native_bf16=False, nccl="2.28")
    assert gpu_check.machine(check).endswith("torch 2.11.0 for CUDA 13.0, NCCL 2.28; 2 GPU(s)")
    assert (check.gpus, check.half, check.ranks) == (2, "fp16", 2)
    assert check.details[0].startswith("`nvidia-smi topo -m`")
    assert {"2", "precision=fp16", "runner.max_iters=7"} <= set(gpu_check.training(check, 7))


def test_a_gpu_that_torch_counts_but_cannot_use_is_none(monkeypatch, capsys):
    def refuse(*card):
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nUpdate it.")

    cuda = SimpleNamespace(device_count=lambda: 2, get_device_capability=refuse, nccl=None)
    torch = SimpleNamespace(cuda=cuda, __version__="2.11.0", version=SimpleNamespace(cuda="13.0"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    exec(gpu_check._TORCH, {})
    found = json.loads(capsys.readouterr().out)
    assert found["gpus"] == 0 and found["why"] == "The NVIDIA driver on your system is too old (found version 11040)."


def test_scores_that_differ_fail(check, monkeypatch):
    found = dict(by_1={"mIoU": 0.5, "IoU.road": 0.2}, by_2={"mIoU": 0.5, "IoU.road": 0.2})
    monkeypatch.setattr(gpu_check, "scores", lambda check, name, *rest, **options: found[name])
    assert gpu_check.evaluation(check) == "mIoU 50.000 in 1 and 2 process(es), largest difference 0"
    found["by_2"]["IoU.road"] = 0.21
    with pytest.raises(FailedError, match=r"scores of 1 and 2 process\(es\) differ by 0.01"):
        gpu_check.evaluation(check)
    for one in found.values():
        one["IoU.road"] = 0.0
    assert gpu_check.evaluation(check).endswith("; no road was found, so this says little")


def test_a_backend_that_cannot_run_here_is_left_out(check, monkeypatch):
    missing = "exit code 2: error: --backend tensorrt cannot run here: it runs on an NVIDIA GPU only"
    monkeypatch.setattr(gpu_check, "mapped", lambda *rest, **options: raises(FailedError(missing)))
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
