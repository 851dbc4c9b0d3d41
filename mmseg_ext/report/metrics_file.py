"""Metrics as a file for machines."""

from __future__ import annotations

import json
import math
import os


def save_metrics(path: str, scores: dict[str, float], **facts: str | int | None) -> None:
    """Write ``scores`` (0 to 1, null where undefined) and ``facts`` as JSON, complete or not at all."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    metrics = {name: None if math.isnan(value) else value for name, value in scores.items()}
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump({**facts, "metrics": metrics}, file, indent=1)
    os.replace(partial, path)
