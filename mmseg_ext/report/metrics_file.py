"""Metrics as a file for machines."""

from __future__ import annotations

import json
import math

from ..writing import complete_file


def save_metrics(path: str, scores: dict[str, float], **facts: str | int | None) -> None:
    """Write ``scores`` (0 to 1, null where undefined) and ``facts`` as JSON, complete or not at all."""
    metrics = {name: None if math.isnan(value) else value for name, value in scores.items()}
    with complete_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump({**facts, "metrics": metrics}, file, indent=1)
