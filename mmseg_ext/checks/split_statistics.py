"""Figures of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .pair_facts import PairFacts
from .split import Split
from .split_rules import label_pixels, training_statistics


@dataclass(frozen=True)
class SplitStatistics:
    """What a split consists of.

    Attributes:
        names: the split, and others that list the same images.
        pairs: number of pairs.
        sizes: number of images of each size, as ``WIDTHxHEIGHT``.
        bands: number of images of each number of bands and type of values.
        label_pixels: mask pixels of each class by name, and ``ignored``.
        without_road: number of masks without a pixel above 0.
        mean: of each band of the training images as a network reads them, RGB, 0 to 255.
        std: standard deviation of each band.
        class_weights: pixels / (classes * pixels of the class) of training; so each class weighs the same in sum.
    """

    names: tuple[str, ...]
    pairs: int
    sizes: dict[str, int]
    bands: dict[str, int]
    label_pixels: dict[str, int]
    without_road: int
    mean: list[float] | None = None
    std: list[float] | None = None
    class_weights: list[float] | None = None

    @classmethod
    def of(cls, names: Sequence[str], split: Split, facts: Sequence[PairFacts]) -> SplitStatistics:
        """Return the figures of ``split``, which stands under ``names``."""
        infos = [fact.image for fact in facts if fact.image is not None]
        pixels = label_pixels(split, facts)
        classes = pixels[: len(split.classes)]
        measured = training_statistics(split, facts) if split.trains else None
        weights = None
        if split.trains and classes.all():
            weights = [round(float(classes.sum() / (len(classes) * count)), 3) for count in classes]
        return cls(
            names=tuple(names),
            pairs=len(facts),
            sizes=_counted(f"{info.width}x{info.height}" for info in infos),
            bands=_counted(f"{info.bands} {info.dtype}{' + alpha' * info.has_alpha}" for info in infos),
            label_pixels={
                **{name: int(count) for name, count in zip(split.classes, classes, strict=True)},
                "ignored": int(pixels[split.ignore_index]),
            },
            without_road=sum(fact.counts is not None and not fact.labelled(split) for fact in facts),
            mean=None if measured is None else np.round(measured[0], 2).tolist(),
            std=None if measured is None else np.round(measured[1], 2).tolist(),
            class_weights=weights,
        )

    def row(self) -> list[str]:
        """Return the cells of the report's table."""
        total = max(sum(self.label_pixels.values()), 1)
        shares = [f"{count / total:.1%} {name}" for name, count in self.label_pixels.items() if count]
        return [
            ", ".join(self.names),
            str(self.pairs),
            _most(self.sizes),
            _most(self.bands),
            ", ".join(shares) or "-",
            str(self.without_road),
        ]

    def advice(self) -> list[str]:
        """Return lines for a config, empty for splits that do not train."""
        lines = []
        if self.mean is not None and self.std is not None:
            order = "" if len(self.mean) == 3 else ", to_rgb=False"
            lines.append(f"for the config: Normalize=dict(mean={self.mean}, std={self.std}{order})")
        if self.class_weights is not None:
            lines.append(
                f"to balance the classes: class_weight={self.class_weights}  (pixels / (classes x pixels of one))"
            )
        return ["", *lines] if lines else []

    def as_dict(self) -> dict:
        """Return plain values for JSON."""
        return asdict(self)


def _counted(values: object) -> dict[str, int]:
    return dict(Counter(values).most_common())  # type: ignore[call-overload]


def _most(counts: dict[str, int]) -> str:
    """Return the most frequent value, and how many others there are."""
    if not counts:
        return "-"
    first = next(iter(counts))
    return first if len(counts) == 1 else f"{first} and {len(counts) - 1} other{'s' * (len(counts) > 2)}"
