"""Every leaf below myconfigs/: a new config is tested by existing."""

import functools
import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmcv import Config
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.utils import revert_sync_batchnorm
from mmcv.runner import build_optimizer
from torch import nn

from mmseg_ext.datasets.several import part_settings
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.config import step_arguments

CONFIGS = Path(__file__).resolve().parents[2] / "myconfigs"
LEAVES = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts)
SIZES = r"(tiny|small|base|large|b[012])"
NAME = re.compile(rf"([A-Z]?[a-z]+\.{SIZES}|[a-z_]+(34|0)?)\.(\d+)x\4\.[A-Z-]+\.[\d.]+k(\.[a-z_]+)?\.py")

# Gradients that may vanish at the first step, and why
VANISHING = re.compile(
    r"backbone\.("
    # convolution biases in front of batch norm cancel out
    r"patch_embed1\.proj\.[03]\.bias|patch_embed[234]\.proj\.bias|decoder[1-4]\.(conv1|deconv2|conv3)\.bias"
    # everything behind the non-local block's closing norm, which starts at zero
    r"|nonlocal[34]\.(g\.0|theta|phi\.0|W\.0)\.(weight|bias)"
    r")"
)


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
def test_survives_dump_and_reload(path, tmp_path):
    cfg = leaf(path)
    assert cfg.custom_imports == dict(imports=["mmseg_ext"], allow_failed_imports=False)
    cfg.dump(str(tmp_path / "dumped.py"))
    again = Config.fromfile(str(tmp_path / "dumped.py"))
    assert again._cfg_dict.to_dict() == cfg._cfg_dict.to_dict()


@pytest.mark.parametrize("path", LEAVES)
def test_mmcv_alone_reads_the_pipelines_that_our_tools_use(path):
    raw, cfg = Config.fromfile(str(CONFIGS / path)), leaf(path)
    for split in ("train", "val", "test"):
        parts = [list(part_settings(data[split])) for data in (raw.data, cfg.data)]
        assert all("step_args" not in part for part in parts[0])
        assert [part["pipeline"] for part in parts[0]] == [part["pipeline"] for part in parts[1]]
    assert step_arguments(raw.data.test, "Normalize").std != [255.0] * 3


@functools.cache
def one_step(model, optimizer):
    """Train one step on a small random batch, then predict; return gradients' sizes, what moved, and the labels."""
    torch.manual_seed(0)
    cfg = Config(dict(model=json.loads(model), optimizer=json.loads(optimizer)))
    network = revert_sync_batchnorm(build_network(cfg)).train()
    for module in network.modules():
        if isinstance(module, (DropPath, nn.Dropout, nn.Dropout2d)):  # a dropped branch has no gradient
            module.eval()
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    stepper = build_optimizer(network, cfg.optimizer)
    images, labels = torch.randn(2, 3, 64, 64), torch.randint(2, (2, 1, 64, 64))
    loss, _ = network._parse_losses(network.forward_train(images, [{}] * 2, labels))
    loss.backward()
    sizes = {name: None if p.grad is None else p.grad.abs().max().item() for name, p in network.named_parameters()}
    stepper.step()
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    network.eval()
    with torch.no_grad():
        scores = network.encode_decode(images, None)
    return sizes, moved, scores


@pytest.mark.parametrize("path", LEAVES)
def test_one_training_and_one_evaluation_step(path):
    cfg = leaf(path)
    cfg.model.backbone.init_cfg = None
    sizes, moved, scores = one_step(json.dumps(cfg.model), json.dumps(cfg.optimizer))
    assert [name for name, size in sizes.items() if size is None or not math.isfinite(size)] == []
    vanished = {name for name, size in sizes.items() if size == 0}
    assert [name for name in sorted(vanished) if not VANISHING.fullmatch(name)] == []
    assert moved >= sizes.keys() - vanished
    assert scores.shape == (2, 2, 64, 64)
    assert scores.isfinite().all()


