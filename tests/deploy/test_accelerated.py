import numpy as np
import pytest
import torch

from mmseg_ext.deploy.runner import accelerated
from mmseg_ext.engine.test_time_augmentation import class_probabilities


def metas(height, width, flip):
    shape = (height, width, 3)
    return [dict(img_shape=shape, ori_shape=shape, flip=flip, flip_direction="horizontal")]


@pytest.fixture()
def test_cfg(network):
    """Restore how the network is run."""
    before = network.test_cfg
    yield
    network.test_cfg = before


@pytest.mark.parametrize("mode", [dict(mode="whole"), dict(mode="slide", crop_size=(64, 64), stride=(40, 48))])
def test_mmsegmentations_inference_and_augmentation_stay_the_same(network, images, mode, test_cfg):
    network.test_cfg = type(network.test_cfg)(mode)
    fast = accelerated(network, "openvino")
    copies = [images[:1], images[:1].flip(3)]
    told = [metas(96, 128, False), metas(96, 128, True)]
    with torch.no_grad():
        wanted = class_probabilities(network, copies, told, (0, 1))
        found = class_probabilities(fast, copies, told, (0, 1))
    assert (found - wanted).abs().max() < 1e-4
    assert wanted.std() > 0.05


def test_the_segmentor_itself_is_not_accelerated(network, images):
    with torch.no_grad():
        before = network.encode_decode(images, [{}] * 2)
        fast = accelerated(network, "torch", "bf16")
        assert not torch.equal(fast.encode_decode(images, [{}] * 2), before)
        assert torch.equal(network.encode_decode(images, [{}] * 2), before)


def test_labels_of_simple_test(network, images):
    with torch.no_grad():
        wanted = network.simple_test(images[:1], metas(96, 128, False))
        found = accelerated(network, "onnxruntime").simple_test(images[:1], metas(96, 128, False))
    assert np.mean(found[0] == wanted[0]) > 0.999
