"""From a checkpoint to files of other runtimes, each checked against PyTorch before it is kept."""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.datasets import build_dataset
from torch import Tensor, nn

from ..engine.checkpoint import read_checkpoint
from ..engine.config import config_mistakes
from ..engine.distributed import LocalSegmentor, Process
from ..engine.evaluation import evaluate_dataset, evaluation_loader
from ..engine.weights import check_classes
from ..errors import ConfigError, DataError
from ..files import writing
from ..models.folding import Scores
from ..runtime.facts import NetworkFacts, predict_at_scales
from ..runtime.onnx import PIXELS, PROBABILITIES, open_session, raw_pixels
from ..tiling import OVERLAP_PX, TILE_PX
from .facts import normalized_on
from .formats import FORMATS, Format, is_exported
from .int8 import calibration_images
from .onnx import largest_value, threshold_weights
from .pytorch import Runner
from .runner import segmentor_on
from .trained import TrainedNetwork, load_trained

MAX_DIFFERENCE, ROUNDINGS = 1e-4, 10
MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.995, "int8": 0.9}
_CPU = torch.device("cpu")
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
    program: str | None = None,
    tile_px: int = 512,
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
        program: one of `PROGRAMS` that an ONNX file is for; None: any.
        tile_px: rows and columns of the tiles of a program.

    Raises:
        UserError: what was asked for does not fit, or a file does not agree with PyTorch.
    """
    for name in formats:
        FORMATS[name].check(precision, f"--format {name}")
    if calibration and precision != "int8":
        raise ConfigError("--calibration is for int8; give --precision int8, or leave it out")
    if target != "cpu" and "openvino" in formats:
        raise ConfigError(f"--target {target}: files of --format openvino run on a CPU; leave one of the two out")
    if program and list(formats) != ["onnx"]:
        raise ConfigError(f"--for {program}: reads ONNX files; give --format onnx alone, or leave it out")
    variant = f"{program}_{precision}" if program else precision
    targets = {name: _target(checkpoint, out, name, variant, len(formats) > 1) for name in formats}
    for path in targets.values():
        if os.path.exists(path) and not overwrite:
            raise ConfigError(f"{path}: is there already; give --overwrite to replace it")

    cfg, network, facts = load_trained(checkpoint, config, options)
    if program == "geodeep" and facts.bands != 3:
        raise ConfigError(f"--for geodeep: it reads three bands, but {checkpoint} takes {facts.bands}")
    network = revert_sync_batchnorm(network).eval()
    metadata = {**facts.as_metadata(), **_origin(cfg, read_checkpoint(checkpoint).get("meta") or {}, precision)}
    height, width = shape or (4 * facts.stride, 4 * facts.stride)
    if height % facts.stride or width % facts.stride:
        raise ConfigError(f"--shape {height} {width}: this network takes multiples of {facts.stride} px; give such")
    if precision == "int8":
        images, dataset = calibration_images(calibration, cfg, facts), validation_split(cfg)
        before = math.nan if dataset is None else mean_iou(network, dataset)
        job = _Job(network, facts, metadata, precision, target, images[:2], images, dataset, before)
    else:
        sizes = [(2, height, width), (1, 2 * height, width + facts.stride)]
        job = _Job(network, facts, metadata, precision, target, [synthetic_images(facts, *size) for size in sizes])
    if program:
        job = replace(job, program=program, tile_px=tile_px)
    for name, path in targets.items():
        job.write(name, path)
    return list(targets.values())


def _origin(cfg: Config, meta: dict, precision: str) -> dict[str, str]:
    """Return as JSON what a file says besides its facts: where the weights come from, and how a map cuts tiles."""
    entries = dict(
        precision=precision,
        tile_px=TILE_PX,
        overlap_px=OVERLAP_PX,
        licence=meta.get("licence"),
        trained_on=trained_on(cfg),
        iterations=meta.get("iterations") or meta.get("iter"),
        metrics=meta.get("metrics") or {},
    )
    return {name: json.dumps(value) for name, value in entries.items()}


def trained_on(cfg: Config) -> list[str]:
    """Return the names of the folders of training data of ``cfg``, in its order."""
    return list(dict.fromkeys(os.path.basename(os.path.normpath(root)) for root in _data_roots(cfg.data.train)))


def _data_roots(part: Any) -> Iterator[str]:
    """Yield every ``data_root`` in a part of a config, however data sets are nested there."""
    if isinstance(part, Mapping):
        if isinstance(part.get("data_root"), str):
            yield part["data_root"]
        part = list(part.values())
    if isinstance(part, list | tuple):
        for value in part:
            yield from _data_roots(value)


def _target(checkpoint: str, out: str, name: str, variant: str, several: bool) -> str:
    """Return the file that the format ``name`` is written to."""
    suffix = FORMATS[name].suffix
    if not is_exported(out):
        stem = os.path.splitext(os.path.basename(checkpoint))[0]
        return os.path.join(out, f"{stem}_{variant}{suffix}")
    if several:
        raise ConfigError(f"--out {out}: is one file, but several formats were asked for; give a folder")
    if not out.endswith(suffix):
        raise ConfigError(f"--out {out}: a file of --format {name} ends in {suffix}; rename it")
    return out


def noise_pixels(facts: NetworkFacts, count: int, height: int, width: int) -> np.ndarray:
    """Return smooth noise (count, height, width, bands), uint8, about as bright as the training images."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((count, -(-height // 8), -(-width // 8), facts.bands))
    noise = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    noise = noise + 0.3 * rng.standard_normal(noise.shape)
    return np.clip(np.array(facts.mean) + noise * np.array(facts.std), 0, 255).astype(np.uint8)


