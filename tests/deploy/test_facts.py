"""What an exported network says of itself."""

import json

import numpy as np
import pytest

from mmseg_ext import __version__
from mmseg_ext.datasets.reading import ImageReading
from mmseg_ext.deploy.facts import NetworkFacts
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.checkpoint import weights_sha256
from mmseg_ext.engine.config import step_arguments
from mmseg_ext.errors import ConfigError


@pytest.fixture(scope="module")
def cfg(one_config):
    return load_config(str(one_config))


@pytest.fixture(scope="module")
def network(cfg):
    return build_network(cfg)


def test_facts_come_from_config_checkpoint_and_network(cfg, network):
    meta = dict(image=dict(bands=[5, 3, 2], low=[0.0], high=[4000.0]), gsd_m=0.25)
    facts = NetworkFacts.of(cfg, meta, network)
    assert facts == NetworkFacts(
        classes=("background", "road"),
        palette=((0, 0, 0), (128, 0, 0)),
        mean=(150.0, 138.0, 112.0),
        std=(27.0, 24.0, 24.0),
        to_rgb=True,
        reading=ImageReading((5, 3, 2), (0.0,), (4000.0,), 0.25),
        stride=32,
        outputs=2,
        threshold=None,
        weights_sha256=weights_sha256(network.state_dict()),
        version=__version__,
    )
    assert NetworkFacts.from_metadata(facts.as_metadata()) == facts
    assert json.loads(facts.as_metadata()["reading"]) == dict(bands=[5, 3, 2], low=[0.0], high=[4000.0], gsd_m=0.25)
    image = np.full((1, 1, 3), 58, np.uint8)
    normalized = facts.normalized(image, "a.png")[0, 0]
    assert normalized == pytest.approx([(58 - 150) / 27, (58 - 138) / 24, (58 - 112) / 24])


def test_the_metres_are_those_that_the_network_saw(one_config, network):
    meta = dict(image=dict(gsd_m=0.1))
    cfg = load_config(str(one_config))
    cfg.data.train.pipeline[2] = dict(type="RandomAffineCrop", crop_size=(64, 64), gsd_m=0.4)
    assert NetworkFacts.of(cfg, meta, network).reading.gsd_m == 0.4
    cfg.data.test.pipeline.insert(1, dict(type="ScaleToGSD", gsd_m=0.5))
    assert NetworkFacts.of(cfg, meta, network).reading.gsd_m == 0.5


def test_a_single_output_has_a_threshold(one_config):
    cfg = load_config(str(one_config), {"model.decode_head.out_channels": 1, "model.decode_head.threshold": 0.4})
    cfg.model.decode_head.loss_decode = dict(type="CrossEntropyLoss", use_sigmoid=True)
    facts = NetworkFacts.of(cfg, {}, build_network(cfg))
    assert (facts.outputs, facts.threshold, facts.classes) == (1, 0.4, ("background", "road"))


def test_what_contradicts_the_network(one_config, network):
    cfg = load_config(str(one_config))
    cfg.data.test.classes = ("rock", "road", "water")
    with pytest.raises(ConfigError, match="the network has 2 classes, but there are 3 names and 2 colours"):
        NetworkFacts.of(cfg, {}, network)
    cfg = load_config(str(one_config))
    cfg.data.test.pipeline = [dict(type="LoadRoadImage")]
    with pytest.raises(ConfigError, match="data.test has no Normalize"):
        NetworkFacts.of(cfg, {}, network)
    cfg = load_config(str(one_config))
    step_arguments(cfg.data.test, "Normalize")["std"] = [1.0]
    with pytest.raises(ConfigError, match="3 means but 1 standard deviations"):
        NetworkFacts.of(cfg, {}, network)
