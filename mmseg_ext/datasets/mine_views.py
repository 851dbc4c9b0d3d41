"""Seeded views of open-pit mines from above, as different as cameras, rocks, climates and scales make them.

For training: networks that know only one kind of picture take everything in another for road, or nothing. A view is
planned first (`mine_plans`), its ground is shaped around the roads, then it is painted (`mine_textures`), lit and
photographed. What is road is found by its surroundings, not by one trick: in some views roads have the colour of the
ground and only run smooth, in others only their edges show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..imagery.voc import IGNORE
from .mine_plans import Blob, Plan, fractal, lay_roads, plan_view, shape_ground
from .mine_textures import (
    bare_ground,
    boxes,
    lines_along,
    mix,
    natural_cover,
    soft_step,
    trees,
    water,
)
from .synthetic_mine import Road, distance_to_roads, hillshade, smooth_line

LEAST_PX = 128
_REACH = 14.0
_KINDS = ("haul", "minor", "paved")


@dataclass(frozen=True)
class MineView:
    """A generated view.

    Attributes:
        image: RGB uint8 (H, W, 3).
        mask: uint8 (H, W): 1 where the pixel's centre lies on a road, 255 where nobody could say (soft shoulders, roads
            that peter out, what a cloud hides), else 0.
        gsd_m: ground sampling distance, metres per pixel.
        roads: the roads behind ``mask``, in metres; those of kind ``tail`` peter out.
    """

    image: np.ndarray
    mask: np.ndarray
    gsd_m: float
    roads: tuple[Road, ...]


class _Painter:
    """Paints one plan; every method adds one kind of thing to ``colour``, ``bump`` or ``height``."""

    def __init__(self, rng: np.random.Generator, plan: Plan) -> None:
        self.rng, self.plan, self.size, self.unit = rng, plan, plan.size, plan.unit
        azimuth, altitude = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(22, 70))
        self.sun_xy = np.array([np.cos(azimuth), np.sin(azimuth)])
        self.sun = np.array([*(np.cos(altitude) * self.sun_xy), np.sin(altitude)])
        self.relief, smooth = shape_ground(rng, plan)
        self.height = self.relief.height
        self.roads = lay_roads(plan.roads, smooth)
        self.edge: dict[str, np.ndarray] = {}  # by kind, the distance to the edge of the nearest road, negative on it
        reach = max(_REACH, 0.5 * plan.unit)
        self.signed = self.nearest = np.full((plan.size, plan.size), reach, np.float32)
        self.bed = np.zeros_like(self.signed)
        for kind in ("tail", *_KINDS):
            roads = [road for road in self.roads if road.kind == kind]
            if roads:
                self.edge[kind], bed = distance_to_roads(roads, plan.size, 1.0, reach)
                self.bed = np.where(self.edge[kind] < self.nearest, bed, self.bed)
                self.nearest = np.minimum(self.nearest, self.edge[kind])
                if kind != "tail":
                    self.signed = np.minimum(self.signed, self.edge[kind])
        if self.edge:  # where roads of different height meet there is no step
            near = (self.nearest < reach).astype(np.float32)
            soften = lambda field: cv2.GaussianBlur(field, (0, 0), 0.25 * plan.unit)  # noqa: E731
            self.bed = soften(self.bed * near) / np.maximum(soften(near), 1e-3)
        self.tail = self.edge.get("tail", np.full_like(self.signed, reach))
        self.ignored = (self.tail <= 0) & (self.signed > 0)
        y, x = np.mgrid[: self.size, : self.size].astype(np.float32) + 0.5
        self.xy = x, y

    def noise(self, scale: float, octaves: int = 3, fade: float = 0.5) -> np.ndarray:
        """Return noise (H, W)."""
        return fractal(self.rng, self.size, scale, octaves, fade)

    def ground(self) -> None:
        """Paint what grows around the mine, and the bare ground of pits, dumps, road sides and floors."""
        rng, size, unit = self.rng, self.size, self.unit
        self.colour, self.bump = natural_cover(rng, size, unit)
        mine, rough = bare_ground(rng, size, unit)
        if self.plan.slopes and rng.random() < 0.6:  # strata, by height
            pitch = unit * rng.uniform(0.2, 1.2)
            seam = np.interp(np.arange(256), np.arange(0, 256, 8), rng.normal(0, 1, 32)).astype(np.float32)
            bands = seam[((self.height + unit * self.noise(0.4 * size, 3)) / pitch * 4).astype(int) % 256]
            mine += rng.uniform(4, 26) * (bands * (0.3 + 0.7 * self.relief.face))[..., None]
        worked = np.maximum(self.relief.worked, rng.uniform(0.2, 3.5) * unit - np.maximum(self.nearest, 0) * 4)
        floor = rng.uniform(-1.5, 1.2) if self.plan.scene in ("floor", "pit", "close") else rng.uniform(-3, 0)
        worked = np.maximum(worked / (3 * unit), 0.7 * floor)
        cleared = soft_step(worked + 0.6 * self.noise(0.25 * size, 6, 0.6), rng.choice([0.2, 0.8, 1.6]))
        self.cleared = cleared
        self.colour = mix(self.colour, mine, cleared)
        self.bump = self.bump * (1 - cleared) + rough * cleared
        face = self.relief.face * cleared
        tone = rng.uniform(-30, 22) * (1 + 0.5 * self.noise(2 * unit, 4, 0.7))
        self.colour += (tone * face)[..., None]
        edge = rng.uniform(-40, 60) * (0.6 + 0.6 * self.noise(3 * unit, 4, 0.7))
        self.colour += (edge * self.relief.crest * cleared)[..., None]
        self.bump += 0.05 * unit * rng.uniform(0, 1.5) * face * self.noise(0.25 * unit, 3, 0.8)
        for arc, weight in self.relief.radial:  # rills down the slopes of dumps
            rills = rng.normal(0, 1, 4096).astype(np.float32)
            rills = rills[(arc / rng.uniform(1.5, 5)).astype(int) % 4096]
            rills = cv2.GaussianBlur(rills, (0, 0), 0.8)
            self.colour += (rng.uniform(2, 12) * rills * weight)[..., None]
            self.bump += rng.uniform(0, 0.6) * rills * weight

    def ponds(self) -> None:
        """Fill ponds."""
        self.wet = np.zeros((self.size, self.size), np.float32)
        for pond in self.plan.ponds:
            low, high = np.clip([pond.centre - 2 * pond.radius, pond.centre + 2 * pond.radius], 0, self.size).astype(
                int
            )
            part, side = (slice(low[1], high[1]), slice(low[0], high[0])), int(max(*(high - low), 4))
            crop = slice(0, high[1] - low[1]), slice(0, high[0] - low[0])
            level = pond.polar(self.xy[0][part], self.xy[1][part])[0]
            level += 0.12 * fractal(self.rng, side, 0.7 * pond.radius, 4)[crop]
            depth = (1 - level) * pond.radius
            shore = np.clip(1 - np.abs(depth) / self.rng.uniform(2, 12), 0, 1) * (depth < 0)
            colour = self.colour[part] + (self.rng.uniform(-50, 25) * shore)[..., None]
            fill = soft_step(depth, 2.0) * soft_step(self.nearest[part] - 3, 2.0)
            deep = np.clip(depth / (0.5 * pond.radius), 0, 1)
            liquid = water(self.rng, side, muddy=True)[crop] * (1.15 - 0.3 * deep[..., None])
            self.colour[part] = mix(colour, liquid, fill)
            self.wet[part] = np.maximum(self.wet[part], fill)

    def piles(self) -> None:
        """Add stockpiles, and loads that lorries tipped side by side."""
        rng, unit = self.rng, self.unit
        if rng.random() < 0.35:
            at, turn = rng.uniform(0, self.size, 2), rng.uniform(0, np.pi)
            paint = rng.uniform(0.45, 1.5) * np.array([1, rng.uniform(0.9, 1.05), rng.uniform(0.8, 1.1)])
            radius = unit * rng.uniform(0.5, 2.2)
            for i in range(int(rng.integers(1, 9))):
                shift = (i % 5) * radius * rng.uniform(0.7, 1.7)
                centre = at + shift * np.array([np.cos(turn), np.sin(turn)]) + rng.normal(0, 0.2, 2) * radius
                self._cone(centre, radius * rng.uniform(0.6, 1.2), 0.7 * self.rng.uniform(0.7, 1), paint)
        if rng.random() < 0.3:
            pitch, turn = float(np.clip(0.4 * unit, 4, 20)), rng.uniform(0, np.pi)
            x, y = self.xy
            u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            warp = 0.35 * pitch * self.noise(2 * pitch, 3)
            k = 2 * np.pi / pitch
            heaps = np.clip(np.cos(k * (u + warp)) * np.cos(0.8 * k * (v - warp)), 0, 1)
            area = Blob(rng, rng.uniform(0, self.size, 2), self.size * rng.uniform(0.06, 0.2)).polar(x, y)[0] < 1
            self.bump += 0.35 * pitch * heaps * area * (self.nearest > 3)

    def _cone(self, centre: np.ndarray, radius: float, steep: float, paint: np.ndarray) -> None:
        low, high = (
            np.maximum(centre - 1.3 * radius, 0).astype(int),
            np.minimum(centre + 1.3 * radius, self.size).astype(int),
        )
        if (high - low < 2).any():
            return
        part = slice(low[1], high[1]), slice(low[0], high[0])
        x, y = self.xy[0][part], self.xy[1][part]
        gap = np.hypot(x - centre[0], y - centre[1]) * (1 + 0.1 * np.sin(5 * np.arctan2(y - centre[1], x - centre[0])))
        cone = np.clip(1 - gap / radius, 0, 1) * (self.nearest[part] > 2)
        self.height[part] += steep * radius * np.minimum(cone, 0.85)
        self.colour[part] = mix(self.colour[part], self.colour[part] * paint, np.clip(6 * cone, 0, 1))

    def false_roads(self) -> None:
        """Add what looks like a road and is none: drains, belts, fences, pipes, tracks of single vehicles, brooks."""
        rng, size, unit = self.rng, self.size, self.unit
        canvas = np.zeros((size, size), np.int16)
        free = soft_step(self.nearest - 2, 3.0)
        for _ in range(int(rng.integers(0, 8))):  # tracks on open ground
            at, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
            points, turn = [at], rng.normal(0, 0.15)
            for _ in range(int(rng.integers(4, 12))):
                turn += rng.normal(0, 0.12)
                heading += turn
                points.append(points[-1] + 2 * unit * np.array([np.cos(heading), np.sin(heading)]))
            line = smooth_line(np.array(points), 5.0)
            spread = np.full(len(line), unit * rng.uniform(0.12, 0.9))
            lines_along(rng, line, spread, int(rng.integers(2, 9)), canvas, max(1, round(0.03 * unit)), 0.2)
        tracks = cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), rng.uniform(0.6, 1.0))
        self.colour += (rng.uniform(0.1, 0.5) * tracks * free * (0.4 + 0.6 * self.cleared))[..., None]
        for _ in range(int(rng.integers(0, 4))):
            kind = str(rng.choice(["drain", "belt", "fence", "pipe", "brook"], p=[0.3, 0.2, 0.2, 0.15, 0.15]))
            straight = kind in ("belt", "fence", "pipe")
            at, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
            reach = (-rng.uniform(0.1, 0.8), rng.uniform(0.2, 1.2)) if straight else (-1.3, 1.3)
            along, ahead = np.linspace(*reach, 18) * size, np.array([np.cos(heading), np.sin(heading)])
            sway = np.zeros(18) if straight else np.cumsum(rng.normal(0, 0.05, 18)) * size
            points = at + along[:, None] * ahead + np.outer(sway - np.mean(sway), [-ahead[1], ahead[0]])
            share = {"drain": 0.15, "belt": 0.12, "fence": 0.03, "pipe": 0.05, "brook": 0.6}[kind]
            width = min(share * unit * rng.uniform(0.6, 1.6), 24)
            layer = np.zeros((size, size), np.uint8)
            pixels = np.round(smooth_line(points, 6.0) * 8).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(layer, [pixels], False, 255, max(1, round(width)), cv2.LINE_AA, shift=3)
            cover = layer.astype(np.float32) / 255
            if kind == "brook":
                bank = cv2.GaussianBlur(cover, (0, 0), max(1.0, 0.5 * width))
                self.colour = mix(self.colour, self.colour * 0.6, np.clip(1.5 * bank, 0, 1) * free)
                self.colour = mix(self.colour, water(rng, size, muddy=False), cover * free)
            elif kind == "drain":
                self.bump -= 0.3 * width * cv2.GaussianBlur(cover, (0, 0), 0.5 + 0.2 * width) * free
                self.colour = mix(self.colour, self.colour * rng.uniform(0.5, 0.95), cover * free)
            else:
                shadow = np.roll(cover, np.round(-0.7 * (width + 2) * self.sun_xy).astype(int)[::-1], (0, 1))
                self.colour = mix(self.colour, self.colour * 0.5, 0.8 * shadow)
                tone = rng.uniform(30, 230) + rng.normal(0, 8, 3)
                self.colour = mix(self.colour, tone.astype(np.float32), cover * (0.95 if kind != "fence" else 0.6))

    def lay(self) -> None:
        """Cut the roads into the ground and pave them."""
        if not self.roads:
            return
        rng, unit = self.rng, self.unit
        bank = max(3.0, rng.uniform(0.1, 0.5) * unit)
        near = np.clip(1 - np.maximum(self.nearest, 0) / bank, 0, 1)
        near = near * near * (3 - 2 * near)
        self.height += (self.bed - self.height) * near
        if rng.random() < 0.5:  # loose soil along the roads
            wide = rng.uniform(0.15, 0.9) * unit
            verge = soft_step(wide - self.nearest + 0.5 * wide * self.noise(1.5 * unit, 5, 0.7), 0.6 * wide)
            self.colour *= (1 + rng.uniform(-0.35, 0.2) * verge * (1 + 0.25 * self.noise(0.4 * unit, 4, 0.8)))[
                ..., None
            ]
            self.bump += rng.uniform(0, 0.05) * unit * verge * self.noise(0.3 * unit, 3, 0.7)
        for kind in _KINDS:
            if kind in self.edge:
                self._pave(kind)
        if "tail" in self.edge:
            field = 0.5 - self.tail / (0.25 * unit) + 0.5 * self.noise(0.5 * unit, 4, 0.7)
            self.colour = mix(self.colour, self._packed(0.5), np.clip(field, 0, 1) * rng.uniform(0.2, 0.7))
        if rng.random() < 0.55:  # windrows and safety berms
            at, wide = rng.uniform(0.5, 2.5), max(1.0, unit * rng.uniform(0.03, 0.1))
            broken = soft_step(self.noise(6 * unit, 3) + rng.uniform(-0.4, 1.2), 0.4)
            ridge = np.exp(-(((self.nearest - at - wide) / wide) ** 2)) * broken
            self.height += unit * rng.uniform(0.02, 0.12) * ridge
            self.colour += (rng.uniform(-25, 35) * ridge)[..., None]

    def _packed(self, blur: float) -> np.ndarray:
        """Return the colour (H, W, 3) of ground that lorries have packed: that around it, smoother."""
        small = cv2.resize(self.colour, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), max(0.6, blur * self.unit / 4))
        return cv2.resize(small, (self.size, self.size), interpolation=cv2.INTER_LINEAR)

    def _pave(self, kind: str) -> None:
        rng, unit, size = self.rng, self.unit, self.size
        roads, signed = [road for road in self.roads if road.kind == kind], self.edge[kind]
        packed = self._packed(rng.uniform(0.3, 2.5))
        strength, faint = rng.uniform(0.05, 0.42), False
        if kind == "paved":
            strength = rng.uniform(0.02, 0.12)
            asphalt = rng.uniform(45, 150) + rng.normal(0, 4, 3)
            packed = (0.12 * packed + 0.88 * asphalt).astype(np.float32)
        else:
            look = str(rng.choice(["alike", "light", "dark", "other"], p=[0.25, 0.35, 0.2, 0.2]))
            if look == "alike":  # then ruts and edges tell
                strength, faint = rng.uniform(0.2, 0.45), True
            if look == "other":
                packed = mix(packed, bare_ground(rng, size, unit)[0], np.full_like(signed, rng.uniform(0.4, 1)))
            tone = rng.uniform(*{"alike": (-6, 8), "light": (14, 50), "dark": (-45, -14), "other": (-5, 5)}[look])
            packed = packed + np.float32(tone)
        packed += (rng.uniform(1, 7) * self.noise(0.3 * size, 6, 0.75))[..., None]
        canvas = np.zeros((size, size), np.int16)
        thickness = max(1, round(unit * rng.uniform(0.02, 0.07)))
        for road in roads:
            count = int(rng.integers(2, 7)) if kind == "paved" else int(rng.integers(4, 26))
            lines_along(rng, road.xy_m, road.width_m, count, canvas, thickness, rng.uniform(0.0, 0.1))
        ruts = cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), 0.5 + 0.4 * thickness)
        packed += (strength * ruts)[..., None]
        crown = np.clip(-signed / (0.5 * unit), 0, 1)
        packed += (rng.uniform(-14, 14) * crown)[..., None]
        if rng.random() < 0.3:  # watered, or dusty
            packed *= (1 - rng.uniform(0.15, 0.5) * soft_step(self.noise(0.5 * size, 3) - 0.3, 0.4))[..., None]
        soft = 1.2 if kind == "paved" else float(np.exp(rng.uniform(np.log(1.2), np.log(max(2.0, 0.28 * unit)))))
        ragged = signed + 0.3 * soft * self.noise(0.6 * unit, 5, 0.75)
        cover = soft_step(-ragged, soft)
        self.colour = mix(self.colour, packed, cover * (1.0 if kind == "paved" else rng.uniform(0.85, 1)))
        if faint or rng.random() < 0.3:
            rim = np.exp(-((signed / rng.uniform(1, 2.5)) ** 2)) * (1 + 0.4 * self.noise(2 * unit, 3))
            self.colour += (rng.choice([-1, 1]) * rng.uniform(12, 40) * rim)[..., None]
        smooth = rng.uniform(0.0, 0.6) if kind != "paved" else 0.0
        self.bump = self.bump * (1 - cover * (1 - smooth)) + 0.012 * rng.uniform(0, 1.5) * thickness * ruts * cover
        if soft > 3:
            self.ignored |= (signed > 0) & (signed <= 0.3 * soft) & (self.signed > 0)

    def things(self) -> None:
        """Add houses, sheds, single trees and vehicles."""
        rng, size, unit = self.rng, self.size, self.unit
        clear = lambda xy, gap: bool(self._at(self.nearest, xy) > gap and self._at(self.wet, xy) < 0.5)  # noqa: E731
        places = []
        for village in self.plan.villages:
            streets = [r for r in self.roads if r.kind == "paved"]
            house = float(np.clip(unit * rng.uniform(0.4, 0.9), 7, 30))
            for road in streets:
                heading = np.arctan2(*(road.xy_m[-1] - road.xy_m[0])[::-1])
                for i in range(0, len(road.xy_m), max(1, round(1.3 * house / 8))):
                    for side in (-1, 1):
                        if rng.random() < 0.75:
                            away = side * (0.5 * road.width_m[i] + house * rng.uniform(0.75, 1.3))
                            spot = road.xy_m[i] + away * np.array([-np.sin(heading), np.cos(heading)])
                            if clear(spot, 0.62 * house) and village.level(spot[None])[0] < 1.1:
                                places.append(
                                    (spot, house * rng.uniform(0.8, 1.3), house * rng.uniform(0.6, 0.9), heading)
                                )
            if not streets:
                for _ in range(60):
                    spot = village.point(rng.uniform(0, 6.28, 1), rng.uniform(0, 1, 1))[0]
                    places.append((spot, house, 0.7 * house, 0.4))
        boxes(rng, self.colour, places, self.sun_xy, roofs=True)
        places = []
        for _ in range(int(rng.choice([0, 0, 1, 2]))):  # sheds, containers or pipes in rows
            spot, turn = rng.uniform(0, size, 2), rng.uniform(0, np.pi)
            length, width = unit * rng.uniform(0.3, 2), unit * rng.uniform(0.15, 0.7)
            for i in range(int(rng.integers(1, 12))):
                at = spot + i * 1.15 * width * np.array([-np.sin(turn), np.cos(turn)])
                if clear(at, 0.6 * length):
                    places.append((at, length, width, turn))
        boxes(rng, self.colour, places, self.sun_xy, roofs=bool(rng.random() < 0.5))
        if rng.random() < 0.6 or self.plan.villages:
            radius = float(np.clip(unit * rng.uniform(0.1, 0.35), 2, 30))
            spots = rng.uniform(0, size, (int(rng.integers(3, 90 if self.plan.villages else 50)), 2))
            trees(
                rng,
                self.colour,
                self.bump,
                np.array([s for s in spots if clear(s, 1.1 * radius)]).reshape(-1, 2),
                radius,
                self.sun_xy,
            )
        self._vehicles()

    def _at(self, field: np.ndarray, xy: np.ndarray) -> float:
        col, row = np.clip(xy, 0, self.size - 1).astype(int)
        return float(field[row, col])

    def _vehicles(self) -> None:
        rng = self.rng
        places = []
        for road in self.roads:
            for _ in range(int(rng.choice([0, 0, 0, 1, 2, 4]))):
                i = int(rng.integers(1, len(road.xy_m) - 1)) if len(road.xy_m) > 3 else 1
                ahead = road.xy_m[i] - road.xy_m[i - 1]
                turn = float(np.arctan2(ahead[1], ahead[0]))
                side = road.width_m[i] * rng.uniform(-0.28, 0.28) * np.array([-np.sin(turn), np.cos(turn)])
                width = road.width_m[i] * rng.uniform(0.16, 0.3)
                places.append((road.xy_m[i] + side, width * rng.uniform(1.5, 2.3), width, turn))
        for _ in range(int(rng.choice([0, 0, 2, 6]))):
            width = self.unit * rng.uniform(0.12, 0.28)
            places.append((rng.uniform(0, self.size, 2), width * rng.uniform(1.3, 2.4), width, rng.uniform(0, np.pi)))
        boxes(rng, self.colour, places, self.sun_xy, roofs=False)

    def light(self) -> np.ndarray:
        """Return the lit view, 0 to 255, before the camera (H, W, 3)."""
        rng = self.rng
        flat = 1 - self.wet
        shade = hillshade(self.height * rng.uniform(0.5, 1) + self.bump * flat, 1.0, self.sun)
        level = max(float(self.sun[2]), 0.3)
        contrast = rng.uniform(0.35, 0.95)
        light = 1 + contrast * (shade.astype(np.float32) / level - 1)
        dark = rng.uniform(0.35, 0.65)
        light = np.where(light < 1, dark + (1 - dark) * np.exp((light - 1) / (1 - dark)), light)
        light = np.clip(light, 0, 1.6) * flat + self.wet
        colour = self.colour * light[..., None]
        return colour + (rng.uniform(0.5, 4) * rng.standard_normal((self.size, self.size), np.float32))[..., None]


def _photograph(rng: np.random.Generator, colour: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Return the picture, RGB uint8, that some camera takes of ``colour`` (H, W, 3); ``ignored`` gains its clouds."""
    size = len(colour)
    if rng.random() < 0.3:  # shadows of clouds, and clouds
        field = fractal(rng, size, rng.uniform(0.4, 1) * size, 5, 0.55)
        shadow = soft_step(field - rng.uniform(0.3, 1.5), rng.uniform(0.2, 1.0))
        colour = colour * (1 - rng.uniform(0.2, 0.6) * shadow[..., None])
        if rng.random() < 0.3:
            away = np.array([[1, 0, rng.uniform(-0.3, 0.3) * size], [0, 1, rng.uniform(-0.3, 0.3) * size]])
            moved = cv2.warpAffine(field, away, (size, size), borderMode=cv2.BORDER_REFLECT)
            cloud = soft_step(moved - rng.uniform(1.2, 2.0), 0.8)
            colour = mix(colour, np.array([238, 240, 244], np.float32), 0.97 * cloud)
            ignored |= cloud > 0.6
    colour = np.maximum(colour, 0).astype(np.float32) / 255
    mean = float(colour.mean())
    colour *= np.float32(
        np.exp(rng.normal(0, 0.2)) * (rng.uniform(0.22, 0.55) / max(mean, 0.05)) ** rng.uniform(0, 0.6)
    )
    colour *= np.exp(rng.normal(0, 0.035, 3)).astype(np.float32)
    grey = colour.mean(2, keepdims=True)
    colour = grey + (colour - grey) * np.float32(rng.uniform(0.35, 1.1))
    colour = np.clip(colour, 0, None) ** np.float32(np.exp(rng.normal(0, 0.15)))
    over = np.maximum(colour - 0.75, 0)  # film and sensors press highlights together
    colour = np.minimum(colour, 0.75) + 0.25 * np.tanh(3.0 * over)
    if rng.random() < 0.35:
        haze = rng.uniform(0.05, 0.45)
        colour = colour * (1 - haze) + haze * (rng.uniform(0.6, 0.85) + rng.normal(0, 0.02, 3)).astype(np.float32)
    draw = rng.random()
    if draw < 0.35:
        colour = cv2.GaussianBlur(colour, (0, 0), rng.uniform(0.5, 1.6))
    elif draw < 0.6:
        colour = colour + rng.uniform(0.3, 1.2) * (colour - cv2.GaussianBlur(colour, (0, 0), 1.2))
    elif draw < 0.75:  # a coarser sensor
        small = cv2.resize(colour, None, fx=1 / rng.uniform(1.2, 2.5), fy=1 / 2.0, interpolation=cv2.INTER_AREA)
        colour = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    else:
        colour = cv2.GaussianBlur(colour, (0, 0), 0.5)
    colour = colour + rng.uniform(0, 0.02) * rng.standard_normal(colour.shape, np.float32)
    image = (np.clip(colour, 0, 1) * 255).round().astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))]
        packed = cv2.imencode(".jpg", image[..., ::-1], quality)[1]
        image = np.ascontiguousarray(np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))[..., ::-1])
    return image


def generate_view(seed: int, size_px: int = 640) -> MineView:
    """Generate the view of ``seed``, ``size_px`` rows and columns; the same arguments give the same bytes.

    Raises:
        ValueError: the view would be smaller than 128 px.
    """
    if size_px < LEAST_PX:
        raise ValueError(f"a view of {size_px} px is too small for roads; size_px must be {LEAST_PX} or more")
    rng = np.random.default_rng([seed, size_px])
    plan = plan_view(rng, size_px)
    road_m = rng.uniform(5, 12) if plan.scene == "close" else rng.uniform(12, 26)
    gsd_m = float(min(road_m / plan.unit, 2.0))
    painter = _Painter(rng, plan)
    painter.ground()
    painter.ponds()
    painter.piles()
    painter.false_roads()
    painter.lay()
    painter.things()
    image = _photograph(rng, painter.light(), painter.ignored)
    mask = np.where(painter.ignored, IGNORE, painter.signed <= 0).astype(np.uint8)
    roads = tuple(replace(r, xy_m=r.xy_m * gsd_m, width_m=r.width_m * gsd_m, z_m=r.z_m * gsd_m) for r in painter.roads)
    return MineView(image, mask, gsd_m, roads)
