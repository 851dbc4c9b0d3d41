import math

import pytest
import torch
from safetensors.torch import save_file

from mmseg_ext.engine import build_network, load_config, train
from mmseg_ext.engine.config import (
    batch_settings,
    config_of_checkpoint,
    fitting_config,
    read_config_text,
    with_our_names,
)
from mmseg_ext.engine.weights import load_weights
from mmseg_ext.errors import CheckpointError, ConfigError

# as mmcv writes it into the checkpoints of the paper: old type names, upper-case Hamburger arguments
PUBLISHED = """\
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained=None,
    backbone=dict({backbone}),
    decode_head=dict({head}, in_index=[{index}], num_classes=2, align_corners=False, dropout_ratio=0.1,
        norm_cfg=dict(type='GN', num_groups=32, requires_grad=True), loss_decode={loss}),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
dataset_type = 'RoadDataset'
data_root = '../data/OpenPitMine'
img_norm_cfg = dict(mean=[105.2, 109.26, 88.26], std=[44.23, 36.57, 38.39], to_rgb=True)
data = dict(
    samples_per_gpu=4,
    test=dict(
        type='RoadDataset', data_root='../data/OpenPitMine', split='ImageSets/Segmentation/test.txt',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='MultiScaleFlipAug', img_scale=(1280, 1280), flip=False, transforms=[
                dict(type='Normalize', mean=[105.2, 109.26, 88.26], std=[44.23, 36.57, 38.39], to_rgb=True)])]))
optimizer = dict(type='AdamW', lr=6e-05, betas=(0.9, 0.999), paramwise_cfg=dict(custom_keys=dict(
    pos_block=dict(decay_mult=0.0), head=dict(lr_mult=10.0))))
gpu_ids = range_start = -1
load_from = None
"""
CROSS_ENTROPY = "dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)"
WITH_DICE = f"[{CROSS_ENTROPY}, dict(type='DiceLoss', loss_name='loss_dice', loss_weight=3.0)]"
HAM = (
    "type='LightHamHead', in_channels=[{widths}], channels={ham}, ham_channels={ham}, ham_kwargs=dict(MD_R={rank}, "
    "SPATIAL=True, MD_S=1, MD_D=512, TRAIN_STEPS=6, EVAL_STEPS=7, INV_T=100, ETA=0.9, RAND_INIT=True)"
)
TINY = "embed_dims=[32, 64, 160, 256], mlp_ratios=[8, 8, 4, 4], drop_rate=0.0, drop_path_rate=0.1, depths=[3, 3, 5, 2]"
SYNC = "norm_cfg=dict(type='SyncBN', requires_grad=True)"
SIMPLE = "type='SimpleHead', in_channels={width}, channels={width}"
TEXTS = {
    "dsegnext_t": (f"type='DCAN', {TINY}, {SYNC}", HAM.format(widths="64, 160, 256", ham=256, rank=16), "1, 2, 3"),
    "segnext_t": (f"type='MSCAN', {TINY}, {SYNC}", HAM.format(widths="64, 160, 256", ham=256, rank=16), "1, 2, 3"),
    "linknet34": ("type='LinkNet34'", SIMPLE.format(width=32), None),
    "dlinknet34": ("type='DinkNet34'", SIMPLE.format(width=32), None),
    "nl_linknet34": ("type='NL34_LinkNet'", SIMPLE.format(width=32), None),
    "dunet": ("type='Dunet'", SIMPLE.format(width=64), None),
    "unet": ("type='UNet2'", SIMPLE.format(width=8), None),
}


def published_text(name):
    backbone, head, index = TEXTS[name]
    loss = WITH_DICE if name in ("linknet34", "unet") else CROSS_ENTROPY
    text = PUBLISHED.format(backbone=backbone, head=head, index=index, loss=loss)
    return text.replace("in_index=[None]", "in_index=0")


@pytest.mark.parametrize(
    ("wrong", "closest"),
    [
        ("myconfigs/dsegnext/tiny/dsegnext.tiny.1024x1024.OPM.20k.py", "Dsegnext.tiny.1024x1024.OPM.20k.py"),
        ("myconfigs/segnext/tiny/segnext.tiny.1024x1024.OPM.2k.py", "segnext.tiny.1024x1024.OPM.20k.py"),
        ("segformer.b1.1024x1024.DP.py", "segformer.b1.1024x1024.DP.20k.py"),
    ],
)
def test_unknown_path_is_answered_with_the_closest(wrong, closest):
    with pytest.raises(ConfigError, match="no such config; did you mean") as error:
        load_config(wrong)
    assert str(error.value).endswith(f"{closest}?")
    assert "\n" not in str(error.value)


