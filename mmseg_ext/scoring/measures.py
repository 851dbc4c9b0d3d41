"""The road scores by name: what each is, where it comes from, and how it follows from counts.

A new score is a pure function in ``metrics/``, what adds up of it in `image_scores.score_image`, and an entry here;
tables, report, CSV and comparison follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial

from ..metrics.pixels import (
    MatchedCounts,
    ProbabilityCounts,
    best_threshold,
    error_found,
    expected_calibration_error,
    precision_recall_curve,
    ratio,
)

NamedCounts = Mapping[str, float]


@dataclass(frozen=True)
class RoadMeasure:
    """A road score.

    Attributes:
        key: its name in files, after ``road.``.
        name: its name for people.
        definition: in a sentence or two, with the source.
        of: the score of counts; None where it does not follow from them.
        of_probability: the score of counts by probability; None likewise. Where both are None it is given for an
            image as it is, and does not add up.
        unit: ``%`` (values are 0 to 1), or the unit of the number.
        higher_is_better: None where neither is.
        group: what it looks at.
    """

    key: str
    name: str
    definition: str
    of: Callable[[NamedCounts], float] | None = None
    unit: str = "%"
    higher_is_better: bool | None = True
    of_probability: Callable[[ProbabilityCounts], float] | None = None
    group: str = field(kw_only=True)

    @property
    def explanation(self) -> str:
        """The definition, and which end is better."""
        better = {True: "Higher is better.", False: "Lower is better.", None: ""}[self.higher_is_better]
        return f"{self.definition} {better}".strip()


def _iou(c: NamedCounts) -> float:
    return ratio(c["true_positive"], c["true_positive"] + c["false_positive"] + c["false_negative"])


def _f1(c: NamedCounts) -> float:
    return ratio(2 * c["true_positive"], 2 * c["true_positive"] + c["false_positive"] + c["false_negative"])


def _matched(kind: str, score: str) -> Callable[[NamedCounts], float]:
    """Return how ``score``, an attribute of `MatchedCounts`, follows from the counts named ``kind``_..."""
    keys = [f"{kind}_{field.name}" for field in fields(MatchedCounts)]
    return lambda c: getattr(MatchedCounts(*(c[key] for key in keys)), score)


_TOLERANCE = "within the tolerance (exact Euclidean distance)"
_BUFFER = "within the buffer"
_MNIH = "Mnih and Hinton, ECCV 2010"
_WIEDEMANN = "Heipke et al. 1997, Wiedemann et al. 1998"
_CLDICE = "Shit et al., CVPR 2021"

_region = partial(RoadMeasure, group="Region")
_tolerance = partial(RoadMeasure, group="Tolerance")
_centreline = partial(RoadMeasure, group="Centreline")
_topology = partial(RoadMeasure, group="Topology")
_uncertainty = partial(RoadMeasure, group="Uncertainty")

MEASURES = (
    _region("IoU", "IoU", "Road pixels in both, of road pixels in either; as MMSegmentation's.", _iou),
    _region("F1", "F1", "Harmonic mean of precision and recall; the same as Dice.", _f1),
    _region(
        "precision",
        "Precision",
        "Predicted road pixels that are road.",
        lambda c: ratio(c["true_positive"], c["true_positive"] + c["false_positive"]),
    ),
    _region(
        "recall",
        "Recall",
        "True road pixels that are predicted.",
        lambda c: ratio(c["true_positive"], c["true_positive"] + c["false_negative"]),
    ),
    _region(
        "accuracy",
        "Accuracy",
        "Pixels, road or not, that are right; high where there is little road.",
        lambda c: ratio(c["pixels"] - c["false_positive"] - c["false_negative"], c["pixels"]),
    ),
    _region(
        "boundary_IoU",
        "Boundary IoU",
        "IoU of the road pixels within 3 px of the road's edge (Cheng et al., CVPR 2021, there 2 % of the image's "
        "diagonal; here the image's border is no edge).",
        lambda c: ratio(c["boundary_intersection"], c["boundary_union"]),
    ),
    _tolerance(
        "relaxed_F1",
        "Relaxed F1",
        f"Harmonic mean of relaxed precision and recall ({_MNIH}).",
        _matched("relaxed", "f1"),
    ),
    _tolerance(
        "relaxed_precision",
        "Relaxed precision",
        f"Predicted road pixels that have a true one {_TOLERANCE} ({_MNIH}).",
        _matched("relaxed", "precision"),
    ),
    _tolerance(
        "relaxed_recall",
        "Relaxed recall",
        f"True road pixels that have a predicted one {_TOLERANCE} ({_MNIH}).",
        _matched("relaxed", "recall"),
    ),
    _centreline(
        "completeness",
        "Completeness",
        f"Length of true centrelines that have a predicted one {_BUFFER}, of all ({_WIEDEMANN}).",
        _matched("centreline", "recall"),
    ),
    _centreline(
        "correctness",
        "Correctness",
        f"Length of predicted centrelines that have a true one {_BUFFER}, of all ({_WIEDEMANN}).",
        _matched("centreline", "precision"),
    ),
    _centreline(
        "quality",
        "Quality",
        f"Matched predicted length, of predicted length and missed true length together ({_WIEDEMANN}).",
        _matched("centreline", "quality"),
    ),
    _topology(
        "clDice",
        "clDice",
        f"Harmonic mean of how much of each skeleton lies inside the other's road ({_CLDICE}).",
        _matched("cldice", "f1"),
    ),
    _topology(
        "pairs_kept",
        "Connected pairs kept",
        "Chance that two points of the true network which it connects are connected in the prediction too.",
        lambda c: ratio(c["pairs_kept"], c["pairs"]),
    ),
    _topology(
        "gaps",
        "Gaps",
        "Places where a true road is found on both sides and interrupted between.",
        lambda c: c["gaps"],
        "",
        False,
    ),
    _topology(
        "gaps_per_km",
        "Gaps per km",
        "Gaps, by kilometre of true centreline.",
        lambda c: ratio(c["gaps"], c["truth_km"]),
        "1/km",
        False,
    ),
    _topology(
        "components_prediction",
        "Networks predicted",
        "Connected components of the predicted network.",
        lambda c: c["components_prediction"],
        "",
        None,
    ),
    _topology(
        "components_truth",
        "Networks in truth",
        "Connected components of the true network.",
        lambda c: c["components_truth"],
        "",
        None,
    ),
    _topology(
        "APLS_spacenet",
        "APLS (SpaceNet)",
        "How alike shortest paths between places are in both networks: 1 less the mean relative difference of their "
        "lengths, a missing path counting 1, both ways, harmonic mean; parameters of SpaceNet/CosmiQ: control points "
        "every 50 m on bends, snapped within 4 m, paths from 10 m (Van Etten et al. 2018).",
    ),
    _topology(
        "APLS_sat2graph",
        "APLS (Sat2Graph)",
        "The same with the parameters of Sat2Graph and SAM-Road: control points every 50 m, snapped one to one within "
        "10 m, paths from 100 m, arithmetic mean of both ways. It does not compare to the SpaceNet variant.",
    ),
    _topology(
        "TOPO_F1",
        "TOPO F1",
        "Harmonic mean of TOPO precision and recall (Biagioni and Eriksson 2012; parameters of Sat2Graph: radius "
        "333 m, a point every 5.6 m, matched within 11 m and 45 degrees, one to one).",
    ),
    _topology(
        "TOPO_precision",
        "TOPO precision",
        "Points reached on the predicted network from common starts that are reached on the true one too.",
    ),
    _topology(
        "TOPO_recall",
        "TOPO recall",
        "Points reached on the true network that are reached on the predicted one too, times the share of starts "
        "that the prediction has.",
    ),
    _uncertainty(
        "best_F1",
        "Best F1",
        "F1 at the best of 300 thresholds of the probability of road.",
        of_probability=lambda counts: float(precision_recall_curve(counts).f1.max()),
    ),
    _uncertainty(
        "best_threshold",
        "Best threshold",
        "The probability from which to call a pixel road for the best F1; to be chosen on validation images.",
        unit="",
        higher_is_better=None,
        of_probability=best_threshold,
    ),
    _uncertainty(
        "calibration_error",
        "Calibration error",
        "How far the predicted probability of road is from the share of road, averaged over pixels in 15 bins "
        "(expected calibration error, Guo et al., ICML 2017, of P(road)).",
        higher_is_better=False,
        of_probability=expected_calibration_error,
    ),
    _uncertainty(
        "error_found",
        "Error found in the least certain 10 %",
        "Share of the wrong pixels (threshold 0.5) that a person finds by looking at the tenth of the pixels with the "
        "highest entropy.",
        of_probability=error_found,
    ),
)
BY_KEY = {measure.key: measure for measure in MEASURES}
