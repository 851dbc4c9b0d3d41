"""The formats of exported networks: what writes, reads and runs each."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..errors import ConfigError, UserError, require
from ..files import sha256_of
from ..runtime.facts import NetworkFacts
from .onnx import OnnxRuntimeSession, export_pixels
from .openvino import OpenVinoSession, export_openvino
from .options import SUFFIXES
from .pytorch import TorchSession, export_torch, export_torchscript, program_session, torchscript_session

Session = OnnxRuntimeSession | OpenVinoSession | TorchSession


@dataclass(frozen=True)
class Format:
    """A format of exported networks.

    Attributes:
        suffix: of its files.
        precisions: that it stores.
        packages: that writing it needs.
        write: from segmentor, path, precision, metadata (what the file says about itself), for int8 calibration images
            (N, C, H, W), and but for OpenVINO the device type as ``target``; the segmentor is not changed.
        open: the file at a path as a `Runner` on the CPU, in float32 as far as it can, with its ``metadata``.
        weights: the file that the weights may be in, by ``path`` or ``stem`` of the network's.
    """

    suffix: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...]
    write: Callable[..., None]
    open: Callable[[str], Session]
    weights: str | None = None

    def check(self, precision: str, what: str) -> None:
        """Refuse a precision that the format cannot store, and missing packages.

        Raises:
            ConfigError: says which to take.
            MissingExtraError: packages of the extra 'deploy' are not installed.
        """
        if precision not in self.precisions:
            hint = "; bf16 is chosen where an fp32 file is run" if precision == "bf16" else ""
            possible = " or ".join(self.precisions)
            raise ConfigError(f"{what}: --precision {precision} is not possible, take {possible}{hint}")
        require([*self.packages, *(["nncf"] if precision == "int8" else [])], "deploy", what)

    def files(self, path: str) -> list[str]:
        """Return the paths of all files that the network at ``path`` may have beside it, then ``path``."""
        weights = [self.weights.format(path=path, stem=os.path.splitext(path)[0])] if self.weights else []
        return [*weights, f"{path}.json", path]


_ALL, _FLOAT = ("fp32", "fp16", "int8"), ("fp32", "fp16")
_ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS = {
    "onnx": Format(SUFFIXES["onnx"], _ALL, _ONNX, export_pixels, OnnxRuntimeSession, "{path}.data"),
    # the file as it is, for any shape
    "openvino": Format(
        SUFFIXES["openvino"], _ALL, ("openvino",), export_openvino, partial(OpenVinoSession, shapes=0), "{stem}.bin"
    ),
    "torch": Format(SUFFIXES["torch"], _FLOAT, (), export_torch, program_session),
    "torchscript": Format(SUFFIXES["torchscript"], _FLOAT, (), export_torchscript, torchscript_session),
}
_BY_SUFFIX = {format.suffix: format for format in FORMATS.values()}


def is_exported(path: str) -> bool:
    """Return whether ``path`` ends as exported networks do."""
    return os.path.splitext(path)[1] in _BY_SUFFIX


def read_metadata(path: str) -> dict[str, str]:
    """Return what an exported file says about itself, every value as JSON.

    Raises:
        ConfigError: the file is missing, unreadable, or was not exported by this package.
    """
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: no such file; make it with tools/export.py")
    if not is_exported(path):
        raise ConfigError(f"{path}: is not an exported network; give one that ends in {', '.join(_BY_SUFFIX)}")
    try:
        metadata = _BY_SUFFIX[os.path.splitext(path)[1]].open(path).metadata
    except UserError:
        raise
    except Exception as error:  # a damaged file can break the readers anywhere
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: cannot be read ({reason}); export it again") from None
    if not metadata.keys() >= {"classes", "mean"}:
        raise ConfigError(f"{path}: does not say what it was trained with; export it with tools/export.py")
    return metadata


def read_facts(path: str) -> NetworkFacts:
    """Return the facts inside an exported file; errors are those of `read_metadata`."""
    return NetworkFacts.from_metadata(read_metadata(path))


def file_sha256(path: str) -> str:
    """Return the hash of an exported file and, where there is one, of its file of weights."""
    *weights, _, network = _BY_SUFFIX[os.path.splitext(path)[1]].files(path)
    return sha256_of(*filter(os.path.isfile, [network, *weights]))
