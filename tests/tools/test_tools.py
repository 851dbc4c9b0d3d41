"""The command lines as a user meets them: what they print, and one line with exit code 2 for a mistake."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from mmseg_ext.datasets import generate_mine
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.geo import raster_info, read_raster

CONFIG = "myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py"
TINY_CONFIG = "myconfigs/dsegnext/tiny/dsegnext.tiny.160x160.MINE.0.75k.py"


def refused(done, *words):
    """Assert one line on stderr that holds ``words``, and exit code 2."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2, done.stderr
    assert len([line for line in lines if line.startswith("error: ")]) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[-1], done.stderr


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of D-SegNeXt-T with its first weights."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    network = build_network(load_config(TINY_CONFIG), pretrained=False)
    torch.save(dict(state_dict=network.state_dict(), meta=dict(iter=0)), path)
    return path


def test_get_flops_prints_both_counters_and_the_papers(run_tool):
    done = run_tool("get_flops.py", CONFIG, "--shape", 512, 512)
    assert done.returncode == 0, done.stderr
    assert (
        "Params:             5.30 M with the ImageNet classifier of the published checkpoint, 5.04 M without"
        in done.stdout
    )
    assert "FLOPs mmcv:         6.82 G  <- the paper's counter for this network" in done.stdout
    assert "FLOPs torchprofile: 7.07 G\n" in done.stdout
    assert done.stderr == ""


def test_get_memory_prints_a_row_per_config(run_tool):
    done = run_tool("get_memory.py", CONFIG, "--shape", 256, 256, "--precision", "fp32", "fp16")
    assert done.returncode == 0, done.stderr
    header, _, row = done.stdout.splitlines()
    assert header == "| config | crop | images per GPU | fp32 GiB | fp16 GiB |"
    _, path, crop, batch, full, half, _ = (cell.strip() for cell in row.split("|"))
    assert (path, crop, batch) == (CONFIG, "256x256", "4")
    assert float(half) < float(full)


def test_convert_prints_what_the_config_needs(run_tool, write_pairs, tmp_path):
    pairs = {f"a{i}": (np.full((8, 8, 3), 10 * i, np.uint8), np.eye(8, dtype=np.uint8) * 255) for i in range(5)}
    write_pairs(tmp_path, pairs, "_sat", "_mask")
    done = run_tool("convert_dataset.py", "pair", tmp_path, tmp_path / "out", "--val", 1, "--by-name")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'out'}: 4 train, 1 val, the validation images are the test too; 12.5% road" in done.stdout
    assert "Normalize=dict(mean=[15.0, 15.0, 15.0], std=[11.18, 11.18, 11.18])" in done.stdout
    refused(run_tool("convert_dataset.py", "pair", tmp_path / "nowhere", tmp_path / "o2"), "nowhere: no such folder")


def test_unknown_config(run_tool):
    done = run_tool("train.py", CONFIG.replace("Dsegnext", "dsegnext"))
    refused(done, "no such config; did you mean myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py?")


def test_missing_data_and_missing_encoder(run_tool, tiny_config, tmp_path):
    refused(run_tool("train.py", CONFIG, "--work-dir", tmp_path), "data/OpenPitMine: no such folder (data_root)")
    start = "dict(_delete_=True, type='Pretrained', checkpoint='pretrained/none.pth')"
    leaf = tmp_path / "pretrained.py"
    leaf.write_text(f"_base_ = {str(tiny_config)!r}\nmodel = dict(backbone=dict(init_cfg={start}))\n")
    done = run_tool("train.py", leaf, "--work-dir", tmp_path)
    refused(done, "pretrained/none.pth: no such pretrained encoder", "--cfg-options model.backbone.init_cfg=None")
    done = run_tool("train.py", leaf, "--work-dir", tmp_path, "--cfg-options", "model.backbone.init_cfg=None")
    assert done.returncode == 0, done.stderr


