"""An image and its mask."""

from __future__ import annotations

from typing import NamedTuple


class Pair(NamedTuple):
    """Paths of an image and its mask; no mask is None."""

    stem: str
    image: str
    mask: str | None
