import numpy as np
import pytest
import torch

from mmseg_ext.datasets import RoadDataset
from mmseg_ext.engine import load_config
from mmseg_ext.engine.loading_speed import (
    AFFINE,
    OURS,
    PLAIN,
    compared_datasets,
    measure_loading,
    measure_workers,
    write_tiles,
)
from mmseg_ext.engine.training_speed import measure_training
from mmseg_ext.errors import ConfigError


@pytest.fixture()
def cfg(tiny_config, tmp_path):
    write_tiles(str(tmp_path / "tiles"), ".jpg", count=2, size_px=64)
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


def test_speed_is_that_of_all_steps_together(cfg):
    speeds = measure_loading(compared_datasets(cfg), images=2, rounds=1)
    assert speeds[PLAIN].ratio == 1
    for speed in speeds.values():
        assert 1e3 / speed.images_per_s == pytest.approx(sum(speed.step_ms.values()))
        assert speed.ratio == pytest.approx(speed.images_per_s / speeds[PLAIN].images_per_s)
        assert min(speed.step_ms.values()) > 0
    assert list(speeds[PLAIN].step_ms)[:4] == ["LoadImageFromFile", "LoadAnnotations", "Resize", "RandomCrop"]
    assert list(speeds[AFFINE].step_ms)[:3] == ["LoadRoadImage", "LoadRoadMask", "RandomAffineCrop"]


def test_a_slower_pipeline_measures_slower(cfg):
    fast, slow = compared_datasets(cfg)[OURS], compared_datasets(cfg)[OURS]
    slow.pipeline.transforms = [*slow.pipeline.transforms, lambda item: (item, np.sort(np.random.rand(10**6)))[0]]  # noqa: NPY002
    speeds = measure_loading(dict(fast=fast, slow=slow), images=1, rounds=1)
    assert speeds["slow"].ratio < 0.7


def test_loader_with_a_worker(cfg):
    datasets = {OURS: RoadDataset(**{k: v for k, v in cfg.data.train.items() if k != "type"})}
    speeds = measure_workers(datasets, cfg, workers=1, batches=2, rounds=1)
    assert speeds[OURS].ratio == 1
    assert speeds[OURS].images_per_s > 0
    assert cfg.data.workers_per_gpu == 0


def test_training_speed(cfg):
    speeds = measure_training(cfg, ("fp32", "fp32+loop", "bf16+channels_last"), crop_px=64, batch=2, rounds=2)
    assert speeds["fp32"].ratio == 1
    assert all(speed.images_per_s > 0 and speed.peak_gib is None for speed in speeds.values())
    with pytest.raises(ConfigError, match="setting fp64: give fp32, bf16 or fp16, and after it"):
        measure_training(cfg, ("fp64",))


def test_images_of_four_bands_are_left_to_our_steps(cfg):
    cfg.data.train.step_args.Normalize = dict(mean=[0.0] * 4, std=[1.0] * 4, to_rgb=False)
    assert list(compared_datasets(cfg)) == [OURS, AFFINE]


def test_a_pipeline_without_crop_is_named(cfg):
    cfg.data.train.pipeline = [step for step in cfg.data.train.pipeline if step["type"] != "RandomCrop"]
    del cfg.data.train.step_args["RandomCrop"]
    with pytest.raises(ConfigError, match=r"tiny.py: the training pipeline has no RandomCrop"):
        compared_datasets(cfg)
