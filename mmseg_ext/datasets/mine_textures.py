"""Surfaces of open-pit views: bare ground, forest, plantation, fields, water, wheel tracks, roofs, trees and lorries.

A surface is a colour, float32 (H, W, 3), RGB from 0 to 255, and a bump, float32 (H, W), small heights in pixels that
the sun lights together with the relief. Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .mine_plans import fractal

Surface = tuple[np.ndarray, np.ndarray]
_GROUNDS = np.array(
    [
        [[112, 58, 38], [186, 108, 74]],  # red laterite
        [[140, 82, 50], [205, 140, 96]],  # pale laterite
        [[30, 30, 33], [88, 86, 86]],  # coal
        [[92, 90, 86], [156, 152, 146]],  # grey overburden
        [[120, 112, 100], [178, 168, 152]],  # beige overburden
        [[176, 168, 150], [230, 223, 208]],  # limestone
        [[84, 66, 50], [142, 116, 92]],  # brown
        [[196, 195, 190], [244, 243, 238]],  # chalk
        [[172, 142, 98], [224, 198, 152]],  # sand
        [[146, 108, 60], [204, 164, 104]],  # ochre
        [[96, 92, 66], [150, 142, 106]],  # olive
        [[70, 50, 44], [118, 84, 72]],  # iron
        [[150, 140, 140], [206, 196, 194]],  # pale rose
    ],
    np.float32,
)
_GREENS = np.array([[38, 56, 30], [52, 74, 40], [66, 84, 48], [30, 48, 36], [74, 80, 46], [88, 84, 52]], np.float32)
_CROPS = np.array(
    [[96, 118, 62], [132, 142, 78], [168, 150, 96], [120, 96, 70], [74, 96, 48], [188, 176, 132], [106, 84, 64]],
    np.float32,
)
_WATERS = np.array(
    [
        [36, 62, 44],
        [18, 22, 26],
        [82, 140, 134],
        [50, 70, 80],
        [26, 44, 30],
        [90, 112, 98],
        [92, 72, 48],
        [120, 110, 82],
    ],
    np.float32,
)
_CLEAR_WATERS = 6  # the rest is muddy
_PAINTS = np.array(
    [[236, 236, 232], [228, 178, 40], [222, 120, 36], [180, 40, 36], [60, 84, 140], [120, 124, 128], [44, 46, 50]],
    np.float32,
)
_ROOFS = np.array(
    [[150, 76, 56], [176, 96, 70], [120, 118, 116], [206, 204, 198], [96, 104, 120], [82, 74, 68], [188, 170, 144]],
    np.float32,
)


def mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return colours (H, W, 3) from ``a`` where ``weight`` (H, W) is 0 to ``b`` where it is 1."""
    shape = (*weight.shape, 3)
    first, second = (np.ascontiguousarray(np.broadcast_to(np.asarray(c, np.float32), shape)) for c in (a, b))
    share = np.asarray(weight, np.float32)
    return cv2.blendLinear(first, second, 1 - share, share)


def soft_step(values: np.ndarray, width: float) -> np.ndarray:
    """Return 0 for values below ``-width / 2``, 1 above ``width / 2``, and what is between."""
    return np.clip(values / width + 0.5, 0, 1)


