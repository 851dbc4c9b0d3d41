"""What an exported network says of itself."""

import copy
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmseg_ext import __version__
from mmseg_ext.deploy.facts import facts_of, normalized, normalized_on
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.checkpoint import weights_sha256
from mmseg_ext.engine.config import step_arguments
from mmseg_ext.errors import ConfigError
from mmseg_ext.imagery.reading import ImageReading
from mmseg_ext.runtime.facts import NetworkFacts


@pytest.fixture(scope="module")
def cfg(one_config):
    return load_config(str(one_config))


@pytest.fixture(scope="module")
def network(cfg):
    return build_network(cfg)


def test_facts_come_from_config_checkpoint_and_network(cfg, network):
    meta = dict(image=dict(bands=[5, 3, 2], low=[0.0], high=[4000.0]), gsd_m=0.25)
    facts = facts_of(cfg, meta, network)
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
    assert normalized(facts, image, "a.png")[0, 0] == pytest.approx([(58 - 150) / 27, (58 - 138) / 24, (58 - 112) / 24])


def test_a_config_says_how_its_network_maps(cfg, network):
    told = copy.deepcopy(cfg)
    told.mapping = dict(threshold=0.3, scales=[0.5, 1], gsd_range_m=[0.2, 1.5])
    facts = facts_of(told, {}, network)
    assert (facts.threshold, facts.scales, facts.gsd_range_m) == (0.3, (0.5, 1), (0.2, 1.5))
    assert NetworkFacts.from_metadata(facts.as_metadata()) == facts
    earlier = {name: value for name, value in facts.as_metadata().items() if name not in ("scales", "gsd_range_m")}
    assert NetworkFacts.from_metadata(earlier) == dataclasses.replace(facts, scales=(1.0,), gsd_range_m=None)


@pytest.mark.parametrize(
    "mapping",
    [dict(threshold=1.5), dict(scales=[]), dict(scales=0.5), dict(scales=[0, 1]), dict(gsd_range_m=[2, 1]), dict(b=1)],
)
def test_other_ways_of_mapping_are_refused(cfg, network, mapping):
    wrong = copy.deepcopy(cfg)
    wrong.mapping = mapping
    with pytest.raises(ConfigError, match=r"mapping=.*: give dict\(threshold=0.3, scales="):
        facts_of(wrong, {}, network)


@pytest.mark.parametrize(("bands", "to_rgb"), [(3, True), (3, False), (5, False)])
def test_a_gpu_normalizes_as_the_host_does(cfg, network, bands, to_rgb):
    given = dict(mean=(150.0, 138.3, 112.0, 7.0, 90.1)[:bands], std=(27.0, 24.7, 23.9, 3.0, 55.5)[:bands])
    facts = dataclasses.replace(facts_of(cfg, {}, network), **given, to_rgb=to_rgb)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, bands), np.uint8)
    images[0, :16, :16] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)  # every value in every band
    wanted = normalized_on(facts, torch.device("cpu"), images, "a.tif")
    order = slice(None, None, -1) if bands == 3 and not to_rgb else slice(None)
    plain = (images[..., order] - np.array(facts.mean)) / np.array(facts.std)
    assert np.allclose(wanted.numpy(), plain.transpose(0, 3, 1, 2), atol=1e-5)
    # the way of the GPU, whose indices are computed where they are
    here = SimpleNamespace(type="cuda")
    with pytest.MonkeyPatch.context() as patch:
        to, arange = torch.Tensor.to, torch.arange
        patch.setattr(torch.Tensor, "to", lambda tensor, where: moved.append(tensor.dtype) or to(tensor, "cpu"))
        patch.setattr(torch, "arange", lambda *numbers, device: arange(*numbers))
        moved = []
        found = normalized_on(facts, here, images, "a.tif")
    assert torch.equal(found, wanted) and found.dtype == torch.float32
    assert moved == [torch.uint8, torch.float32]  # the images, and a few hundred values
    assert found.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ConfigError, match=r"a.tif: 4 bands, but Normalize has"):
        normalized_on(facts, here, np.zeros((1, 32, 32, 4), np.uint8), "a.tif")


def test_the_metres_are_those_that_the_network_saw(one_config, network):
    meta = dict(image=dict(gsd_m=0.1))
    cfg = load_config(str(one_config))
    cfg.data.train.pipeline[2] = dict(type="RandomAffineCrop", crop_size=(64, 64), gsd_m=0.4)
    assert facts_of(cfg, meta, network).reading.gsd_m == 0.4
    cfg.data.test.pipeline.insert(1, dict(type="ScaleToGSD", gsd_m=0.5))
    assert facts_of(cfg, meta, network).reading.gsd_m == 0.5


def test_a_single_output_has_a_threshold(one_config):
    cfg = load_config(str(one_config), {"model.decode_head.out_channels": 1, "model.decode_head.threshold": 0.4})
    cfg.model.decode_head.loss_decode = dict(type="CrossEntropyLoss", use_sigmoid=True)
    facts = facts_of(cfg, {}, build_network(cfg))
    assert (facts.outputs, facts.threshold, facts.classes) == (1, 0.4, ("background", "road"))


def test_what_contradicts_the_network(one_config, network):
    cfg = load_config(str(one_config))
    cfg.data.test.classes = ("rock", "road", "water")
    with pytest.raises(ConfigError, match="the network has 2 classes, but there are 3 names and 2 colours"):
        facts_of(cfg, {}, network)
    cfg = load_config(str(one_config))
    cfg.data.test.pipeline = [dict(type="LoadRoadImage")]
    with pytest.raises(ConfigError, match="data.test has no Normalize"):
        facts_of(cfg, {}, network)
    cfg = load_config(str(one_config))
    step_arguments(cfg.data.test, "Normalize")["std"] = [1.0]
    with pytest.raises(ConfigError, match="3 means but 1 standard deviations"):
        facts_of(cfg, {}, network)