@pytest.mark.parametrize("path", [p for p in LEAVES if "1024x1024" in p])
def test_training_settings_are_the_published_ones(path):
    cfg = leaf(path)
    scratch = path.endswith((".scratch.py", ".wo_pretrain.py"))
    large = any(size in path for size in (".base.", ".large.", ".b2."))
    unet = "/unet." in path
    assert cfg.optimizer.type == "AdamW"
    assert cfg.optimizer.betas == (0.9, 0.999)
    assert cfg.optimizer.weight_decay == 0.01
    assert cfg.optimizer.lr == (6e-4 if scratch else 2e-4 if unet else 6e-5)
    assert cfg.optimizer.paramwise_cfg.custom_keys == dict(norm=dict(decay_mult=0.0), head=dict(lr_mult=10.0))
    assert cfg.lr_config.warmup_iters == 1500
    assert cfg.lr_config.warmup_ratio == (1e-4 if scratch else 1e-6)
    assert (cfg.lr_config.policy, cfg.lr_config.power, cfg.lr_config.min_lr) == ("poly", 1.0, 0.0)
    assert cfg.runner.max_iters == (40000 if large else 20000)
    assert cfg.evaluation.interval == cfg.checkpoint_config.interval == cfg.runner.max_iters // 10
    assert cfg.data.samples_per_gpu == (2 if large or "/dunet." in path else 4)
    assert (cfg.model.backbone.get("init_cfg") is None) == (scratch or unet)
    losses = cfg.model.decode_head.loss_decode
    dice = [(loss.type, loss.loss_weight) for loss in losses] if isinstance(losses, list) else losses.type
    with_dice = [("CrossEntropyLoss", 1.0), ("DiceLoss", 3.0)]
    assert dice == (with_dice if unet or "/linknet34." in path else "CrossEntropyLoss")
    mean = step_arguments(cfg.data.train, "Normalize").mean
    assert mean == ([105.20, 109.26, 88.26] if ".OPM." in path else [105.066, 98.210, 74.203])
    root = "data/OpenPitMine" if ".OPM." in path else "data/DeepGlobe_1024_3"
    assert {cfg.data[split].data_root for split in ("train", "val", "test")} == {root}
    test_split = "test" if ".OPM." in path else "val"
    assert cfg.data.test.split == f"ImageSets/Segmentation/{test_split}.txt"
    assert ("norm_cfg" in cfg and cfg.norm_cfg.type == "SyncBN") == ("linknets/" not in path)


@pytest.mark.parametrize("size", ["t", "s", "b", "l"])
def test_dsegnext_is_segnext_with_another_gating_unit(size):
    base = CONFIGS / "_base_" / "models"
    ours, theirs = (Config.fromfile(str(base / f"{f}_{size}.py")).model for f in ("dsegnext", "segnext"))
    assert ours.backbone.pop("gating_unit") == dict(type="HDMSCA", kernel_size=5, dilations=(1, 2, 5, 9))
    assert theirs.backbone.pop("gating_unit") == dict(type="MSCA")
    assert ours.backbone.pop("init_cfg").checkpoint.startswith("pretrained/")
    assert theirs.backbone.pop("init_cfg").checkpoint.startswith("https://download.openmmlab.com/")
    assert ours == theirs


def test_published_addresses_exist(published):
    for row in published["methods"]:
        for dataset in ("OPM", "DP"):
            assert row["config"].replace("{D}", dataset).removeprefix("myconfigs/") in LEAVES


def test_all_eight_methods_have_the_same_epfl_recipe():
    paths = [path for path in LEAVES if ".EPFL." in path]
    assert len(paths) == 8
    for path in paths:
        cfg = leaf(path)
        short, plain = "/dunet." in path, "unet." in path
        assert cfg.optimizer.lr == (2e-4 if plain else 6e-4)
        assert (cfg.lr_config.warmup_iters, cfg.lr_config.warmup_ratio) == (20 if short else 150, 1e-4)
        assert (cfg.runner.max_iters, cfg.data.samples_per_gpu) == (200 if short else 1500, 2)
        assert step_arguments(cfg.data.train, "RandomCrop").crop_size == (256, 256)
        assert step_arguments(cfg.data.train, "Resize").img_scale == (400, 400)
        assert cfg.model.backbone.init_cfg is None
