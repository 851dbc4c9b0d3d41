"""GPU memory that a training step needs."""

from __future__ import annotations

import torch
from mmcv import Config
from mmcv.runner import build_optimizer

from ..errors import ConfigError
from .distributed import start_process, wrap
from .network import build_network
from .precision import DTYPES, choose_precision


def measure_training_memory(cfg: Config, batch: int, height: int, width: int, precision: str, steps: int = 3) -> int:
    """Return the peak bytes that PyTorch reserves on the GPU while ``steps`` training steps run on random images.

    Args:
        cfg: config with ``model`` and ``optimizer``.
        batch: images in a step.
        height: rows of an image.
        width: columns of an image.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto``.
        steps: number of steps; the optimizer's state exists after the first.

    Raises:
        ConfigError: there is no GPU, or the step does not fit into its memory.
    """
    process = start_process()
    if process.device.type != "cuda":
        raise ConfigError("training memory is measured on a GPU, and there is none here")
    precision = choose_precision(precision, process.device)
    model = wrap(build_network(cfg, pretrained=False), process, DTYPES[precision]).train()
    optimizer = build_optimizer(model.module, cfg.optimizer)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "fp16")
    images = torch.randn(batch, cfg.model.backbone.get("in_channels", 3), height, width)
    labels = torch.randint(cfg.model.decode_head.num_classes, (batch, 1, height, width))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        for _ in range(steps):
            optimizer.zero_grad()
            data = dict(img=images, img_metas=[{}] * batch, gt_semantic_seg=labels)
            scaler.scale(model.train_step(data)["loss"]).backward()
            scaler.step(optimizer)
            scaler.update()
    except torch.cuda.OutOfMemoryError:
        raise ConfigError(f"{batch} images of {height}x{width} in {precision} do not fit into this GPU's memory") from None
    return torch.cuda.max_memory_reserved()
