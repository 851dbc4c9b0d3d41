"""What training and evaluation share: pictures, also re-encoded or turned, ground, and scenes.

Pictures are found by a perceptual hash of their thumbnails and compared by their fine structure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from .findings import Problem
from .pairs import PairFacts, Split
from .splits import Examined

_HASH_CELLS = 16
_MAX_BITS = 48  # of 256 that may differ; pictures that have nothing to do with each other differ in about 128
_MIN_CORRELATION = 0.9
_MIN_DETAIL = 1.0  # grey levels; below it only the noise of encoding is left
_BLOCK = 128
_TILE = re.compile(r"(?P<scene>.+)_r(?P<row>\d{5,})_c(?P<column>\d{5,})$")  # the converters' names, pixels of a scene
_MIN_OVERLAP = 0.01  # of the smaller tile
_Box = tuple[float, float, float, float]


def shared_names(splits: Sequence[Split]) -> list[Problem]:
    """Return the images that are listed both for training and for evaluation."""
    training = {image for split in splits if split.trains for image in split.contents()}
    return [
        Problem("same-name", image, f"listed in {split.place} and for training")
        for split in splits
        if not split.trains
        for key, image in split.contents().items()
        if key in training
    ]


def leaks(examined: Examined) -> list[Problem]:
    """Return what training shares with validation or test, each image once, the worst first, and doubled pictures."""
    problems = shared_names([split for split, _ in examined])
    flagged = {problem.path for problem in problems}
    for find in (_same_pictures, _same_ground, _same_scenes):
        for problem in find(examined):
            if problem.path not in flagged:
                flagged.add(problem.path)
                problems.append(problem)
    return problems


def _same_pictures(examined: Examined) -> Iterator[Problem]:
    """Yield copies across training and evaluation, and within a split."""
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
    """Yield the evaluation tiles that overlap a training tile, by their georeference or their names."""
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
    """Yield the first evaluation tile of each scene that training has tiles of, too."""
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
    """Return folder and scene of a tile, None for other images."""
    match = _TILE.match(fact.pair.stem)
    return None if match is None else os.path.join(os.path.dirname(fact.pair.image), match["scene"])


def _places(fact: PairFacts) -> Iterator[tuple[str, _Box]]:
    """Yield (where, (left, top, right, bottom)): in the pixels of its scene, and on the map if it has a place there."""
    info = fact.image
    if info is None:
        return
    match = _TILE.match(fact.pair.stem)
    # another image may be the whole scene that tiles were cut from
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


def difference_hash(thumbnails: np.ndarray) -> np.ndarray:
    """Return 256 bits for each of ``thumbnails`` (N, H, W), as uint64 (N, 4).

    A bit tells whether one of 16 x 16 cells is darker than its right neighbour; the last column's is the first.
    """
    count, height, width = thumbnails.shape
    cells = thumbnails.reshape(count, _HASH_CELLS, height // _HASH_CELLS, _HASH_CELLS, width // _HASH_CELLS)
    means = cells.mean(axis=(2, 4))
    bits = means < np.roll(means, -1, axis=2)
    return np.packbits(bits.reshape(count, -1), axis=1).view(np.uint64)


class _Prints:
    """What thumbnails (N, H, W) are compared by: fine structure of unit length (N, H * W), its hash, and who has any.

    What changes slowly over a picture, as light and colour of the ground, makes different pictures alike.
    """

    def __init__(self, thumbnails: np.ndarray) -> None:
        fine = np.stack([thumbnail - cv2.blur(thumbnail, (7, 7)) for thumbnail in thumbnails])
        flat = fine.reshape(len(fine), -1)
        flat = flat - flat.mean(axis=1, keepdims=True)
        self.details = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
        self.hashes = difference_hash(self.details.reshape(thumbnails.shape))
        self.featured = np.flatnonzero(flat.std(axis=1) >= _MIN_DETAIL)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the indices of thumbnails with features, some at a time."""
        return (self.featured[start : start + _BLOCK] for start in range(0, len(self.featured), _BLOCK))

    def matches(
        self, indices: np.ndarray, other: _Prints, others: np.ndarray, allowed: np.ndarray | bool = True
    ) -> dict[int, int]:
        """Return the first of ``others`` whose hash is near and whose fine structure agrees, by index."""
        bits = np.zeros((len(indices), len(others)), np.uint16)
        for word in range(self.hashes.shape[1]):
            bits += np.bitwise_count(self.hashes[indices, word][:, None] ^ other.hashes[others, word])
        near = (bits <= _MAX_BITS) & allowed
        found = {}
        for row in np.flatnonzero(near.any(axis=1)):
            candidates = others[near[row]]
            same = candidates[other.details[candidates] @ self.details[indices[row]] >= _MIN_CORRELATION]
            if len(same):
                found[int(indices[row])] = int(same[0])
        return found


def find_copies(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return (index, earlier index) of each picture that is, but for encoding and contrast, one before it.

    ``thumbnails`` are grey float32 (N, 32, 32); those without features are left out.
    """
    prints = _Prints(thumbnails)
    found: dict[int, int] = {}
    originals = prints.featured[:0]  # a copy is a copy of its original only, however many there are
    for block in prints.blocks():
        others = np.concatenate([originals, block])
        found |= prints.matches(block, prints, others, others[None, :] < block[:, None])
        originals = np.concatenate([originals, np.array([i for i in block if i not in found], originals.dtype)])
    return sorted(found.items())


def find_turned_copies(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Return (index into ``second``, index into ``first``) of pictures that are another, turned or mirrored.

    Both are thumbnails, grey float32 (N, 32, 32) and (M, 32, 32).
    """
    if not len(first) or not len(second):
        return []
    prints = _Prints(second)
    found: dict[int, int] = {}
    for turn in range(1, 8):  # the other positions that a square has
        stack = first[:, :, ::-1] if turn >= 4 else first
        turned = _Prints(np.ascontiguousarray(np.rot90(stack, turn % 4, axes=(1, 2))))
        for block in prints.blocks():
            found |= prints.matches(block, turned, turned.featured)
    return sorted(found.items())
