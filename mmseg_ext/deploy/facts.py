"""The process's one OpenVINO core."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from mmcv import Config
from torch import nn

from .. import __version__
from ..datasets.augmentation import BandNormalize
from ..datasets.reading import ImageReading
from ..datasets.voc import ROAD_CLASSES, ROAD_PALETTE
from ..engine.checkpoint import weights_sha256
from ..engine.config import config_mistakes, step_arguments
from ..errors import ConfigError, UserError, require
from ..models.folding import network_stride


@cache
def openvino_core() -> Any:
    """Return the `openvino.Core` of this process, which stays to its end.

    The CPU plugin of each core gives signal handlers a stack of their own. When a core goes that is not the youngest,
    they are left with a stack that is no longer there, and the next signal, be it Ctrl-C, kills the process
    (OpenVINO 2026.4).

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    require(["openvino"], "export", "reading and running OpenVINO files")
    import openvino

    core = openvino.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin, before any other core can
    return core


# -- export.facts
# What one must know to use a network: how images are read and normalised, and what its outputs mean.

# the group of OpenVINO's runtime information, and the file inside PyTorch's archives
GROUP = "mmseg_ext"
EXTRA_FILE = "metadata.json"


@dataclass(frozen=True)
class NetworkFacts:
    """What a network was trained with, and what its outputs stand for.

    Attributes:
        classes: class names in the order of the outputs; of a network with a single output, the two classes.
        palette: one RGB colour (0-255) per class.
        mean: of each band, 0 to 255, in the order in which the network takes the bands.
        std: of each band, likewise.
        to_rgb: False where a network of three bands takes them in the order blue, green, red.
        reading: bands, scaling to 8 bits and ground sampling distance of the training images.
        stride: height and width of images are multiples of it, in pixels.
        outputs: channels of the scores; 1: the logit of road, else logits for a softmax.
        threshold: with one output, the probability above which a pixel is road; else None.
        weights_sha256: hash of the weights, that of published checkpoints.
        version: of this package.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, ...], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    to_rgb: bool
    reading: ImageReading
    stride: int
    outputs: int
    threshold: float | None
    weights_sha256: str
    version: str = __version__

    @classmethod
    def of(cls, cfg: Config, meta: dict, network: Any) -> NetworkFacts:
        """Return the facts of ``network``.

        Args:
            cfg: config of the network; ``data.test`` says how images are read and normalised.
            meta: what the checkpoint says (``meta``), for what the config does not.
            network: the segmentor of ``cfg`` with its weights.

        Raises:
            ConfigError: there is no normalisation, or names and colours are not as many as classes.
        """
        normalize = _normalize(cfg)
        test, head = cfg.data.test, network.decode_head
        classes = tuple(test.get("classes", meta.get("CLASSES", ROAD_CLASSES)))
        palette = tuple(map(tuple, test.get("palette", meta.get("PALETTE", ROAD_PALETTE))))
        if not len(classes) == len(palette) == head.num_classes:
            raise ConfigError(
                f"{cfg.filename}: the network has {head.num_classes} classes, but there are {len(classes)} names and "
                f"{len(palette)} colours; give as many as classes and palette of data.test"
            )
        return cls(
            classes,
            palette,
            tuple(float(value) for value in normalize["mean"]),
            tuple(float(value) for value in normalize["std"]),
            normalize.get("to_rgb", True),
            _image_reading(cfg, meta),
            network_stride(network),
            head.out_channels,
            head.threshold if head.out_channels == 1 else None,
            weights_sha256(network.state_dict()),
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> NetworkFacts:
        """Return the facts that `as_metadata` wrote.

        Raises:
            KeyError, ValueError: there are others, or none.
        """
        values = {name: json.loads(metadata[name]) for name in cls.__dataclass_fields__}
        for name in ("classes", "mean", "std"):
            values[name] = tuple(values[name])
        values["palette"] = tuple(tuple(colour) for colour in values["palette"])
        values["reading"] = ImageReading().with_settings(**values["reading"])
        return cls(**values)

    def as_metadata(self) -> dict[str, str]:
        """Return every fact as JSON under its name."""
        values = {**asdict(self), "reading": self.reading.as_dict()}
        return {name: json.dumps(value) for name, value in values.items()}

    def normalize(self) -> BandNormalize:
        """Return the step of the test pipeline."""
        return BandNormalize(list(self.mean), list(self.std), self.to_rgb)


def _normalize(cfg: Config) -> dict:
    """Return the arguments of the test pipeline's normalisation, once they are known to fit."""
    try:
        arguments = step_arguments(cfg.data.test, "Normalize")
    except KeyError:
        raise ConfigError(f"{cfg.filename}: data.test has no Normalize, so mean and std are unknown; add it") from None
    arguments = {key: value for key, value in arguments.items() if key != "type"}
    with config_mistakes(cfg):
        BandNormalize(**arguments)
    return arguments


