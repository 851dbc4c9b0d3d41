"""A student with its decode head learns the road probabilities of a trained network."""

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mmseg_ext.deploy.trained import load_trained
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.checkpoint import read_checkpoint, write_checkpoint
from mmseg_ext.errors import ConfigError
from mmseg_ext.pretrain.distillation import distil
from mmseg_ext.pretrain.settings import DistilSettings
from mmseg_ext.pretrain.soft_labels import SoftLabels

CONFIG = "dsegnext.tiny.256x256.EPFL.1.5k"
SIZES = {
    "model.backbone.embed_dims": (8, 16, 24, 32),
    "model.backbone.depths": (1, 1, 1, 1),
    "model.backbone.mlp_ratios": (2, 2, 2, 2),
    "model.decode_head.in_channels": [16, 24, 32],
    "model.decode_head.channels": 32,
    "model.decode_head.ham_channels": 32,
    "model.decode_head.ham_cfg.rank": 4,
}
QUICK = DistilSettings(
    steps=4, warmup_steps=1, batch_size=2, crop_size=64, workers=0, log_interval=1, eval_interval=2, save_interval=2
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The checkpoint of a small segmentor with its config inside."""
    cfg = load_config(CONFIG, SIZES)
    torch.manual_seed(0)
    network = build_network(cfg)
    path = str(tmp_path_factory.mktemp("trained") / "iter_9.pth")
    write_checkpoint(dict(meta=dict(config=cfg.pretty_text), state_dict=network.state_dict()), path)
    return path


def facts(**more):
    settings = dict(classes=("background", "road"), bands=3, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 5.0), to_rgb=True)
    return SimpleNamespace(**{**settings, **more})


class Segmentor(nn.Module):
    """Scores from the bands as they come: a 1x1 convolution with fixed weights."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.tensor(weights)

    def encode_decode(self, image, metas):
        return torch.einsum("kc,bchw->bkhw", self.weights, image)


class Head(nn.Module):
    num_classes, align_corners = 2, False

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, features):
        return features[0][:, : self.outputs]


@pytest.mark.parametrize("to_rgb", [True, False])
@pytest.mark.parametrize("teacher, student", [(2, 2), (1, 2), (2, 1), (1, 1)])
def test_the_loss_is_the_cross_entropy_to_the_probabilities(teacher, student, to_rgb):
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.1, (teacher, 3)).astype(np.float32)
    image = rng.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    answers = rng.normal(0, 1, (2, 2, 8, 8)).astype(np.float32)
    known = facts(to_rgb=to_rgb)
    soft = SoftLabels(Head(student), Segmentor(weights), known, "x.pth")
    loss = soft([torch.from_numpy(answers)], torch.from_numpy(image)).item()

    bands = image if to_rgb else image[:, ::-1]
    x = (bands - np.reshape(known.mean, (3, 1, 1))) / np.reshape(known.std, (3, 1, 1))
    scores = np.einsum("kc,bchw->bkhw", weights, x)
    road = 1 / (1 + np.exp(-(scores[:, -1] - (scores[:, 0] if teacher == 2 else 0))))
    assert 0.1 < road.std()
    np.testing.assert_allclose(soft.labels(torch.from_numpy(image))[:, 1].numpy(), road, atol=1e-4)
    margin = answers[:, 0] if student == 1 else answers[:, 1] - answers[:, 0]
    guess = 1 / (1 + np.exp(-margin))
    assert loss == pytest.approx(-(road * np.log(guess) + (1 - road) * np.log(1 - guess)).mean(), rel=1e-4)


def test_the_whole_network_and_its_encoder_come_out(trained, images, teacher_file, tmp_path):
    given = dict(teacher_weights=teacher_file, soft_labels=trained, options=SIZES)
    straight, stopped = (str(tmp_path / name) for name in ("straight", "stopped"))
    distil(CONFIG, [str(images)], "test_efficientnet", QUICK, straight, **given)
    _, network, known = load_trained(os.path.join(straight, "segmentor.pth"))
    assert known.classes == ("background", "road") and known.mean == (105.2, 109.26, 88.26)
    encoder = read_checkpoint(os.path.join(straight, "encoder.safetensors"))["state_dict"]
    assert encoder.keys() == network.backbone.state_dict().keys()
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(encoder[key], value.half() if value.is_floating_point() else value), key
    before = read_checkpoint(trained)["state_dict"]
    assert not torch.equal(network.decode_head.conv_seg.weight, before["decode_head.conv_seg.weight"])
    # the head is resumed as well
    distil(CONFIG, [str(images)], "test_efficientnet", QUICK, stopped, **given)
    os.remove(os.path.join(stopped, "iter_4.pth"))
    distil(CONFIG, [str(images)], "test_efficientnet", QUICK, stopped, auto_resume=True, **given)
    one, other = (read_checkpoint(os.path.join(run, "segmentor.pth"))["state_dict"] for run in (straight, stopped))
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def test_what_does_not_fit_is_one_line(trained, images, tmp_path):
    with pytest.raises(ConfigError, match="x.pth: knows 3 classes, the student's head 2; make them equal"):
        SoftLabels(Head(2), Segmentor([[0.0]]), facts(classes=("a", "b", "c")), "x.pth")
    with pytest.raises(ConfigError, match="x.pth: takes 4 bands, but the crops have 3"):
        SoftLabels(Head(2), Segmentor([[0.0]]), facts(bands=4), "x.pth")
    with pytest.raises(ConfigError, match="--soft-labels: dsegnext_tiny is an encoder without a head; give a config"):
        settings = dataclasses.replace(QUICK, steps=2)
        distil("dsegnext_tiny", [str(images)], "test_efficientnet", settings, str(tmp_path), soft_labels=trained)
