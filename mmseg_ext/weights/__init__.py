"""The weights that come with this package, by name. Imports no PyTorch."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urldefrag

from ..download import states_hash

DEFAULT_WEIGHTS = "unet-lite0.pit"
_FOLDER = Path(__file__).parent
_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


def shipped_names() -> list[str]:
    """Return the names of the weights that come with this package."""
    return sorted(file.stem for file in _FOLDER.glob("*.safetensors"))


def shipped_file(name: str, suffix: str = ".safetensors") -> str:
    """Return the file of the weights that come with this package as ``name``; anything else as it is.

    With the ``suffix`` ``.onnx`` it is the network that runs without PyTorch.
    """
    return str(_FOLDER / f"{name}{suffix}") if name in shipped_names() and not os.path.exists(name) else name


def is_checkpoint(name: str) -> bool:
    """Return whether ``name`` can only mean weights: those of this package, a URL with a hash, a file by its suffix."""
    return name in shipped_names() or states_hash(name) or name.lower().endswith(_SUFFIXES)


def is_onnx(name: str) -> bool:
    """Return whether ``name`` can only mean an exported network that needs no PyTorch."""
    return urldefrag(name).url.lower().endswith(".onnx")
