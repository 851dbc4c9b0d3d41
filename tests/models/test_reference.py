"""Agreement with the reference implementation: keys, shapes, features and logits."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

CONFIGS = {
    "dsegnext_t": "dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py",
    "dsegnext_s": "dsegnext/small/dsegnext.small.1024x1024.OPM.20k.py",
    "dsegnext_b": "dsegnext/base/dsegnext.base.1024x1024.OPM.40k.py",
    "segnext_t": "segnext/tiny/segnext.tiny.1024x1024.OPM.20k.py",
    "segnext_s": "segnext/small/segnext.small.1024x1024.OPM.20k.py",
    "segnext_b": "segnext/base/segnext.base.1024x1024.OPM.40k.py",
    "segformer_b0": "segformer/segformer.b0.1024x1024.OPM.20k.py",
    "linknet34": "linknets/linknet34.1024x1024.OPM.20k.py",
    "dlinknet34": "linknets/dlinknet34.1024x1024.OPM.20k.py",
    "nl_linknet34": "linknets/nl_linknet34.1024x1024.OPM.20k.py",
    "unet": "linknets/unet.1024x1024.OPM.20k.py",
    "dunet": "linknets/dunet.1024x1024.OPM.20k.py",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_keys_and_shapes_are_the_published_ones(name, build, shared):
    keys = json.loads((shared / "reference" / "state_keys" / f"{name}.json").read_text())
    own = {key: list(value.shape) for key, value in build(CONFIGS[name]).state_dict().items()}
    assert own == {key: shape for key, shape in keys.items() if not key.startswith("backbone.head.")}


@pytest.mark.parametrize("name", CONFIGS)
def test_published_checkpoint_loads_strictly(name, build, seeded_state):
    state = seeded_state(name)
    result = build(CONFIGS[name]).load_state_dict(state, strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys


@pytest.mark.parametrize("name", ["dsegnext_t", "segnext_t", "linknet34", "unet"])
def test_golden_features_and_logits(name, build, seeded_state, shared):
    golden = np.load(shared / "reference" / f"{name}.npz")
    network = build(CONFIGS[name])
    network.load_state_dict(seeded_state(name), strict=True)
    images = np.random.default_rng(int(golden["input_seed"])).standard_normal(golden["input_shape"])
    extra = ()
    if "nmf_bases_shape" in golden:
        bases = np.random.default_rng(1).random(tuple(golden["nmf_bases_shape"]))
        extra = (F.normalize(torch.from_numpy(bases.astype(np.float32)), dim=1),)
    with torch.no_grad():
        features = network.backbone(torch.from_numpy(images.astype(np.float32)))
        logits = network.decode_head(features, *extra)
    for i, feature in enumerate(features):
        assert tuple(feature.shape) == tuple(golden[f"feature{i}_shape"])
        channels, height, width = feature.shape[1:]
        sample = feature[:, :: max(1, channels // 8), :: max(1, height // 8), :: max(1, width // 8)]
        assert np.abs(sample.numpy() - golden[f"feature{i}"]).max() < 1e-5
    stride = int(golden["logits_stride"])
    assert np.abs(logits[:, :, ::stride, ::stride].numpy() - golden["logits"]).max() < 1e-5
