"""Which of our configs a set of weights is for."""

from __future__ import annotations

import contextlib
import functools
import json

from mmseg.models import build_segmentor
from torch import Size, Tensor, nn

from ..errors import CheckpointError
from .config import CONFIG_ROOT, leaf_configs, load_config


def _plainest_first(path: str) -> tuple[bool, bool, int, str]:
    return "/ablation/" in path, ".OPM." not in path, len(path), path


@functools.cache
def _networks() -> dict[str, tuple[type[nn.Module], dict[str, Size]]]:
    """Return type of the backbone and shapes by key of every distinct network, by its plainest config."""
    found: dict[str, tuple[type[nn.Module], dict[str, Size]]] = {}
    seen = set()
    for path in sorted(leaf_configs(), key=_plainest_first):
        with contextlib.suppress(Exception):  # somebody's unfinished config must not hide what was refused
            model = load_config(str(CONFIG_ROOT.parent / path)).model
            model.backbone.init_cfg = None
            head = {key: value for key, value in model.decode_head.items() if key != "loss_decode"}
            description = json.dumps([model.backbone, head], sort_keys=True)
            if description not in seen:
                seen.add(description)
                network = build_segmentor(model)
                found[path] = type(network.backbone), {key: value.shape for key, value in network.state_dict().items()}
    return found


def fitting_config(weights: dict[str, Tensor]) -> str | None:
    """Return the path of the plainest config whose network, or encoder, has the keys and shapes of ``weights``.

    The number of classes may differ. Builds every network of ours, which takes seconds: meant for the moment when a
    checkpoint has been refused.

    Args:
        weights: a segmentation checkpoint (``backbone.*``, ``decode_head.*``) or an encoder with or without prefix.
    """
    whole = any(key.startswith("decode_head.") for key in weights)
    for path, (backbone, shapes) in _networks().items():
        theirs = {
            key if key.startswith(("backbone.", "decode_head.")) else f"backbone.{key}": v for key, v in weights.items()
        }
        if hasattr(backbone, "adapt_published_keys"):
            backbone.adapt_published_keys(theirs, "backbone.")
        own = {key: shape for key, shape in shapes.items() if whole or key.startswith("backbone.")}
        needed = [key for key in own if not key.endswith("num_batches_tracked") and ".conv_seg." not in key]
        if theirs.keys() <= own.keys() and all(key in theirs and theirs[key].shape == own[key] for key in needed):
            return path
    return None


def refuse_encoder(weights: dict[str, Tensor], path: str) -> None:
    """Refuse an encoder where a whole segmentation network is needed.

    Raises:
        CheckpointError: ``weights`` are those of an encoder of ours; the message says what an encoder is for.
    """
    if not any(key.startswith("decode_head.") for key in weights) and fitting_config(weights):
        raise CheckpointError(
            f"{path}: is an encoder, not a segmentation network; start a training from it: "
            f"--cfg-options model.backbone.init_cfg.checkpoint={path}"
        )