def synthetic_images(facts: NetworkFacts, count: int, height: int, width: int) -> np.ndarray:
    """Return `noise_pixels` as the network takes them, float32 (count, bands, height, width)."""
    images = noise_pixels(facts, count, height, width)
    return normalized_on(facts, _CPU, images, "noise").contiguous().numpy()


@dataclass(frozen=True)
class _Job:
    """What all files of one export share.

    Attributes:
        network: segmentor with its weights, in evaluation mode on the CPU.
        facts: of the network.
        metadata: what the files say of themselves, the facts included, as JSON.
        precision: of the files.
        device_type: that they are for.
        batches: normalised images (N, C, H, W) to compare on.
        images: likewise, to calibrate int8 with.
        dataset: for int8, the validation images, if they are here; ``plain_iou`` is the network's mean IoU on them.
        program: that an ONNX file is for, in tiles of ``tile_px`` rows and columns; None: any.
    """

    network: nn.Module
    facts: NetworkFacts
    metadata: Mapping[str, str]
    precision: str
    device_type: str
    batches: Sequence[np.ndarray]
    images: Sequence[np.ndarray] = ()
    dataset: Any | None = None
    plain_iou: float = math.nan
    program: str | None = None
    tile_px: int = 0

    def write(self, name: str, target: str) -> None:
        """Write one file and its record, which appear together and only where the file agrees with the network."""
        kind, folder = FORMATS[name], os.path.dirname(target) or "."
        further: dict[str, Any] = dict(calibration=self.images) if self.precision == "int8" else {}
        if self.device_type != "cpu":
            further["target"] = self.device_type
        if self.program:
            further |= dict(program=self.program, tile_px=self.tile_px)
        with writing(target):
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".export.") as unfinished, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of PyTorch about its own exporters
                draft = os.path.join(unfinished, os.path.basename(target))
                kind.write(self.network, draft, self.precision, self.metadata, **further)
                found, said = self._check(draft, kind, target)
                record = {key: json.loads(value) for key, value in self.metadata.items()} | dict(format=name, **found)
                with open(f"{draft}.json", "w", encoding="utf-8") as file:
                    json.dump(record, file, indent=1)
                for made, final in zip(kind.files(draft), kind.files(target), strict=True):
                    if os.path.exists(made):
                        os.replace(made, final)
        logger.info("%s: %s", target, said)

    def _check(self, path: str, kind: Format, target: str) -> tuple[dict[str, Any], str]:
        """Return what is recorded and what is said about a file; refuse one that does not agree with PyTorch."""
        run = kind.open(path) if self.program is None else None
        parity = compare(self.network, run, self.batches) if run else self._check_tile(path, self.program or "")
        parity.check(target, self.precision)
        record: dict[str, Any] = dict(parity=asdict(parity))
        said = f"probabilities within {parity.max_difference:.2g}, classes agree on {parity.class_agreement:.3%}"
        if self.dataset is not None and run is not None:

            def padded(image: Tensor) -> Tensor:
                height, width = image.shape[2:]
                return run(torch.from_numpy(self.facts.padded(image.numpy(), 2)))[:, :, :height, :width]

            iou, count = mean_iou(segmentor_on(self.network, padded), self.dataset), len(self.dataset)
            record["mIoU"] = dict(fp32=self.plain_iou, int8=iou, images=count)
            said += f"; mIoU {100 * self.plain_iou:.2f} before, {100 * iou:.2f} after, on {count} images"
        elif self.precision == "int8":
            said += "; the change of mIoU is unknown, as the config's validation images are not here"
        return record, said

    def _check_tile(self, path: str, program: str) -> Parity:
        """Return how a file for a ``program`` agrees on a tile, where it shows a map's scales and threshold."""
        facts = self.facts
        pixels = noise_pixels(facts, 1, self.tile_px, self.tile_px)
        given = raw_pixels(facts.reading, pixels) / largest_value(program, facts)
        (found,) = open_session(path, torch.get_num_threads()).run([PROBABILITIES], {PIXELS: given})
        plain = TrainedNetwork(segmentor_on(self.network, Scores(self.network)), facts, _CPU, "plain", "fp32")
        wanted = predict_at_scales(plain, list(pixels), facts.scales) * threshold_weights(facts)
        wanted /= wanted.sum(axis=1, keepdims=True)
        agreement = float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean())
        # OpenCV sums in another order, so that a pixel between two values may become the other
        rounding = 0.0 if facts.scales == (1.0,) else 0.005
        return Parity(float(np.abs(found - wanted).max()), agreement, rounding, (found.shape,))


