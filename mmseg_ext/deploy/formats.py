"""The formats of exported networks: what writes, reads and runs each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import ConfigError, UserError, require
from .facts import NetworkFacts
from .onnx import OnnxRuntimeSession, export_onnx, onnx_metadata
from .openvino import OpenVinoSession, export_openvino, openvino_metadata
from .pytorch import (
    Runner,
    export_torch,
    export_torchscript,
    program_metadata,
    program_session,
    torchscript_metadata,
    torchscript_session,
)


@dataclass(frozen=True)
class Format:
    """A format of exported networks.

    Attributes:
        suffix: of its files.
        precisions: that it stores.
        packages: that writing it needs.
        write: from network, path, precision, metadata and, for int8, calibration images.
        metadata: what the file at a path says about itself.
        run: the file at a path as a function of images on the CPU, in float32 as far as it can.
        weights: the path of the weights of the file at a path, where they may stand in a file of their own.
    """

    suffix: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    write: Callable[..., None]
    metadata: Callable[[str], dict[str, str]]
    run: Callable[[str], Runner]
    weights: Callable[[str], str] | None = None

    def check(self, precision: str, what: str) -> None:
        """Refuse a precision that the format cannot store, and missing packages.

        Raises:
            ConfigError: says which to take.
            MissingExtraError: packages of the extra 'export' are not installed.
        """
        if precision not in self.precisions:
            hint = "; bf16 is chosen where an fp32 file is run" if precision == "bf16" else ""
            possible = " or ".join(self.precisions)
            raise ConfigError(f"{what}: --precision {precision} is not possible, take {possible}{hint}")
        require([*self.packages, *(["nncf"] if precision == "int8" else [])], "export", what)

    def files(self, path: str) -> list[str]:
        """Return the paths of all files that may belong to the network at ``path``, which comes last."""
        return [*([self.weights(path)] if self.weights else []), f"{path}.json", path]


_ALL, _FLOAT = ("fp32", "fp16", "int8"), ("fp32", "fp16")
FORMATS = {
    "onnx": Format(
        ".onnx",
        _ALL,
        ("onnx", "onnxscript", "onnxruntime"),
        export_onnx,
        onnx_metadata,
        OnnxRuntimeSession,
        weights=lambda path: f"{path}.data",
    ),
    "openvino": Format(
        ".xml",
        _ALL,
        ("openvino",),
        export_openvino,
        openvino_metadata,
        lambda path: OpenVinoSession(path, shapes=0),  # the file as it is, for any shape
        weights=lambda path: f"{os.path.splitext(path)[0]}.bin",
    ),
    "torch": Format(".pt2", _FLOAT, (), export_torch, program_metadata, program_session),
    "torchscript": Format(".pt", _FLOAT, (), export_torchscript, torchscript_metadata, torchscript_session),
}
_BY_SUFFIX = {format.suffix: format for format in FORMATS.values()}


def is_exported(path: str) -> bool:
    """Return whether ``path`` ends as exported networks do."""
    return os.path.splitext(path)[1] in _BY_SUFFIX


def read_metadata(path: str) -> dict[str, str]:
    """Return what an exported file says about itself, every value as JSON.

    Args:
        path: .onnx, .xml (OpenVINO), .pt2 or .pt (TorchScript).

    Raises:
        ConfigError: the file is missing, unreadable, or was not exported by this package.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: no such file; make it with tools/export.py")
    if not is_exported(path):
        raise ConfigError(f"{path}: is not an exported network; give one that ends in {', '.join(_BY_SUFFIX)}")
    try:
        metadata = _BY_SUFFIX[os.path.splitext(path)[1]].metadata(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file can break the readers anywhere
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: cannot be read ({reason}); export it again") from None
    if not metadata.keys() >= {"classes", "mean"}:
        raise ConfigError(f"{path}: does not say what it was trained with; export it with tools/export.py")
    return metadata


def read_facts(path: str) -> NetworkFacts:
    """Return the facts inside an exported file.

    Raises:
        ConfigError: see `read_metadata`.
    """
    return NetworkFacts.from_metadata(read_metadata(path))


def file_sha256(path: str) -> str:
    """Return the hash of an exported file and, where there is one, of its file of weights."""
    digest = hashlib.sha256()
    weights = _BY_SUFFIX[os.path.splitext(path)[1]].weights
    for part in filter(os.path.isfile, [path, *([weights(path)] if weights else [])]):
        with open(part, "rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()
