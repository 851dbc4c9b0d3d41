"""A seeded generator of open-pit mines: orthomosaic, exact road mask, centrelines and heights.

A stand-in for data that nobody may pass on: a benched pit with a spiral ramp, haul roads of varying width with
soft edges and the colour of the ground, and what is easily taken for a road (bench edges, vehicle tracks, dry
gullies). Frames: map coordinates (x, y) in metres, x to the right and y down from the image's upper left corner;
pixel (row, col) covers x in [col, col + 1) * gsd_m and y in [row, row + 1) * gsd_m.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_STEP_M = 2.0
_SUN = np.array([-0.55, -0.55, 0.63])
_GROUNDS = np.array([[158, 134, 108], [150, 142, 130], [172, 138, 100], [136, 128, 118], [164, 150, 126]], float)


@dataclass(frozen=True)
class Road:
    """One road.

    Attributes:
        xy_m: centreline vertices (N, 2), map frame, about 2 m apart.
        width_m: full width at every vertex (N,).
        z_m: height of the carriageway at every vertex (N,).
        kind: ``ramp``, ``ring`` or ``haul``.
    """

    xy_m: np.ndarray
    width_m: np.ndarray
    z_m: np.ndarray
    kind: str


@dataclass(frozen=True)
class SyntheticMine:
    """A generated scene.

    Attributes:
        image: RGB uint8 (H, W, 3).
        mask: uint8 (H, W), 1 where the pixel's centre lies on a road, else 0.
        elevation_m: float32 (H, W), height of the surface.
        roads: the roads behind ``mask``.
        gsd_m: ground sampling distance, metres per pixel.
    """

    image: np.ndarray
    mask: np.ndarray
    elevation_m: np.ndarray
    roads: tuple[Road, ...]
    gsd_m: float


def _noise(rng: np.random.Generator, size: int, gsd_m: float, scale_m: float, octaves: int = 3) -> np.ndarray:
    """Return smooth noise (size, size) of about unit amplitude whose largest features are ``scale_m`` wide."""
    total, weight = np.zeros((size, size), np.float32), 0.0
    for octave in range(octaves):
        cells = max(2, round(size * gsd_m / scale_m * 2**octave) + 1)
        amplitude = 0.5**octave
        grid = rng.standard_normal((min(cells, size), min(cells, size))).astype(np.float32)
        total += amplitude * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        weight += amplitude
    return total / weight


def smooth_line(points: np.ndarray, step_m: float = _STEP_M) -> np.ndarray:
    """Return the polyline through smoothed ``points`` (K, 2), resampled to vertices ``step_m`` apart."""
    line = np.asarray(points, float)
    for _ in range(4):  # Chaikin's corner cutting
        inner = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], 1).reshape(-1, 2)
        line = np.concatenate([line[:1], inner, line[-1:]])
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    at = np.linspace(0, lengths[-1], max(2, round(lengths[-1] / step_m) + 1))
    return np.stack([np.interp(at, lengths, line[:, i]) for i in range(2)], 1)


def width_along(rng: np.random.Generator, count: int, mean_m: float) -> np.ndarray:
    """Return a width per vertex that varies slowly by up to a fifth of ``mean_m``."""
    knots = rng.uniform(0.82, 1.2, max(2, count // 40 + 2))
    return mean_m * np.interp(np.linspace(0, len(knots) - 1, count), np.arange(len(knots)), knots)


class _Pit:
    """Shape of the pit: a wobbly ellipse; ``level`` is 0 in its centre and 1 on its rim."""

    def __init__(self, rng: np.random.Generator, extent_m: float) -> None:
        self.centre = extent_m * rng.uniform(0.42, 0.58, 2)
        self.radii = extent_m * rng.uniform(0.24, 0.31, 2)
        self.wobble = rng.uniform(-0.07, 0.07, 3)
        self.phase = rng.uniform(0, 2 * np.pi, 3)
        self.benches = int(rng.integers(5, 8))
        self.depth_m = 0.13 * extent_m

    def _rim(self, angle: np.ndarray) -> np.ndarray:
        waves = [w * np.sin((k + 2) * angle + p) for k, (w, p) in enumerate(zip(self.wobble, self.phase, strict=True))]
        return 1.0 + np.sum(waves, axis=0)

    def point(self, angle: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Return map coordinates (..., 2) at ``angle`` (radians) and ``level``."""
        radius = level * self._rim(angle)
        offset = np.stack([np.cos(angle) * self.radii[0], np.sin(angle) * self.radii[1]], -1)
        return self.centre + radius[..., None] * offset

    def mean_height(self, level: np.ndarray) -> np.ndarray:
        """Return the height of the pit's walls without their benches, metres, 0 on the rim."""
        return -self.depth_m * np.clip(1 - level, 0, 0.8) / 0.8

    def benched_height(self, level: np.ndarray) -> np.ndarray:
        """Return the height of the pit's walls with flat benches and steep faces."""
        step = -self.mean_height(level) / self.depth_m * self.benches
        return -self.depth_m / self.benches * (np.floor(step) + np.clip((step % 1 - 0.62) / 0.38, 0, 1))

    def level(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the level at map coordinates."""
        dx, dy = (x - self.centre[0]) / self.radii[0], (y - self.centre[1]) / self.radii[1]
        return np.hypot(dx, dy) / self._rim(np.arctan2(dy, dx))


def _make_roads(rng: np.random.Generator, pit: _Pit, plain_m: np.ndarray, gsd_m: float) -> list[Road]:
    """Return ramp, ring road, and haul roads that leave the ring for the edges; ``plain_m`` is the land's height."""
    extent_m = len(plain_m) * gsd_m
    roads = []

    def add(points: np.ndarray, mean_m: float, kind: str) -> None:
        line = smooth_line(points)
        column, row = (line / gsd_m).astype(int).clip(0, len(plain_m) - 1).T
        height = plain_m[row, column] + pit.mean_height(pit.level(line[:, 0], line[:, 1]))
        roads.append(Road(line, width_along(rng, len(line), mean_m), height, kind))

    start, way = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
    turns = rng.uniform(1.15, 1.6)
    along = np.linspace(0, 1, 60)
    add(pit.point(start + way * 2 * np.pi * turns * along, 1.13 - 0.9 * along), rng.uniform(18, 23), "ramp")
    arc = start - way * np.linspace(0, rng.uniform(1.0, 1.7) * np.pi, 40)
    add(pit.point(arc, 1.13 + 0.03 * np.sin(3 * (arc - start))), rng.uniform(16, 22), "ring")
    for share in (0.0, *rng.uniform(0.3, 1.0, 2)):
        angle = arc[int(share * (len(arc) - 1))]
        first = pit.point(np.array(angle), np.array(1.13 + 0.03 * np.sin(3 * (angle - start))))
        heading = angle + rng.uniform(-0.5, 0.5)
        direction = np.array([np.cos(heading), np.sin(heading)])
        side = np.array([-direction[1], direction[0]])
        reach = np.linspace(0, rng.uniform(0.55, 0.9), 7) * extent_m
        sway = np.concatenate([[0.0], np.cumsum(rng.normal(0, 0.035, 6))]) * extent_m
        add(first + reach[:, None] * direction + sway[:, None] * side, rng.uniform(12, 20), "haul")
    return roads


def distance_to_roads(roads: list[Road], size: int, gsd_m: float, reach_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Return distance and height of the nearest road for every pixel centre of a raster of ``size`` rows and columns.

    Returns:
        Signed distance (size, size) from the road's edge in metres, negative on the road, at most ``reach_m``; and the
        carriageway's height there (0 beyond reach).
    """
    field = np.full((size, size), reach_m, np.float32)
    height = np.zeros((size, size), np.float32)
    for road in roads:
        half = road.width_m / 2
        for i, (a, b) in enumerate(zip(road.xy_m[:-1], road.xy_m[1:], strict=True)):
            margin = max(half[i], half[i + 1]) + reach_m
            low = np.floor((np.minimum(a, b) - margin) / gsd_m).astype(int).clip(0, size)
            high = np.ceil((np.maximum(a, b) + margin) / gsd_m).astype(int).clip(0, size)
            if (low >= high).any():
                continue
            x = (np.arange(low[0], high[0]) + 0.5) * gsd_m
            y = ((np.arange(low[1], high[1]) + 0.5) * gsd_m)[:, None]
            d = b - a
            t = (((x - a[0]) * d[0] + (y - a[1]) * d[1]) / max(float(d @ d), 1e-9)).clip(0, 1)
            distance = np.hypot(x - a[0] - t * d[0], y - a[1] - t * d[1]) - (half[i] + t * (half[i + 1] - half[i]))
            window = (slice(low[1], high[1]), slice(low[0], high[0]))
            closer = distance < field[window]
            field[window][closer] = distance[closer]
            height[window][closer] = (road.z_m[i] + t * (road.z_m[i + 1] - road.z_m[i]))[closer]
    return field, height


def hillshade(elevation_m: np.ndarray, gsd_m: float, sun: np.ndarray = _SUN) -> np.ndarray:
    """Return the share of light (H, W) that the surface reflects from the direction ``sun`` (3,), about 0 to 1."""
    slope_y, slope_x = np.gradient(elevation_m, gsd_m)
    normal_z = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    return np.clip((-slope_x * sun[0] - slope_y * sun[1] + sun[2]) * normal_z, 0.05, 1)


def _draw_lines(lines: list[np.ndarray], size: int, gsd_m: float, width_m: float) -> np.ndarray:
    """Return soft lines (H, W), 0 to 1, through map coordinates."""
    canvas = np.zeros((size, size), np.uint8)
    thickness = max(1, round(width_m / gsd_m))
    for line in lines:
        pixels = np.round(line / gsd_m * 16).astype(np.int32)
        cv2.polylines(canvas, [pixels.reshape(-1, 1, 2)], False, 255, thickness, cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(canvas, (0, 0), 0.7).astype(np.float32) / 255


def _tracks(rng: np.random.Generator, extent_m: float, count: int, bend: float) -> list[np.ndarray]:
    """Return wandering lines across the scene."""
    lines = []
    for _ in range(count):
        at, heading = rng.uniform(0, extent_m, 2), rng.uniform(0, 2 * np.pi)
        points = [at]
        for _ in range(8):
            heading += rng.normal(0, bend)
            points.append(points[-1] + extent_m * 0.07 * np.array([np.cos(heading), np.sin(heading)]))
        lines.append(smooth_line(np.array(points)))
    return lines


def generate_mine(seed: int, size_px: int = 1024, gsd_m: float = 1.0) -> SyntheticMine:
    """Generate the mine of ``seed``, ``size_px`` rows and columns; the same arguments give the same scene.

    Raises:
        ValueError: the scene would be smaller than 200 m, too small for a pit with roads.
    """
    extent_m = size_px * gsd_m
    if extent_m < 200:
        raise ValueError(f"a scene of {extent_m:g} m cannot hold a mine; size_px * gsd_m must be 200 or more")
    rng = np.random.default_rng(seed)
    pit = _Pit(rng, extent_m)
    plain = 6 * _noise(rng, size_px, gsd_m, 0.5 * extent_m)
    roads = _make_roads(rng, pit, plain, gsd_m)
    signed, road_height = distance_to_roads(roads, size_px, gsd_m, reach_m=8.0)
    mask = (signed <= 0).astype(np.uint8)

    centres = (np.arange(size_px) + 0.5) * gsd_m
    level = pit.level(centres[None, :], centres[:, None]).astype(np.float32)
    dump_at = pit.point(np.array(rng.uniform(0, 2 * np.pi)), np.array(1.75))
    dump = np.hypot(centres[None, :] - dump_at[0], centres[:, None] - dump_at[1]) / (0.13 * extent_m)
    natural = (
        plain + 1.2 * _noise(rng, size_px, gsd_m, 40) + 14 * np.clip(1.2 - dump, 0, 0.5) + pit.benched_height(level)
    )
    bed = np.clip(1 - signed / 6, 0, 1)
    elevation = ((1 - bed) * natural + bed * road_height).astype(np.float32)

    base = _GROUNDS[rng.integers(len(_GROUNDS))] + rng.normal(0, 5, 3)
    strata = np.sin(np.clip(1 - level, 0, 1) * 23 + rng.uniform(0, 6))[..., None] * np.array([9, 6, 2])
    patches = _noise(rng, size_px, gsd_m, 150)[..., None] * np.array([15, 13, 11])
    coarse = _noise(rng, size_px, gsd_m, 9, octaves=2)[..., None] * 9
    green = np.clip(_noise(rng, size_px, gsd_m, 220) - 0.35, 0, 0.6)[..., None] * (level > 1.2)[..., None]
    colour = base + patches + strata * (level < 1)[..., None] + coarse
    colour = colour * (1 - green) + green * np.array([88, 104, 66])

    edges = [
        pit.point(np.linspace(0, 2 * np.pi, 240), np.full(240, 1 - 0.8 * k / pit.benches)) for k in range(pit.benches)
    ]
    colour += 24 * _draw_lines(edges, size_px, gsd_m, 2.5)[..., None]
    faint = _draw_lines(_tracks(rng, extent_m, 7, 0.35), size_px, gsd_m, 3.0)[..., None]
    colour += rng.uniform(10, 18) * faint
    colour -= 26 * _draw_lines(_tracks(rng, extent_m, 4, 0.7), size_px, gsd_m, 2.0)[..., None]

    # a road is the ground around it, compacted: smoother, a little paler, with a wet or dusty stretch here and there
    packed = cv2.GaussianBlur(colour.astype(np.float32), (0, 0), max(10 / gsd_m, 0.5))
    packed = packed + rng.uniform(16, 26) + 7 * _noise(rng, size_px, gsd_m, 90)[..., None]
    packed += 4 * np.cos(signed * 1.3)[..., None] * (signed < 0)[..., None]
    ragged = signed + 1.1 * _noise(rng, size_px, gsd_m, 12)
    softness = 1.6 + 0.8 * _noise(rng, size_px, gsd_m, 120)
    cover = np.clip(0.5 - ragged / (2 * np.clip(softness, 0.6, 3)), 0, 1)[..., None]
    colour = colour * (1 - cover) + packed * cover
    colour += (0.45 + 0.55 * (1 - cover)) * rng.normal(0, 5, (size_px, size_px, 1))

    light = 0.5 + 0.8 * hillshade(elevation, gsd_m)[..., None]
    image = np.clip(colour * light, 0, 255)
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.6)
    return SyntheticMine(np.round(image).astype(np.uint8), mask, elevation, tuple(roads), gsd_m)
