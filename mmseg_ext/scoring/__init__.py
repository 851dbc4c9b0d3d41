"""Road scores: from one image to a data set, its report, and the comparison of several."""

from .comparison import Comparison, compare_runs, comparison_table
from .folder_scores import FolderEvaluation, MapWriter, pair_predictions
from .image_scores import ImageScores, ScoringSettings, score_image
from .measures import MEASURES
from .results import (
    UNKNOWN_METRES,
    Shown,
    class_scores,
    metres_are_known,
    read_scores,
    summarise,
    totals_table,
    write_report,
    write_scores,
)

__all__ = [
    "MEASURES",
    "UNKNOWN_METRES",
    "Comparison",
    "FolderEvaluation",
    "ImageScores",
    "MapWriter",
    "ScoringSettings",
    "Shown",
    "class_scores",
    "compare_runs",
    "comparison_table",
    "metres_are_known",
    "pair_predictions",
    "read_scores",
    "score_image",
    "summarise",
    "totals_table",
    "write_report",
    "write_scores",
]
