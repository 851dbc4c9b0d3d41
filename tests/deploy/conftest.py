import pytest
import torch

from mmseg_ext.files import CACHE_VARIABLE

DEPTHS = {"model.backbone.depths": (1, 1, 1, 1)}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """One cache folder for all tests, so that every network is exported once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def in_cache(cache, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))


@pytest.fixture(scope="session")
def network(build, images):
    """D-SegNeXt-T, less deep, whose norms, layer scales and scores are those of no fresh network."""
    network = build("dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py", **DEPTHS)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "layer_scale" in name:
                parameter.uniform_(0.3, 0.9, generator=random)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=random)
                module.bias.normal_(0, 0.2, generator=random)
                module.running_mean.normal_(0, 0.2, generator=random)
                module.running_var.uniform_(0.5, 1.5, generator=random)
        network.decode_head.conv_seg.weight.normal_(0, 0.3, generator=random)
        scores = network.encode_decode(images, [{}] * len(images))
        network.decode_head.conv_seg.bias -= scores.mean((0, 2, 3))  # both classes appear
    return network.requires_grad_(False)


@pytest.fixture(scope="session")
def images():
    """Two images (2, 3, 96, 128) that vary slowly, as photographs do."""
    coarse = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(96, 128), mode="bicubic")
