import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmseg_ext.engine import load_config, use_augmentations
from mmseg_ext.engine.test_time_augmentation import SCALES, class_probabilities
from mmseg_ext.errors import ConfigError


class Segmentor:
    """Answers with the softmax of one convolution of the image, resized to the original size."""

    def __init__(self, kernel):
        self.kernel = torch.as_tensor(kernel, dtype=torch.float32)

    def inference(self, image, metas, rescale):
        (meta,) = metas
        assert rescale and image.shape[2:] == tuple(meta.get("pad_shape", meta["img_shape"])[:2])
        padding = self.kernel.shape[-1] // 2
        found = functional.conv2d(image, self.kernel, padding=padding)
        height, width = meta["img_shape"][:2]
        found = functional.interpolate(found[:, :, :height, :width], size=meta["ori_shape"][:2], mode="bilinear")
        found = found.softmax(dim=1)
        return found.flip(dims=(3,)) if meta["flip"] else found


def copies(image, flip):
    """The image of the test pipeline, and its mirrored copy."""
    shape = (*image.shape[2:], 3)
    metas = [[dict(img_shape=shape, ori_shape=shape, flip=False, flip_direction="horizontal")]]
    images = [image]
    if flip:
        images.append(image.flip(dims=(3,)))
        metas.append([dict(metas[0][0], flip=True)])
    return images, metas


RNG = np.random.default_rng(0)
IMAGE = torch.as_tensor(RNG.standard_normal((1, 3, 12, 20)), dtype=torch.float32)


def test_a_network_that_sees_single_pixels_says_the_same_of_every_copy():
    network = Segmentor(RNG.standard_normal((2, 3, 1, 1)))
    plain = class_probabilities(network, *copies(IMAGE, False))
    assert plain.shape == (2, 12, 20)
    assert torch.allclose(plain, IMAGE.new_tensor(plain.numpy()))
    augmented = class_probabilities(network, *copies(IMAGE, True), (0, 1, 2, 3))
    assert torch.allclose(augmented, plain, atol=1e-6)


def test_the_mean_is_that_of_all_eight_symmetries():
    kernel = RNG.standard_normal((2, 3, 3, 3)).astype(np.float32)  # no symmetry at all
    found = class_probabilities(Segmentor(kernel), *copies(IMAGE, True), (0, 1, 2, 3))
    total = np.zeros((2, 12, 20))
    for mirrored in (False, True):  # turning and mirroring the kernel instead of the image
        for turns in range(4):
            turned = np.rot90(kernel, -turns, (2, 3))
            turned = turned[:, :, :, ::-1] if mirrored else turned
            network = Segmentor(np.ascontiguousarray(turned))
            total += class_probabilities(network, *copies(IMAGE, False)).numpy() / 8
    assert np.allclose(found.numpy(), total, atol=1e-6)


def test_padding_does_not_turn_with_the_image():
    padded = functional.pad(IMAGE, (0, 12, 0, 20))  # to 32 x 32, as a network may need
    meta = dict(img_shape=(12, 20, 3), pad_shape=(32, 32, 3), ori_shape=(12, 20, 3), flip=False)

    class Whole(Segmentor):
        def inference(self, image, metas, rescale):
            sizes.append(tuple(image.shape[2:]))
            return super().inference(image, [dict(metas[0], pad_shape=(*image.shape[2:], 3))], rescale)

    sizes = []
    network = Whole(RNG.standard_normal((2, 3, 1, 1)))
    found = class_probabilities(network, [padded], [[meta]], (0, 1))
    assert sizes == [(32, 32), (20, 12)]
    assert torch.allclose(found, class_probabilities(network, *copies(IMAGE, False)), atol=1e-6)


def test_names_set_the_pipeline(tiny_config):
    cfg = load_config(str(tiny_config))
    use_augmentations(cfg, [])
    step = next(step for step in cfg.data.test.pipeline if step["type"] == "MultiScaleFlipAug")
    assert not step.get("flip") and "test_rotations" not in cfg
    use_augmentations(cfg, ["flips", "scales", "rotations"])
    assert step["flip"] and step["img_ratios"] == list(SCALES) and cfg.test_rotations == (0, 1, 2, 3)
    with pytest.raises(ConfigError, match="--tta turns: unknown; choose from flips, scales, rotations"):
        use_augmentations(cfg, ["turns"])
    cfg.data.test.pipeline = []
    with pytest.raises(ConfigError, match="no MultiScaleFlipAug"):
        use_augmentations(cfg, ["flips"])


@pytest.mark.slow
def test_augmentations_change_what_is_measured(tiny_config, tmp_path, run_tool):
    scores = {}
    for name in ("none", "flips", "rotations"):
        tta = [] if name == "none" else ["--tta", name]
        out = tmp_path / f"{name}.json"
        weights = tmp_path / "w.pth"
        if not weights.exists():
            assert run_tool("train.py", tiny_config, "--work-dir", tmp_path / "run").returncode == 0
            weights.symlink_to(tmp_path / "run" / "latest.pth")
        done = run_tool("test.py", tiny_config, weights, "--eval", "mIoU", "--out", out, *tta)
        assert done.returncode == 0, done.stderr
        scores[name] = json.loads(out.read_text())["metrics"]["aAcc"]
    assert len(set(scores.values())) > 1 and min(scores.values()) > 0.3
