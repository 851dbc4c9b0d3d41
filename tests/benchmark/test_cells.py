import pytest
import torch

from mmseg_ext.benchmark import Cell, Contender, parse_contender
from mmseg_ext.benchmark.methods import build_method, method_configs
from mmseg_ext.engine import load_config
from mmseg_ext.errors import ConfigError


def test_cells_are_read(root):
    assert parse_contender("dsegnext-t") == Contender("dsegnext-t", "auto", None)
    assert parse_contender("dsegnext-t@openvino+bf16") == Contender("dsegnext-t", "openvino", "bf16")
    assert parse_contender("unet@plain") == Contender("unet", "plain", None)
    assert parse_contender("mmseg:segformer-b0") == Contender("mmseg:segformer-b0", "plain", None)
    path = str(root / "myconfigs/linknets/unet.256x256.EPFL.1.5k.py")
    assert parse_contender(f"{path}@torch") == Contender(path, "torch", None)
    for text in ("dsegnext-t@openvino+bf16", "dsegnext-t@auto", "mmseg:segformer-b0@plain"):
        assert str(parse_contender(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("segnet@plain", "no such method.*dsegnext-t"),
        ("dsegnext-t@cuda", "no backend is called cuda"),
        ("dsegnext-t@torch+fp8", "no precision is called fp8"),
        ("dsegnext-t+bf16", "dsegnext-t[+]bf16: no such method"),
        ("dsegnext-t@torch@plain", "write METHOD"),
        ("mmseg:segformer-b0@openvino", "a peer runs as its users run it"),
        ("smp:unet", "smp:ARCHITECTURE-ENCODER"),
    ],
)
def test_what_cannot_be_read_is_said(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_contender(text)


def test_every_method_of_the_paper_has_a_name():
    configs = method_configs()
    assert set(configs) == {
        *(f"{family}-{size}" for family in ("dsegnext", "segnext") for size in "tsbl"),
        *("segformer-b0", "segformer-b1", "segformer-b2"),
        *("linknet", "dlinknet", "nllinknet", "unet", "dunet"),
    }
    assert load_config(configs["dsegnext-t"]).model.backbone.embed_dims == (32, 64, 160, 256)
    assert load_config(configs["dsegnext-b"]).model.backbone.gating_unit.type == "HDMSCA"
    assert load_config(configs["nllinknet"]).model.backbone.type == "NLLinkNet34"


def test_sizes_of_cells():
    cell = Cell(parse_contender("unet"), 512, 4)
    assert (cell.images, cell.megapixels) == (4, 4 * 512**2 / 1e6)
    tiled = Cell(parse_contender("unet"), 512, 4, (128, 32))
    assert (tiled.images, tiled.megapixels) == (1, 512**2 / 1e6)


@pytest.mark.parametrize("method", ["smp:unet-resnet34", "smp:linknet-resnet34", "smp:segformer-mit_b0"])
def test_peers_score_every_pixel(method):
    if method.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    peer = build_method(method)
    with torch.no_grad():
        scores = peer.network(torch.randn(1, peer.bands, 64, 96))
    assert scores.shape == (1, 2, 64, 96) and not peer.network.training


def test_mmsegmentations_segformer_is_the_one_of_our_table():
    ours, theirs = build_method("segformer-b0"), build_method("mmseg:segformer-b0")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        theirs.network.network.load_state_dict(ours.network.state_dict())
        expected = ours.network.encode_decode(image, [{}])
        assert torch.equal(theirs.network(image), expected)


def test_an_unknown_peer_is_one_line():
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(ConfigError, match="smp:unet-none34: segmentation_models_pytorch cannot build it"):
        build_method("smp:unet-none34")


def test_weights_are_the_same_every_time_and_those_of_the_checkpoint(tmp_path):
    first, second = build_method("unet").network.state_dict(), build_method("unet").network.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    moved = {key: value + 1 if value.is_floating_point() else value for key, value in first.items()}
    torch.save(dict(state_dict=moved), tmp_path / "moved.pth")
    loaded = build_method("unet", str(tmp_path / "moved.pth")).network.state_dict()
    assert all(torch.equal(loaded[key], moved[key]) for key in moved)
