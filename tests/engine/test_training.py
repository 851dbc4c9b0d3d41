"""Training, stopping, resuming and evaluating a tiny network, in one and in two processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from mmseg_ext.engine import complexity, distributed, evaluate_checkpoint, evaluation, load_config, train
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.engine.runner import SafeIterRunner
from mmseg_ext.errors import ConfigError, TrainingError


def logged(work_dir):
    (path,) = sorted(work_dir.glob("*.log.json"))[-1:]
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_train_evaluate_and_resume(tiny_config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    work_dir = train(load_config(str(tiny_config)))
    assert work_dir == os.path.join("work_dirs", "tiny")
    run = tmp_path / work_dir
    names = {p.name for p in run.iterdir()}
    assert {"iter_2.pth", "iter_4.pth", "latest.pth", "tiny.py", "tf_logs"} <= names
    assert os.readlink(run / "latest.pth") == "iter_4.pth"
    (best,) = run.glob("best_mIoU_iter_*.pth")
    lines = logged(run)
    steps = [line for line in lines if line.get("mode") == "train"]
    assert [line["iter"] for line in steps] == [1, 2, 3, 4]
    assert all(0 < line["decode.loss_ce"] < 3 for line in steps)
    scores = [line["mIoU"] for line in lines if line.get("mode") == "val"]
    meta = read_checkpoint(str(run / "latest.pth"))["meta"]
    assert meta["hook_msgs"]["best_score"] == pytest.approx(max(scores), abs=1e-4)
    assert read_checkpoint(str(best))["meta"]["iter"] == 2 * (1 + scores.index(max(scores)))
    assert (meta["iter"], meta["CLASSES"], meta["seed"]) == (4, ["background", "road"], 0)

    # evaluating twice gives the same digits, from the test split
    capsys.readouterr()
    again = [evaluate_checkpoint(load_config(str(tiny_config)), str(run / "latest.pth")) for _ in range(2)]
    assert again[0] == again[1]
    assert "mIoU" in capsys.readouterr().out

    # a longer run goes on where this one stopped
    train(load_config(str(tiny_config), {"runner.max_iters": 6}), auto_resume=True)
    assert [line["iter"] for line in logged(run) if line.get("mode") == "train"] == [5, 6]
    assert read_checkpoint(str(run / "latest.pth"))["meta"]["iter"] == 6


def test_reproducible_algorithms_are_asked_for_and_change_nothing_on_a_cpu(tiny_config, tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    asked, tuned, states = [], [], []
    evaluate = evaluation.evaluate_dataset

    def evaluating(*args):
        tuned.append(torch.backends.cudnn.benchmark)
        return evaluate(*args)

    monkeypatch.setattr(evaluation, "evaluate_dataset", evaluating)
    for name, deterministic in (("a", True), ("b", False)):
        run = train(load_config(str(tiny_config)), str(tmp_path / name), deterministic=deterministic)
        asked.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        states.append(read_checkpoint(os.path.join(run, "latest.pth"))["state_dict"])
    assert asked == [(True, False), (False, True)]
    assert tuned == [False] * 4  # images of an evaluation have any size
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_full_gpu_is_said_with_what_helps(tiny_config, tmp_path, monkeypatch):
    def full(runner, loader, **_):
        runner.data_batch = next(loader)
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.58 GiB of which 1 GiB is "
            "free. Including"
        )

    monkeypatch.setattr(SafeIterRunner, "train", full)
    monkeypatch.setattr(complexity, "estimate_training_memory", lambda cfg, batch, height, width, precision: 2**30 * (
        batch * height / 64 / (1 + (precision != "fp32")) - len(cfg.model.backbone.get("recompute_stages", ())) / 2
    ))  # fmt: skip
    with pytest.raises(TrainingError) as said:
        train(load_config(str(tiny_config)), str(tmp_path / "run"), validate=False)
    assert str(said.value) == (
        "iteration 1: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.58 GiB of which "
        "1 GiB is free; GiB that a step needs, and 1 to 2 around it: as it is 2.0; --precision auto 1.0; --cfg-options "
        "data.samples_per_gpu=1 optimizer_config.accumulate=2 1.0; --cfg-options model.backbone.recompute_stages=[1,2] "
        "1.0"
    )


def test_a_full_gpu_is_said_by_an_evaluation_too(tiny_config, tmp_path, monkeypatch):
    run = train(load_config(str(tiny_config), {"runner.max_iters": 1}), str(tmp_path / "run"), validate=False)

    def full(*images):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full. Including")

    monkeypatch.setattr(distributed, "class_probabilities", full)
    words = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full; an image was evaluated as a whole; "
    remedy = f"{words}evaluate it in parts: --cfg-options model.test_cfg.mode=slide model.test_cfg.crop_size="
    with pytest.raises(ConfigError, match=f"^{re.escape(remedy)}"):
        evaluate_checkpoint(load_config(str(tiny_config)), os.path.join(run, "latest.pth"))


def test_same_seed_gives_the_same_weights_and_another_seed_others(tiny_config, tmp_path):
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = train(load_config(str(tiny_config)), str(tmp_path / name), seed=seed, validate=False)
        states.append(read_checkpoint(os.path.join(run, "latest.pth"))["state_dict"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["decode_head.conv_seg.weight"], states[2]["decode_head.conv_seg.weight"])


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"channels_last": True}])
def test_settings_agree_with_the_plain_run(tiny_config, tmp_path, options):
    losses = []
    for name, settings in (("plain", {}), ("set", options)):
        train(load_config(str(tiny_config), settings), str(tmp_path / name), validate=False)
        losses.append([x["loss"] for x in logged(tmp_path / name) if x.get("mode") == "train"])
    assert losses[0] == pytest.approx(losses[1], abs=0.02)


def test_pictures_and_masks_of_predictions(tiny_config, tmp_path, run_tool, mine_data):
    from PIL import Image

    run = train(load_config(str(tiny_config)), str(tmp_path / "run"), validate=False)
    done = run_tool(
        "test.py",
        tiny_config,
        os.path.join(run, "latest.pth"),
        "--eval",
        "mIoU",
        "--out",
        tmp_path / "m.json",
        "--mask-dir",
        tmp_path / "masks",
        "--show-dir",
        tmp_path / "show",
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path / "m.json").read_text())["metrics"]) >= {"mIoU", "IoU.road", "aAcc"}
    (mask,) = (tmp_path / "masks").iterdir()
    assert Image.open(mask).size == (128, 128)
    assert max(Image.open(mask).getdata()) <= 1
    (panel,) = (tmp_path / "show").iterdir()
    assert Image.open(panel).size[0] == 3 * 128 + 2 * 8


def test_two_processes_train_and_score_like_one(tiny_config, tmp_path, run_tool):
    done = run_tool("dist_train.sh", tiny_config, 2, "--work-dir", tmp_path / "two", "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert "no GPU here: running 2 process(es) on the CPU with gloo" in done.stderr
    assert [x["iter"] for x in logged(tmp_path / "two") if x.get("mode") == "train"] == [1, 2, 3, 4]
    checkpoint = tmp_path / "two" / "latest.pth"
    # every process evaluated the network that the checkpoint holds
    val = ["--cfg-options", "data.test.split=ImageSets/Segmentation/val.txt"]
    out = tmp_path / "val.json"
    assert run_tool("test.py", tiny_config, checkpoint, "--eval", "mIoU", "--out", out, *val).returncode == 0
    inside = [x for x in logged(tmp_path / "two") if x.get("mode") == "val"][-1]
    after = json.loads(out.read_text())["metrics"]
    assert {k: round(after[k], 5) for k in ("mIoU", "aAcc", "Acc.road")} == {
        k: inside[k] for k in ("mIoU", "aAcc", "Acc.road")
    }
    options = ["--cfg-options", "data.test.split=ImageSets/Segmentation/train.txt"]  # 16 images
    one = run_tool("test.py", tiny_config, checkpoint, "--eval", "mIoU", "--out", tmp_path / "1.json", *options)
    for processes in (2, 3):
        out = tmp_path / f"{processes}.json"
        many = run_tool("dist_test.sh", tiny_config, checkpoint, processes, "--eval", "mIoU", "--out", out, *options)
        assert many.returncode == one.returncode == 0, many.stderr
        assert json.loads(out.read_text()) == json.loads((tmp_path / "1.json").read_text())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_from_the_last_good_checkpoint(tiny_config, tmp_path, how, root):
    # a killed run has the checkpoints of its interval; an interrupted one writes its own
    interval = 1 if how == signal.SIGKILL else 10**6
    command = [
        *(sys.executable, "tools/train.py", str(tiny_config), "--work-dir", str(tmp_path), "--auto-resume"),
        *("--no-validate", "--cfg-options", f"checkpoint_config.interval={interval}", "data.workers_per_gpu=1"),
    ]
    process = subprocess.Popen(
        [*command, "runner.max_iters=100000"], cwd=root, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if list(tmp_path.glob("*.log.json")) and len(logged(tmp_path)) > 3:
            break
    os.killpg(process.pid, how)  # as a terminal does: the loader's workers get it too
    _, errors = process.communicate(timeout=600)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    newest = max(int(p.stem.split("_")[1]) for p in tmp_path.glob("iter_*.pth"))
    assert newest >= (2 if how == signal.SIGKILL else 3)  # killed between the log's third line and its checkpoint
    assert read_checkpoint(str(tmp_path / f"iter_{newest}.pth"))["meta"]["iter"] == newest
    if how == signal.SIGINT:
        assert f"SIGINT: saved iteration {newest}" in errors
        assert "--auto-resume" in errors
        assert "Traceback" not in errors
        assert logged(tmp_path)[-1]["iter"] == newest
    # a torn file that looks newer is passed over
    torn = tmp_path / f"iter_{newest + 1}.pth"
    torn.write_bytes((tmp_path / f"iter_{newest}.pth").read_bytes()[:1000])
    done = subprocess.run(
        [*command, f"runner.max_iters={newest + 2}"], cwd=root, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert f"iter_{newest + 1}.pth: is truncated or damaged" in done.stdout + done.stderr
    assert f"resumed from {tmp_path}/iter_{newest}.pth at iteration {newest}" in done.stdout + done.stderr
    assert read_checkpoint(str(tmp_path / "latest.pth"))["meta"]["iter"] == newest + 2


def test_the_end_of_a_run_is_evaluated(tiny_config, tmp_path):
    cfg = load_config(str(tiny_config), {"evaluation.interval": 100, "runner.max_iters": 3})
    train(cfg, str(tmp_path))
    assert [x["iter"] for x in logged(tmp_path) if x.get("mode") == "val"] == [3]
    assert [p.name for p in tmp_path.glob("best_*")] == ["best_mIoU_iter_3.pth"]
