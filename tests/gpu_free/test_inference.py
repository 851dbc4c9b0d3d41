"""Prediction in fp16 as a GPU computes it: of the network as it was trained, in its folded form, and on a backend."""

import pytest
import torch
from fake_gpu import CONFIGS, GPU, NETWORKS, fake_gpu
from mmcv.cnn.utils import revert_sync_batchnorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmseg_ext.deploy import pytorch
from mmseg_ext.engine import build_network, load_config
from mmseg_ext.engine.distributed import LocalSegmentor
from mmseg_ext.models.folding import folded


@pytest.mark.parametrize("path", NETWORKS)
def test_the_host_waits_for_no_part_of_a_prediction(monkeypatch, path):
    cfg = load_config(str(CONFIGS / path), NETWORKS[path])
    network = revert_sync_batchnorm(build_network(cfg, initialise=False)).eval()
    meta = dict(ori_shape=(96, 64, 3), img_shape=(96, 64, 3), flip=False)
    scores = []
    for form in (network, folded(network)):
        with fake_gpu(monkeypatch) as reads:
            segmentor = LocalSegmentor(form.to(GPU), GPU, torch.float16)
            form.decode_head.conv_seg.register_forward_hook(lambda module, given, found: scores.append(found.dtype))
            found = segmentor.probabilities(dict(img=[torch.empty(1, 3, 96, 64)], img_metas=[[meta]]))
        assert (found.shape, found.dtype, found.device) == ((2, 96, 64), torch.float32, GPU)
        assert reads == []
    assert scores == [torch.float16] * 2


class FromTheHost(TorchDispatchMode):
    """Lists the operations that take a tensor of the host, or make one."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, made)) if isinstance(value, torch.Tensor)]
        self.found.extend([str(func)] * any(tensor.device.type == "cpu" for tensor in tensors))
        return made


@pytest.mark.parametrize("path", NETWORKS)
def test_a_backend_asks_the_host_for_nothing_that_a_cuda_graph_could_not_record(monkeypatch, path):
    network = build_network(load_config(str(CONFIGS / path), NETWORKS[path]), initialise=False).eval()
    monkeypatch.setattr(pytorch, "_CudaGraphs", lambda run, device: run)
    monkeypatch.setattr(pytorch, "_placed", lambda scores, device, layout: scores.eval())  # a fake moves once
    run = pytorch.torch_session(network, "fp16", GPU)
    with fake_gpu(monkeypatch) as reads:
        run.module.to(GPU)
        weights = {value.dtype for value in run.module.parameters()}
        image = torch.empty(2, 3, 128, 128, device=GPU)
        with FromTheHost() as host:
            found = run(image)
    assert weights == {torch.float16}
    assert (found.shape[:2], found.dtype, found.device) == ((2, 2), torch.float32, GPU)
    assert reads == host.found == []
