"""How a network is to run, and what it is exported as, in the words of the command line; imports no PyTorch."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from ..download import local_file
from ..errors import ConfigError

BACKENDS = ("plain", "torch", "compile", "onnxruntime", "openvino", "tensorrt")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "torchscript": ".pt"}  # of exported files, by format
PROGRAMS = ("deepness", "geodeep")  # that read ONNX files of a form of their own


@dataclass(frozen=True)
class BackendSettings:
    """How a network is to run.

    Attributes:
        backend: one of `BACKENDS`, or ``auto``: the fastest one installed, by measurement.
        precision: one of `PRECISIONS`, or ``auto``: the best that the hardware supports; None: the config's.
        exported: an exported file of the same weights to run; int8 needs one.
    """

    backend: str = "torch"
    precision: str | None = None
    exported: str | None = None


def add_backend_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add --backend, --precision and --exported to a tool; `backend_settings` reads them."""
    names = ("auto", *BACKENDS)
    text = "what runs the network; auto: the fastest one installed, measured once on this machine"
    parser.add_argument("--backend", choices=names, default=default, help=f"{text} (default: {default or 'eager'})")
    text = "auto: the best that the hardware supports (default: the config's, else fp32)"
    parser.add_argument("--precision", choices=[*PRECISIONS, "auto"], help=text)
    text = "run this file or URL, .onnx or .xml, written by tools/export.py; needed for int8"
    parser.add_argument("--exported", metavar="FILE", help=text)


def backend_settings(args: argparse.Namespace) -> BackendSettings:
    """Return what the command line says."""
    exported = args.exported and local_file(args.exported)
    return BackendSettings(args.backend or ("auto" if exported else "torch"), args.precision, exported)


def format_of(path: str) -> str:
    """Return the format of an exported file at ``path``, one of `SUFFIXES`.

    Raises:
        ConfigError: its suffix is none of theirs.
    """
    names = [name for name, suffix in SUFFIXES.items() if suffix == os.path.splitext(path)[1]]
    if not names:
        raise ConfigError(f"{path}: its suffix says no format; give {', '.join(SUFFIXES.values())}, or --format")
    return names[0]
