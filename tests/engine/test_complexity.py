import sys

import pytest

from mmseg_ext.engine import build_network, estimate_training_memory, load_config, measure_complexity
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
    words = r"^counting multiply-accumulates needs torchprofile, which is not installed; .*-e '\.\[count\]'$"
    with pytest.raises(MissingExtraError, match=words):
        measure_complexity(load_config(str(tiny_config)), 64, 64)
