"""Which differences between runs are real: a paired bootstrap over the images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, DataError
from ..report import markdown_table
from .measures import BY_KEY, RoadMeasure
from .results import shown_value

_SAME_SETTINGS = ("tolerance_px", "tolerance_m", "buffer_px", "gsd_m")


@dataclass(frozen=True)
class Comparison:
    """One score of one run, beside that of the first run.

    Attributes:
        run: name of the run.
        measure: which score.
        value: of the run, over all images that both runs hold.
        difference: ``value`` less that of the first run; 0 for the first.
        low: lower end of the confidence interval of the difference.
        high: upper end.
        images: how many entered: those where the score is defined in both runs, for scores that do not add up.
    """

    run: str
    measure: RoadMeasure
    value: float
    difference: float
    low: float
    high: float
    images: int

    @property
    def is_real(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def compare_runs(
    runs: Mapping[str, Mapping],
    keys: Sequence[str] = ("IoU", "relaxed_F1", "quality", "clDice", "pairs_kept", "APLS_spacenet", "TOPO_F1"),
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare runs with the first of them by a paired percentile bootstrap (Efron 1979) over the images.

    Every resample draws images with replacement, the same for both runs, and computes the score of the drawn ones:
    pooled where it adds up, the mean otherwise. The interval holds the middle ``confidence`` of the differences. It
    tells of these images alone, not of another training's seed, and each score has its own interval: of twenty
    differences that are none, one is called real at 0.95.

    Args:
        runs: what `read_scores` returned, by name; of the same images.
        keys: scores to compare; those that a run does not have are left out.
        confidence: 0 to 1.
        resamples: how many.
        seed: of the draws.

    Raises:
        ConfigError: an unknown score, or fewer than two runs.
        DataError: the runs are of different images, or were scored with another tolerance.
    """
    if len(runs) < 2:
        raise ConfigError("a comparison needs at least two runs; give more folders")
    for key in keys:
        if key not in BY_KEY:
            raise ConfigError(f"{key}: no such score; take some of {', '.join(BY_KEY)}")
    if not 0 < confidence < 1:
        raise ConfigError(f"a confidence of {confidence:g}; give a number between 0 and 1")
    by_name = {run: {image["name"]: image for image in content["images"]} for run, content in runs.items()}
    first, *_ = by_name
    for run, content in runs.items():
        for name in _SAME_SETTINGS:
            own, other = (one.get("settings", {}).get(name) for one in (content, runs[first]))
            if own != other:
                raise DataError(f"{run}: was scored with {name}={own}, {first} with {other}; score both alike")
    for run, images in by_name.items():
        if different := sorted(set(images) ^ set(by_name[first])):
            raise DataError(f"{run}: image {different[0]} is in only one of it and {first}; compare runs of one split")
    names = list(by_name[first])
    draws = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    results = []
    for key in keys:
        measure = BY_KEY[key]
        if any(key not in content["road"] for content in runs.values()):
            continue
        sampled = {run: _Sampled(measure, [images[name] for name in names]) for run, images in by_name.items()}
        for run, own in sampled.items():
            other = sampled[first]
            known = own.known & other.known
            differences = own.resampled(draws, known) - other.resampled(draws, known)
            differences = differences[~np.isnan(differences)]
            ends = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2]) if differences.size else ()
            low, high = (float(end) for end in ends) if len(ends) else (math.nan, math.nan)
            everything = np.arange(len(names))[None]
            value, reference = own.resampled(everything, known)[0], other.resampled(everything, known)[0]
            results.append(
                Comparison(run, measure, float(value), float(value - reference), low, high, int(known.sum()))
            )
    return results


class _Sampled:
    """A score of one run, for any choice of its images."""

    def __init__(self, measure: RoadMeasure, images: Sequence[Mapping]) -> None:
        self.measure = measure
        self.adds_up = measure.of is not None
        if self.adds_up:
            self.known = np.ones(len(images), bool)
            self.counts = {key: np.array([image["counts"][key] for image in images]) for key in images[0]["counts"]}
        else:
            values = [image["scores"][measure.key] for image in images]
            self.values = np.array([math.nan if value is None else value for value in values])
            self.known = ~np.isnan(self.values)

    def resampled(self, draws: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Return the score of each draw of images (R, N), nan where it is not defined.

        Args:
            draws: indices of images.
            known: (N,) images that may count.
        """
        if self.adds_up:
            sums = {key: values[draws].sum(axis=1) for key, values in self.counts.items()}
            each = [{key: float(values[r]) for key, values in sums.items()} for r in range(len(draws))]
            assert self.measure.of is not None
            return np.array([self.measure.of(counts) for counts in each])
        used = known[draws]
        count = used.sum(axis=1)
        total = np.where(used, np.nan_to_num(self.values)[draws], 0).sum(axis=1)
        return np.divide(total, count, out=np.full(len(draws), math.nan), where=count > 0)


def comparison_table(comparisons: Sequence[Comparison], confidence: float = 0.95) -> str:
    """Return a Markdown table: a line for each score and run, with the difference's interval and a verdict."""
    rows = []
    for one in comparisons:
        if one is _first_of(comparisons, one.measure):
            verdict, interval = "", ""
        else:
            interval = f"{_signed(one.low, one.measure)} to {_signed(one.high, one.measure)}"
            verdict = "not told apart" if not one.is_real else _verdict(one)
        difference = _signed(one.difference, one.measure) if interval else ""
        over = "mean" if one.measure.of is None else "pooled"
        rows.append(
            [
                f"{one.measure.name} ({over})",
                one.run,
                shown_value(one.value, one.measure),
                difference,
                interval,
                verdict,
            ]
        )
    return markdown_table(
        ["score", "run", "value", "difference to the first", f"{100 * confidence:g} % interval", "verdict"], rows
    )


def _first_of(comparisons: Sequence[Comparison], measure: RoadMeasure) -> Comparison:
    return next(one for one in comparisons if one.measure is measure)


def _verdict(one: Comparison) -> str:
    if one.measure.higher_is_better is None:
        return "different"
    return "better" if (one.difference > 0) == one.measure.higher_is_better else "worse"


def _signed(value: float, measure: RoadMeasure) -> str:
    text = shown_value(value, measure)
    return f"+{text}" if value > 0 else text