def test_wrong_labels_stop_a_training_before_it_starts(run_tool, tiny_config, tmp_path, mine_data):
    data = tmp_path / "data"
    os.system(f"cp -r {mine_data} {data}")
    mask = sorted((data / "SegmentationClass").iterdir())[0]
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(mask)
    options = [f"data.{split}.data_root={data}" for split in ("train", "val", "test")]
    done = run_tool("train.py", tiny_config, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    refused(done, f"{mask.name}: label values 7", "tools/convert_dataset.py")
    assert not (tmp_path / "run").exists()


def test_an_image_that_breaks_in_a_worker_is_named(run_tool, tiny_config, tmp_path, mine_data):
    data = tmp_path / "data"
    os.system(f"cp -r {mine_data} {data}")
    for image in (data / "JPEGImages").glob("mine000[1-4]*.png"):
        image.write_bytes(image.read_bytes()[:3000])
    options = [f"data.{split}.data_root={data}" for split in ("train", "val", "test")]
    done = run_tool(
        "train.py", tiny_config, "--work-dir", tmp_path, "--cfg-options", *options, "data.workers_per_gpu=2"
    )
    refused(done, "cannot be read as an image", "JPEGImages/mine000")


def test_checkpoints_that_do_not_fit(run_tool, tiny_config, tmp_path, weights):
    done = run_tool("test.py", tiny_config, weights, "--eval", "mIoU")
    refused(done, "tiny.pth: does not fit the config", "unexpected (", "reshaped (backbone.patch_embed1.proj.0.weight")
    (tmp_path / "page.pth").write_text("<html>please log in</html>")
    refused(run_tool("test.py", tiny_config, tmp_path / "page.pth", "--eval", "mIoU"), "page.pth: is a web page")
    refused(run_tool("test.py", tiny_config, tmp_path / "no.pth", "--eval", "mIoU"), "no.pth: no such checkpoint")
    refused(run_tool("test.py", tiny_config, weights, "--eval", "mAP"), "--eval mAP: unknown metric", "mIoU")


def test_classes_that_contradict(run_tool, tiny_config, tmp_path):
    done = run_tool("train.py", tiny_config, "--work-dir", tmp_path, "--cfg-options", "model.decode_head.num_classes=3")
    refused(done, "num_classes=3 in LightHamHead, but the data set has 2 classes (background, road)")


def test_an_error_of_several_processes_is_said_once(run_tool, tiny_config, tmp_path):
    options = ["--cfg-options", "data.train.split=ImageSets/Segmentation/nothing.txt"]
    done = run_tool("dist_train.sh", tiny_config, 2, "--work-dir", tmp_path, *options)
    refused(done, "nothing.txt: no such split file")
    refused(run_tool("dist_train.sh", tiny_config, 0), "0 processes were requested")


@pytest.mark.slow
def test_published_weights_score_as_published(run_tool, shared, tmp_path, root):
    """The EPFL checkpoint in the published format: mIoU 76.6 on the last 20 images, through the tools."""
    import json

    folder = shared / "data" / "epfl"
    data = tmp_path / "epfl"
    done = run_tool("convert_dataset.py", "epfl", folder, data)
    assert done.returncode == 0, done.stderr
    scores = []
    for name in ("a.json", "b.json"):
        done = run_tool(
            "test.py",
            "myconfigs/dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py",
            shared / "reference" / "dsegnext_t_epfl.safetensors",
            "--eval",
            "mIoU",
            "--out",
            tmp_path / name,
            "--cfg-options",
            f"data.test.data_root={data}",
        )
        assert done.returncode == 0, done.stderr
        scores.append(json.loads((tmp_path / name).read_text())["metrics"])
    assert scores[0] == scores[1]
    assert scores[0]["mIoU"] == pytest.approx(0.766, abs=0.001)
    assert scores[0]["IoU.road"] == pytest.approx(0.644, abs=0.001)


@pytest.mark.slow
def test_demo_makes_its_picture(run_tool, tmp_path):
    done = run_tool("demo.py", "--out", tmp_path, "--cfg-options", "runner.max_iters=2", "data.samples_per_gpu=1")
    assert done.returncode == 0, done.stderr
    path, raster, heights = done.stdout.strip().splitlines()[-3:]
    assert path == str(tmp_path / "mine0032.png")
    assert f" {tmp_path / 'pit.tif'} " in raster
    assert f" {tmp_path / 'pit_dem.tif'} " in heights
    image, dem = (raster_info(str(tmp_path / name)) for name in ("pit.tif", "pit_dem.tif"))
    assert (image.crs, image.transform, image.height) == (dem.crs, dem.transform, dem.height)
    assert (read_raster(str(tmp_path / "pit_dem.tif"))[0][:, :, 0] == generate_mine(33, 2048).elevation_m).all()
    assert Image.open(path).size == (3 * 1024 + 16, 1024 + 28)
    assert "mIoU" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["data", "mine0032.png", "pit.tif", "pit_dem.tif", "real", "run"]
    real = tmp_path / "real" / "caliterra.png"
    assert f"with the default weights (unet-lite0.pit):\n{real}\n" in done.stdout
    assert Image.open(real).size == (2 * 756 + 8, 861 + 28)


def test_slurm_twin_starts_one_launcher_per_node(run_tool, tmp_path):
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = run_tool("slurm_train.sh", "gpu", "roads", CONFIG, 16, "--seed", 3, PATH=path)
    assert done.returncode == 0, done.stderr
    for word in ("--nodes=2", "--ntasks-per-node=1", "--gres=gpu:8", "--cpus-per-task=32", CONFIG, "--seed"):
        assert word in done.stdout.splitlines()
    assert run_tool("slurm_test.sh", "gpu", "roads", CONFIG, "w.pth", 2, PATH=path).returncode == 0
    assert "12 GPUs do not fill nodes of 8" in run_tool("slurm_train.sh", "gpu", "roads", CONFIG, 12, PATH=path).stderr
