"""A defect as it is found."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """One defect of one file; ``severity`` where it is not its kind's, ``other``: a file to look at beside it."""

    code: str
    path: str
    words: str = ""
    severity: str = ""
    other: str = ""
