import pytest

from mmseg_ext.engine import load_config
from mmseg_ext.errors import ConfigError


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


def test_options_are_merged(tiny_config):
    cfg = load_config(str(tiny_config), {"optimizer.lr": 0.5, "model.backbone.depths": (1, 1, 1, 2)})
    assert cfg.optimizer.lr == 0.5
    assert cfg.model.backbone.depths == (1, 1, 1, 2)
    assert cfg.model.backbone.type == "MSCAN"


@pytest.mark.parametrize("text", ["model = (", "raise ValueError('no')", "_base_ = 'missing.py'", "a = 1"])
def test_a_file_that_is_no_config_is_named_in_one_line(tmp_path, text):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
