"""Every leaf below myconfigs/: a new config is tested by existing."""

import re
from collections import Counter
from pathlib import Path

import pytest
from mmcv import Config

from mmseg_ext.engine import load_config, measure_complexity
from mmseg_ext.engine.training import build_network

CONFIGS = Path(__file__).resolve().parents[2] / "myconfigs"
LEAVES = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts)
NAME = re.compile(r"[A-Z]?[a-z]+\.(tiny|small|base|b[012])\.(\d+)x\2\.[A-Z]+\.[\d.]+k(\.[a-z]+)?\.py")
MMSEG_FAMILIES = ("segformer", "segnext", "dsegnext")


def leaf(path, **options):
    return load_config(str(CONFIGS / path), options)


@pytest.mark.parametrize("path", LEAVES)
def test_name_and_length(path):
    assert NAME.fullmatch(Path(path).name)
    assert len((CONFIGS / path).read_text().splitlines()) <= 11


def test_basenames_are_unique_also_without_letter_case():
    names = Counter(Path(path).name.casefold() for path in LEAVES)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", LEAVES)
def test_builds_and_survives_dump_and_reload(path, tmp_path):
    cfg = leaf(path)
    assert cfg.custom_imports == dict(imports=["mmseg_ext"], allow_failed_imports=False)
    network = build_network(cfg, initialise=False)
    assert network.num_classes == 2
    cfg.dump(str(tmp_path / "dumped.py"))
    again = Config.fromfile(str(tmp_path / "dumped.py"))
    assert again._cfg_dict.to_dict() == cfg._cfg_dict.to_dict()


@pytest.mark.parametrize("path", [p for p in LEAVES if "1024x1024" in p])
def test_training_settings_are_the_published_ones(path):
    cfg = leaf(path)
    scratch = path.endswith(".scratch.py")
    large = ".base." in path or ".b2." in path
    assert cfg.optimizer.type == "AdamW"
    assert cfg.optimizer.betas == (0.9, 0.999)
    assert cfg.optimizer.weight_decay == 0.01
    assert cfg.optimizer.lr == (6e-4 if scratch else 6e-5)
    assert cfg.optimizer.paramwise_cfg.custom_keys == dict(norm=dict(decay_mult=0.0), head=dict(lr_mult=10.0))
    assert cfg.lr_config.warmup_iters == 1500
    assert cfg.lr_config.warmup_ratio == (1e-4 if scratch else 1e-6)
    assert (cfg.lr_config.policy, cfg.lr_config.power, cfg.lr_config.min_lr) == ("poly", 1.0, 0.0)
    assert cfg.runner.max_iters == (40000 if large else 20000)
    assert cfg.evaluation.interval == cfg.checkpoint_config.interval == cfg.runner.max_iters // 10
    assert cfg.data.samples_per_gpu == (2 if large else 4)
    assert (cfg.model.backbone.get("init_cfg") is None) == scratch
    mean = cfg.data.train.step_args.Normalize.mean
    assert mean == ([105.20, 109.26, 88.26] if ".OPM." in path else [105.066, 98.210, 74.203])
    root = "data/OpenPitMine" if ".OPM." in path else "data/DeepGlobe_1024_3"
    assert {cfg.data[split].data_root for split in ("train", "val", "test")} == {root}
    test_split = "test" if ".OPM." in path else "val"
    assert cfg.data.test.split == f"ImageSets/Segmentation/{test_split}.txt"
    assert cfg.norm_cfg.type == "SyncBN"


@pytest.mark.parametrize("size", ["t", "s", "b"])
def test_dsegnext_is_segnext_with_another_gating_unit(size):
    base = CONFIGS / "_base_" / "models"
    ours, theirs = (Config.fromfile(str(base / f"{f}_{size}.py")).model for f in ("dsegnext", "segnext"))
    assert ours.backbone.pop("gating_unit") == dict(type="HDMSCA", kernel_size=5, dilations=(1, 2, 5, 9))
    assert theirs.backbone.pop("gating_unit") == dict(type="MSCA")
    assert ours.backbone.pop("init_cfg").checkpoint.startswith("pretrained/AttentionModuleK5D1259Cat_")
    assert theirs.backbone.pop("init_cfg").checkpoint.startswith("https://download.openmmlab.com/")
    assert ours == theirs


def test_published_addresses_exist(published):
    ours = [row["config"] for row in published["methods"] if row["config"].split("/")[1] in MMSEG_FAMILIES]
    assert len(ours) == 9
    for config in ours:
        for dataset in ("OPM", "DP"):
            assert config.replace("{D}", dataset).removeprefix("myconfigs/") in LEAVES


@pytest.mark.parametrize("index", range(9))
def test_params_and_flops_equal_the_published_table(index, published):
    rows = [row for row in published["methods"] if row["config"].split("/")[1] in MMSEG_FAMILIES]
    row = rows[index]
    cost = measure_complexity(leaf(row["config"].replace("{D}", "OPM").removeprefix("myconfigs/")), 512, 512)
    assert round((cost.params + cost.imagenet_head_params) / 1e6, 2) == row["published_params_m"]
    assert round(cost.mmcv_macs / 1e9, 2) == row["published_flops_g"]
    assert cost.torchprofile_macs / 1e9 == pytest.approx(row["reference_torchprofile_g"], abs=0.005)
    assert cost.paper_counter == row["published_counter"]


def test_epfl_recipe():
    for family in ("dsegnext", "segnext"):
        cfg = leaf(f"{family}/tiny/{family}.tiny.256x256.EPFL.1.5k.py")
        assert (cfg.optimizer.lr, cfg.lr_config.warmup_iters, cfg.lr_config.warmup_ratio) == (6e-4, 150, 1e-4)
        assert (cfg.runner.max_iters, cfg.data.samples_per_gpu) == (1500, 2)
        assert cfg.data.train.step_args.RandomCrop.crop_size == (256, 256)
        assert cfg.data.train.step_args.Resize.img_scale == (400, 400)
        assert cfg.model.backbone.init_cfg is None
