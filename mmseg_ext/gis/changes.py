"""What counts as a change from one survey of a road network to the next."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from .limits import check_not_negative

CHANGES = ("new", "removed", "shifted", "widened", "narrowed")


@dataclass(frozen=True)
class ComparisonSettings:
    """What counts as a change; metres.

    Attributes:
        tolerance: how far apart the same road may be: the error of the registration and of the lines.
        shift: how far a road may have moved to be called shifted, not removed and new.
        min_length: shorter stretches are not reported, nor widths that change over less than twice as much.
        width_change: how much wider or narrower a road is to be reported; a fifth of its old width at least.
    """

    tolerance: float = 3.0
    shift: float = 15.0
    min_length: float = 10.0
    width_change: float = 2.0

    def __post_init__(self) -> None:
        check_not_negative(self, "tolerance", "shift", "min_length", "width_change")
        if self.tolerance == 0:
            raise ConfigError("tolerance of 0: give more, no two surveys agree to the last digit")
        if self.shift < self.tolerance:
            raise ConfigError(f"a shift of {self.shift:g} m is below the tolerance, {self.tolerance:g} m; give more")

    @property
    def width_span(self) -> float:
        """Over how many metres a width is told: ragged edges look like widths that change."""
        return 2 * self.min_length
