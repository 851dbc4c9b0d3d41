from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmseg.datasets import build_dataset

from mmseg_ext.deploy.facts import normalized
from mmseg_ext.deploy.options import BackendSettings
from mmseg_ext.deploy.trained import TrainedNetwork
from mmseg_ext.engine import build_network, load_config, publish_checkpoint
from mmseg_ext.engine.checkpoint import write_checkpoint
from mmseg_ext.engine.distributed import LocalSegmentor, Process, seed_everything
from mmseg_ext.engine.evaluation import evaluation_loader, predict_dataset
from mmseg_ext.errors import ConfigError
from mmseg_ext.imagery import ImageReading


def save(folder, config_path, options=None, **meta):
    """Write a checkpoint of the network of ``config_path`` with its first weights, as training writes it."""
    seed_everything(0)
    cfg = load_config(str(config_path), options)
    path = str(folder / "network.pth")
    write_checkpoint(dict(state_dict=build_network(cfg).state_dict(), meta=dict(config=cfg.pretty_text) | meta), path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, one_config):
    return save(tmp_path_factory.mktemp("tiny"), one_config)


@pytest.fixture(scope="module")
def network(checkpoint):
    return TrainedNetwork.load(checkpoint)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_what_a_plain_checkpoint_says(network):
    assert network.facts.classes == ("background", "road") and network.facts.palette == ((0, 0, 0), (128, 0, 0))
    assert network.facts.reading == ImageReading() and network.facts.threshold is None
    assert network.precision == "fp32" and network.device.type in ("cpu", "cuda")


def test_predicts_what_evaluation_predicts(checkpoint, network, one_config):
    size = {"data.test.step_args.MultiScaleFlipAug.img_scale": (128, 128)}  # the image's own: no resizing
    dataset = build_dataset(load_config(str(one_config), size).data.test, dict(test_mode=True))
    loader = evaluation_loader(dataset, Process(0, 1, network.device), workers=0)
    plain = TrainedNetwork.load(checkpoint, settings=BackendSettings("plain"))
    local = LocalSegmentor(plain.model, plain.device, None)
    (expected,) = predict_dataset(local, loader)
    (found,) = plain.predict([dataset.picture(0)])
    assert np.array_equal(found, expected.probabilities.cpu().numpy())
    (fast,) = network.predict([dataset.picture(0)])
    assert np.abs(fast - found).max() < 1e-5


def test_images_of_a_batch_do_not_change_each_other(network):
    images = [noise(64, 96, 3, seed=i) for i in range(3)]
    together = network.predict(images)
    alone = np.concatenate([network.predict([image]) for image in images])
    assert together.shape == (3, 2, 64, 96) and together.dtype == np.float32
    assert np.abs(together - alone).max() < 1e-4
    assert np.allclose(together.sum(axis=1), 1, atol=1e-6)


