"""What road scores depend on."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class ScoringSettings:
    """Distances and thresholds of an evaluation.

    Attributes:
        tolerance_px: largest distance, in pixels, at which relaxed scores still match.
        tolerance_m: the same in metres; needs ``gsd_m`` and then takes the place of ``tolerance_px``.
        buffer_px: the same in pixels for centreline scores and connectivity; None: half the median width of the true
            roads of each image, and at least the tolerance, so that a centreline inside the road is a match.
        gsd_m: ground sampling distance in metres per pixel; None where it is not known: APLS and TOPO, whose
            parameters are in metres, then count a pixel as a metre.
        threshold: probability from which a pixel is road.
    """

    tolerance_px: float = 3.0
    tolerance_m: float | None = None
    buffer_px: float | None = None
    gsd_m: float | None = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        for name in ("tolerance_px", "tolerance_m", "buffer_px", "gsd_m"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value:g}; it must be above 0")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"the threshold is {self.threshold:g}; it must lie between 0 and 1")

    @property
    def tolerance(self) -> float:
        """Tolerance in pixels.

        Raises:
            ConfigError: it is given in metres, and the ground sampling distance is not known.
        """
        if self.tolerance_m is None:
            return self.tolerance_px
        if self.gsd_m is None:
            raise ConfigError(
                f"a tolerance of {self.tolerance_m:g} m needs the ground sampling distance; give --gsd, or gsd_m in "
                "dataset.json"
            )
        return self.tolerance_m / self.gsd_m