def _image_reading(cfg: Config, meta: dict) -> ImageReading:
    """Return how the training images were read: what the checkpoint says, and above that the config's LoadRoadImage."""
    try:
        step = step_arguments(cfg.data.test, "LoadRoadImage")
    except KeyError:
        step = {}
    settings = {key: value for key, value in step.items() if key != "type"}
    with config_mistakes(cfg):
        reading = ImageReading().with_settings(**(meta.get("image") or {})).with_settings(gsd_m=meta.get("gsd_m"))
        return reading.with_settings(**settings)


def read_metadata(path: str) -> dict[str, str]:
    """Return what an exported file says of itself, every value as JSON.

    Args:
        path: .onnx, .xml (OpenVINO), .pt2 or .pt (TorchScript).

    Raises:
        ConfigError: the file is missing, unreadable, or was not exported by this package.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: no such file; make it with tools/export.py")
    kind = os.path.splitext(path)[1]
    if kind not in _READERS:
        raise ConfigError(f"{path}: is no exported network; give one that ends in {', '.join(_READERS)}")
    try:
        metadata = _READERS[kind](path)
    except UserError:
        raise
    except Exception as error:  # a damaged file can break the readers anywhere
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: cannot be read ({reason}); export it again") from None
    if not metadata.keys() >= {"classes", "mean"}:
        raise ConfigError(f"{path}: does not say what it was trained with; export it with tools/export.py")
    return metadata


def file_sha256(path: str) -> str:
    """Return the hash of an exported file, of OpenVINO's with its .bin."""
    digest = hashlib.sha256()
    stem, suffix = os.path.splitext(path)
    for part in [path, f"{stem}.bin"] if suffix == ".xml" else [path]:
        with open(part, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def read_facts(path: str) -> NetworkFacts:
    """Return the facts inside an exported file.

    Raises:
        ConfigError: see `read_metadata`.
    """
    return NetworkFacts.from_metadata(read_metadata(path))


def _of_onnx(path: str) -> dict[str, str]:
    require(["onnxruntime"], "export", "reading an ONNX file")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return dict(session.get_modelmeta().custom_metadata_map)


def _of_openvino(path: str) -> dict[str, str]:
    return dict(openvino_core().read_model(path).get_rt_info([GROUP]).value)


def _of_exported_program(path: str) -> dict[str, str]:
    extra: dict[str, Any] = {EXTRA_FILE: ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra[EXTRA_FILE])


def _of_torchscript(path: str) -> dict[str, str]:
    extra: dict[str, Any] = {EXTRA_FILE: ""}
    torch.jit.load(path, map_location="cpu", _extra_files=extra)
    return json.loads(extra[EXTRA_FILE])


_READERS = {".onnx": _of_onnx, ".xml": _of_openvino, ".pt2": _of_exported_program, ".pt": _of_torchscript}


def image_bands(network: nn.Module) -> int:
    """Return the bands of the images that a segmentor takes."""

    class _Found(Exception):
        pass

    def stop(convolution: nn.Conv2d, _: object) -> None:
        raise _Found(convolution.in_channels)

    hooks = [m.register_forward_pre_hook(stop) for m in network.modules() if isinstance(m, nn.Conv2d)]
    try:
        network.backbone(torch.zeros(1, 1, 256, 256))  # type: ignore[operator]
    except _Found as found:
        return found.args[0]
    finally:
        for hook in hooks:
            hook.remove()
    raise ConfigError("the network does not begin with a convolution, so the bands of its images are unknown")
