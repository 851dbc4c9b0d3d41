"""From a checkpoint to files of other runtimes, each checked against PyTorch before it is kept."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.datasets import build_dataset
from torch import Tensor, nn

from ..engine.config import config_mistakes
from ..engine.distributed import LocalSegmentor, Process
from ..engine.evaluation import evaluate_dataset, evaluation_loader
from ..engine.weights import check_classes
from ..errors import ConfigError, DataError
from ..files import writing
from ..models.folding import Scores
from ..runtime.facts import NetworkFacts
from .formats import FORMATS, is_exported
from .int8 import calibration_images
from .pytorch import Runner
from .runner import segmentor_on
from .trained import load_trained

MAX_DIFFERENCE, ROUNDINGS = 1e-3, 10
MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.995, "int8": 0.9}
logger = logging.getLogger(__name__)


def export_checkpoint(
    checkpoint: str,
    out: str,
    formats: Sequence[str],
    precision: str = "fp32",
    config: str | None = None,
    options: dict | None = None,
    calibration: str | None = None,
    shape: tuple[int, int] | None = None,
    overwrite: bool = False,
    target: str = "cpu",
) -> list[str]:
    """Write the network of ``checkpoint`` as files that run without this package, and return their paths.

    Beside each lies its record, the same name with ``.json``: metadata, parity, and for int8 the mean IoU on the
    config's validation images before and after. A file that does not agree with PyTorch is not kept.

    Args:
        checkpoint: weights of a segmentation network.
        out: a file where there is one format, else a folder.
        formats: names in `FORMATS`.
        precision: ``fp32``, ``fp16`` or ``int8``.
        config: config of the weights; None takes the one inside ``checkpoint``.
        options: dotted keys to merge over the config.
        calibration: for int8, a folder of images or a config; None takes the network's training images.
        shape: height and width of the images to check with, in pixels; None takes four strides.
        overwrite: replace existing files.
        target: type of the device that the files are for, ``cpu`` or ``cuda``; they run on both, but faster there.

    Raises:
        UserError: what was asked for does not fit, or a file does not agree with PyTorch.
    """
    for name in formats:
        FORMATS[name].check(precision, f"--format {name}")
    if calibration and precision != "int8":
        raise ConfigError("--calibration is for int8; give --precision int8, or leave it out")
    if target != "cpu" and "openvino" in formats:
        raise ConfigError(f"--target {target}: files of --format openvino run on a CPU; leave one of the two out")
    targets = {name: _target(checkpoint, out, name, precision, len(formats) > 1) for name in formats}
    for path in targets.values():
        if os.path.exists(path) and not overwrite:
            raise ConfigError(f"{path}: is there already; give --overwrite to replace it")

    cfg, network, facts = load_trained(checkpoint, config, options)
    network = revert_sync_batchnorm(network).eval()
    height, width = shape or (4 * facts.stride, 4 * facts.stride)
    if height % facts.stride or width % facts.stride:
        raise ConfigError(f"--shape {height} {width}: this network takes multiples of {facts.stride} px; give such")
    if precision == "int8":
        images, dataset = calibration_images(calibration, cfg, facts), validation_split(cfg)
        before = math.nan if dataset is None else mean_iou(network, dataset)
        job = _Job(network, facts, precision, target, images[:2], images, dataset, before)
    else:
        sizes = [(2, facts.bands, height, width), (1, facts.bands, 2 * height, width + facts.stride)]
        job = _Job(network, facts, precision, target, [synthetic_images(*size) for size in sizes])
    for name, path in targets.items():
        job.write(name, path)
    return list(targets.values())


def _target(checkpoint: str, out: str, name: str, precision: str, several: bool) -> str:
    """Return the file that the format ``name`` is written to."""
    suffix = FORMATS[name].suffix
    if not is_exported(out):
        stem = os.path.splitext(os.path.basename(checkpoint))[0]
        return os.path.join(out, f"{stem}_{precision}{suffix}")
    if several:
        raise ConfigError(f"--out {out}: is one file, but several formats were asked for; give a folder")
    if not out.endswith(suffix):
        raise ConfigError(f"--out {out}: a file of --format {name} ends in {suffix}; rename it")
    return out


def synthetic_images(count: int, bands: int, height: int, width: int) -> np.ndarray:
    """Return smooth noise (count, bands, height, width), float32, normalised as images are."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((count, bands, height // 8, width // 8))
    noise = coarse.repeat(8, axis=2).repeat(8, axis=3) + 0.3 * rng.standard_normal((count, bands, height, width))
    return noise.astype(np.float32)


