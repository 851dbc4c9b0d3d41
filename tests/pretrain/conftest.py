"""Images that are made in a moment, sorted by class or not, and a small teacher."""

import cv2
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from mmseg_ext.datasets import generate_mine

TEACHER_NAME = "test_efficientnet"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads cost more than they give to networks of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


MODES = ("RGB", "RGB", "L", "RGBA", "P", "CMYK")


def write_stripes(folder, train=24, val=12, side=40):
    """Write four classes of noisy stripes: across, along, both ways and none; in any PIL mode."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    for split, count in (("train", train), ("val", val)):
        for name in ("across", "along", "both", "none"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                phase = rng.integers(8, size=2)
                rows, columns = (((y + phase[0]) // 4) % 2), (((x + phase[1]) // 4) % 2)
                pattern = dict(across=rows, along=columns, both=rows ^ columns, none=np.ones_like(y))[name]
                grey = 60 + 130 * pattern[..., None] + rng.normal(0, 10, (side, side, 3))
                image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert(MODES[index % len(MODES)])
                suffix = "tif" if image.mode == "CMYK" else "png"
                image.save(folder / split / name / f"{index}.{suffix}")
    return folder


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    return write_stripes(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory):
    """Weights of a small network of timm whose channels differ in mean and spread."""
    torch.manual_seed(0)
    network = timm.create_model(TEACHER_NAME)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 1)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.save(network.state_dict(), path)
    return str(path)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Five pictures of mines, one in a folder below."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "below").mkdir()
    for seed in range(5):
        name = f"below/{seed}.jpg" if seed == 2 else f"{seed}.png"
        cv2.imwrite(str(folder / name), generate_mine(seed, 200).image)
    return folder
