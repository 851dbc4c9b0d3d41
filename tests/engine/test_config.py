import pytest
import torch

from mmseg_ext.engine import build_network, load_config, train
from mmseg_ext.errors import CheckpointError, ConfigError


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
        ({"runner.max_iters": "abc"}, "runner.max_iters='abc' is no whole number"),
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