@dataclass(frozen=True)
class _Job:
    """What all files of one export share.

    Attributes:
        network: segmentor with its weights, in evaluation mode on the CPU.
        facts: of the network.
        precision: of the files.
        device_type: that they are for.
        batches: normalised images (N, C, H, W) to compare on.
        images: likewise, to calibrate int8 with.
        dataset: for int8, the validation images, if they are here; ``plain_iou`` is the network's mean IoU on them.
    """

    network: nn.Module
    facts: NetworkFacts
    precision: str
    device_type: str
    batches: Sequence[np.ndarray]
    images: Sequence[np.ndarray] = ()
    dataset: Any | None = None
    plain_iou: float = math.nan

    def write(self, name: str, target: str) -> None:
        """Write one file and its record, which appear together and only where the file agrees with the network."""
        kind, folder = FORMATS[name], os.path.dirname(target) or "."
        metadata = {**self.facts.as_metadata(), "precision": json.dumps(self.precision)}
        further: dict[str, Any] = dict(calibration=self.images) if self.precision == "int8" else {}
        if self.device_type != "cpu":
            further["target"] = self.device_type
        with writing(target):
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".export.") as unfinished, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of PyTorch about its own exporters
                draft = os.path.join(unfinished, os.path.basename(target))
                kind.write(self.network, draft, self.precision, metadata, **further)
                found, said = self._check(kind.open(draft), target)
                record = {key: json.loads(value) for key, value in metadata.items()} | dict(format=name, **found)
                with open(f"{draft}.json", "w", encoding="utf-8") as file:
                    json.dump(record, file, indent=1)
                for made, final in zip(kind.files(draft), kind.files(target), strict=True):
                    if os.path.exists(made):
                        os.replace(made, final)
        logger.info("%s: %s", target, said)

    def _check(self, run: Runner, target: str) -> tuple[dict[str, Any], str]:
        """Return what is recorded and what is said about a file; refuse one that does not agree with PyTorch."""
        parity = compare(self.network, run, self.batches)
        parity.check(target, self.precision)
        record: dict[str, Any] = dict(parity=asdict(parity))
        said = f"logits within {parity.max_difference:.2g}, classes agree on {parity.class_agreement:.3%}"
        if self.dataset is not None:

            def padded(image: Tensor) -> Tensor:
                height, width = image.shape[2:]
                return run(torch.from_numpy(self.facts.padded(image.numpy(), 2)))[:, :, :height, :width]

            iou, count = mean_iou(segmentor_on(self.network, padded), self.dataset), len(self.dataset)
            record["mIoU"] = dict(fp32=self.plain_iou, int8=iou, images=count)
            said += f"; mIoU {100 * self.plain_iou:.2f} before, {100 * iou:.2f} after, on {count} images"
        elif self.precision == "int8":
            said += "; the change of mIoU is unknown, as the config's validation images are not here"
        return record, said


@dataclass(frozen=True)
class Parity:
    """How an exported file and the network in PyTorch, plain and in float32, agree.

    Attributes:
        max_difference: largest difference of two logits.
        class_agreement: share of pixels with the same class.
        rounding: largest difference of two logits between the network in float32 and in float64.
        shapes: of the image batches that were compared.
    """

    max_difference: float
    class_agreement: float
    rounding: float
    shapes: tuple[tuple[int, ...], ...]

    def check(self, path: str, precision: str) -> None:
        """Raise a ConfigError for a file that does not agree: in its classes, and in ``fp32`` in its logits."""
        wrong = self.class_agreement < MIN_AGREEMENT[precision]
        if precision == "fp32":
            wrong |= not self.max_difference < max(MAX_DIFFERENCE, ROUNDINGS * self.rounding)
        if wrong:
            remedy = "please report it" if precision == "fp32" else "take --precision fp32"
            raise ConfigError(
                f"{path}: differs from the network in PyTorch ({precision}: logits by up to {self.max_difference:.2g}, "
                f"classes agree on {self.class_agreement:.2%} of the pixels), so it was not kept; {remedy}"
            )


@torch.no_grad()
def compare(network: nn.Module, run: Runner, batches: Sequence[np.ndarray]) -> Parity:
    """Return how ``run``, an exported file, agrees with ``network``, on the CPU, on normalised images (N, C, H, W)."""
    head: Any = network.decode_head

    def classes(scores: Tensor) -> Tensor:
        return scores[:, 0].sigmoid() > head.threshold if scores.shape[1] == 1 else scores.argmax(1)

    exact = Scores(copy.deepcopy(network).double())
    differences, agreements, roundings = [], [], []
    for image in map(torch.from_numpy, batches):
        wanted, found = Scores(network)(image), run(image)
        roundings.append(float((exact(image.double()) - wanted).abs().max()))
        same_shape = found.shape == wanted.shape
        differences.append(float((found - wanted).abs().max()) if same_shape else float("inf"))
        agreements.append(float((classes(found) == classes(wanted)).double().mean()) if same_shape else 0.0)
    shapes = tuple(batch.shape for batch in batches)
    return Parity(max(differences), float(np.mean(agreements)), max(roundings), shapes)


def validation_split(cfg: Config) -> Any | None:
    """Return the validation data set of ``cfg``, None where it is not on this machine."""
    try:
        with config_mistakes(cfg):
            dataset = build_dataset(cfg.data.val, dict(test_mode=True))
    except DataError:
        return None
    check_classes(cfg, dataset)
    return dataset


def mean_iou(network: nn.Module, dataset: Any) -> float:
    """Return the mean IoU, 0 to 1, of a segmentor on the CPU on the images of ``dataset``."""
    device = torch.device("cpu")
    loader = evaluation_loader(dataset, Process(0, 1, device), workers=0)
    areas = evaluate_dataset(LocalSegmentor(network, device, None), loader)
    return dataset.evaluate(areas, ["mIoU"], logger="silent")["mIoU"]
