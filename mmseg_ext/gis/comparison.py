"""Two surveys of a road network compared: which stretches are new, removed, shifted, widened or narrowed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import geopandas as gpd
import numpy as np
import shapely

from ..errors import DataError
from .changes import CHANGES, ComparisonSettings
from .piece_kinds import piece_kinds
from .stretches import smoothed, stretches
from .survey import Survey
from .survey_frame import SurveyFrame
from .survey_pieces import survey_pieces

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """How a road network has changed.

    Attributes:
        changes: a stretch of road a row, in the coordinate reference system of the old survey: ``kind`` (of
            `CHANGES`), ``length_m``, ``offset_m`` (median distance from the old line; shifted roads only),
            ``width_old_m`` and ``width_new_m`` (medians, nan where unknown). Removed roads lie where they were, the
            others where they are.
        old_m: length of the old network, on the ground that was compared.
        new_m: length of the new network there.
    """

    changes: gpd.GeoDataFrame
    old_m: float
    new_m: float

    def lengths(self) -> dict[str, float]:
        """Return the metres of each kind of change, and of the new network what is ``unchanged``."""
        found = self.changes.groupby("kind")["length_m"].sum()
        lengths = {kind: float(found.get(kind, 0.0)) for kind in CHANGES}
        return lengths | {"unchanged": self.new_m - sum(lengths.values()) + lengths["removed"]}


def compare_networks(
    old: Survey, new: Survey, settings: ComparisonSettings | None = None, area: gpd.GeoDataFrame | None = None
) -> Comparison:
    """Return how a road network has changed from one survey to the next.

    Both networks are cut into short pieces. A piece is unchanged where a piece of the other network lies within the
    tolerance and runs the same way, or where one road's width covers the other's. Of the rest, pieces that face each
    other within the shift are shifted; what is on no road of the other survey is new or removed.

    Args:
        old: the network before.
        new: the network after, in any coordinate reference system.
        settings: what counts as a change.
        area: polygons of the ground that both surveys cover, in any coordinate reference system. Roads are told of up
            to its border; what lies beyond only helps to find the same road again. None for everywhere.

    Raises:
        DataError: one has a coordinate reference system and the other has none, or it is none for these places; widths
            that are no numbers; no road in the area.
    """
    settings = settings or ComparisonSettings()
    old, new = (
        survey if survey.name else replace(survey, name=f"the {role} survey")
        for role, survey in (("old", old), ("new", new))
    )
    frame = SurveyFrame(old, new)
    ground = None if area is None else _ground(area, frame)
    local = old.surface is not None and new.surface is not None
    before = survey_pieces(old, frame, settings, ground, local)
    after = survey_pieces(new, frame, settings, ground, local)
    inside = np.concatenate([before.inside, after.inside])
    if len(inside) and not inside.any():
        raise DataError("the area has no road of either survey in it; give the ground that both cover")
    if not (len(before.xy) and len(after.xy)):
        logger.warning("%s: has no roads", (new if len(before.xy) else old).name)
    elif (
        np.maximum(before.xy.min(axis=0), after.xy.min(axis=0)) - settings.shift
        > np.minimum(before.xy.max(axis=0), after.xy.max(axis=0))
    ).any():
        logger.warning("%s lies elsewhere than %s; check the coordinate reference systems", new.name, old.name)
    kinds = piece_kinds(before, after, settings)
    width_old = np.append(before.width, np.nan)[kinds.partner]
    rows = [
        *stretches(before, smoothed(kinds.old, before, settings), ("removed",), {"width_old_m": before.width}),
        *stretches(
            after,
            smoothed(kinds.new, after, settings),
            CHANGES,
            {"offset_m": kinds.offset, "width_old_m": width_old, "width_new_m": after.width},
        ),
    ]
    names = ("length_m", "offset_m", "width_old_m", "width_new_m")
    changes = gpd.GeoDataFrame(
        {"kind": np.array([row["kind"] for row in rows], object)}
        | {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names},
        geometry=frame.to_map([row["line"] for row in rows]),
        crs=old.edges.crs,
    )
    changes.loc[changes["kind"] != "shifted", "offset_m"] = np.nan
    return Comparison(changes, before.total, after.total)


def _ground(area: gpd.GeoDataFrame, frame: SurveyFrame) -> shapely.Geometry:
    """Return an area in metres, in one piece."""
    shapes = frame.to_metres(area, "the area")
    return shapely.union_all(shapely.make_valid(shapes, method="structure", keep_collapsed=False))
