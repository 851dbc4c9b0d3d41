"""Evaluation in fp16 as a GPU computes it, of the network as it was trained and in its folded form."""

import pytest
import torch
from fake_gpu import CONFIGS, GPU, NETWORKS, fake_gpu
from mmcv.cnn.utils import revert_sync_batchnorm

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