@dataclass(frozen=True)
class Parity:
    """How an exported file and the network in PyTorch, plain and in float32, agree.

    Attributes:
        max_difference: largest difference of two probabilities.
        class_agreement: share of pixels with the same class.
        rounding: largest difference of two probabilities between the network in float32 and in float64.
        shapes: of the image batches that were compared.
    """

    max_difference: float
    class_agreement: float
    rounding: float
    shapes: tuple[tuple[int, ...], ...]

    def check(self, path: str, precision: str) -> None:
        """Raise a ConfigError for a file that does not agree: in its classes, and in ``fp32`` in its probabilities."""
        wrong = self.class_agreement < MIN_AGREEMENT[precision]
        if precision == "fp32":
            wrong |= not self.max_difference < max(MAX_DIFFERENCE, ROUNDINGS * self.rounding)
        if wrong:
            remedy = "please report it" if precision == "fp32" else "take --precision fp32"
            raise ConfigError(
                f"{path}: differs from the network in PyTorch ({precision}: probabilities by up to "
                f"{self.max_difference:.2g}, classes agree on {self.class_agreement:.2%} of the pixels), so it was not "
                f"kept; {remedy}"
            )


@torch.no_grad()
def compare(network: nn.Module, run: Runner, batches: Sequence[np.ndarray]) -> Parity:
    """Return how ``run``, an exported file, agrees with ``network``, on the CPU, on normalised images (N, C, H, W)."""
    head: Any = network.decode_head

    def classes(scores: Tensor) -> Tensor:
        return scores[:, 0].sigmoid() > head.threshold if scores.shape[1] == 1 else scores.argmax(1)

    def probabilities(scores: Tensor) -> Tensor:
        return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(1)

    exact = Scores(copy.deepcopy(network).double())
    differences, agreements, roundings = [], [], []
    for image in map(torch.from_numpy, batches):
        wanted, found = Scores(network)(image), run(image)
        chances = probabilities(wanted)
        roundings.append(float((probabilities(exact(image.double())) - chances).abs().max()))
        same_shape = found.shape == wanted.shape
        differences.append(float((probabilities(found) - chances).abs().max()) if same_shape else float("inf"))
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
    loader = evaluation_loader(dataset, Process(0, 1, _CPU), workers=0)
    areas = evaluate_dataset(LocalSegmentor(network, _CPU, None), loader)
    return dataset.evaluate(areas, ["mIoU"], logger="silent")["mIoU"]