def mirrored(count, padded):
    """0, 1, ..., n - 1, n - 2, ..., 0, 1, ...: to and fro between the first and the last; one alone repeats itself."""
    period = max(2 * count - 2, 1)
    return [min(i % period, period - i % period) if count > 1 else 0 for i in range(padded)]


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (31, 7), (33, 64)])
def test_any_size_is_padded_by_reflection_and_cropped(network, size):
    image = noise(*size, 3)
    height, width = (-(-n // 32) * 32 for n in size)
    rows, columns = (mirrored(n, padded) for n, padded in zip(size, (height, width), strict=True))
    found = network.predict([image])
    assert found.shape == (1, 2, *size)
    expected = network.predict([image[rows][:, columns]])[:, :, : size[0], : size[1]]
    assert np.allclose(found, expected, atol=1e-6)


def test_reading_and_classes_come_from_checkpoint_and_config(tmp_path, one_config):
    image = dict(bands=[3, 2, 1], low=[0.0], high=[4000.0], gsd_m=0.5)
    meta = dict(image=image, CLASSES=["nothing", "haul road"], PALETTE=[[0, 0, 0], [1, 2, 3]])
    path = save(tmp_path, one_config, **meta)
    network = TrainedNetwork.load(path)
    assert network.facts.reading == ImageReading((3, 2, 1), (0.0,), (4000.0,), 0.5)
    assert network.facts.classes == ("nothing", "haul road") and network.facts.palette == ((0, 0, 0), (1, 2, 3))
    # what is said beside the checkpoint comes first
    options = {"data.test.step_args.LoadRoadImage": dict(gsd_m=0.25), "data.test.classes": ["a", "b"]}
    network = TrainedNetwork.load(path, str(one_config), options)
    assert network.facts.reading == ImageReading((3, 2, 1), (0.0,), (4000.0,), 0.25) and network.facts.classes == (
        "a",
        "b",
    )


def test_published_checkpoint_is_the_same_network(tmp_path, checkpoint, network, one_config):
    dest = str(tmp_path / "roads.safetensors")
    meta = publish_checkpoint(checkpoint, dest, load_config(str(one_config)), "MIT", gsd_m=0.3)
    published = TrainedNetwork.load(dest)
    assert published.facts.weights_sha256 == network.facts.weights_sha256 == meta["weights_sha256"]
    assert published.facts.reading.gsd_m == 0.3
    assert np.array_equal(published.predict([noise(64, 64, 3)]), network.predict([noise(64, 64, 3)]))


def test_a_single_output_gives_two_classes(tmp_path, one_config):
    options = {"model.decode_head.out_channels": 1, "model.decode_head.threshold": 0.4}
    network = TrainedNetwork.load(save(tmp_path, one_config, options))
    found = network.predict([noise(64, 64, 3)])
    assert network.facts.threshold == 0.4 and found.shape == (1, 2, 64, 64)
    with torch.no_grad():
        batch = torch.from_numpy(normalized(network.facts, noise(64, 64, 3), "a.png"))
        score = network.model.encode_decode(batch.permute(2, 0, 1)[None].contiguous(), [{}])
    assert np.allclose(found[:, 1:], score.sigmoid().numpy(), atol=1e-6) and np.allclose(found.sum(axis=1), 1)


def test_bf16_is_close(checkpoint, network):
    halved = TrainedNetwork.load(checkpoint, settings=BackendSettings("torch", "bf16"))
    image = noise(64, 64, 3)
    assert (halved.backend, halved.precision) == ("torch", "bf16") and network.precision == "fp32"
    found, exact = halved.predict([image]), network.predict([image])
    assert found.dtype == np.float32 and 0 < np.abs(found - exact).max() < 0.05


def test_a_full_gpu_is_said_with_what_helps(checkpoint, network, monkeypatch, tmp_path):
    def full(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full. Including")

    model = SimpleNamespace(encode_decode=full)
    words = "^CUDA out of memory. .* GPU 0 is full; give --batch 1, a smaller --tile, or --precision auto$"
    with pytest.raises(ConfigError, match=words):
        replace(network, model=model).predict([noise(32, 32, 3)])
    monkeypatch.setenv("MMSEG_EXT_CACHE", str(tmp_path))
    monkeypatch.setattr("mmseg_ext.deploy.choice.make_runner", full)
    with pytest.raises(ConfigError, match=words):
        TrainedNetwork.load(checkpoint, settings=BackendSettings("auto"))


def test_a_map_of_a_gpu_is_not_finished_by_a_cpu(network):
    on_cpu, on_gpu = (replace(network, device=torch.device(device)).execution for device in ("cpu", "cuda:1"))
    assert on_gpu == {**on_cpu, "device": "cuda"}


def test_mistakes(checkpoint, network, tmp_path, one_config):
    with pytest.raises(ConfigError, match="4 bands, but Normalize has 3 means"):
        network.predict([noise(32, 32, 4)])
    with pytest.raises(ConfigError, match="2 classes, but there are 3 names"):
        TrainedNetwork.load(checkpoint, options={"data.test.classes": ["a", "b", "c"]})
    text = load_config(str(one_config)).pretty_text.replace("'Normalize'", "'RandomFlip'")
    with pytest.raises(ConfigError, match="no Normalize"):
        TrainedNetwork.load(save(tmp_path, one_config, config=text))