def streaks(rng: np.random.Generator, size: int, angle: float, length: float, width: float) -> np.ndarray:
    """Return noise (H, W) of about unit amplitude that is drawn out along ``angle`` (radians)."""
    side = round(1.45 * size)
    cells = max(2, round(side / width)), max(2, round(side / length))
    grid = rng.standard_normal((min(cells[0], side), min(cells[1], side))).astype(np.float32)
    image = cv2.resize(grid, (side, side), interpolation=cv2.INTER_LINEAR)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), np.degrees(angle), 1.0)
    matrix[:, 2] -= (side - size) / 2
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _from_to(ramp: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the colours between the two of ``ramp`` (2, 3) at ``t`` (H, W)."""
    return mix(ramp[0], ramp[1], np.clip(t, -0.3, 1.3))


def bare_ground(rng: np.random.Generator, size: int, unit: float) -> Surface:
    """Return rock, sand or soil: two materials in patches, mottled, grainy, perhaps driven over by dozers."""
    kinds = rng.choice(len(_GROUNDS), 2, replace=False)
    jitter = rng.normal(0, 6, (2, 1, 3)) + rng.normal(0, 8, (2, 1, 1))
    first, second = (_GROUNDS[kinds] + jitter).astype(np.float32)
    rough = rng.uniform(0.3, 1.2)
    t = 0.5 + rough * 0.3 * fractal(rng, size, rng.uniform(0.2, 0.9) * size, 7, rng.uniform(0.55, 0.8))
    colour = _from_to(first, t)
    share = rng.uniform(-1.2, 0.3)
    if share > -0.9:
        field = fractal(rng, size, rng.uniform(0.15, 0.6) * size, 6, 0.6) + share
        colour = mix(
            colour, _from_to(second, t), soft_step(field, rng.choice([0.15, 0.8, 1.6, 2.5])) * rng.uniform(0.2, 0.9)
        )
    bump = np.exp(rng.uniform(-3, -0.7)) * fractal(rng, size, unit * rng.uniform(0.3, 1), 5, 0.75)
    turn = rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(0, 4))):  # each plot that a dozer levelled has its own direction
        turn += rng.choice([0.0, 0.4, np.pi / 2]) + rng.normal(0, 0.1)
        lines = streaks(rng, size, turn, rng.uniform(2, 7) * unit, rng.uniform(0.06, 0.2) * unit)
        where = soft_step(fractal(rng, size, rng.uniform(3, 9) * unit, 4) - rng.uniform(0.2, 1.0), 0.5)
        colour += (rng.uniform(2, 9) * lines * where)[..., None]
        bump += rng.uniform(0.0, 0.3) * lines * where
    if rng.random() < 0.5:
        stones = rng.standard_normal((size, size)).astype(np.float32)
        if rng.random() < 0.5:
            stones = 1.7 * cv2.GaussianBlur(stones, (0, 0), 0.7)
        bump += rng.uniform(0.05, 0.5) * np.maximum(stones - rng.uniform(0.3, 2), 0)
    return colour, bump


def _canopy(rng: np.random.Generator, size: int, crown: float) -> np.ndarray:
    """Return a field (H, W) of lumps ``crown`` wide, about 0 to 1: distances to scattered stems."""
    side = max(4, round(size / crown * 1.2))
    stems = (
        np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1) + rng.uniform(0.05, 0.95, (side, side, 2))
    ) / side
    seen = np.full((size, size), 255, np.uint8)
    xy = (stems.reshape(-1, 2) * size).astype(int).clip(0, size - 1)
    seen[xy[:, 1], xy[:, 0]] = 0
    gap = cv2.distanceTransform(seen, cv2.DIST_L2, 3)
    return np.clip(1 - (gap / (0.75 * crown)) ** 2, 0, 1)


def _forest(rng: np.random.Generator, size: int, unit: float) -> Surface:
    crown = float(np.clip(unit * rng.uniform(0.2, 0.7), 3.5, 60))
    lumps = _canopy(rng, size, crown)
    green = _GREENS[rng.integers(len(_GREENS))] + rng.normal(0, 6, 3)
    tone = 0.25 * fractal(rng, size, crown * 3, 4, 0.8) + 0.12 * fractal(rng, size, 0.5 * size, 3)
    colour = green * (0.5 + 0.75 * lumps[..., None] * (1 + tone[..., None])) + 10 * tone[..., None]
    gaps = soft_step(fractal(rng, size, 12 * crown, 4, 0.6) - rng.uniform(0.4, 1.6), 0.3)
    floor = _from_to(_GROUNDS[rng.choice([0, 6, 8, 10])], 0.2 + tone) * 0.8
    bump = 0.45 * crown * lumps * (1 - gaps) + 0.04 * crown * fractal(rng, size, crown / 2, 3, 0.8)
    return mix(colour, floor, gaps).astype(np.float32), bump.astype(np.float32)


def _plantation(rng: np.random.Generator, size: int, unit: float) -> Surface:
    pitch, turn = float(np.clip(unit * rng.uniform(0.3, 0.8), 5, 40)), rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    x += 0.25 * pitch * fractal(rng, size, 6 * pitch, 3)
    y += 0.25 * pitch * fractal(rng, size, 6 * pitch, 3)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    k = 2 * np.pi / pitch
    crowns = np.clip(0.5 + 0.5 * np.cos(k * u) * np.cos(k * v * rng.uniform(0.6, 1)) + rng.uniform(-0.2, 0.2), 0, 1)
    missing = soft_step(fractal(rng, size, 4 * pitch, 2) - rng.uniform(0.6, 1.5), 0.2)
    crowns *= 1 - missing
    soil = _from_to(_GROUNDS[rng.choice([0, 1, 6, 8, 9])], 0.4 + 0.2 * fractal(rng, size, 90, 5, 0.7))
    soil = mix(soil, _CROPS[rng.integers(2)], 0.6 * soft_step(fractal(rng, size, 120, 4), 1.2))
    tone = 1 + 0.2 * fractal(rng, size, pitch, 4, 0.8)
    green = (_GREENS[rng.integers(len(_GREENS))] + rng.normal(0, 5, 3)) * tone[..., None]
    return mix(soil, green, soft_step(crowns - 0.35, 0.3)).astype(np.float32), (0.25 * pitch * crowns).astype(
        np.float32
    )


def _fields(rng: np.random.Generator, size: int, unit: float) -> Surface:
    turn, plot = rng.uniform(0, np.pi), size * rng.uniform(0.1, 0.5)
    y, x = np.mgrid[:size, :size].astype(np.float32)
    warp = 0.08 * plot * fractal(rng, size, 0.8 * size, 2)
    u, v = x * np.cos(turn) + y * np.sin(turn) + warp, y * np.cos(turn) - x * np.sin(turn) + warp
    cuts = np.sort(rng.uniform(-1.5 * size, 2.5 * size, round(4 * size / plot)))
    column = np.searchsorted(cuts, u.ravel()).reshape(u.shape)
    row = np.floor((v + 977.0 * np.sin(column * 1.7)) / (plot * 1.6)).astype(int)
    number = (column * 31 + row * 17) % 64
    table = _CROPS[rng.integers(0, len(_CROPS), 64)] + rng.normal(0, 9, (64, 3))
    along = np.where(rng.random(64) < 0.5, 1.0, 0.0).astype(np.float32)[number]
    pitch = rng.uniform(2.5, 8)
    rows = np.sin(2 * np.pi / pitch * (u * along + v * (1 - along))) * rng.uniform(0, 6, 64)[number]
    tone = rows + 10 * fractal(rng, size, 100, 6, 0.7)
    edges = cv2.morphologyEx(number.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    hedge = cv2.GaussianBlur(edges.astype(np.float32), (0, 0), rng.uniform(0.6, 2.5))
    colour = mix(table[number] + tone[..., None], _GREENS[rng.integers(len(_GREENS))], np.clip(1.5 * hedge, 0, 1))
    return colour.astype(np.float32), (0.04 * rows + rng.choice([0, 3]) * hedge).astype(np.float32)


def _scrub(rng: np.random.Generator, size: int, unit: float) -> Surface:
    colour, bump = bare_ground(rng, size, unit)
    grass = _CROPS[rng.integers(len(_CROPS))] + rng.normal(0, 10, 3)
    cover = soft_step(fractal(rng, size, 0.3 * size, 7, 0.7) + rng.uniform(-0.4, 0.8), 1.0)
    colour = mix(colour, grass * (1 + 0.12 * fractal(rng, size, 30, 4, 0.8)[..., None]), cover * rng.uniform(0.3, 1))
    bush = float(np.clip(unit * rng.uniform(0.1, 0.4), 2.5, 40))
    lumps = _canopy(rng, size, bush * rng.uniform(1.2, 3))
    dense = fractal(rng, size, 0.4 * size, 4, 0.6)
    crowns = soft_step(lumps - 0.55 + 0.35 * dense - rng.uniform(0, 0.5), 0.25)
    colour = mix(colour, _GREENS[rng.integers(len(_GREENS))] * rng.uniform(0.6, 1.1), 0.85 * crowns)
    return colour.astype(np.float32), (bump + 0.35 * bush * crowns).astype(np.float32)


def natural_cover(rng: np.random.Generator, size: int, unit: float) -> Surface:
    """Return what grows, or lies bare, around a mine."""
    covers = [_forest, _scrub, _scrub, bare_ground, bare_ground, _plantation, _fields]
    return covers[rng.integers(len(covers))](rng, size, unit)


def water(rng: np.random.Generator, size: int, muddy: bool) -> np.ndarray:
    """Return a colour of water (H, W, 3), which may be ``muddy``."""
    base = _WATERS[rng.integers(len(_WATERS) if muddy else _CLEAR_WATERS)] + rng.normal(0, 6, 3)
    tone = 0.12 * fractal(rng, size, 0.5 * size, 3) + 0.02 * fractal(rng, size, 6, 2)
    return (base * (1 + tone[..., None])).astype(np.float32)


def lines_along(
    rng: np.random.Generator,
    xy: np.ndarray,
    width: np.ndarray,
    count: int,
    canvas: np.ndarray,
    thickness: int,
    wild: float,
) -> None:
    """Draw ``count`` wheel tracks into ``canvas`` (H, W) int16 along the road ``xy`` (N, 2) of ``width`` (N,)."""
    normal = np.gradient(xy, axis=0)[:, ::-1] * [-1, 1]
    normal /= np.maximum(np.hypot(*normal.T), 1e-6)[:, None]
    knots = max(2, len(xy) // 12)
    for _ in range(count):
        bend = np.interp(np.linspace(0, knots - 1, len(xy)), np.arange(knots), rng.normal(0, wild, knots))
        offset = np.clip(rng.uniform(-0.42, 0.42) + bend, -0.46 - wild, 0.46 + wild) * width
        first = int(rng.integers(0, max(1, len(xy) - 4))) if rng.random() < 0.6 else 0
        last = int(rng.integers(first + 2, len(xy) + 1)) if rng.random() < 0.6 else len(xy)
        points = np.round((xy + offset[:, None] * normal)[first:last] * 8).astype(np.int32)
        layer = rng.uniform(-90, 90)
        cv2.polylines(canvas, [points.reshape(-1, 1, 2)], False, float(layer), thickness, cv2.LINE_8, shift=3)


def boxes(
    rng: np.random.Generator,
    colour: np.ndarray,
    places: Sequence[tuple[np.ndarray, float, float, float]],
    sun_xy: np.ndarray,
    roofs: bool,
) -> None:
    """Draw houses or vehicles with their shadows into ``colour`` (H, W, 3).

    ``places`` are centre (2,), length, width and angle in radians of each.
    """
    paints = _ROOFS if roofs else _PAINTS
    some = paints[rng.choice(len(paints), 3)]
    for centre, length, width, angle in places:
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        corner = [s * length / 2 * along + t * width / 2 * across for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        shape = np.array(corner) + centre
        paint = np.clip(some[rng.integers(3)] + rng.normal(0, 10, 3), 0, 255)
        shadow = shape - sun_xy * width * rng.uniform(0.25, 0.5)
        hull = cv2.convexHull(np.concatenate([shape, shadow]).astype(np.float32))
        _polygon(colour, hull[:, 0], np.array([30.0, 31, 34]))
        _polygon(colour, shape, paint)
        if roofs and rng.random() < 0.7:
            half = np.array([corner[0], corner[1], [0.5 * (a + b) for a, b in zip(corner[1], corner[2], strict=True)],
                             [0.5 * (a + b) for a, b in zip(corner[0], corner[3], strict=True)]]) + centre  # fmt: skip
            _polygon(colour, half, np.clip(paint * (1 + 0.25 * float(across @ sun_xy)), 0, 255))
        elif not roofs and length > 5:
            cab = shape.copy()
            cab[[0, 3]] = cab[[1, 2]] - 0.3 * length * along
            _polygon(colour, cab, np.clip(paint * rng.uniform(0.4, 1.2), 0, 255))


def _polygon(colour: np.ndarray, xy: np.ndarray, paint: np.ndarray) -> None:
    points = np.round(np.asarray(xy) * 8).astype(np.int32).reshape(-1, 1, 2)
    cv2.fillPoly(colour, [points], tuple(float(v) for v in paint), cv2.LINE_8, shift=3)


def trees(
    rng: np.random.Generator, colour: np.ndarray, bump: np.ndarray, xy: np.ndarray, radius: float, sun_xy: np.ndarray
) -> None:
    """Plant single trees with shadows at ``xy`` (N, 2) into ``colour`` (H, W, 3) and ``bump`` (H, W)."""
    size = len(bump)
    crowns, shade = np.zeros((size, size), np.float32), np.zeros((size, size), np.uint8)
    for centre in xy:
        r = radius * rng.uniform(0.5, 1.5)
        for _ in range(6):  # boughs
            x, y = np.round((centre + rng.normal(0, 0.4, 2) * r) * 8).astype(int)
            cv2.circle(crowns, (int(x), int(y)), round(0.55 * r * 8), rng.uniform(0.6, 1), -1, shift=3)
        x, y = np.round((centre - 0.8 * r * sun_xy) * 8).astype(int)
        cv2.circle(shade, (int(x), int(y)), round(1.05 * r * 8), 255, -1, shift=3)
    soft = max(0.6, 0.12 * radius)
    crowns = cv2.GaussianBlur(crowns, (0, 0), soft) * (1 + 0.25 * fractal(rng, size, max(2.0, 0.6 * radius), 3, 0.8))
    dark = cv2.GaussianBlur(shade.astype(np.float32) / 255, (0, 0), soft)
    green = _GREENS[rng.integers(len(_GREENS))] * (0.7 + 0.5 * crowns[..., None])
    colour *= (1 - 0.6 * dark)[..., None]
    colour[:] = mix(colour, green, soft_step(crowns - 0.35, 0.3))
    bump += 0.5 * radius * crowns
