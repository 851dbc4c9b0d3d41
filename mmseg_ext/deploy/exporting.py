"""Images to calibrate and to check exported networks with."""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv import Config
from mmcv.cnn.utils import revert_sync_batchnorm
from mmseg.datasets import build_dataset
from torch import Tensor, nn

from ..datasets.loading import to_bgr
from ..datasets.voc import IMAGE_SUFFIXES
from ..engine.config import config_for, config_mistakes, load_config
from ..engine.distributed import LocalSegmentor, Process
from ..engine.evaluation import evaluate_dataset, evaluation_loader
from ..engine.weights import build_network, check_classes, load_weights
from ..errors import ConfigError, DataError, UserError, require
from ..models.folding import Scores, network_stride
from .exportable import check_precision
from .facts import NetworkFacts, image_bands, openvino_core
from .onnx import export_onnx
from .openvino import export_openvino
from .pytorch import export_torch, export_torchscript

_MAX_IMAGES = 128
_MAX_SIDE = 1024


def calibration_images(source: str | None, cfg: Config, facts: NetworkFacts) -> list[np.ndarray]:
    """Return normalised images (1, C, H, W) like those that the network will see, sides multiples of its stride.

    Args:
        source: folder of images, or a config, whose training images are taken; None takes those of ``cfg``.
        cfg: config of the network.
        facts: of the network.

    Raises:
        UserError: there are none, or they do not fit.
    """
    if source is not None and not source.endswith(".py"):
        return _of_folder(source, facts)
    data = load_config(source) if source else cfg
    split = copy.deepcopy(data.data.val)
    split.update({key: data.data.train[key] for key in ("data_root", "split") if key in data.data.train})
    try:
        with config_mistakes(data):
            dataset = build_dataset(split, dict(test_mode=True))
    except UserError as error:
        if source:
            raise
        raise DataError(f"int8 is calibrated with images, and {error}; or give --calibration, a folder") from None
    chosen = _spread(range(len(dataset)))
    return [_fitting(dataset[i]["img"][0].permute(1, 2, 0).numpy(), facts.stride) for i in chosen]


def _of_folder(folder: str, facts: NetworkFacts) -> list[np.ndarray]:
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; --calibration takes a folder of images or a config")
    paths = sorted(str(path) for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}); give a folder of images")
    normalize = facts.normalize()
    images = []
    for path in _spread(paths):
        image, _ = facts.reading.read(path)
        normalized = normalize(dict(img=to_bgr(image[:_MAX_SIDE, :_MAX_SIDE]), filename=path))["img"]
        images.append(_fitting(normalized, facts.stride))
    return images


