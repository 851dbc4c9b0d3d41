"""Generated tables inside Markdown files that people write around them, and metrics as a file for machines."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..files import write_text


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_block(text: str, name: str, content: str) -> str:
    """Return ``text`` with what stands between its comments ``name: start`` and ``name: end`` replaced.

    Raises:
        DataError: the text has no such pair of comments.
    """
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    changed, count = re.subn(
        f"{re.escape(start)}.*?{re.escape(end)}", lambda _: f"{start}\n{content}\n{end}", text, flags=re.DOTALL
    )
    if count != 1:
        raise DataError(f"the comments '{start}' and '{end}' must stand in it once, in this order; put them back")
    return changed


def update_blocks(path: str, blocks: dict[str, str], check: bool = False) -> bool:
    """Write generated ``blocks``, by name, into a Markdown file, see `with_block`; return whether it was up to date.

    ``check`` leaves the file as it is.

    Raises:
        DataError: the file is missing or lacks the comments of a block.
    """
    if not os.path.isfile(path):
        raise DataError(f"{path}: no such file")
    before = Path(path).read_text(encoding="utf-8")
    after = before
    for name, content in blocks.items():
        try:
            after = with_block(after, name, content)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
    if after != before and not check:
        write_text(path, after)
    return after == before


def save_metrics(path: str, scores: dict[str, float], **facts: str | int | None) -> None:
    """Write ``scores`` (0 to 1, null where undefined) and ``facts`` as JSON, complete or not at all."""
    metrics = {name: None if math.isnan(value) else value for name, value in scores.items()}
    write_text(path, json.dumps({**facts, "metrics": metrics}, indent=1))
