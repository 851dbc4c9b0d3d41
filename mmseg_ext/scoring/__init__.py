"""Road scores: from one image to a data set, its report, and the comparison of several."""

from .comparison import Comparison, compare_runs, comparison_table
from .folder_scores import FolderEvaluation, pair_predictions
from .image_scores import ImageScores, score_image
from .map_writer import MapWriter
from .measures import MEASURES
from .results import Shown, read_scores, write_report, write_scores
from .settings import ScoringSettings
from .summary import class_scores, summarise, totals_table

__all__ = [
    "MEASURES",
    "Comparison",
    "FolderEvaluation",
    "ImageScores",
    "MapWriter",
    "ScoringSettings",
    "Shown",
    "class_scores",
    "compare_runs",
    "comparison_table",
    "pair_predictions",
    "read_scores",
    "score_image",
    "summarise",
    "totals_table",
    "write_report",
    "write_scores",
]
