"""clDice: do the skeletons of two masks lie in the other mask?"""

from __future__ import annotations

import numpy as np

from .ratios import MatchedCounts, only_valid


def cldice_counts(
    prediction: np.ndarray,
    truth: np.ndarray,
    prediction_skeleton: np.ndarray,
    truth_skeleton: np.ndarray,
    valid: np.ndarray | None = None,
) -> MatchedCounts:
    """Count the pixels of each skeleton, and those of them that lie in the other mask.

    Of the counts, precision is the topology precision |S_P and V_L| / |S_P|, recall the topology sensitivity
    |S_L and V_P| / |S_L|, and F1 clDice, after Shit et al., "clDice - a Novel Topology-Preserving Loss Function for
    Tubular Structure Segmentation", CVPR 2021.

    Args:
        prediction: road pixels V_P (H, W) bool.
        truth: road pixels V_L (H, W) bool.
        prediction_skeleton: skeleton S_P of the prediction (H, W) bool.
        truth_skeleton: skeleton S_L of the truth (H, W) bool.
        valid: (H, W) bool, False where pixels are ignored.
    """
    prediction_skeleton, truth_skeleton, prediction, truth = only_valid(
        valid, prediction_skeleton, truth_skeleton, prediction, truth
    )
    return MatchedCounts(
        matched_prediction=int(np.count_nonzero(prediction_skeleton & truth)),
        prediction=int(np.count_nonzero(prediction_skeleton)),
        matched_truth=int(np.count_nonzero(truth_skeleton & prediction)),
        truth=int(np.count_nonzero(truth_skeleton)),
    )
