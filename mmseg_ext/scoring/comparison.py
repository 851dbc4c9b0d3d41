"""How sure scores are, and which differences between runs are significant: a bootstrap over the images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

from ..errors import ConfigError, DataError
from ..report.tables import markdown_table
from .measures import BY_KEY, RoadMeasure
from .results import shown_value

# from draws of images (..., N) to their score (...)
_Score = Callable[[np.ndarray], np.ndarray]
_SAME_SETTINGS = ("tolerance_px", "tolerance_m", "buffer_px", "gsd_m")


@dataclass(frozen=True)
class RunComparison:
    """One score of one run with its confidence interval, beside that of the first run.

    Attributes:
        run: name of the run.
        measure: which score.
        value: of the run, over the images that count.
        interval: ends of the confidence interval of ``value``; nan with fewer than two images.
        difference: ``value`` less that of the first run; 0 for the first.
        low: lower end of the confidence interval of the difference; nan with fewer than two images, 0 for the first.
        high: upper end.
        images: how many count: those where the score is defined in both runs, for scores that do not add up.
    """

    run: str
    measure: RoadMeasure
    value: float
    interval: tuple[float, float]
    difference: float
    low: float
    high: float
    images: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """What it is beside the first run, in a word or two."""
        if not self.is_significant:
            return "not significant"
        if self.measure.higher_is_better is None:
            return "different"
        return "better" if (self.difference > 0) == self.measure.higher_is_better else "worse"


def compare_runs(
    runs: Mapping[str, Mapping],
    keys: Sequence[str] = ("IoU", "relaxed_F1", "quality", "clDice", "pairs_kept", "APLS_spacenet", "TOPO_F1"),
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> list[RunComparison]:
    """Give the scores of runs their intervals, and compare them with the first by a paired bootstrap over the images.

    Every resample draws images with replacement, the same for all runs, and computes the score of the drawn ones:
    pooled where it adds up, the mean otherwise. An interval holds the middle ``confidence`` of the scores, or of the
    differences (percentile bootstrap, Efron 1979). It covers these images alone, not another training's seed, and each
    score has its own interval: of twenty true differences of 0, one is called significant at 0.95.

    Args:
        runs: what `read_scores` returned, by name; of the same images.
        keys: scores to compare; those that a run does not have are left out.
        confidence: 0 to 1.
        resamples: how many.
        seed: of the draws.

    Raises:
        ConfigError: an unknown score, or no confidence.
        DataError: the runs are of different images or pixels, or were scored with another tolerance.
    """
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
        if different := sorted(set(by_name[run]) ^ set(by_name[first])):
            raise DataError(f"{run}: image {different[0]} is in only one of it and {first}; compare runs of one split")
        for name, image in by_name[run].items():
            if _ground(image) != _ground(by_name[first][name]):
                raise DataError(
                    f"{run}: image {name} was scored on other pixels or another truth than in {first}; score "
                    "predictions that cover the same ground against the same truth"
                )
    names = list(by_name[first])
    results = []
    for measure in (BY_KEY[key] for key in keys if all(key in content["road"] for content in runs.values())):
        scorers = {run: _scorer(measure, [images[name] for name in names]) for run, images in by_name.items()}
        reference, defined_there = scorers[first]
        for run, (score, defined) in scorers.items():
            images = np.flatnonzero(defined & defined_there)

            def interval(of: Callable[[np.ndarray], np.ndarray], images: np.ndarray = images) -> tuple[float, float]:
                return _interval(of, images, confidence, resamples, seed)

            def gain(draws: np.ndarray, own: _Score = score, other: _Score = reference) -> np.ndarray:
                return own(draws) - other(draws)

            value = float(score(images))
            low, high = (0.0, 0.0) if run == first else interval(gain)
            difference = value - float(reference(images))
            results.append(RunComparison(run, measure, value, interval(score), difference, low, high, len(images)))
    return results


def _interval(of: _Score, images: np.ndarray, confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    """Return the ends of the middle ``confidence`` of what ``of`` gives on resamples of ``images`` (N,)."""
    if len(images) < 2 or math.isnan(float(of(images))):
        return math.nan, math.nan
    with warnings.catch_warnings():
        # its own interval is nan as soon as one resample has nothing to score; ours leaves those out
        warnings.simplefilter("ignore", DegenerateDataWarning)
        found = bootstrap(
            (images,),
            lambda draws, axis: of(draws),
            n_resamples=resamples,
            vectorized=True,
            method="percentile",
            random_state=np.random.default_rng(seed),
        )
    low, high = np.nanquantile(found.bootstrap_distribution, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _ground(image: Mapping) -> tuple[float, ...]:
    """Return the pixels of an image that were scored, and those that are road in its truth; nothing for lines."""
    counts = image["counts"]
    if "pixels" not in counts:
        return ()
    return counts["pixels"], counts["true_positive"] + counts["false_negative"]


def _scorer(measure: RoadMeasure, images: Sequence[Mapping]) -> tuple[_Score, np.ndarray]:
    """Return how a run scores on draws (..., N) of its images, and on which images (N,) it has a score at all."""
    if measure.of is None:
        values = np.array([image["scores"][measure.key] for image in images], float)
        return lambda draws: np.asarray(values[draws].mean(axis=-1) if draws.size else math.nan), ~np.isnan(values)
    keys = list(images[0]["counts"])
    columns = [np.array([image["counts"][key] for image in images]) for key in keys]
    pooled = measure.of

    def score(draws: np.ndarray) -> np.ndarray:
        sums = np.stack([column[draws].sum(axis=-1) for column in columns], axis=-1)
        return np.apply_along_axis(lambda row: pooled(dict(zip(keys, row, strict=True))), -1, sums)

    return score, np.ones(len(images), bool)


def comparison_table(comparisons: Sequence[RunComparison], confidence: float = 0.95) -> str:
    """Return a Markdown table: a line for each score and run, with intervals, and for several runs a verdict."""
    rows = []
    several = len({one.run for one in comparisons}) > 1
    compared: set[str] = set()
    for one in comparisons:
        measure = one.measure
        cells = ["", "", ""]
        if measure.key in compared:
            shown = [(value, shown_value(value, measure)) for value in (one.difference, one.low, one.high)]
            difference, low, high = (f"+{text}" if value > 0 else text for value, text in shown)
            cells = [difference, f"{low} to {high}", one.verdict]
        compared.add(measure.key)
        least, most = (shown_value(end, measure) for end in one.interval)
        over = "mean" if measure.of is None else "pooled"
        cells = [shown_value(one.value, measure), f"{least} to {most}", *(cells if several else [])]
        rows.append([f"{measure.name} ({over})", one.run, *cells])
    interval = f"{100 * confidence:g} % interval"
    compared_columns = ["difference to the first", interval, "verdict"] if several else []
    return markdown_table(["score", "run", "value", interval, *compared_columns], rows)
