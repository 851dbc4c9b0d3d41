"""The Triton kernels. What is marked `gpu` runs on a GPU, and in the default suite under Triton's interpreter."""

import copy
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch import library, nn

from mmseg_ext.errors import ConfigError
from mmseg_ext.models.backbones import MSCAN
from mmseg_ext.models.layers import HDMSCA
from mmseg_ext.models.layers.depthwise import use_depthwise_kernel
from mmseg_ext.models.layers.msca import depthwise_conv

pytest.importorskip("triton")
from mmseg_ext.models.layers import depthwise_triton

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="neither a GPU nor the interpreter"),
]
# N, C, H, W, kernel, dilation: several images, blocks of channels, tiles; maps below the kernel's reach.
# Small, for the interpreter takes some 30 ms for a tile of 4 x 16 pixels and 32 channels.
CASES = [
    (2, 33, 5, 3, (5, 5), 1),
    (1, 3, 3, 18, (5, 5), 1),
    (1, 3, 9, 3, (5, 5), 2),
    (1, 3, 6, 2, (5, 5), 5),
    (1, 3, 10, 1, (5, 5), 9),
    (1, 1, 2, 3, (5, 5), 9),
    (1, 3, 1, 19, (3, 3), 9),
    (1, 3, 3, 19, (1, 7), 2),
    (1, 3, 19, 2, (7, 1), 2),
]


@pytest.mark.slow
def test_passes_under_tritons_interpreter():
    command = [sys.executable, "-m", "pytest", __file__, "-m", "gpu", "-k", "not on_real_sizes", "-q", "-p", "no:xdist"]
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout
    assert "skipped" not in run.stdout.splitlines()[-1]


def triton_conv(channels, kernel, dilation, bias=True):
    """A convolution on our kernel, and its copy in float64 on the CPU, where PyTorch computes it."""
    torch.manual_seed(0)
    conv = depthwise_conv(channels, kernel, dilation)
    if not bias:
        conv.bias = None
    exact = copy.deepcopy(conv).double()
    use_depthwise_kernel(conv, "triton")
    return conv.to(DEVICE), exact


def features(shape, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return x.to(DEVICE).contiguous(memory_format=torch.channels_last)


def assert_close(ours, theirs, tolerance):
    error = (ours.detach().cpu().double() - theirs).norm() / theirs.norm()
    assert error < tolerance, f"{error:.2g}"


@pytest.fixture()
def calls(monkeypatch):
    """Shapes of what the kernel was asked to convolve."""
    shapes = []
    kernel = depthwise_triton.depthwise_conv

    def count(x, *args):
        shapes.append(tuple(x.shape))
        return kernel(x, *args)

    monkeypatch.setattr(depthwise_triton, "depthwise_conv", count)
    return shapes


def compare_all(case, dtype, tolerance, bias=True):
    n, channels, height, width, kernel, dilation = case
    conv, exact = triton_conv(channels, kernel, dilation, bias)
    x = features((n, channels, height, width), dtype).requires_grad_()
    reference = x.detach().cpu().double().requires_grad_()
    y, expected = conv(x), exact(reference)
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    y.backward(gradient.to(DEVICE))
    expected.backward(gradient.double())
    assert y.dtype == x.grad.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert_close(y, expected, tolerance)
    assert_close(x.grad, reference.grad, tolerance)
    assert_close(conv.weight.grad, exact.weight.grad, 1e-6)
    if bias:
        assert_close(conv.bias.grad, exact.bias.grad, 1e-6)


class TestKernels:
    pytestmark = gpu

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_values_and_gradients_are_those_of_float64(self, case, calls):
        compare_all(case, torch.float32, 1e-6)
        assert calls[0] == case[:4]

    # the interpreter cuts where a GPU rounds, so an error reaches a whole unit of the last place
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
    def test_half_precision_is_summed_in_float32(self, dtype, tolerance, calls):
        compare_all((1, 3, 4, 7, (5, 5), 1), dtype, tolerance, bias=False)
        assert len(calls) == 2  # forward, and backward with the turned kernel

    def test_a_program_sums_several_tiles(self, monkeypatch):
        monkeypatch.setattr(depthwise_triton, "_WEIGHT_PROGRAMS", 3)
        compare_all((1, 3, 11, 5, (3, 3), 2), torch.float32, 1e-6)

    @pytest.mark.skipif(INTERPRETED, reason="too much for the interpreter")
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
    @pytest.mark.parametrize("dilation", [1, 2, 5, 9])
    @pytest.mark.parametrize("size", [(4, 32, 256, 256), (2, 160, 61, 67), (1, 256, 32, 32)])
    def test_on_real_sizes(self, size, dilation, dtype, tolerance):
        compare_all((*size, (5, 5), dilation), dtype, tolerance)

    def test_weights_of_the_features_type_keep_it(self):
        conv, exact = triton_conv(3, (3, 3), 1)
        conv, exact = conv.to(torch.bfloat16), exact.to(torch.bfloat16).double()
        x = features((1, 3, 4, 5), torch.bfloat16)
        y = conv(x)
        y.sum().backward()
        assert y.dtype == conv.weight.grad.dtype == torch.bfloat16
        assert_close(y, exact(x.cpu().double()), 8e-3)

    def test_equal_inputs_give_equal_bits(self):
        conv, _ = triton_conv(3, (3, 3), 2)
        x = features((1, 3, 5, 3))
        gradients = [torch.autograd.grad(conv(x).square().sum(), conv.parameters()) for _ in range(2)]
        assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))

    def test_autocast_is_followed(self, calls):
        conv, exact = triton_conv(3, (3, 3), 1)
        x = features((1, 3, 4, 5))
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            y = conv(x)
        assert y.dtype == torch.bfloat16
        assert len(calls) == 1
        assert_close(y, exact(x.cpu().double()), 1e-2)

    def test_hdmsca_stays_what_it_is(self, calls):
        torch.manual_seed(0)
        unit = HDMSCA(3, kernel_size=3, dilations=(1, 2))
        exact = copy.deepcopy(unit).double()
        use_depthwise_kernel(unit, "triton")
        x = features((1, 3, 4, 3))
        unit.to(DEVICE)(x).sum().backward()
        result = exact(x.cpu().double())
        result.sum().backward()
        assert len(calls) == 2 * 2 - 1  # the input needs no gradient
        theirs = dict(exact.named_parameters())
        for name, parameter in unit.named_parameters():
            assert_close(parameter.grad, theirs[name].grad, 1e-5)

    def test_operators_keep_torchs_rules(self):
        x = features((1, 3, 3, 2)).requires_grad_()
        taps = torch.randn(1, 3, 3, device=DEVICE, requires_grad=True)
        bias = torch.randn(3, device=DEVICE, requires_grad=True)
        operators = torch.ops.mmseg_ext
        library.opcheck(operators.depthwise_conv.default, (x, taps, bias, 1))
        gradient = torch.randn_like(x)
        library.opcheck(operators.depthwise_conv_weight_gradient.default, (x.detach(), gradient, 1, 3, 1))

    def test_compiles_without_a_break(self):
        conv, exact = triton_conv(3, (3, 3), 1)
        x = features((1, 3, 4, 5))
        compiled = torch.compile(conv, backend="aot_eager", fullgraph=True)
        y = compiled(x)
        y.sum().backward()
        expected = exact(x.cpu().double())
        expected.sum().backward()
        assert_close(y, expected, 1e-6)
        assert_close(conv.weight.grad, exact.weight.grad, 1e-6)

    @pytest.mark.parametrize("change", ["rows first", "float64", "tracing", "exporting", "onnx"])
    def test_elsewhere_pytorch_computes_it(self, change, calls, monkeypatch):
        conv, exact = triton_conv(3, (3, 3), 1)
        x = features((1, 3, 4, 5))
        if change == "rows first":
            x = x.contiguous()
        elif change == "float64":
            conv, x = conv.double(), x.double()
        elif change == "tracing":
            conv = torch.jit.trace(conv, x)
        elif change == "exporting":
            conv = torch.export.export(conv, (x,)).module()
            assert any("conv2d" in str(node.target) for node in conv.graph.nodes)
        else:
            monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        calls.clear()
        y = conv(x)
        assert not calls
        assert_close(y, exact(x.cpu().double()), 1e-5)


