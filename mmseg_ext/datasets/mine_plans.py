"""Plans of open-pit views: where roads, pits, dumps, ponds and streets lie, and the relief that they make.

All lengths are pixels of the view, heights too. The point (x, y) counts from the upper left corner, x to the right and
y down; pixel (row, col) covers [col, col + 1) and [row, row + 1). What is usual in a mine, such as the width of a bench
or of a lorry, is measured by the width of its haul roads, ``Plan.unit``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from .synthetic_mine import Road, smooth_line, width_along

_TABLE = 2048
_BEYOND = 90.0  # roads that leave the view end so far outside
EMPTY_SHARE = 0.15
SCENES = {"pit": 0.32, "floor": 0.2, "corridor": 0.2, "village": 0.1, "close": 0.18}
# of each scene, the most dumps and branches, the least and the most roads across
_COUNTS = {
    "pit": (3, 5, 0, 1),
    "floor": (4, 7, 1, 2),
    "corridor": (2, 4, 1, 2),
    "village": (1, 4, 1, 1),
    "close": (2, 2, 1, 1),
}


@functools.cache
def _white(count: int) -> np.ndarray:
    """Return white noise (count,), drawn once: to begin elsewhere in it is ten times as fast as to draw anew."""
    return np.random.default_rng(0).standard_normal(count, np.float32)


def fractal(rng: np.random.Generator, size: int, scale: float, octaves: int = 3, fade: float = 0.5) -> np.ndarray:
    """Return noise (size, size) of about unit deviation whose largest features are ``scale`` wide.

    Every octave has half the width of the one before, down to a pixel, and ``fade`` of its amplitude.
    """
    level = int(np.clip(np.log2(max(scale, 2.0) / 2), 0, np.log2(size / 2)))
    white = _white(4 ** (int(np.ceil(np.log2(size))) + 1))
    total, power = np.zeros((0, 0), np.float32), 0.0
    for octave in range(max(octaves, level + 1)):
        side = -(-size // 2**level)
        if octave > 0 and len(total) < side:
            total = cv2.pyrUp(total, dstsize=(side, side))  # cubic interpolation would show the grid in slopes
        if octave < octaves:
            first = int(rng.integers(len(white) - side * side))
            grid = white[first : first + side * side].reshape(side, side)
            if level > 0 or octave == 0:
                grid = cv2.GaussianBlur(grid, (0, 0), 1.0) * np.float32(2 * np.sqrt(np.pi))
            total = grid if octave == 0 else cv2.scaleAdd(grid, fade**octave, total)
            power += fade ** (2 * octave)
        if level == 0:
            break
        level -= 1
    return total / np.float32(np.sqrt(power))


class Blob:
    """An irregular closed shape around a centre; ``level`` is 0 there, 1 on the outline, and grows outwards."""

    def __init__(self, rng: np.random.Generator, centre: np.ndarray, radius: float, lobes: float = 0.3) -> None:
        self.centre, self.radius = np.asarray(centre, float), radius
        self.turn = rng.uniform(0, np.pi)
        self.stretch = rng.uniform(0.65, 1.0)
        orders = np.arange(2, 14)
        waves = lobes * rng.normal(0, 1, len(orders)) / orders**1.4
        phases = rng.uniform(0, 2 * np.pi, len(orders))
        angle = np.arange(_TABLE) * 2 * np.pi / _TABLE
        rim = 1 + (waves[:, None] * np.sin(orders[:, None] * angle + phases[:, None])).sum(0)
        self._rim = (radius * np.clip(rim, 0.45, 1.6)).astype(np.float32)

    def _rim_at(self, angle: np.ndarray) -> np.ndarray:
        return self._rim[(angle * (_TABLE / (2 * np.pi))).astype(np.int32) % _TABLE]

    def point(self, angle: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Return points (N, 2) at ``angle`` (N,) in radians and ``level`` (N,)."""
        u = level * self._rim_at(angle) * np.cos(angle)
        v = level * self._rim_at(angle) * np.sin(angle) * self.stretch
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        return self.centre + np.stack([u * cos - v * sin, u * sin + v * cos], -1)

    def polar(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return level and angle (radians, 0 to 2 pi) of points, arrays of one shape."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        dx, dy = (x - self.centre[0]).astype(np.float32), (y - self.centre[1]).astype(np.float32)
        u, v = dx * cos + dy * sin, (dy * cos - dx * sin) / self.stretch
        radius, angle = cv2.cartToPolar(np.atleast_2d(u), np.atleast_2d(v))
        radius, angle = radius.reshape(u.shape), angle.reshape(u.shape)
        return radius / self._rim_at(angle), angle

    def level(self, xy: np.ndarray) -> np.ndarray:
        """Return the level of points (N, 2)."""
        return self.polar(xy[:, 0], xy[:, 1])[0]


@dataclass(frozen=True)
class Slope:
    """A pit (``height`` below 0) or a dump: a `Blob` whose flank falls or rises in benches.

    Attributes:
        inner: level within which pit floor or dump top is flat.
        benches: number of them.
        face: share of a bench's width that its steep face takes.
    """

    shape: Blob
    inner: float
    height: float
    benches: int
    face: float

    def step(self, level: np.ndarray) -> np.ndarray:
        """Return the number of benches between the outline and ``level``, a fraction within a bench."""
        return np.clip((1 - level) / (1 - self.inner), 0, 1) * self.benches

    def mean_height(self, level: np.ndarray) -> np.ndarray:
        """Return the height without benches."""
        return self.step(level) * (self.height / self.benches)

    def benched_height(self, level: np.ndarray) -> np.ndarray:
        """Return the height with flat benches and steep faces."""
        step = self.step(level)
        whole = np.floor(step)
        return (whole + np.clip((step - whole - 1 + self.face) / self.face, 0, 1)) * (self.height / self.benches)


@dataclass
class Plan:
    """What a view shows.

    Attributes:
        scene: one of `SCENES`.
        size: rows and columns.
        unit: width of a haul road.
        roads: their ``kind`` is ``haul``, ``minor``, ``paved``, or ``tail`` where one peters out on open ground.
        slopes: pits and dumps.
        ponds: water, where level is below 1.
        villages: where houses stand along paved roads.
    """

    scene: str
    size: int
    unit: float
    roads: list[Road] = field(default_factory=list)
    slopes: list[Slope] = field(default_factory=list)
    ponds: list[Blob] = field(default_factory=list)
    villages: list[Blob] = field(default_factory=list)


class _Planner:
    """Draws the plan of one view."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        scene = str(rng.choice(list(SCENES), p=list(SCENES.values())))
        unit = np.exp(rng.uniform(*np.log([38, 85] if scene == "close" else [9, 36])))
        self.plan = Plan(scene, size, float(min(unit, size / 7)))

    def _spot(self, margin: float = 0.0) -> np.ndarray:
        return self.rng.uniform(-margin, 1 + margin, 2) * self.plan.size

    def add(self, line: np.ndarray, width: float, kind: str, flare: bool = False, ends: bool = False) -> None:
        """Add the road along ``line`` (N, 2), wider at its start if it flares; one that ends gets a tail."""
        rng, step = self.rng, float(np.hypot(*(line[1] - line[0])))
        widths = width_along(rng, len(line), width)
        along = np.arange(len(line)) * step
        if flare:
            widths = widths * (1 + rng.uniform(0.3, 1.0) * np.exp(-((along / width - 0.8) ** 2) / 0.2))
        flat = np.zeros(len(line))
        cut = len(line)
        if ends:
            cut = max(2, len(line) - max(2, round(rng.uniform(1.5, 4) * width / step)))
            if cut < len(line) - 1:
                widths[cut - 1 :] *= np.linspace(1, rng.uniform(0.6, 1.3), len(line) - cut + 1)
                self.plan.roads.append(Road(line[cut - 1 :], widths[cut - 1 :], flat[cut - 1 :], "tail"))
        self.plan.roads.append(Road(line[:cut], widths[:cut], flat[:cut], kind))

    def _line(self, points: np.ndarray, width: float) -> np.ndarray:
        """Return a smooth line (N, 2), at least 9 vertices, through control points (K, 2)."""
        length = float(np.hypot(*np.diff(points, axis=0).T).sum())
        return smooth_line(points, min(self._step(width), length / 12))

    @staticmethod
    def _step(width: float) -> float:
        return float(np.clip(width / 2, 4, 16))

    def _cost(self, line: np.ndarray, width: float, skip: int) -> float:
        """Return how much a line runs into pits and dumps, or along other roads."""
        ahead = line[skip:]
        if not ((ahead > 0) & (ahead < self.plan.size)).all(1).any():
            return 9.0
        cost = sum(float((s.shape.level(line[skip:]) < 0.97).mean()) for s in self.plan.slopes)
        for road in self.plan.roads:
            gaps = np.hypot(*(line[skip::2, None] - road.xy_m[None, ::2]).transpose(2, 0, 1)).min(1, initial=1e9)
            cost += 1.5 * float((gaps < 1.3 * (width + road.width_m[0]) / 2 + 8).mean())
        return cost

    def _best(self, lines: list[np.ndarray], width: float, skip: int) -> np.ndarray:
        return min(lines, key=lambda line: self._cost(line, width, min(skip, len(line) - 2)))

    def _through(self) -> np.ndarray:
        """Return control points (K, 2) of a road across the view."""
        rng, size = self.rng, self.plan.size
        angle = rng.uniform(0, 2 * np.pi)
        ahead = np.array([np.cos(angle), np.sin(angle)])
        middle = rng.uniform(0.15, 0.85, 2) * size
        count = int(rng.integers(5, 10))
        along = np.linspace(-1, 1, count) * 1.25 * size
        sway = np.cumsum(rng.normal(0, rng.uniform(0.01, 0.11), count)) * size
        sway += rng.choice([0, 0, 0.25, -0.25]) * size * np.linspace(-1, 1, count) ** 2
        sway -= sway[count // 2]
        return middle + along[:, None] * ahead + sway[:, None] * np.array([-ahead[1], ahead[0]])

    def _wander(self, at: np.ndarray, heading: float, length: float, bend: float) -> np.ndarray:
        """Return control points (K, 2) of a road that starts at a point and keeps its curvature for a while."""
        rng, step = self.rng, max(2.5 * self.plan.unit, 40.0)
        points, turn = [at], 0.0
        for _ in range(max(2, round(length / step))):
            turn = 0.6 * turn + rng.normal(0, bend)
            heading += turn
            points.append(points[-1] + step * np.array([np.cos(heading), np.sin(heading)]))
        return np.array(points)

    def through(self, width: float, kind: str) -> None:
        """Add a road across the view that meets few slopes and roads."""
        line = self._best([self._line(self._through(), width) for _ in range(6)], width, 0)
        self.add(line, width, kind)
        if self.rng.random() < 0.15:  # the other carriageway, or the old road
            gap = width * self.rng.uniform(1.15, 2.2)
            normal = np.gradient(line, axis=0)[:, ::-1] * [-1, 1]
            beside = line + gap * normal / np.maximum(np.hypot(*normal.T), 1e-6)[:, None]
            self.add(self._line(beside[::6], width), width * self.rng.uniform(0.7, 1), kind)

    def branch(self, width: float, kind: str) -> None:
        """Add a road that leaves another one, for the view's edge or for open ground."""
        rng, size = self.rng, self.plan.size
        places = [(r, i) for r in self.plan.roads if r.kind != "tail" for i in range(2, len(r.xy_m) - 2, 3)]
        places = [(r, i) for r, i in places if (r.xy_m[i] > 15).all() and (r.xy_m[i] < size - 15).all()]
        if not places:
            return
        ends = bool(rng.random() < 0.4)
        best, least = None, np.inf
        for _ in range(6):
            road, i = places[int(rng.integers(len(places)))]
            tangent = road.xy_m[i + 1] - road.xy_m[i - 1]
            heading = float(np.arctan2(tangent[1], tangent[0])) + rng.choice([-1, 1]) * rng.uniform(0.5, 2.6)
            length = rng.uniform(0.15, 0.5) * size if ends else 1.6 * size
            points = self._wander(road.xy_m[i], heading, length, rng.uniform(0.03, 0.22))
            line = self._line(points, width)
            skip = round(2.5 * (width + road.width_m[i]) / 2 / self._step(width))
            cost = self._cost(line, width, min(skip, len(line) - 2))
            if cost < least:
                best, least = line, cost
        if best is not None and least < 0.6:
            self.add(best, width, kind, flare=True, ends=ends)

    def pit(self, roads: bool) -> None:
        """Add a pit with its ramp."""
        rng, plan = self.rng, self.plan
        radius = plan.size * np.exp(rng.uniform(np.log(0.22), np.log(0.8)))
        blob = Blob(rng, self._spot(0.05 if radius < 0.4 * plan.size else 0.25), radius, rng.uniform(0.1, 0.4))
        inner = rng.uniform(0.25, 0.6)
        pitch = plan.unit * rng.uniform(0.7, 2.4)
        benches = int(np.clip(radius * (1 - inner) / pitch, 2, 14))
        depth = benches * min(pitch, plan.unit) * rng.uniform(0.3, 0.8)
        slope = Slope(blob, inner, -depth, benches, rng.uniform(0.2, 0.6))
        plan.slopes.append(slope)
        if not roads:
            return
        width = plan.unit * rng.uniform(0.85, 1.1)
        start, way = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
        if rng.random() < 0.6:
            turns = min(rng.uniform(0.5, 2.2), radius * (1 - inner) / (1.9 * width))
            along = np.linspace(0, 1, max(8, round(30 * turns)))
            level = 1.12 - (1.12 - inner * rng.uniform(0.7, 1)) * along
            points = blob.point(start + way * 2 * np.pi * turns * along, level)
        else:
            legs = int(np.clip(radius * (1 - inner) / (rng.uniform(2, 3.2) * width), 2, 6))
            reach = rng.uniform(0.35, 1.0)
            angles: list[float] = []
            levels: list[float] = []
            for leg in range(legs):
                swing = np.linspace(-reach, reach, 7) * (1 if leg % 2 == 0 else -1)
                angles.extend(start + swing)
                levels.extend(1.1 - (leg + np.linspace(0.05, 0.95, 7)) * (1.1 - inner) / legs)
            points = blob.point(np.array(angles), np.array(levels))
        line = self._line(points, width)
        self.add(line, width, "haul", ends=bool(rng.random() < 0.6))
        first = line[0] - line[3]
        heading = float(np.arctan2(first[1], first[0]))
        ways = [self._wander(line[0], heading + rng.normal(0, 0.3), 1.6 * plan.size, 0.12) for _ in range(5)]
        self.add(self._best([self._line(way, width) for way in ways], width, 12), width, "haul")
        for _ in range(int(rng.choice([0, 0, 1, 2]))):  # along a bench
            i = int(rng.integers(2, len(line) - 1))
            level, angle = blob.polar(*line[i][:, None])
            round_it = angle + rng.choice([-1, 1]) * np.linspace(0, rng.uniform(0.4, 1.6), 24)
            bench = self._line(blob.point(round_it, np.full(24, level)), width)
            if self._cost(bench, width, min(8, len(bench) // 2)) < 1.6:
                self.add(bench, width * rng.uniform(0.6, 0.9), "haul", ends=True)
        if rng.random() < 0.45:
            arc = start + np.linspace(0, rng.uniform(0.4, 1.9) * np.pi, 40) * rng.choice([-1, 1])
            ring = blob.point(arc, 1.12 + 0.04 * np.sin(3 * arc))
            self.add(self._line(ring, width), width * rng.uniform(0.7, 1), "haul")

    def dump(self) -> None:
        """Add a dump with lobes, perhaps terraced."""
        rng, plan = self.rng, self.plan
        radius = plan.size * rng.uniform(0.1, 0.4)
        benches = int(rng.integers(1, 4))
        height = benches * plan.unit * rng.uniform(0.4, 1.2)
        inner = max(0.15, 1 - benches * plan.unit * rng.uniform(0.9, 2) / radius)
        blob = Blob(rng, self._spot(0.1), radius, rng.uniform(0.25, 0.6))
        if all(float(np.hypot(*(s.shape.centre - blob.centre))) > 0.8 * (s.shape.radius + radius) for s in plan.slopes):
            plan.slopes.append(Slope(blob, inner, height, benches, rng.uniform(0.5, 0.95)))

    def pond(self) -> None:
        """Add water off the roads."""
        rng, plan = self.rng, self.plan
        for _ in range(4):
            blob = Blob(rng, self._spot(), plan.size * np.exp(rng.uniform(np.log(0.03), np.log(0.22))), 0.4)
            if all(blob.level(road.xy_m).min() > 1.15 + road.width_m.max() / blob.radius for road in plan.roads):
                plan.ponds.append(blob)
                return

    def village(self, roads: bool) -> None:
        """Add streets in a bent grid, some of them missing."""
        rng, plan = self.rng, self.plan
        blob = Blob(rng, self._spot(), plan.size * rng.uniform(0.25, 0.6), 0.3)
        plan.villages.append(blob)
        if not roads:
            return
        width = float(np.clip(plan.unit * rng.uniform(0.35, 0.6), 7, 13))
        turn, bend = rng.uniform(0, np.pi), rng.normal(0, 0.0008)
        cos, sin = np.cos(turn), np.sin(turn)
        axis = np.linspace(-1.2, 1.2, 60) * blob.radius
        for across in (False, True):
            at = -blob.radius
            while at < blob.radius:
                at += width * rng.uniform(4.5, 10 if across else 7)
                u, v = (np.full(60, at), axis) if across else (axis, np.full(60, at))
                v = v + bend * u**2
                line = blob.centre + np.stack([u * cos - v * sin, u * sin + v * cos], -1)
                kept = blob.level(line) < 1
                if kept.sum() > 6 and rng.random() < 0.8:
                    first, last = np.flatnonzero(kept)[[0, -1]]
                    first += int(rng.integers(0, 8))
                    if last - first > 6:
                        line = smooth_line(line[first : last + 1], 8.0)
                        self.add(line, width * rng.uniform(0.85, 1.15), "paved")

    def draw(self) -> Plan:
        """Return the plan."""
        rng, plan = self.rng, self.plan
        roads = rng.random() >= EMPTY_SHARE
        scene, unit = plan.scene, plan.unit
        if scene == "pit":
            for _ in range(int(rng.integers(1, 3))):
                self.pit(roads)
        elif scene == "floor" and rng.random() < 0.3:
            self.pit(False)
        elif scene == "village":
            self.village(roads)
        dumps, branches, least, most = _COUNTS[scene]
        for _ in range(int(rng.integers(0, dumps + 1))):
            self.dump()
        if roads:
            for _ in range(int(rng.integers(least, most + 1))):
                self.through(unit * rng.uniform(0.85, 1.1), "paved" if rng.random() < 0.12 else "haul")
            for _ in range(int(rng.integers(1, branches + 1))):
                minor = rng.random() < 0.4
                width = max(8.0, unit * (rng.uniform(0.4, 0.7) if minor else rng.uniform(0.75, 1.05)))
                self.branch(width, "minor" if minor else "haul")
        for _ in range(int(rng.integers(0, 4)) if scene != "close" else int(rng.integers(0, 2))):
            self.pond()
        return plan


def plan_view(rng: np.random.Generator, size: int) -> Plan:
    """Draw the plan of a view with ``size`` rows and columns; of all views, `EMPTY_SHARE` have no road."""
    return _Planner(rng, size).draw()


@dataclass
class Relief:
    """The shape of the ground; arrays are float32 (H, W).

    Attributes:
        height: the surface, roads included.
        face: 0 to 1, how much of a steep face of a bench.
        crest: 0 to 1, edges of benches.
        worked: above 0 in pits and on dumps, below 0 outside; grows with the distance from their outline.
        radial: of each dump, how far round it a pixel lies, in pixels along its outline, and 1 on its slopes.
    """

    height: np.ndarray
    face: np.ndarray
    crest: np.ndarray
    worked: np.ndarray
    radial: list[tuple[np.ndarray, np.ndarray]]


def shape_ground(rng: np.random.Generator, plan: Plan) -> tuple[Relief, np.ndarray]:
    """Return the relief of ``plan`` before roads are cut, and its height without benches (H, W), which roads follow."""
    size, unit = plan.size, plan.unit
    centres = np.arange(size, dtype=np.float32) + 0.5
    x, y = np.meshgrid(centres, centres)
    height = rng.uniform(0, 1.2) * unit * fractal(rng, size, 0.6 * size, 4)
    smooth = height.copy()
    face, crest = np.zeros_like(height), np.zeros_like(height)
    worked = np.full_like(height, -1e3)
    radial = []
    if plan.slopes:
        coarse, fine = rng.uniform(0.2, 1.0) * unit, rng.uniform(0.05, 0.2) * unit
        x = x + coarse * fractal(rng, size, 7 * unit, 2) + fine * fractal(rng, size, 1.5 * unit, 2)
        y = y + coarse * fractal(rng, size, 7 * unit, 2) + fine * fractal(rng, size, 1.5 * unit, 2)
    for slope in plan.slopes:
        level, angle = slope.shape.polar(x, y)
        mean, benched = slope.mean_height(level), slope.benched_height(level)
        lower = slope.height < 0
        pick = (mean < 0) if lower else (mean > 0)
        smooth += mean
        height += benched
        part = slope.step(level) % 1
        steep = ((part > 1 - slope.face) & pick).astype(np.float32)
        face = np.maximum(face, steep)
        worked = np.maximum(worked, (1 - level) * slope.shape.radius)
        if not lower:
            radial.append((angle * slope.shape.radius, steep))
    if plan.slopes:
        crest = np.abs(cv2.Laplacian(cv2.GaussianBlur(face, (0, 0), 0.8), cv2.CV_32F))
        crest = np.clip(2 * crest, 0, 1)
        face = cv2.GaussianBlur(face, (0, 0), 0.8)
    return Relief(height, face, crest, worked, radial), smooth


def lay_roads(roads: list[Road], smooth: np.ndarray) -> list[Road]:
    """Return ``roads`` with heights that follow the ground ``smooth`` (H, W) without its bumps."""
    laid = []
    for road in roads:
        col, row = np.clip(road.xy_m, 0, len(smooth) - 1).astype(int).T
        laid.append(replace(road, z_m=gaussian_filter1d(smooth[row, col], 4.0, mode="nearest")))
    return laid