def test_what_is_like_nothing_gets_no_guess():
    with pytest.raises(ConfigError, match="nosuch.py: no such config; docs/model_zoo.md lists them"):
        load_config("nosuch.py")


def test_a_checkpoint_is_no_config(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match="a.safetensors: is a checkpoint, not a config; give a config first"):
        load_config(str(tmp_path / "a.safetensors"))


def test_a_neighbour_is_closer_than_our_configs(tmp_path):
    (tmp_path / "my_mine.py").write_text("")
    with pytest.raises(ConfigError, match=r"did you mean .*/my_mine.py\?"):
        load_config(str(tmp_path / "my_mien.py"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runner.max_itres": 5}, "max_itres"),
        ({"runner.max_iters": "abc"}, "runner.max_iters='abc' is not an integer"),
        ({"optimizer.lr": "fast"}, "a setting does not fit"),
        ({"data.samples_per_gpu": 0}, "batch_size"),
        ({"model.backbone.depth": 3}, "depth"),
        ({"model.backbone.gating_unit.type": "HDMSCAA"}, "HDMSCAA"),
        ({"optimizer.type": "AdamX"}, "AdamX"),
        ({"precision": "fp8"}, "precision='fp8' is unknown"),
    ],
)
def test_a_setting_that_does_not_fit_is_said_in_one_line(tiny_config, tmp_path, options, words):
    with pytest.raises(ConfigError, match=words) as error:
        train(load_config(str(tiny_config), options), str(tmp_path / "run"))
    assert "\n" not in str(error.value)


def test_options_are_merged(tiny_config):
    cfg = load_config(str(tiny_config), {"optimizer.lr": 0.5, "model.backbone.depths": (1, 1, 1, 2)})
    assert cfg.optimizer.lr == 0.5
    assert cfg.model.backbone.depths == (1, 1, 1, 2)
    assert cfg.model.backbone.type == "MSCAN"


def test_an_option_below_none_makes_room(tiny_config, tmp_path):
    assert load_config(str(tiny_config)).model.backbone.init_cfg is None
    encoder = str(tmp_path / "encoder.pth")
    cfg = load_config(str(tiny_config), {"model.backbone.init_cfg.checkpoint": encoder})
    assert cfg.model.backbone.init_cfg == dict(checkpoint=encoder)
    with pytest.raises(CheckpointError, match="encoder.pth: no such pretrained encoder"):
        build_network(cfg)
    source = build_network(load_config(str(tiny_config)))
    torch.save(dict(state_dict=source.backbone.state_dict()), encoder)
    own = build_network(cfg).backbone.state_dict()
    assert all(torch.equal(own[key], value) for key, value in source.backbone.state_dict().items())


@pytest.mark.parametrize("text", ["model = (", "raise ValueError('no')", "_base_ = 'missing.py'", "a = 1"])
def test_a_file_that_is_no_config_is_named_in_one_line(tmp_path, text):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", TEXTS)
def test_published_checkpoints_bring_their_network(name, seeded_state, tmp_path):
    state, path = seeded_state(name), str(tmp_path / "published.pth")
    torch.save(dict(state_dict=state, meta=dict(config=published_text(name), CLASSES=("background", "road"))), path)
    cfg = config_of_checkpoint(path, {"data.test.data_root": "data/mine"})
    assert cfg.data.test.data_root == "data/mine"
    assert cfg.data.test.pipeline[1].img_scale == (1280, 1280)
    network = build_network(cfg, initialise=False)
    network.load_state_dict(state, strict=True)
    if name in ("dsegnext_t", "segnext_t"):
        assert network.decode_head.hamburger.fixed_bases.shape == (1, 256, 16)


def test_the_rank_of_a_published_head_without_arguments_is_64():
    head = dict(type="LightHamHead", ham_channels=512)
    assert with_our_names(dict(backbone=dict(type="DCAN"), decode_head=head))["decode_head"] == head