def test_measuring_kernels_needs_a_gpu(run_tool):
    run = run_tool("measure_kernels.py", "stages", CUDA_VISIBLE_DEVICES="")
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith("error: the kernels are measured on a CUDA GPU")


@pytest.mark.skipif(INTERPRETED, reason="the default suite's")
class TestSwitch:
    def test_keys_and_values_stay_on_a_cpu(self):
        torch.manual_seed(0)
        settings = dict(
            embed_dims=(4, 8, 8, 8), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2), gating_unit=dict(type="HDMSCA")
        )
        plain, ours = MSCAN(**settings).eval(), MSCAN(**settings, depthwise_kernel="triton").eval()
        ours.load_state_dict(plain.state_dict())
        x = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
        for a, b in zip(plain(x), ours(x), strict=True):
            assert torch.equal(a, b)
        changed = [m for m in ours.modules() if isinstance(m, depthwise_triton.TritonDepthwiseConv)]
        assert len(changed) == 4 * (4 + 1)
        assert not any(isinstance(m, depthwise_triton.TritonDepthwiseConv) for m in plain.modules())

    def test_only_depthwise_convolutions_that_keep_the_size_change(self):
        others = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3, padding=1, groups=2),
            nn.Conv2d(4, 4, 3, padding=1, groups=4, stride=2),
            nn.Conv2d(4, 4, 3, groups=4),
            nn.Conv2d(4, 4, 2, padding=1, groups=4),
            nn.Conv2d(4, 8, 3, padding=1, groups=4),
            nn.Conv2d(4, 4, 3, padding="same", groups=4),
            nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
        )
        use_depthwise_kernel(others, "triton")
        assert {type(module) for module in others} == {nn.Conv2d}

    def test_without_triton_nothing_changes(self, monkeypatch):
        unit = HDMSCA(4)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        use_depthwise_kernel(unit, "triton")
        assert type(unit.conv1_1) is nn.Conv2d

    def test_an_unknown_kernel_is_refused(self):
        with pytest.raises(ConfigError, match="depthwise_kernel='fast' is unknown; take one of cudnn, triton"):
            MSCAN(depthwise_kernel="fast")
