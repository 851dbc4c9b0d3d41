"""From a checkpoint to checked files of other runtimes."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mmcv.cnn.utils import revert_sync_batchnorm

from ..engine.config import config_mistakes
from ..engine.embedded_config import config_for
from ..engine.network import build_network
from ..engine.weights import load_weights
from ..errors import ConfigError, require
from .exportable import check_precision
from .facts import NetworkFacts, image_bands
from .images import calibration_images, synthetic_images
from .onnx_file import export_onnx
from .openvino_file import export_openvino
from .parity import compare, runner_of
from .torch_file import export_torch, export_torchscript
from .validation import mean_iou, validation_split

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
