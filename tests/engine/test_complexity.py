import sys

import pytest
import torch
from torch import nn

from mmseg_ext.engine import build_network, complexity, estimate_training_memory, load_config, measure_complexity
from mmseg_ext.errors import ConfigError, MissingExtraError


def test_memory_estimate_grows_with_the_batch_and_halves_in_low_precision(tiny_config):
    cfg = load_config(str(tiny_config))
    one, two = (estimate_training_memory(cfg, batch, 128, 128, "fp32") for batch in (1, 2))
    low = estimate_training_memory(cfg, 2, 128, 128, "fp16")
    network = 16 * sum(p.numel() for p in build_network(cfg, initialise=False).parameters())
    assert two - one == pytest.approx(one - network, rel=0.1)
    assert 0.4 < (low - network) / (two - network) < 0.75
    with pytest.raises(ConfigError, match="precision='fp8' is unknown"):
        estimate_training_memory(cfg, 1, 128, 128, "fp8")


def test_counting_names_the_extra_that_it_needs(tiny_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchprofile", None)
    words = (
        r"^counting multiply-accumulates needs torchprofile, which is not installed; .*extra 'count': 'make install'"
    )
    with pytest.raises(MissingExtraError, match=words):
        measure_complexity(load_config(str(tiny_config)), 64, 64)


@pytest.mark.parametrize(
    ("layer", "values"),
    [
        (nn.LayerNorm(64), 4 * (32 * 64 + 2 * 32)),  # its input, mean and deviation of each row, in fp32
        (nn.Softmax(-1), 4 * 32 * 64),  # its output in fp32
        (nn.Linear(64, 16), 2 * (32 * 64 + 64 * 16)),  # input and a copy of the weight, in 16 bits
    ],
)
def test_the_estimate_knows_what_a_gpu_computes_in_fp32(monkeypatch, layer, values):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def encode_decode(self, images, metas):
            given = torch.empty(32, 64, device="cuda", dtype=torch.float16, requires_grad=True)
            return self.layer(given).sum()

    monkeypatch.setattr(complexity, "build_network", lambda cfg, initialise: Network())
    monkeypatch.setattr(complexity.F, "cross_entropy", lambda logits, labels: logits)
    monkeypatch.setattr(complexity, "_ADAMW_BYTES", 0)
    kept = estimate_training_memory(load_config("unet.1024x1024.OPM.20k"), 1, 2, 2, "fp16")
    assert kept == values
