"""What one figure of a benchmark is of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..deploy.options import BACKENDS, PRECISIONS
from ..errors import ConfigError
from .methods import check_method, is_peer

AUTO = "auto"
_PATTERN = re.compile(r"(?P<method>[^@]+)(@(?P<backend>[^@+]+)([+](?P<precision>[^@+]+))?)?")


@dataclass(frozen=True)
class Contender:
    """A method on a backend.

    Attributes:
        method: short name, config path or peer.
        backend: of `BACKENDS`, or ``auto``.
        precision: of `PRECISIONS`; None: float32, or with ``auto`` what is fastest on this hardware.
    """

    method: str
    backend: str
    precision: str | None = None

    def __str__(self) -> str:
        precision = "" if self.precision is None else f"+{self.precision}"
        return f"{self.method}@{self.backend}{precision}"


@dataclass(frozen=True)
class Cell:
    """A contender at one size.

    Attributes:
        contender: what is measured.
        size_px: rows and columns of the image.
        batch: images, or tiles, in one forward pass.
        tiles: rows and columns of a tile and the overlap of neighbours, in pixels; None: the whole image at once.
    """

    contender: Contender
    size_px: int
    batch: int = 1
    tiles: tuple[int, int] | None = None

    @property
    def images(self) -> int:
        """Images that one call maps."""
        return self.batch if self.tiles is None else 1

    @property
    def megapixels(self) -> float:
        """Millions of pixels that one call maps."""
        return self.images * self.size_px**2 / 1e6

    def __str__(self) -> str:
        return f"{self.contender} {self.size_px} px x {self.batch}"


def parse_contender(text: str) -> Contender:
    """Return what ``METHOD[@BACKEND[+PRECISION]]`` says; without a backend ``auto``, for a peer ``plain``.

    Raises:
        ConfigError: unknown method, backend or precision, or a peer on another backend than its users'.
        MissingExtraError: the peer's library is not installed.
    """
    found = _PATTERN.fullmatch(text)
    if not found:
        raise ConfigError(f"{text}: write METHOD[@BACKEND[+PRECISION]], such as dsegnext-t@openvino+bf16")
    method, precision = found["method"], found["precision"]
    peer = is_peer(method)
    backend = found["backend"] or ("plain" if peer else AUTO)
    if backend not in (*BACKENDS, AUTO):
        raise ConfigError(f"{text}: no backend is called {backend}; take one of {', '.join((*BACKENDS, AUTO))}")
    if precision not in (*PRECISIONS, None):
        raise ConfigError(f"{text}: no precision is called {precision}; take one of {', '.join(PRECISIONS)}")
    if peer and (backend, precision or "fp32") != ("plain", "fp32"):
        raise ConfigError(f"{text}: a peer runs as its users run it, eager in float32; write {method}")
    check_method(method)
    return Contender(method, backend, precision)
