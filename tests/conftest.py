"""Fixtures: generated data, a tiny network, and the reference facts where they are at hand."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a busy machine must not be kept busy by waiting threads

import hypothesis  # noqa: F401  its plugin's late import can hit a bug of CPython 3.11's parser
import numpy as np
import pytest
import torch
from mmcv.cnn.utils import revert_sync_batchnorm
from PIL import Image

import mmseg_ext  # noqa: F401  registers everything
from mmseg_ext.converters import write_synthetic_mines
from mmseg_ext.deploy.pytorch import has_compiler

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("SHARED_DIR", ROOT.parent / "shared"))

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def shared():
    if not SHARED.is_dir():
        pytest.skip("the reference facts (shared/ beside the clone) are not here")
    return SHARED


@pytest.fixture(scope="session")
def published(shared):
    return json.loads((shared / "reference" / "published.json").read_text())


@pytest.fixture(scope="session")
def seeded_state(shared):
    """Return a function: network name -> the seeded state dict of the reference."""
    spec = importlib.util.spec_from_file_location("seeded_weights", shared / "reference" / "seeded_weights.py")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)

    def load(name):
        keys = json.loads((shared / "reference" / "state_keys" / f"{name}.json").read_text())
        return {
            key: torch.from_numpy(np.asarray(seeded.seeded_tensor(key, tuple(shape)))) for key, shape in keys.items()
        }

    return load


@pytest.fixture(scope="session")
def build():
    """Return a function: config path below myconfigs/ -> segmentor without weights, BN, in evaluation mode."""
    from mmseg_ext.engine import build_network, load_config

    def make(path, **options):
        cfg = load_config(str(ROOT / "myconfigs" / path), options)
        return revert_sync_batchnorm(build_network(cfg, initialise=False)).eval()

    return make


TINY_NETWORK = dict(
    backbone=dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2)),
    decode_head=dict(in_channels=[16, 24, 32], channels=32, ham_channels=32, ham_cfg=dict(rank=4)),
)


@pytest.fixture(scope="session")
def mine_data(tmp_path_factory):
    """A VOC data set of synthetic mine tiles: 16 train, 4 val of 64 px, one test image of 128 px."""
    dest = tmp_path_factory.mktemp("mines") / "data"
    write_synthetic_mines(str(dest), [1, 2, 3, 4], [5], [6], size_px=128, tile_px=64, gsd_m=4.0)
    return dest


@pytest.fixture()
def tiny_config(tmp_path, mine_data):
    """Path of a config that trains a tiny D-SegNeXt on `mine_data` within seconds."""
    return write_tiny_config(tmp_path / "tiny.py", mine_data)


@pytest.fixture(scope="session")
def one_config(tmp_path_factory, mine_data):
    """The same for fixtures that serve many tests."""
    return write_tiny_config(tmp_path_factory.mktemp("config") / "tiny.py", mine_data)


def write_tiny_config(path, data):
    norm = dict(mean=[150.0, 138.0, 112.0], std=[27.0, 24.0, 24.0])
    train_args = dict(
        Normalize=norm,
        Resize=dict(img_scale=(64, 64)),
        RandomCrop=dict(crop_size=(64, 64)),
        Pad=dict(size=(64, 64)),
    )
    splits = dict(
        train=dict(data_root=str(data), step_args=train_args),
        val=dict(data_root=str(data), step_args=dict(Normalize=norm, MultiScaleFlipAug=dict(img_scale=(64, 64)))),
        test=dict(data_root=str(data), step_args=dict(Normalize=norm, MultiScaleFlipAug=dict(img_scale=(64, 64)))),
    )
    base = ROOT / "myconfigs" / "_base_"
    network = {key: dict(value) for key, value in TINY_NETWORK.items()}
    network["backbone"]["init_cfg"] = None
    path.write_text(
        f"_base_ = [{str(base / 'models/dsegnext_t.py')!r}, {str(base / 'datasets/roads.py')!r}, "
        f"{str(base / 'schedules/20k.py')!r}, {str(base / 'runtime.py')!r}]\n"
        f"model = {network!r}\n"
        f"data = dict(samples_per_gpu=2, workers_per_gpu=0, **{splits!r})\n"
        "lr_config = dict(warmup_iters=2)\n"
        "runner = dict(max_iters=4)\n"
        "log_config = dict(interval=1)\n"
        "checkpoint_config = dict(interval=2)\n"
        "evaluation = dict(interval=2, metric='mIoU')\n"
    )
    return path


@pytest.fixture(scope="session")
def run_tool():
    """Return a function that runs a tool in its own process: (name, *args) -> CompletedProcess."""

    def run(name, *args, timeout=900, **environ):
        if name.endswith(".sh"):
            command = ["bash", str(ROOT / "tools" / name)]
        else:
            command = [sys.executable, str(ROOT / "tools" / name)]
        env = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environ}
        return subprocess.run(
            [*command, *map(str, args)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout
        )

    return run


@pytest.fixture(scope="session")
def write_pairs():
    """Return a function that writes image and mask arrays as PNGs: (folder, {stem: (image, mask)})."""

    def write(folder, pairs, image_end="", mask_end=""):
        for sub in ("images", "masks"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        for stem, (image, mask) in pairs.items():
            Image.fromarray(image).save(folder / "images" / f"{stem}{image_end}.png")
            Image.fromarray(mask).save(folder / "masks" / f"{stem}{mask_end}.png")
        return str(folder / "images"), str(folder / "masks")

    return write


@pytest.fixture(scope="session")
def compiler():
    """A C++ compiler for torch.compile; tests that use it are skipped where none is installed."""
    if not has_compiler():
        reason = "no C++ compiler is installed (apt-get install g++)"
        if os.environ.get("REQUIRE_COMPILER") == "1":
            pytest.fail(f"{reason}, and REQUIRE_COMPILER=1 asks for the tests that need one")
        pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    """A Chromium that opens pages; tests that use it are skipped where none is installed."""
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        reason = "no browser is installed (apt-get install chromium)"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(f"{reason}, and REQUIRE_BROWSER=1 asks for the tests that need one")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()
