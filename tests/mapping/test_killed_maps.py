"""A mapping that is killed at random moments ends like one that never was. At length: MAP_KILLS=20."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from mmcv import Config

from mmseg_ext.engine import train
from mmseg_ext.geo import write_geotiff
from mmseg_ext.mapping import TilePlan

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("MAP_KILLS", 3))
STRIPS = len(TilePlan(1200, 480, 64, 16, stride=32).rows)


def test_killed_maps_equal_a_straight_one(one_config, tmp_path, root):
    cfg = Config.fromfile(str(one_config))
    cfg.runner.max_iters = 2
    checkpoint = os.path.join(train(cfg, str(tmp_path / "run"), validate=False), "latest.pth")
    random = np.random.default_rng(0)
    values = random.integers(0, 255, (150, 60, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    write_geotiff(str(tmp_path / "pit.tif"), values, "EPSG:32719", (0.5, 0, 4e5, 0, -0.5, 7e6))
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(out):
        options = ["--tile", "64", "--overlap", "16", "--batch", "1", "--scale", "1", "--backend", "torch"]
        return [sys.executable, "tools/predict.py", checkpoint, str(tmp_path / "pit.tif"), "--out", str(out), *options]

    subprocess.run(command(tmp_path / "straight"), cwd=root, env=environ, check=True, capture_output=True)
    killed = done = 0
    while killed < KILLS:
        folder = tmp_path / f"broken{killed}"
        process = subprocess.Popen(
            command(folder), cwd=root, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        strips = random.integers(0, STRIPS + 1)  # while tiles are mapped, strips written, or the map put together
        parts = folder / "pit.parts"
        while (not parts.is_dir() or len(list(parts.glob("*.npz"))) < strips) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            done += 1
            assert done < KILLS + 5, "the mapping is too fast to be killed"
        killed += 1
        if not (folder / "pit.json").exists():
            subprocess.run(command(folder), cwd=root, env=environ, check=True, capture_output=True)
        for layer in ("roads", "probability"):
            with (
                rasterio.open(tmp_path / "straight" / f"pit_{layer}.tif") as one,
                rasterio.open(folder / f"pit_{layer}.tif") as other,
            ):
                assert np.array_equal(one.read(), other.read()) and one.transform == other.transform
        one, other = (json.loads((where / "pit.json").read_text()) for where in (tmp_path / "straight", folder))
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
        assert sorted(os.listdir(folder)) == sorted(os.listdir(tmp_path / "straight"))
    assert done < KILLS, "no run was killed"
