"""A network with one output and a sigmoid, from training to the exported file; what cannot learn is refused."""

import json

import numpy as np
import pytest
import rasterio

from mmseg_ext.deploy.exporting import export_checkpoint
from mmseg_ext.deploy.formats import read_facts
from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine import evaluate_checkpoint, load_config, train
from mmseg_ext.engine.road_scorer import RoadScorer
from mmseg_ext.engine.weights import check_losses
from mmseg_ext.errors import ConfigError
from mmseg_ext.geo import write_geotiff
from mmseg_ext.mapping import MapFiles, MapSettings, map_raster
from mmseg_ext.scoring import ScoringSettings

ONE = {"model.decode_head.out_channels": 1}


@pytest.fixture(scope="module")
def trained(one_config, tmp_path_factory):
    """Config and work dir of a short training."""
    cfg = load_config(str(one_config), ONE | {"runner.max_iters": 12, "optimizer.lr": 6e-3, "log_config.interval": 1})
    cfg.model.decode_head.loss_decode = dict(type="CrossEntropyLoss", use_sigmoid=True, class_weight=[6.0])
    folder = train(cfg, str(tmp_path_factory.mktemp("one") / "run"))
    return cfg, folder


def scored(cfg, checkpoint, threshold=None):
    found = []
    scorer = RoadScorer(ScoringSettings(threshold=threshold))
    scores = evaluate_checkpoint(
        cfg, checkpoint, ["mIoU", "road"], on_prediction=lambda _, one: found.append(one), road_scorer=scorer
    )
    return scores, found[0]


def test_it_trains_and_is_evaluated_at_the_networks_own_threshold(trained, tmp_path):
    cfg, folder = trained
    (log,) = (tmp_path.__class__(folder)).glob("*.log.json")
    losses = [line["loss"] for line in map(json.loads, log.read_text().splitlines()) if line.get("mode") == "train"]
    assert len(losses) == 12 and losses[-1] < 0.9 * losses[0]
    scores, found = scored(cfg, f"{folder}/latest.pth")
    probability = found.probabilities[0].numpy()
    assert np.array_equal(found.labels, probability > 0.3)  # MMSegmentation's default
    assert ((probability > 0.3) & (probability < 0.5)).any()
    assert scores["road.IoU"] == pytest.approx(scores["IoU.road"], abs=1e-9)
    stricter, _ = scored(cfg, f"{folder}/latest.pth", threshold=0.5)
    cfg.model.decode_head.threshold = 0.5
    assert stricter["road.IoU"] == pytest.approx(scored(cfg, f"{folder}/latest.pth")[0]["IoU.road"], abs=1e-9)
    assert stricter["road.IoU"] != scores["road.IoU"] and stricter["IoU.road"] == scores["IoU.road"]


def test_it_maps_and_exports_with_the_same_threshold(trained, tmp_path):
    checkpoint = f"{trained[1]}/latest.pth"
    network = TrainedNetwork.load(checkpoint)
    values = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    write_geotiff(str(tmp_path / "pit.tif"), values)
    settings = MapSettings(64, 16, 2)
    map_raster(str(tmp_path / "pit.tif"), network, str(tmp_path / "maps"), settings)
    files = MapFiles.of(str(tmp_path / "pit.tif"), str(tmp_path / "maps"))
    with rasterio.open(files.path("_probability.tif")) as maps, rasterio.open(files.path("_roads.tif")) as roads:
        probability, labels = maps.read(1) * maps.scales[0], roads.read(1)
    sure = np.abs(probability - 0.3) > 0.003  # a step of the map
    assert np.array_equal(labels[sure] == 1, probability[sure] > 0.3)
    assert settings.threshold_for(network.facts) == 0.3
    (path,) = export_checkpoint(checkpoint, str(tmp_path / "roads.pt"), ["torchscript"], shape=(64, 64))
    assert (read_facts(path).outputs, read_facts(path).threshold) == (1, 0.3)


@pytest.mark.parametrize(
    ("losses", "remedy"),
    [
        (dict(type="CrossEntropyLoss"), "set use_sigmoid=True in loss_decode"),
        (None, "set use_sigmoid=True"),
        ([dict(type="SoftClDiceLoss"), dict(type="LovaszLoss", per_image=True)], "set loss_type='binary'"),
        ([dict(type="CrossEntropyLoss", use_sigmoid=True), dict(type="DiceLoss")], "take CrossEntropyLoss"),
        (dict(type="FocalLoss"), r"take CrossEntropyLoss\(use_sigmoid=True\), or leave out_channels out"),
    ],
)
def test_a_loss_that_learns_nothing_is_refused(one_config, tmp_path, losses, remedy):
    cfg = load_config(str(one_config), ONE)
    cfg.model.decode_head.loss_decode = losses
    with pytest.raises(ConfigError, match=rf"LightHamHead: out_channels=1 is for a sigmoid, and .*; {remedy}"):
        train(cfg, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_losses_that_learn_from_one_output(one_config):
    cfg = load_config(str(one_config), ONE)
    cfg.model.decode_head.loss_decode = [
        dict(type="CrossEntropyLoss", use_sigmoid=True),
        dict(type="SoftClDiceLoss"),
        dict(type="LovaszLoss", loss_type="binary", per_image=True),
    ]
    check_losses(cfg)
    cfg.model.decode_head.sampler = dict(type="OHEMPixelSampler", thresh=0.7)
    with pytest.raises(ConfigError, match="its sampler takes a softmax; leave out_channels out"):
        check_losses(cfg)
