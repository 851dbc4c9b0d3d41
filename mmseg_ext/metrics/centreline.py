"""Buffer scores of centrelines: completeness, correctness, quality."""

from __future__ import annotations

from typing import NamedTuple

import networkx as nx

from .graph_points import RoadLines, points_on, road_lines, samples, snap
from .ratios import ratio

_PIECE = 0.5


class CentrelineLengths(NamedTuple):
    """Lengths of lines in the unit of the coordinates; those of several images add up, field by field."""

    matched_prediction: float
    prediction: float
    matched_truth: float
    truth: float


class CentrelineScores(NamedTuple):
    """Shares 0..1; nan where there is nothing to score."""

    completeness: float
    correctness: float
    quality: float


def centreline_lengths(prediction: nx.MultiGraph, truth: nx.MultiGraph, buffer: float = 3.0) -> CentrelineLengths:
    """Measure how much of either graph's lines lies within ``buffer`` of the other's.

    Lines are parted into pieces of at most 0.5 unit; a piece counts whole where its middle is at most ``buffer`` from
    the other graph's lines (exact distance). So each place where a line enters or leaves the buffer puts the length
    wrong by at most 0.25 unit.

    Args:
        prediction: road graph.
        truth: road graph in the same frame and unit.
        buffer: half width of the buffer, in the unit of the coordinates.

    Returns:
        matched and whole lengths.
    """
    ours, theirs = road_lines(prediction), road_lines(truth)
    return CentrelineLengths(
        matched_prediction=_matched(ours, theirs, buffer),
        prediction=float(ours.lengths.sum()),
        matched_truth=_matched(theirs, ours, buffer),
        truth=float(theirs.lengths.sum()),
    )


def centreline_scores(lengths: CentrelineLengths) -> CentrelineScores:
    """Score the lengths of one image or the sum of many (Heipke et al. 1997; Wiedemann et al. 1998).

    completeness = matched truth / truth; correctness = matched prediction / prediction;
    quality = matched prediction / (prediction + unmatched truth).
    """
    unmatched = lengths.truth - lengths.matched_truth
    return CentrelineScores(
        completeness=ratio(lengths.matched_truth, lengths.truth),
        correctness=ratio(lengths.matched_prediction, lengths.prediction),
        quality=ratio(lengths.matched_prediction, lengths.prediction + unmatched),
    )


def _matched(roads: RoadLines, other: RoadLines, buffer: float) -> float:
    at, size = samples(roads, _PIECE)
    return float(size[snap(other, points_on(roads, at), buffer).edge >= 0].sum())