def _spread(items: Sequence) -> list:
    """Return at most `_MAX_IMAGES` of ``items``, evenly spread."""
    count = min(len(items), _MAX_IMAGES)
    return [items[i * len(items) // count] for i in range(count)]


def _fitting(image: np.ndarray, stride: int) -> np.ndarray:
    """Return a normalised image (H, W, C) as (1, C, H, W), mirrored to multiples of ``stride``."""
    return padded_to(image.transpose(2, 0, 1)[None], stride)


def padded_to(batch: np.ndarray, stride: int) -> np.ndarray:
    """Return ``batch`` (N, C, H, W), mirrored below and at the right to multiples of ``stride``."""
    height, width = batch.shape[2:]
    padded = np.pad(batch, ((0, 0), (0, 0), (0, -height % stride), (0, -width % stride)), mode="reflect")
    return np.ascontiguousarray(padded, dtype=np.float32)


def synthetic_images(bands: int, height: int, width: int, count: int = 2) -> np.ndarray:
    """Return smooth noise (count, bands, height, width), normalised as images are."""
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((count, bands, height // 8, width // 8))
    noise = coarse.repeat(8, axis=2).repeat(8, axis=3) + 0.3 * rng.standard_normal((count, bands, height, width))
    return noise.astype(np.float32)


# -- export.validation
# Mean IoU of an exported file on the validation images of a config.


def validation_split(cfg: Config) -> Any | None:
    """Return the validation data set of ``cfg``, None where it is not on this machine."""
    try:
        with config_mistakes(cfg):
            dataset = build_dataset(cfg.data.val, dict(test_mode=True))
    except DataError:
        return None
    check_classes(cfg, dataset)
    return dataset


def mean_iou(network: nn.Module, dataset: Any, run: Run | None = None) -> float:
    """Return the mean IoU, 0 to 1, on ``dataset``.

    Args:
        network: segmentor with its weights.
        dataset: what `validation_split` returned.
        run: stands for the network where it is given; images are mirrored to multiples of the stride.
    """
    device = torch.device("cpu")
    measured: Any = copy.deepcopy(network)
    stride = network_stride(network)

    def encode_decode(image: Tensor, _: object) -> Tensor:
        height, width = image.shape[2:]
        scores = run(padded_to(image.numpy(), stride))  # type: ignore[misc]
        return torch.from_numpy(scores[:, :, :height, :width])

    if run is not None:
        measured.encode_decode = encode_decode
    loader = evaluation_loader(dataset, Process(0, 1, device), workers=0)
    areas = evaluate_dataset(LocalSegmentor(measured, device, None), loader)
    return dataset.evaluate(areas, ["mIoU"], logger="silent")["mIoU"]


# -- export.parity
# Exported files against the network that they were made of.

Run = Callable[[np.ndarray], np.ndarray]

MAX_DIFFERENCE = 1e-3
MIN_AGREEMENT = {"fp32": 0.999, "fp16": 0.995, "int8": 0.9}


@dataclass(frozen=True)
class Parity:
    """How an exported file and the network in PyTorch, plain and in float32, agree.

    Attributes:
        max_difference: largest difference of two logits.
        class_agreement: share of pixels with the same class.
        shapes: of the image batches that were compared.
    """

    max_difference: float
    class_agreement: float
    shapes: tuple[tuple[int, ...], ...]

    def check(self, path: str, precision: str) -> None:
        """Refuse a file that does not agree: its classes, and in ``fp32`` its logits.

        Raises:
            ConfigError: says how far off it is.
        """
        wrong = self.class_agreement < MIN_AGREEMENT[precision]
        if precision == "fp32":
            wrong |= not self.max_difference < MAX_DIFFERENCE
        if wrong:
            raise ConfigError(
                f"{path}: differs from the network in PyTorch ({precision}: logits by up to {self.max_difference:.2g}, "
                f"classes agree on {self.class_agreement:.2%} of the pixels), so it was not kept; "
                + ("please report it" if precision == "fp32" else "take --precision fp32")
            )


def compare(network: nn.Module, run: Run, batches: Sequence[np.ndarray]) -> Parity:
    """Return how ``run`` agrees with ``network``.

    Args:
        network: segmentor with its weights, in evaluation mode on the CPU.
        run: an exported file, see `runner_of`.
        batches: normalised images (N, C, H, W).
    """
    differences, agreements = [], []
    head: Any = network.decode_head
    for batch in batches:
        with torch.no_grad():
            wanted = Scores(network)(torch.from_numpy(batch)).numpy()
        found = run(batch)
        differences.append(float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf"))
        if found.shape == wanted.shape:
            agreements.append(float((_classes(found, head) == _classes(wanted, head)).mean()))
        else:
            agreements.append(0.0)
    shapes = tuple(batch.shape for batch in batches)
    return Parity(max(differences), float(np.mean(agreements)), shapes)


def _classes(scores: np.ndarray, head: Any) -> np.ndarray:
    """Return class indices (N, H, W) of logits (N, K, H, W)."""
    if scores.shape[1] == 1:
        return 1 / (1 + np.exp(-scores[:, 0])) > head.threshold
    return scores.argmax(axis=1)


def runner_of(path: str) -> Run:
    """Return the exported file at ``path`` as a function of images, on the CPU, computing in float32 what it can."""
    return _RUNNERS[os.path.splitext(path)[1]](path)


def _onnx(path: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["scores"], {"image": image})[0]


def _openvino(path: str) -> Run:
    # where the hardware has bf16, OpenVINO's default is bf16
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino_core().compile_model(path, "CPU", settings)
    return lambda image: model({"image": image})["scores"]


def _torch(path: str) -> Run:
    return _without_gradients(torch.export.load(path).module())


def _torchscript(path: str) -> Run:
    return _without_gradients(torch.jit.load(path, map_location="cpu"))


def _without_gradients(module: Any) -> Run:
    @torch.no_grad()
    def run(image: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(image)).numpy()

    return run


_RUNNERS: dict[str, Callable[[str], Run]] = {".onnx": _onnx, ".xml": _openvino, ".pt2": _torch, ".pt": _torchscript}


# -- export.exporting
# From a checkpoint to checked files of other runtimes.

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Format:
    suffix: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    write: Callable[..., None]


FORMATS = {
    "onnx": _Format(".onnx", ("fp32", "fp16", "int8"), ("onnx", "onnxscript", "onnxruntime"), export_onnx),
    "openvino": _Format(".xml", ("fp32", "fp16", "int8"), ("openvino",), export_openvino),
    "torch": _Format(".pt2", ("fp32", "fp16"), (), export_torch),
    "torchscript": _Format(".pt", ("fp32", "fp16"), (), export_torchscript),
}


def _target(checkpoint: str, out: str, name: str, precision: str, several: bool) -> str:
    """Return the file that the format ``name`` is written to."""
    suffix = FORMATS[name].suffix
    if os.path.splitext(out)[1] in {known.suffix for known in FORMATS.values()}:
        if several:
            raise ConfigError(f"--out {out}: is one file, but several formats were asked for; give a folder")
        if not out.endswith(suffix):
            raise ConfigError(f"--out {out}: a file of --format {name} ends in {suffix}; let its name do so")
        return out
    stem = os.path.splitext(os.path.basename(checkpoint))[0]
    return os.path.join(out, f"{stem}_{precision}{suffix}")


def _files(target: str) -> list[str]:
    """Return the names of all that is written with ``target``, which comes last."""
    stem = os.path.splitext(target)[0]
    weights = {".xml": [f"{stem}.bin"], ".onnx": [f"{target}.data"]}
    return [*weights.get(os.path.splitext(target)[1], []), f"{target}.json", target]


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
) -> list[str]:
    """Write the network of ``checkpoint`` as files that run without this package, each checked against PyTorch.

    Beside each lies its record, the same name with ``.json``: metadata, parity, and for int8 the mean IoU on the
    config's validation images before and after. A file that does not agree is not kept.

    Args:
        checkpoint: weights of a segmentation network.
        out: a file where there is one format, else a folder.
        formats: of `FORMATS`.
        precision: ``fp32``, ``fp16`` or ``int8``.
        config: the config they fit; None takes the one inside ``checkpoint``.
        options: dotted keys to merge over the config.
        calibration: for int8, a folder of images or a config; None takes the network's training images.
        shape: height and width of the images to check with; None takes four strides.
        overwrite: replace files that are there.

    Returns:
        The files.

    Raises:
        UserError: what was asked for does not fit, or a file does not agree with PyTorch.
    """
    for name in formats:
        check_precision(precision, FORMATS[name].precisions, f"--format {name}")
        require(FORMATS[name].packages, "export", f"--format {name}")
    if precision == "int8":
        require(["nncf"], "export", "--precision int8")
    elif calibration:
        raise ConfigError("--calibration is for int8; give --precision int8, or leave it out")
    targets = {name: _target(checkpoint, out, name, precision, len(formats) > 1) for name in formats}
    for target in targets.values():
        if os.path.exists(target) and not overwrite:
            raise ConfigError(f"{target}: is there already; give --overwrite to replace it")

    cfg = config_for(config, checkpoint, options)
    with config_mistakes(cfg):
        network = build_network(cfg, initialise=False)
    meta = load_weights(network, checkpoint)
    facts = NetworkFacts.of(cfg, meta, network)
    network = revert_sync_batchnorm(network).eval()
    height, width = shape or (4 * facts.stride, 4 * facts.stride)
    if height % facts.stride or width % facts.stride:
        raise ConfigError(f"--shape {height} {width}: this network takes multiples of {facts.stride} px; give such")
    images = calibration_images(calibration, cfg, facts) if precision == "int8" else []
    bands = image_bands(network)
    batches = images[:2] or [
        synthetic_images(bands, height, width),
        synthetic_images(bands, 2 * height, width + facts.stride, count=1),
    ]
    dataset = validation_split(cfg) if precision == "int8" else None
    plain_iou = mean_iou(network, dataset) if dataset is not None else None
    for name, target in targets.items():
        metadata = {**facts.as_metadata(), "precision": json.dumps(precision)}
        _export(network, name, target, precision, metadata, images, batches, dataset, plain_iou)
    return list(targets.values())


def _export(
    network: Any,
    name: str,
    target: str,
    precision: str,
    metadata: dict[str, str],
    images: Sequence[np.ndarray],
    batches: Sequence[np.ndarray],
    dataset: Any | None,
    plain_iou: float | None,
) -> None:
    """Write one file and its record, which appear together and only where the file agrees with ``network``."""
    further = dict(calibration=images) if precision == "int8" else {}
    folder = os.path.dirname(target) or "."
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export.") as unfinished, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of PyTorch about its own exporters
            draft = os.path.join(unfinished, os.path.basename(target))
            FORMATS[name].write(network, draft, precision, metadata, **further)
            run = runner_of(draft)
            parity = compare(network, run, batches)
            parity.check(target, precision)
            record: dict[str, Any] = {key: json.loads(value) for key, value in metadata.items()}
            record |= dict(format=name, parity=asdict(parity))
            said = f"logits within {parity.max_difference:.2g}, classes agree on {parity.class_agreement:.3%}"
            if dataset is not None and plain_iou is not None:
                iou = mean_iou(network, dataset, run)
                record["mIoU"] = dict(fp32=plain_iou, int8=iou, images=len(dataset))
                said += f"; mIoU {100 * plain_iou:.2f} before, {100 * iou:.2f} after, on {len(dataset)} images"
            elif precision == "int8":
                said += "; what mIoU it costs is unknown, as the config's validation images are not here"
            with open(f"{draft}.json", "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1)
            for made, final in zip(_files(draft), _files(target), strict=True):
                if os.path.exists(made):
                    os.replace(made, final)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written ({error.strerror}); choose another place") from None
    logger.info("%s: %s", target, said)
