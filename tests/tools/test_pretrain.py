"""tools/pretrain.py as a user meets it."""

import json

import numpy as np
import pytest
from PIL import Image

OPTIONS = ["--model", "dsegnext_tiny", "--image-size", 32, "--workers", 1]
TINY = ["--model-options", "embed_dims=(8,16,24,32)", "depths=(1,1,1,1)", "mlp_ratios=(2,2,2,2)"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """An image folder of six plain colours: 8 train and 3 val images of each, 18 in val."""
    data = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for index in range(6):
        mean = 60 + 130 * np.array([index & 1, index >> 1 & 1, index >> 2])
        for split, count in (("train", 8), ("val", 3)):
            folder = data / split / f"colour{index}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(rng.normal(mean, 10, (36, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    return data


@pytest.mark.slow
def test_two_processes_train_and_one_finds_the_same_accuracy(run_tool, colours, tmp_path):
    settings = ["--epochs", 2, "--warmup-epochs", 0, "--batch-size", 8, "--log-interval", 1, "--workers", 0]
    done = run_tool("dist_pretrain.sh", colours, 2, *OPTIONS, *settings, "--work-dir", tmp_path, *TINY)
    assert done.returncode == 0, done.stderr
    assert "2 process(es) on cpu, 48 training and 18 validation images of 6 classes" in done.stderr
    assert done.stderr.count("epoch 2/2, step 3/3, lr: ") == 1  # 48 images, 2 x 8 at once, said by one process
    assert ", eta: 0:00:00, " in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "log.json").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    best = max(lines, key=lambda line: line["top1"])
    out = tmp_path / "metrics.json"
    weights = tmp_path / "best.pth"
    done = run_tool("pretrain.py", colours, *OPTIONS, "--eval", weights, "--out", out, *TINY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{weights}: top-1 {best['top1']:.2%}, top-5 {best['top5']:.2%}\n"
    metrics = dict(top1=best["top1"], top5=best["top5"])
    assert json.loads(out.read_text()) == dict(model="dsegnext_tiny", checkpoint=str(weights), metrics=metrics)
    assert round(best["top1"] * 18) == pytest.approx(best["top1"] * 18)


def test_a_mistake_is_one_line(run_tool, tmp_path):
    broken = tmp_path / "data"
    for split in ("train", "val"):
        (broken / split / "a").mkdir(parents=True)
        for i in range(4):
            (broken / split / "a" / f"{i}.jpg").write_bytes(b"no image")
    settings = ["--batch-size", 4, "--work-dir", tmp_path / "run", *TINY]
    done = run_tool("pretrain.py", broken, *OPTIONS, *settings)  # read by a worker
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert lines[-1].startswith(f"error: {broken}/train/a/") and "cannot be read as an image" in lines[-1]
