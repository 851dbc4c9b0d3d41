"""Top-1 and top-5 accuracy of a classifier, in any number of processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from timm.data import create_transform, resolve_data_config
from timm.data.loader import PrefetchLoader
from torch import distributed as dist
from torch import nn
from tqdm import tqdm

from ..engine.distributed import Process, start_process
from ..engine.precision import DTYPES, choose_precision
from .classifiers import Classifier, check_name, create_classifier, load_classifier
from .image_folder import ImageFolder, image_loader
from .settings import Settings


def validation_transform(model: Classifier, image_size: int) -> Callable:
    """Return the steps of an image to a uint8 tensor: shorter side to ``image_size`` / crop_pct, centre crop."""
    config = {**resolve_data_config({}, model=model), "input_size": (3, image_size, image_size)}
    return create_transform(**config, use_prefetcher=True)


def validation_loader(dataset: ImageFolder, settings: Settings, process: Process) -> PrefetchLoader:
    """Return this process's loader: it reads every ``world_size``-th image, none twice."""
    images = range(process.rank, len(dataset), process.world_size)
    return image_loader(dataset, images, settings.batch_size, settings.workers, process)


@torch.no_grad()
def measure_accuracy(
    model: nn.Module, loader: PrefetchLoader, process: Process, autocast: contextlib.AbstractContextManager
) -> dict[str, float]:
    """Return ``top1`` and ``top5``, 0 to 1, over the images of all processes; every process gets them."""
    model.eval()
    correct = torch.zeros(2, dtype=torch.int64, device=process.device)
    hidden = None if process.rank == 0 else True
    for images, labels in tqdm(loader, desc="evaluating", unit="batch", disable=hidden, leave=False):
        with autocast:
            logits = model(images)
        hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        correct += torch.stack((hits[:, 0].sum(), hits.sum()))
    if dist.is_initialized():
        dist.all_reduce(correct)
    top1, top5 = (correct.double() / len(loader.dataset)).tolist()
    return dict(top1=top1, top5=top5)


def evaluate_classifier(
    data: str,
    name: str,
    checkpoint: str,
    settings: Settings | None = None,
    model_options: dict | None = None,
    gpu_id: int = 0,
) -> dict[str, float]:
    """Evaluate ``checkpoint`` on ``data/val`` and return ``top1`` and ``top5``, 0 to 1, in every process.

    Args:
        data: image folder; only ``val`` is read.
        name: of `mmseg_ext.pretrain.MODELS`.
        checkpoint: weights with classifier, ours or published.
        settings: image size, batch size, precision and workers are used.
        model_options: arguments of `MSCAN` that differ from the config.
        gpu_id: the GPU of a single process.

    Raises:
        UserError: data, weights or machine do not fit; the message says what to do.
    """
    check_name(name)
    settings = settings or Settings()
    process = start_process(gpu_id)
    dtype = DTYPES[choose_precision(settings.precision, process.device)]
    dataset = ImageFolder(data, "val")
    model = create_classifier(name, len(dataset.classes), model_options)
    load_classifier(model, name, checkpoint)
    dataset.transform = validation_transform(model, settings.image_size)
    loader = validation_loader(dataset, settings, process)
    autocast = torch.autocast(process.device.type, dtype=dtype, enabled=dtype is not None)
    return measure_accuracy(model.to(process.device), loader, process, autocast)
