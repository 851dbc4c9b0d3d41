import itertools

import loading
import numpy as np
import pytest
import torch
from loading import AFFINE, OURS, PLAIN, compared_datasets, loader_seconds, step_seconds, tables, write_tiles

from mmseg_ext.engine import load_config
from mmseg_ext.engine.config import step_arguments
from mmseg_ext.errors import ConfigError


@pytest.fixture()
def cfg(tiny_config, tmp_path):
    write_tiles(str(tmp_path / "tiles"), jpeg=True, tile_px=64, count=2)
    return load_config(str(tiny_config), {"data.train.data_root": str(tmp_path / "tiles")})


def test_all_pipelines_give_what_training_takes(cfg):
    datasets = compared_datasets(cfg)
    assert list(datasets) == [PLAIN, OURS, AFFINE]
    for dataset in datasets.values():
        assert len(dataset) == 2
        item = dataset[0]
        assert item["img"].data.shape == (3, 64, 64)
        assert item["img"].data.dtype == torch.float32
        assert item["gt_semantic_seg"].data.dtype == torch.int64
        assert set(np.unique(item["gt_semantic_seg"].data)) <= {0, 1, 255}


def test_every_step_of_every_pipeline_is_timed(cfg):
    seconds = step_seconds(compared_datasets(cfg), images=2, rounds=3)
    assert {name: len(rounds) for name, rounds in seconds.items()} == {PLAIN: 3, OURS: 3, AFFINE: 3}
    assert list(seconds[PLAIN][0])[:4] == ["LoadImageFromFile", "LoadAnnotations", "Resize", "RandomCrop"]
    assert list(seconds[AFFINE][0])[:3] == ["LoadRoadImage", "LoadRoadMask", "RandomAffineCrop"]
    assert all(min(one.values()) > 0 for rounds in seconds.values() for one in rounds)


def test_a_step_counts_what_its_calls_take(cfg, monkeypatch):
    """Every look at the clock is a second, so a step takes one for every image."""
    ticks = itertools.count()
    monkeypatch.setattr(loading.time, "perf_counter", lambda: next(ticks))
    page = tables(cfg, workers=0, images=4, rounds=1)
    steps = len(compared_datasets(cfg)[OURS].pipeline.transforms)
    plain = len(compared_datasets(cfg)[PLAIN].pipeline.transforms)
    assert f"| {OURS} | {1 / steps:.1f} | {plain / steps:.2f} |" in page
    assert f"| {PLAIN} | {1 / plain:.1f} | 1.00 |" in page
    assert "| LoadRoadImage |  | 1000.00 | 1000.00 |" in page


def test_loader_with_a_worker(cfg):
    found = loader_seconds({OURS: compared_datasets(cfg)[OURS]}, cfg, workers=1, batches=2, rounds=2)
    assert list(found) == [OURS] and len(found[OURS]) == 2
    assert cfg.data.workers_per_gpu == 0


def test_images_of_four_bands_are_left_to_our_steps(cfg):
    step_arguments(cfg.data.train, "Normalize").update(mean=[0.0] * 4, std=[1.0] * 4, to_rgb=False)
    assert list(compared_datasets(cfg)) == [OURS, AFFINE]


def test_a_pipeline_without_crop_is_named(cfg):
    cfg.data.train.pipeline = [step for step in cfg.data.train.pipeline if step["type"] != "RandomCrop"]
    with pytest.raises(ConfigError, match=r"tiny.py: the training pipeline has no RandomCrop"):
        compared_datasets(cfg)
