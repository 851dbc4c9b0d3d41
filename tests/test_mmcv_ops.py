"""mmcv without its compiled operators: the default install."""

import importlib.util
import subprocess
import sys

import mmcv.ops
import pytest
import torch
from mmcv.cnn.utils import revert_sync_batchnorm
from mmcv.utils import collect_env
from mmseg.models.losses import FocalLoss, focal_loss

from mmseg_ext import mmcv_ops, registration
from mmseg_ext.errors import MissingExtraError

without_ops = pytest.mark.skipif(
    importlib.util.find_spec("mmcv._ext") is not None, reason="mmcv's operators are compiled here (MMCV_OPS=1)"
)


@without_ops
def test_a_missing_op_says_how_to_get_it_when_it_is_used():
    from mmcv.ops import CrissCrossAttention, nms

    for use in (lambda: nms([], 0.5), lambda: CrissCrossAttention(8), lambda: mmcv.ops.DeformConv2d(3, 3, 1)):
        with pytest.raises(MissingExtraError, match="installed without them; .*MMCV_OPS=1 make install"):
            use()
    with pytest.raises(MissingExtraError, match=r"^mmcv\.ops\.nms is a compiled operator"):
        nms()
    assert mmcv.ops.nms is nms and not hasattr(mmcv.ops, "__path__")


@without_ops
def test_mmcv_and_mmsegmentation_take_the_module_for_mmcvs_own():
    from mmseg.models import build_head

    reverted = revert_sync_batchnorm(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.SyncBatchNorm(2)))
    assert not isinstance(reverted[1], torch.nn.SyncBatchNorm) and reverted(torch.zeros(1, 1, 2, 2)).shape[1] == 2
    assert collect_env()["MMCV Compiler"] == collect_env()["MMCV CUDA Compiler"] == "not available"
    with pytest.raises(MissingExtraError, match="CrissCrossAttention"):
        build_head(dict(type="CCHead", in_channels=8, channels=4, num_classes=2, norm_cfg=dict(type="BN")))


def test_the_import_is_silent():
    done = subprocess.run(
        [sys.executable, "-W", "default::UserWarning", "-c", "import mmseg_ext"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("installed", ["mmcv", "mmcv-full"])
def test_both_names_of_mmcv_are_accepted(monkeypatch, installed):
    versions = {installed: "1.7.2", "mmsegmentation": "0.30.0"}
    monkeypatch.setattr(registration, "_installed", versions.get)
    registration._check_versions()
    versions[installed] = "2.1.0"
    with pytest.raises(MissingExtraError, match=r"needs mmcv 1\.7\.x, found: 2\.1\.0.*make install"):
        registration._check_versions()


class _OnGpu(torch.Tensor):
    """A tensor on the CPU that says it is on a GPU, and so does what is made of it."""

    is_cuda = True


@pytest.fixture()
def gpu_without_op(monkeypatch):
    """Let MMSegmentation find a GPU, and an op of mmcv that has no CUDA implementation."""

    def op(*args):
        raise RuntimeError("sigmoid_focal_loss_forward_impl: implementation for device cuda:0 not found.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(focal_loss, "_sigmoid_focal_loss", op)
    monkeypatch.setattr(focal_loss, "sigmoid_focal_loss", mmcv_ops._sigmoid_focal_loss)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("alpha", [0.25, [0.3, 0.6]])
@pytest.mark.parametrize("soft", [False, True])
def test_focal_loss_on_a_gpu_needs_no_op_and_is_that_of_the_cpu(gpu_without_op, reduction, alpha, soft):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 4, 5, generator=generator)
    labels = torch.randint(0, 2, (2, 4, 5), generator=generator)
    if soft:
        labels = torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2).float()
    else:
        labels[0, 0] = 255
    loss = FocalLoss(alpha=alpha, reduction=reduction, class_weight=[1.0, 3.0], loss_weight=0.5)

    on_cpu, on_gpu = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected = loss(on_cpu, labels, ignore_index=255)
    found = loss(on_gpu.as_subclass(_OnGpu), labels, ignore_index=255)
    assert isinstance(found, _OnGpu)  # the path of the GPU was taken
    assert torch.equal(found.as_subclass(torch.Tensor), expected) and expected.abs().sum() > 0
    expected.sum().backward()
    found.sum().backward()
    assert torch.equal(on_gpu.grad, on_cpu.grad)


@pytest.mark.parametrize(
    ("compiled_for", "replaced"), [("not available", True), ("13.0", False)], ids=["without CUDA", "with CUDA"]
)
def test_the_cuda_op_is_used_where_it_was_compiled(monkeypatch, compiled_for, replaced):
    monkeypatch.setitem(sys.modules, "mmcv.ops", mmcv.ops)
    original = object()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())  # mmcv._ext is there
    monkeypatch.setattr(mmcv.ops, "get_compiling_cuda_version", lambda: compiled_for)
    monkeypatch.setattr(focal_loss, "sigmoid_focal_loss", original)
    mmcv_ops.replace_focal_loss()
    assert (focal_loss.sigmoid_focal_loss is not original) == replaced
