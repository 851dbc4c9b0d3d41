"""Road scores: from one image to a data set, its report, and the comparison of several."""

from .folder_scores import FolderEvaluation, pair_predictions
from .image_scores import ImageScores, RoadMasks, ScoringSettings, score_image
from .report import write_report
from .results import MapWriter, remarks, summarise, totals_table, write_scores

__all__ = [
    "FolderEvaluation",
    "ImageScores",
    "MapWriter",
    "RoadMasks",
    "ScoringSettings",
    "pair_predictions",
    "remarks",
    "score_image",
    "summarise",
    "totals_table",
    "write_report",
    "write_scores",
]
