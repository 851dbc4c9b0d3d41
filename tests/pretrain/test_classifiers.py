"""The encoders in timm's registry: sizes, keys, weights in and out."""

import pytest
import timm
import torch
from mmcv import Config

from mmseg_ext.errors import CheckpointError, ConfigError
from mmseg_ext.models.mscan import MSCAN
from mmseg_ext.pretrain.classifiers import CLASSIFIERS, Classifier, create_classifier, load_classifier

TINY = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2))


def encoder_of(config, root):
    settings = dict(Config.fromfile(str(root / "myconfigs" / "_base_" / "models" / config)).model.backbone)
    for key in ("type", "norm_cfg", "init_cfg"):
        settings.pop(key)
    return MSCAN(**settings)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_name_is_its_configs_encoder_and_a_head(name, root):
    with torch.device("meta"):  # sizes only
        model = timm.create_model(name)
        encoder = encoder_of(CLASSIFIERS[name], root)
    assert timm.is_model(name)
    keys = {key: value.shape for key, value in model.state_dict().items()}
    head = {key: keys.pop(key) for key in ("head.weight", "head.bias")}
    assert keys == {key: value.shape for key, value in encoder.state_dict().items()}
    assert sum(shape.numel() for shape in head.values()) == encoder.imagenet_head_params
    params = sum(value.numel() for value in model.parameters())
    assert params == sum(value.numel() for value in encoder.parameters()) + encoder.imagenet_head_params
    units = {type(block.attn.spatial_gating_unit).__name__ for block in model.block1}
    assert units == {"HDMSCA" if name.startswith("dsegnext") else "MSCA"}


def test_timms_interface():
    model = timm.create_model("dsegnext_tiny", num_classes=10, drop_path_rate=0.2, in_chans=4, **TINY).eval()
    assert (model.pretrained_cfg["crop_pct"], model.default_cfg["input_size"]) == (0.9, (3, 224, 224))
    assert model.block4[0].drop_path.drop_prob == 0.2
    x = torch.rand(2, 4, 64, 64)
    features = model.forward_features(x)
    assert features.shape == (2, 32, 2, 2)
    pooled = features.mean((2, 3))
    assert torch.equal(model.forward_head(features, pre_logits=True), pooled)
    expected = pooled @ model.get_classifier().weight.T + model.get_classifier().bias
    assert torch.allclose(model(x), expected, atol=1e-6)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)
    stages = timm.create_model("dsegnext_tiny", features_only=True, out_indices=(1, 3), **TINY)
    assert [tuple(f.shape) for f in stages(x[:, :3])] == [(2, 16, 8, 8), (2, 32, 2, 2)]
    assert stages.feature_info.channels() == [16, 32]
    assert stages.feature_info.reduction() == [8, 32]


def test_options_reach_the_gating_unit():
    model = create_classifier("dsegnext_tiny", 2, {**TINY, "gating_unit.gate": False, "attention_residual": False})
    assert model.block1[0].attn.spatial_gating_unit.gate is False
    assert model.block1[0].attn.spatial_gating_unit.num_scales == 4
    assert model.block1[0].attn.residual is False
    with pytest.raises(ConfigError, match="dsegnext_tiny: a model option does not fit: .*embed_dim"):
        create_classifier("dsegnext_tiny", 2, dict(embed_dim=3))
    with pytest.raises(ConfigError, match="model 'dsegnext_tin' is unknown; did you mean dsegnext_tiny"):
        create_classifier("dsegnext_tin", 2)
    with pytest.raises(ConfigError, match="global_pool='max'"):
        Classifier(2, global_pool="max", **TINY)


def test_no_weights_to_download_but_a_file_loads(tmp_path):
    with pytest.raises(CheckpointError, match="segnext_tiny: no weights can be downloaded; give a file"):
        timm.create_model("segnext_tiny", pretrained=True)
    source = create_classifier("segnext_tiny", 5, TINY)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / "w.pth")
    model = timm.create_model("segnext_tiny", num_classes=5, checkpoint_path=str(tmp_path / "w.pth"), **TINY)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("shorter_key", [False, True])
def test_a_published_encoder_file_loads_strictly(tmp_path, shorter_key):
    torch.manual_seed(1)
    source = create_classifier("dsegnext_tiny", 7, TINY).state_dict()
    published = {
        key.replace(".mlp.dwconv.dwconv.", ".mlp.dwconv.") if shorter_key else key: value
        for key, value in source.items()
    }
    assert {"patch_embed1.proj.0.weight", "block1.0.norm1.weight", "norm4.bias", "head.weight"} <= published.keys()
    path = str(tmp_path / "encoder.pth")
    torch.save(dict(state_dict=published), path)
    torch.manual_seed(2)
    model = create_classifier("dsegnext_tiny", 7, TINY)
    load_classifier(model, "dsegnext_tiny", path)
    assert all(torch.equal(value, source[key]) for key, value in model.state_dict().items())
    # and through torch's own strict loading
    assert not any(create_classifier("dsegnext_tiny", 7, TINY).load_state_dict(published))


def test_weights_that_do_not_fit(tmp_path):
    source = create_classifier("dsegnext_tiny", 7, TINY)
    path = str(tmp_path / "w.pth")
    torch.save(dict(state_dict=source.state_dict(), meta=dict(architecture="dsegnext_tiny")), path)
    with pytest.raises(CheckpointError, match=r"w.pth: holds dsegnext_tiny, not segnext_tiny; give --model dsegnext"):
        load_classifier(create_classifier("segnext_tiny", 7, TINY), "segnext_tiny", path)
    with pytest.raises(CheckpointError, match=r"w.pth: classifies 7 classes, the data has 3"):
        load_classifier(create_classifier("dsegnext_tiny", 3, TINY), "dsegnext_tiny", path)
    with pytest.raises(CheckpointError, match=r"w.pth: does not fit dsegnext_tiny: .*reshaped"):
        wider = {**TINY, "embed_dims": (8, 16, 24, 40)}
        load_classifier(create_classifier("dsegnext_tiny", 7, wider), "dsegnext_tiny", path)
