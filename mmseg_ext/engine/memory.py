"""Memory that a training step needs, worked out without a GPU and without computing anything."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..errors import ConfigError
from .config import step_arguments
from .network import build_network
from .precision import DTYPES

_ADAMW_BYTES = 4 * 4  # per parameter, float32: weight, gradient, and AdamW's two moments


def crop_size(cfg: Config) -> tuple[int, int]:
    """Return height and width of the training crops of ``cfg``.

    Raises:
        ConfigError: the training pipeline crops nothing.
    """
    for step in ("RandomCrop", "RandomAffineCrop"):
        try:
            height, width = step_arguments(cfg.data.train, step)["crop_size"]
        except KeyError:
            continue
        return height, width
    raise ConfigError(f"{cfg.filename}: the training pipeline has no RandomCrop; give --shape")


def estimate_training_memory(cfg: Config, batch: int, height: int, width: int, precision: str) -> int:
    """Return the bytes of one training step: weights, gradients, AdamW's state and what the backward pass keeps.

    The network runs on tensors without data, and every distinct storage that autograd saves is counted once. The
    CUDA context, cuDNN's workspaces and the allocator's fragmentation come on top.

    Args:
        cfg: config with ``model``.
        batch: images in a step.
        height: rows of an image.
        width: columns of an image.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ConfigError: unknown precision.
    """
    if precision not in DTYPES:
        raise ConfigError(f"precision='{precision}' is unknown; take one of {', '.join(DTYPES)}")
    dtype = DTYPES[precision]
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (tensor, storage.nbytes())
        return tensor

    model = revert_sync_batchnorm(build_network(cfg, initialise=False)).train()
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        own = {fake.from_tensor(t).untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
        images = torch.empty(batch, cfg.model.backbone.get("in_channels", 3), height, width)
        labels = torch.empty(batch, height, width, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                logits = model.encode_decode(images, None)
            loss = F.cross_entropy(logits.float(), labels)
        parameters = sum(p.numel() for p in model.parameters())
        saved = sum(size for key, (_, size) in kept.items() if key not in own)
        del loss
    return saved + parameters * _ADAMW_BYTES
