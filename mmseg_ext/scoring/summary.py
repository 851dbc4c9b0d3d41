"""The scores of a data set from those of its images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.probability import ProbabilityCounts
from ..metrics.region import region_scores
from ..report import markdown_table
from .image_scores import ImageScores
from .measures import MEASURES, RoadMeasure

CLASS_SCORES = ("IoU", "F1", "precision", "recall", "accuracy")


@dataclass(frozen=True)
class Total:
    """One score of a data set.

    Attributes:
        measure: what it is.
        pooled: of the images' sums, as if they were one image; nan where it is not defined, None where it does not
            add up.
        mean: of the images where it is defined; nan where it is for none.
        undefined: number of the other images.
    """

    measure: RoadMeasure
    pooled: float | None
    mean: float
    undefined: int

    @property
    def value(self) -> float:
        """The pooled score, or the mean where there is none."""
        return self.mean if self.pooled is None else self.pooled


def _score(measure: RoadMeasure, counts: Mapping[str, float], probability: ProbabilityCounts | None) -> float | None:
    """Return the score that follows from counts, None where there is none of them (lines have no pixels)."""
    if measure.of_probability is not None:
        return None if probability is None else measure.of_probability(probability)
    try:
        return None if measure.of is None else measure.of(counts)
    except KeyError:
        return None


def image_values(image: ImageScores) -> dict[str, float]:
    """Return every score of one image by its key, in the order of `MEASURES`; nan where it is not defined."""
    values = {}
    for measure in MEASURES:
        value = image.scores.get(measure.key, _score(measure, image.counts, image.probability))
        if value is not None:
            values[measure.key] = value
    return values


def sum_of(images: Sequence[ImageScores]) -> dict[str, float]:
    """Return the sums of the counts that all images have."""
    common = [key for key in images[0].counts if all(key in image.counts for image in images)]
    return {key: sum(image.counts[key] for image in images) for key in common}


def probabilities_of(images: Sequence[ImageScores]) -> ProbabilityCounts | None:
    """Return the sum of the images' counts by probability, None where an image has none."""
    each = [image.probability for image in images]
    return None if any(one is None for one in each) else sum(each)  # type: ignore[arg-type, return-value]


def summarise(images: Sequence[ImageScores]) -> list[Total]:
    """Return the scores of a data set of at least one image, in the order of `MEASURES`."""
    counts, probability = sum_of(images), probabilities_of(images)
    values = [image_values(image) for image in images]
    totals = []
    for measure in MEASURES:
        if any(measure.key not in value for value in values):
            continue
        defined = [value[measure.key] for value in values if not math.isnan(value[measure.key])]
        mean = sum(defined) / len(defined) if defined else math.nan
        totals.append(Total(measure, _score(measure, counts, probability), mean, len(values) - len(defined)))
    return totals


def class_scores(images: Sequence[ImageScores], classes: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the region scores of every class, pooled and as the mean of the images where they are defined.

    Args:
        images: of a data set, with pixels.
        classes: names in the order of their labels.

    Returns:
        ``pooled`` and ``mean``, of those each class, of those `CLASS_SCORES`, 0 to 1; nan where not defined.
    """
    each = [region_scores(image.confusion) for image in images if image.confusion is not None]
    whole = region_scores(sum(image.confusion for image in images if image.confusion is not None))  # type: ignore[arg-type]
    found: dict[str, dict[str, dict[str, float]]] = {"pooled": {}, "mean": {}}
    for label, name in enumerate(classes):
        found["pooled"][name] = {key: float(whole[key][label]) for key in CLASS_SCORES}  # type: ignore[literal-required]
        found["mean"][name] = {}
        for key in CLASS_SCORES:
            values = np.array([one[key][label] for one in each])  # type: ignore[literal-required]
            known = values[~np.isnan(values)]
            found["mean"][name][key] = float(known.mean()) if known.size else math.nan
    return found


def metres_are_known(images: Sequence[ImageScores]) -> bool:
    """Return whether the metres per pixel of every image are known."""
    return all("truth_km" in image.counts for image in images)


def shown_value(value: float | None, measure: RoadMeasure) -> str:
    """Return a score as people read it: in per cent with two digits, other numbers with up to three; - for none."""
    if value is None:
        return ""
    if math.isnan(value):
        return "-"
    if measure.unit == "%":
        return f"{100 * value:.2f}"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3f}"


def totals_table(totals: Sequence[Total]) -> str:
    """Return the scores of a data set as a Markdown table."""
    rows = []
    for total in totals:
        unit = f", {total.measure.unit}" if total.measure.unit else ""
        values = [shown_value(value, total.measure) for value in (total.pooled, total.mean)]
        rows.append([f"{total.measure.name}{unit}", *values, str(total.undefined or "")])
    return markdown_table(["score", "pooled", "mean of images", "images without"], rows)
