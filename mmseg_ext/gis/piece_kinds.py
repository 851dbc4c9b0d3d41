"""What each piece of a surveyed road network is beside the network of another survey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from .changes import ComparisonSettings
from .survey_pieces import SPACING_M, SurveyPieces

# besides one of CHANGES: unchanged; off the other survey's lines but on its road; too near a crossing or an end, where
# a centreline goes its own way, to tell shifts and widths; outside of the ground that is compared
SAME, BESIDE, BY_NODE, OUTSIDE = "same", "beside", "by node", "outside"
_PARALLEL = np.cos(np.radians(30))
_WIDTH_SHARE = 0.2
_CHUNK = 20_000


@dataclass(frozen=True)
class PieceKinds:
    """What the pieces of two surveys are: one of `CHANGES`, `SAME`, `BESIDE`, `BY_NODE` or `OUTSIDE`.

    Attributes:
        old: of each piece of the old network (M,).
        new: of each piece of the new one (K,).
        offset: how far the new pieces that moved are from the old line (K,), metres; nan for others.
        partner: the old piece that each new one was (K,), -1 without.
    """

    old: np.ndarray
    new: np.ndarray
    offset: np.ndarray
    partner: np.ndarray


@dataclass(frozen=True)
class _Facing:
    """What each piece of a network faces in the other one.

    Attributes:
        distance: from the nearest piece (M,), inf without.
        partner: that piece (M,), -1 without.
        mutual: whether the partner has no nearer one, bool (M,).
    """

    distance: np.ndarray
    partner: np.ndarray
    mutual: np.ndarray


def piece_kinds(old: SurveyPieces, new: SurveyPieces, settings: ComparisonSettings) -> PieceKinds:
    """Return what each piece of the old and of the new network is."""
    networks = old, new
    everything = [np.ones(len(network.xy), bool) for network in networks]
    facing = _facing(networks, everything, settings)
    same = []
    for one, other, met in zip(networks, networks[::-1], facing, strict=True):
        wider = np.nan_to_num(np.abs(one.width - np.append(other.width, np.nan)[met.partner]) / 2)
        on_it = met.mutual & (met.distance <= wider + settings.tolerance)
        same.append((met.distance <= settings.tolerance) | on_it)
    # what has its own road in the other survey is no partner for another one
    moved = _facing(networks, [~known for known in same], settings)
    kinds = []
    for i, missing in enumerate(("removed", "new")):
        other = networks[1 - i]
        absent = ~same[i] & ~moved[i].mutual
        reach = settings.tolerance + other.half_width.max(initial=0)
        away, nearby = _nearest(networks[i], other, absent, everything[1 - i], reach, None)
        off_road = away > settings.tolerance + np.append(other.half_width, 0)[nearby]
        choices = [same[i], moved[i].mutual, off_road]
        kinds.append(np.select(choices, [SAME, "shifted", missing], BESIDE).astype("U8"))
    partner = np.where(same[1], facing[1].partner, np.where(moved[1].mutual, moved[1].partner, -1))
    before, low, high = (np.append(values, np.nan)[partner] for values in (old.width, old.low, old.high))
    least = np.maximum(settings.width_change, _WIDTH_SHARE * before)
    # lines cut otherwise have other medians: the widths along them tell whether the road has another
    kinds[1][same[1] & (new.width - before > least) & (new.width > high) & (new.low > before)] = "widened"
    kinds[1][same[1] & (before - new.width > least) & (new.width < low) & (new.high < before)] = "narrowed"
    for i, network in enumerate(networks):
        kinds[i][network.by_node(*networks) & (same[i] | moved[i].mutual)] = BY_NODE
        kinds[i][~network.inside] = OUTSIDE
    return PieceKinds(kinds[0], kinds[1], np.where(moved[1].mutual, moved[1].distance, np.nan), partner)


def _facing(
    networks: Sequence[SurveyPieces], chosen: Sequence[np.ndarray], settings: ComparisonSettings
) -> list[_Facing]:
    """Return what each piece of two networks faces within the shift among the ``chosen`` (bool, (M,)) ones."""
    (one, back), (other, forth) = (
        _nearest(networks[i], networks[1 - i], chosen[i], chosen[1 - i], settings.shift, settings.tolerance)
        for i in (0, 1)
    )
    return [
        _Facing(mine, partner, np.isfinite(mine) & (mine <= np.append(theirs, -np.inf)[partner] + settings.tolerance))
        for mine, partner, theirs in ((one, back, other), (other, forth, one))
    ]


def _nearest(
    pieces: SurveyPieces,
    others: SurveyPieces,
    chosen: np.ndarray,
    allowed: np.ndarray,
    reach: float,
    slack: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the ``chosen`` (M,) pieces' middles are from others that are ``allowed`` (K,), and from which.

    Args:
        pieces: whose middles.
        others: the pieces of the other network.
        chosen: bool (M,).
        allowed: bool (K,).
        reach: how far to look, metres.
        slack: look at parallel pieces only, which may end by so much before they face the middle; None for all.

    Returns:
        distances (M,), inf where there is none, and indices (M,), -1 there.
    """
    distances, indices = np.full(len(pieces.xy), np.inf), np.full(len(pieces.xy), -1)
    mine, theirs = np.flatnonzero(chosen), np.flatnonzero(allowed)
    if not len(theirs):
        return distances, indices
    tree = KDTree(others.xy[theirs])
    for start in range(0, len(mine), _CHUNK):
        some = mine[start : start + _CHUNK]
        pairs = KDTree(pieces.xy[some]).sparse_distance_matrix(tree, reach + SPACING_M, output_type="ndarray")
        one, other = some[pairs["i"]], theirs[pairs["j"]]
        apart, way = pieces.xy[one] - others.xy[other], others.along[other]
        beyond = np.maximum(np.abs((apart * way).sum(axis=1)) - others.length[other] / 2, 0)
        distance = np.hypot(apart[:, 0] * way[:, 1] - apart[:, 1] * way[:, 0], beyond)
        keep = distance <= reach
        if slack is not None:
            keep &= (np.abs((pieces.along[one] * way).sum(axis=1)) >= _PARALLEL) & (beyond <= slack)
        order = np.flatnonzero(keep)[np.lexsort((distance[keep], one[keep]))]
        found, first = np.unique(one[order], return_index=True)
        distances[found], indices[found] = distance[order[first]], other[order[first]]
    return distances, indices
