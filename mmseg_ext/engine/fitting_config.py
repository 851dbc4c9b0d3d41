"""Which of our configs a set of weights is for."""

from __future__ import annotations

import json

from mmseg.models import build_segmentor
from torch import Tensor

from .config import CONFIG_ROOT, leaf_configs, load_config


def _plainest_first(path: str) -> tuple[bool, bool, int, str]:
    return "/ablation/" in path, ".OPM." not in path, len(path), path


def fitting_config(weights: dict[str, Tensor]) -> str | None:
    """Return the path of the plainest config whose network, or encoder, has the keys and shapes of ``weights``.

    The number of classes may differ. Builds every network of ours, which takes seconds: meant for the moment when a
    checkpoint has been refused.

    Args:
        weights: a segmentation checkpoint (``backbone.*``, ``decode_head.*``) or an encoder without prefix.
    """
    whole = any(key.startswith("decode_head.") for key in weights)
    encoder = {key.removeprefix("backbone."): value for key, value in weights.items()}
    seen = set()
    for path in sorted(leaf_configs(), key=_plainest_first):
        model = load_config(str(CONFIG_ROOT.parent / path)).model
        model.backbone.init_cfg = None
        parts = [model.backbone, model.decode_head] if whole else [model.backbone]
        network = json.dumps([{k: v for k, v in part.items() if k != "loss_decode"} for part in parts], sort_keys=True)
        if network in seen:
            continue
        seen.add(network)
        built = build_segmentor(model)
        target = built if whole else built.backbone
        theirs = dict(weights if whole else encoder)
        if hasattr(built.backbone, "adapt_published_keys"):
            built.backbone.adapt_published_keys(theirs, "backbone." if whole else "")
        own = target.state_dict()
        needed = [key for key in own if not key.endswith("num_batches_tracked") and "conv_seg." not in key]
        if theirs.keys() <= own.keys() and all(key in theirs and theirs[key].shape == own[key].shape for key in needed):
            return path
    return None
