"""Exported files against PyTorch: at other batches and sizes than those they were traced with."""

import json
import os
import warnings
import zipfile

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from mmseg_ext.deploy.exportable import exportable
from mmseg_ext.deploy.exporting import Parity, compare
from mmseg_ext.deploy.facts import facts_of, image_bands
from mmseg_ext.deploy.formats import FORMATS, read_facts, read_metadata
from mmseg_ext.deploy.int8 import quantized
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.errors import ConfigError
from mmseg_ext.models.folding import Scores, network_stride

METHODS = {
    "dsegnext": "dsegnext/tiny/dsegnext.tiny.256x256.EPFL.1.5k.py",
    "segnext": "segnext/tiny/segnext.tiny.256x256.EPFL.1.5k.py",
    "segformer": "segformer/segformer.b0.256x256.EPFL.1.5k.py",
    "linknet34": "linknets/linknet34.256x256.EPFL.1.5k.py",
    "dlinknet34": "linknets/dlinknet34.256x256.EPFL.1.5k.py",
    "nl_linknet34": "linknets/nl_linknet34.256x256.EPFL.1.5k.py",
    "unet": "linknets/unet.256x256.EPFL.1.5k.py",
    "dunet": "linknets/dunet.256x256.EPFL.0.2k.py",
    "unet_lite0": "timm/unet_lite0.256x256.DUBAI.2.5k.py",
}


def with_lively_weights(network):
    """Give norms and layer scales values that matter, and logits a spread of about 1."""
    torch.manual_seed(1)
    network.init_weights()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    for name, value in network.named_parameters():
        if "layer_scale" in name:
            nn.init.uniform_(value, 0.1, 0.5)
    network.eval().requires_grad_(False)
    stride = network_stride(network)
    for _ in range(2):
        scores = Scores(network)(torch.randn(2, image_bands(network), 2 * stride, 2 * stride))
        network.decode_head.conv_seg.bias -= scores.mean(dim=(0, 2, 3))
        network.decode_head.conv_seg.weight /= scores.std()
        network.decode_head.conv_seg.bias /= scores.std()
    return network


@pytest.fixture(scope="module")
def tiny(one_config):
    """A tiny D-SegNeXt and its facts."""
    cfg = load_config(str(one_config), {"model.decode_head.ham_cfg.eval_steps": 2})
    network = with_lively_weights(build_network(cfg))
    return network, facts_of(cfg, dict(gsd_m=0.5), network)