def test_an_old_config_file_loads(tmp_path):
    path = tmp_path / "old.py"
    path.write_text(published_text("dlinknet34"))
    cfg = load_config(str(path), {"model.decode_head.num_classes": 3})
    assert cfg.model.backbone.type == "DLinkNet34"
    assert (cfg.model.decode_head.type, cfg.model.decode_head.num_classes) == ("FCNHead", 3)


def test_our_own_checkpoints_bring_their_config(tiny_config, tmp_path):
    cfg = load_config(str(tiny_config))
    torch.save(dict(state_dict={"a": torch.zeros(1)}, meta=dict(config=cfg.pretty_text)), tmp_path / "own.pth")
    again = config_of_checkpoint(str(tmp_path / "own.pth"))
    assert again._cfg_dict.to_dict() == cfg._cfg_dict.to_dict()


def test_literals_names_and_dicts_are_read():
    text = (
        '"""A config."""\na = [1, -2.5, (3,), {4}]\nb = {"x": a, **dict(y=None, z=inf)}\nc = d = dict({"k": True}, **b)'
    )
    values = read_config_text(text)
    assert values["a"] == [1, -2.5, (3,), {4}]
    assert values["c"] == values["d"] == dict(k=True, x=values["a"], y=None, z=math.inf)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = open('/etc/passwd').read()", "line 1: 'open\\('/etc/passwd'\\).read\\(\\)' is not a literal"),
        ("import os", "line 1: 'import os' is not an assignment"),
        ("a = 1\nmodel = __import__('os').system('true')", "line 2: .* is not a literal"),
        ("model = [x for x in (1, 2)]", "is not a literal"),
        ("a = 9 ** 9 ** 9", "is not a literal"),
        ("a = b", "'b' is not a literal"),
        ("a.b = 1", "is not an assignment"),
        ("a = dict(**1)", "unsupported operand|not"),
        ("a = -'x'", "is not a literal"),
        ("a = {[]: 1}", "unhashable"),
        ("a = (", "was never closed"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested|depth|recursion|Error"),
    ],
)
def test_what_would_have_to_be_executed_is_refused(text, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        read_config_text(text)
    torch.save(dict(state_dict={"a": torch.zeros(1)}, meta=dict(config=text)), tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="evil.pth: the config inside cannot be used .*give one") as error:
        config_of_checkpoint(str(tmp_path / "evil.pth"))
    assert "\n" not in str(error.value)


def test_an_encoder_is_no_segmentation_network(build, tmp_path):
    network = build("dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py")
    path = str(tmp_path / "encoder.pth")
    torch.save(dict(state_dict=network.backbone.state_dict()), path)
    for refuse in (config_of_checkpoint, lambda path: load_weights(network, path)):
        with pytest.raises(CheckpointError, match="is an encoder, .* model.backbone.init_cfg.checkpoint="):
            refuse(path)


def test_a_checkpoint_without_config_says_which_one_its_weights_fit(build, tmp_path):
    state = build("linknets/unet.1024x1024.OPM.20k.py").state_dict()
    save_file(state, str(tmp_path / "bare.safetensors"))
    with pytest.raises(CheckpointError, match="contains no config; give one with the model of myconfigs/linknets/unet"):
        config_of_checkpoint(str(tmp_path / "bare.safetensors"))


def test_weights_of_nobody_fit_no_config():
    assert fitting_config({"a": torch.zeros(1)}) is None


def test_a_published_config_is_found_by_name_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    by_name = load_config("dsegnext.tiny.1024x1024.OPM.20k")
    assert by_name.filename.endswith("myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py")
    assert load_config("segformer.b0.1024x1024.DP.20k.py").model.backbone.type == "MixVisionTransformer"
    with pytest.raises(ConfigError, match=r"did you mean .*dsegnext\.tiny\.1024x1024\.OPM\.20k\.scratch\.py"):
        load_config("dsegnext.tiny.1024x1024.OPM.20k.scrach")


def test_the_training_loader_has_settings_of_its_own(tiny_config):
    assert batch_settings(load_config(str(tiny_config)))["samples_per_gpu"] == 2
    own = {"data.train_dataloader": dict(samples_per_gpu=3)}
    settings = batch_settings(load_config(str(tiny_config), own))
    assert (settings["samples_per_gpu"], settings["workers_per_gpu"]) == (3, 0)
