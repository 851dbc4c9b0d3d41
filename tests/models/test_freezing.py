"""Frozen stages of an encoder: neither weights nor statistics move, and the rest trains."""

import pytest
import torch

from mmseg_ext.engine import load_config, train
from mmseg_ext.engine.checkpoint import read_checkpoint
from mmseg_ext.errors import ConfigError
from mmseg_ext.models.linknet import LinkNet34, NLLinkNet34
from mmseg_ext.models.mscan import MSCAN

SMALL = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2))


def first_names(count):
    return tuple(f"{part}{i}." for part in ("patch_embed", "block", "norm") for i in range(1, count + 1))


@pytest.mark.parametrize("count", [-1, 0, 1, 3, 4])
def test_the_first_stages_take_no_gradient_and_stay_in_evaluation_mode(count):
    network = MSCAN(**SMALL, frozen_stages=count, drop_path_rate=0.5).train()
    frozen = first_names(count)
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen or ("none",))
    for name, module in network.named_modules():
        if name:
            assert module.training != f"{name}.".startswith(frozen or ("none",)), name
    assert not any(module.training for module in network.eval().modules())


def test_links_freeze_their_encoder_only():
    network = NLLinkNet34(frozen_stages=3).train()
    frozen = {name.split(".")[0] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"firstconv", "firstbn", "encoder1", "encoder2", "encoder3"}
    assert network.encoder4.training and network.nonlocal3.training and not network.firstbn.training


@pytest.mark.parametrize("build", [lambda n: MSCAN(**SMALL, frozen_stages=n), lambda n: LinkNet34(frozen_stages=n)])
def test_more_stages_than_there_are(build):
    with pytest.raises(ConfigError, match="frozen_stages=5: the encoder has 4 stages; give 0 to 4"):
        build(5)


def test_training_moves_the_rest(tiny_config, tmp_path):
    cfg = load_config(str(tiny_config), {"model.backbone.frozen_stages": 2, "optimizer.lr": 1e-2})
    cfg.checkpoint_config.update(interval=1, max_keep_ckpts=9)
    folder = train(cfg, str(tmp_path / "run"), validate=False)
    first, last = (read_checkpoint(f"{folder}/iter_{i}.pth")["state_dict"] for i in (1, 4))
    frozen = tuple(f"backbone.{name}" for name in first_names(2))
    moved = {key for key, value in first.items() if not torch.equal(value, last[key])}
    assert not any(key.startswith(frozen) for key in moved)
    trained = [key for key in first if not key.startswith(frozen) and key.endswith(("weight", "bias"))]
    assert len(moved.intersection(trained)) > 0.9 * len(trained)