def batches_for(network):
    """Image batches of other numbers and sizes than the traced ones (2, C, 3 strides, 2 strides)."""
    stride, rng = network_stride(network), np.random.default_rng(0)
    shapes = [(1, image_bands(network), 2 * stride, 3 * stride), (3, image_bands(network), 4 * stride, 2 * stride)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("name", ["onnx", "openvino", pytest.param("torch", marks=pytest.mark.slow), "torchscript"])
def test_a_file_agrees_with_pytorch_and_says_what_it_is(tiny, name, tmp_path):
    network, facts = tiny
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path = str(tmp_path / f"roads{FORMATS[name].suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # users see these by default
        FORMATS[name].write(network, path, "fp32", {**facts.as_metadata(), "precision": '"fp32"'})
    parity = compare(network, FORMATS[name].open(path), batches_for(network))
    assert parity.max_difference < 1e-4
    assert parity.class_agreement > 0.999
    assert read_facts(path) == facts
    metadata = {key: json.loads(value) for key, value in read_metadata(path).items()}
    assert (metadata["precision"], metadata["mean"], metadata["stride"]) == ("fp32", [150.0, 138.0, 112.0], 32)
    assert (metadata["classes"], metadata["reading"]["gsd_m"]) == (["background", "road"], 0.5)
    if name == "onnx":
        assert os.listdir(tmp_path) == ["roads.onnx"]
        model = onnx.load(path)
        onnx.checker.check_model(model)
        sizes = {
            tensor.name: [d.dim_param or d.dim_value for d in tensor.type.tensor_type.shape.dim]
            for tensor in (*model.graph.input, *model.graph.output)
        }
        assert sizes == {"pixels": ["N", 3, "H", "W"], "probabilities": ["N", 2, "H", "W"]}
        assert (model.ir_version, model.opset_import[0].version) == (9, 18)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_method_agrees_in_every_format(root, method, name, tmp_path):
    cfg = load_config(str(root / "myconfigs" / METHODS[method]))
    network = with_lively_weights(build_network(cfg, pretrained=False))
    path = str(tmp_path / f"roads{FORMATS[name].suffix}")
    FORMATS[name].write(network, path, "fp32", facts_of(cfg, {}, network).as_metadata())
    parity = compare(network, FORMATS[name].open(path), batches_for(network))
    # sharp attention (NL-LinkNet) makes up to 0.003 of rounding, by the CPU's order of sums
    assert parity.max_difference < 1e-3 + 10 * parity.rounding
    assert parity.rounding < 5e-3
    assert parity.class_agreement > 0.999


@pytest.mark.parametrize("method", METHODS)
def test_what_is_exported_computes_the_same(root, method):
    cfg = load_config(str(root / "myconfigs" / METHODS[method]), {"model.backbone.in_channels": 5})
    network = with_lively_weights(build_network(cfg, pretrained=False))
    assert image_bands(network) == 5
    stride = network_stride(network)
    image = torch.randn(2, 5, stride, 2 * stride)
    wanted, found = Scores(network)(image), exportable(network)(image)
    assert wanted.std() > 0.1
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("name", [pytest.param("openvino", marks=pytest.mark.slow), "torchscript"])
def test_half_precision_halves_the_file(tiny, name, tmp_path):
    network, _ = tiny
    sizes = {}
    for precision in ("fp32", "fp16"):
        path = tmp_path / f"{precision}{FORMATS[name].suffix}"
        FORMATS[name].write(network, str(path), precision, {})
        if name == "openvino":
            sizes[precision] = path.with_suffix(".bin").stat().st_size
        else:  # beside the weights there is the code, with the path of each line's file
            entries = zipfile.ZipFile(path).infolist()
            sizes[precision] = sum(entry.file_size for entry in entries if "/data/" in entry.filename)
        parity = compare(network, FORMATS[name].open(str(path)), batches_for(network))
        assert parity.class_agreement > 0.99
        assert parity.max_difference < (1e-4 if precision == "fp32" else 0.1)
    assert parity.max_difference > 1e-5
    assert 0.4 * sizes["fp32"] < sizes["fp16"] < 0.6 * sizes["fp32"]


def test_parity_tells_what_differs(tiny):
    network, _ = tiny
    batches = batches_for(network)

    def run(image):
        return Scores(network)(image)

    def shifted_road(image):
        return run(image) + torch.tensor([0, 0.002]).reshape(1, 2, 1, 1)

    same = compare(network, run, batches)
    assert same.max_difference == 0
    assert 1e-7 < same.rounding < 1e-4
    shifted = compare(network, shifted_road, batches)
    assert shifted.max_difference == pytest.approx(0.0005, abs=1e-6)  # a quarter of it where both are as likely
    assert shifted.class_agreement > 0.998
    with pytest.raises(ConfigError, match=r"a.onnx: differs .*up to 0.0005.* not kept; please report it"):
        shifted.check("a.onnx", "fp32")
    shifted.check("a.onnx", "fp16")
    swapped = compare(network, lambda image: run(image).flip(1), batches)
    assert swapped.class_agreement < 0.01
    with pytest.raises(ConfigError, match="take --precision fp32"):
        swapped.check("a.onnx", "int8")
    assert compare(network, lambda image: run(image)[:, :, 1:], batches) == Parity(
        float("inf"), 0.0, shifted.rounding, tuple(batch.shape for batch in batches)
    )


def test_a_file_may_differ_by_what_rounding_makes_of_the_network():
    Parity(0.0005, 1.0, 6e-5, ()).check("a.onnx", "fp32")
    with pytest.raises(ConfigError, match=r"up to 0.0007"):
        Parity(0.0007, 1.0, 6e-5, ()).check("a.onnx", "fp32")
    with pytest.raises(ConfigError, match=r"up to 0.0002"):
        Parity(0.0002, 1.0, 1e-6, ()).check("a.onnx", "fp32")


def test_what_no_format_can_do(tiny):
    with pytest.raises(ConfigError, match="torch: --precision int8 is not possible, take fp32 or fp16"):
        FORMATS["torch"].check("int8", "torch")
    with pytest.raises(ConfigError, match="bf16 is chosen where an fp32 file is run"):
        FORMATS["onnx"].check("bf16", "ONNX")
    with pytest.raises(ConfigError, match="int8 needs images to calibrate with"):
        quantized(None, tiny[0], [])


def test_files_that_say_nothing(tiny, tmp_path):
    network, _ = tiny
    path = tmp_path / "a.pt"
    FORMATS["torchscript"].write(network, str(path), "fp32", {})
    with pytest.raises(ConfigError, match="a.pt: does not say what it was trained with"):
        read_facts(str(path))
    with pytest.raises(ConfigError, match="no.onnx: no such file"):
        read_facts(str(tmp_path / "no.onnx"))
    (tmp_path / "b.onnx").write_text("no network")
    with pytest.raises(ConfigError, match=r"b.onnx: cannot be read"):
        read_facts(str(tmp_path / "b.onnx"))
    (tmp_path / "c.pth").write_text("no network")
    with pytest.raises(ConfigError, match=r"c.pth: is not an exported network"):
        read_facts(str(tmp_path / "c.pth"))
