"""Pictures, ground and scenes that training and measuring share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

import numpy as np

from .lookalikes import find_copies, find_turned_copies
from .pair_facts import PairFacts
from .problem import Problem
from .split import Split

Examined = Sequence[tuple[Split, Sequence[PairFacts]]]

_TILE = re.compile(r"(?P<scene>.+)_r(?P<row>\d{5,})_c(?P<column>\d{5,})$")  # the converters' names, pixels of a scene
_MIN_OVERLAP = 0.01  # of the smaller tile
_Box = tuple[float, float, float, float]


def shared_names(splits: Sequence[Split]) -> list[Problem]:
    """Return the images that are listed both for training and for measuring."""
    training = {image for split in splits if split.trains for image in split.contents()}
    problems = []
    for split in splits:
        if not split.trains:
            common = split.contents() & training
            problems += [
                Problem("same-name", pair.image, f"listed in {split.place} and for training")
                for pair in split.pairs
                if common and (os.path.realpath(split.images_dir), os.path.basename(pair.image)) in common
            ]
    return problems


def leaks(examined: Examined) -> list[Problem]:
    """Return what training shares with validation or test, each image under its worst name, and pictures doubled."""
    problems = shared_names([split for split, _ in examined])
    flagged = {problem.path for problem in problems}
    for find in (_same_pictures, _same_ground, _same_scenes):
        for problem in find(examined):
            if problem.path not in flagged:
                flagged.add(problem.path)
                problems.append(problem)
    return problems


def _same_pictures(examined: Examined) -> Iterator[Problem]:
    """Yield copies across training and measuring, and within a split."""
    known: dict[str, tuple[Split, PairFacts]] = {}
    for split, facts in examined:
        for fact in facts:
            if fact.look is not None and not fact.look.is_blank:
                known.setdefault(fact.pair.image, (split, fact))
    entries = list(known.values())
    looks = [fact.look for _, fact in entries if fact.look is not None]
    if len(looks) < 2:
        return
    thumbnails = np.stack([look.thumbnail for look in looks])
    by_digest: dict[bytes, int] = {}
    copies: dict[int, tuple[int, str]] = {}
    for index, look in enumerate(looks):
        other = by_digest.setdefault(look.digest, index)
        if other != index:
            copies[index] = other, "is the same picture as"
    for index, other in find_copies(thumbnails):
        copies.setdefault(index, (other, "is the same picture, encoded or toned otherwise, as"))
    trains = np.array([split.trains for split, _ in entries])
    training = np.flatnonzero(trains)
    measuring = np.array([i for i in np.flatnonzero(~trains) if i not in copies], int)
    for index, other in find_turned_copies(thumbnails[training], thumbnails[measuring]):
        copies.setdefault(int(measuring[index]), (int(training[other]), "is, turned or mirrored,"))
    for index, (other, words) in sorted(copies.items()):
        (split, fact), (other_split, other_fact) = entries[index], entries[other]
        words = f"{words} {other_fact.pair.image}"
        if split.trains != other_split.trains:
            words = f"{words} of {other_split.name}"
            yield Problem("same-picture", fact.pair.image, words, other=other_fact.pair.image)
        elif split is other_split:
            yield Problem("duplicate", fact.pair.image, words, other=other_fact.pair.image)


def _same_ground(examined: Examined) -> Iterator[Problem]:
    """Yield the measured tiles that overlap a training tile, by their georeference or their names."""
    training: dict[str, list[tuple[_Box, str]]] = {}
    for split, facts in examined:
        if split.trains:
            for fact in facts:
                for ground, box in _places(fact):
                    training.setdefault(ground, []).append((box, fact.pair.image))
    boxes = {ground: np.array([box for box, _ in tiles]) for ground, tiles in training.items()}
    for split, facts in examined:
        if split.trains:
            continue
        for fact in facts:
            for ground, box in _places(fact):
                if ground in boxes:
                    shares = _overlaps(boxes[ground], box)
                    most = int(shares.argmax())
                    if shares[most] > _MIN_OVERLAP:
                        other = training[ground][most][1]
                        words = f"shares {shares[most]:.0%} of its ground with {other}"
                        yield Problem("same-ground", fact.pair.image, words, other=other)


def _same_scenes(examined: Examined) -> Iterator[Problem]:
    """Yield the first measured tile of each scene that training has tiles of, too."""
    training = {
        scene: fact.pair.image
        for split, facts in examined
        if split.trains
        for fact in facts
        if (scene := _scene(fact)) is not None
    }
    seen = set()
    for split, facts in examined:
        for fact in facts:
            scene = _scene(fact)
            if not split.trains and scene in training and (split.name, scene) not in seen:
                seen.add((split.name, scene))
                other = training[scene]
                yield Problem("same-scene", fact.pair.image, f"is of the same scene as {other}", other=other)


def _scene(fact: PairFacts) -> str | None:
    """Return folder and scene of a tile, None for images that are no tiles."""
    match = _TILE.match(fact.pair.stem)
    return None if match is None else os.path.join(os.path.dirname(fact.pair.image), match["scene"])


def _places(fact: PairFacts) -> Iterator[tuple[str, _Box]]:
    """Yield (where, (left, top, right, bottom)): in the pixels of its scene, and on the map if it has a place there."""
    info = fact.image
    if info is None:
        return
    match = _TILE.match(fact.pair.stem)
    # an image that is no tile may be the whole scene that tiles were cut from
    scene, row, column = (match["scene"], int(match["row"]), int(match["column"])) if match else (fact.pair.stem, 0, 0)
    folder = os.path.dirname(fact.pair.image)
    yield os.path.join(folder, scene), (column, row, column + info.width, row + info.height)
    if info.transform is not None and info.crs is not None:
        a, b, left, d, e, top = info.transform
        if b == d == 0:
            right, bottom = left + a * info.width, top + e * info.height
            yield info.crs, (min(left, right), min(top, bottom), max(left, right), max(top, bottom))


def _overlaps(boxes: np.ndarray, box: _Box) -> np.ndarray:
    """Return the share of the smaller area that ``box`` has in common with each of ``boxes`` (N, 4)."""
    left, top, right, bottom = boxes.T
    width = np.minimum(right, box[2]) - np.maximum(left, box[0])
    height = np.minimum(bottom, box[3]) - np.maximum(top, box[1])
    areas = np.minimum((right - left) * (bottom - top), (box[2] - box[0]) * (box[3] - box[1]))
    return np.maximum(width, 0) * np.maximum(height, 0) / areas
