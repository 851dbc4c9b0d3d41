"""Finding pictures that occur twice, re-encoded or turned, by a perceptual hash."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

_HASH_CELLS = 16
_MAX_BITS = 48  # of 256 that may differ; pictures that have nothing to do with each other differ in about 128
_MIN_CORRELATION = 0.9
_MIN_DETAIL = 1.0  # grey levels; below it only the noise of encoding is left
_BLOCK = 128


def difference_hash(thumbnails: np.ndarray) -> np.ndarray:
    """Return 256 bits for each of ``thumbnails`` (N, H, W), as uint64 (N, 4).

    A bit tells whether one of 16 x 16 cells is darker than its right neighbour; the last column's is the first.
    """
    count, height, width = thumbnails.shape
    cells = thumbnails.reshape(count, _HASH_CELLS, height // _HASH_CELLS, _HASH_CELLS, width // _HASH_CELLS)
    means = cells.mean(axis=(2, 4))
    bits = means < np.roll(means, -1, axis=2)
    return np.packbits(bits.reshape(count, -1), axis=1).view(np.uint64)


def find_copies(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return (index, earlier index) of each picture that is, but for encoding and contrast, one before it.

    Args:
        thumbnails: grey float32 (N, 32, 32). Those without features are left out.
    """
    details, featured = _details(thumbnails)
    hashes = difference_hash(details.reshape(thumbnails.shape))
    found: dict[int, int] = {}
    originals = featured[:0]  # a copy is a copy of its original only, however many there are
    for start in range(0, len(featured), _BLOCK):
        block = featured[start : start + _BLOCK]
        others = np.concatenate([originals, block])
        before = others[None, :] < block[:, None]
        found |= _matches(hashes, details, hashes, details, block, others, before)
        originals = np.concatenate([originals, np.array([i for i in block if i not in found], originals.dtype)])
    return sorted(found.items())


def find_turned_copies(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int]]:
    """Return (index into ``second``, index into ``first``) of pictures that are another, turned or mirrored.

    Args:
        first: grey float32 (N, 32, 32).
        second: grey float32 (M, 32, 32).
    """
    if not len(first) or not len(second):
        return []
    details, featured = _details(second)
    hashes = difference_hash(details.reshape(second.shape))
    found: dict[int, int] = {}
    for turned in _turned(first):
        other_details, other_featured = _details(turned)
        other_hashes = difference_hash(other_details.reshape(turned.shape))
        for start in range(0, len(featured), _BLOCK):
            block = featured[start : start + _BLOCK]
            found |= _matches(hashes, details, other_hashes, other_details, block, other_featured)
    return sorted(found.items())


def _turned(thumbnails: np.ndarray) -> Iterator[np.ndarray]:
    """Yield ``thumbnails`` in the seven other positions that a square has."""
    for mirrored in (False, True):
        for quarter in range(4):
            if mirrored or quarter:
                stack = thumbnails[:, :, ::-1] if mirrored else thumbnails
                yield np.ascontiguousarray(np.rot90(stack, quarter, axes=(1, 2)))


def _details(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the fine structure of each thumbnail, of unit length (N, H * W), and the indices of those that have any.

    What changes slowly over a picture, as light and colour of the ground, makes different pictures alike.
    """
    fine = np.stack([thumbnail - cv2.blur(thumbnail, (7, 7)) for thumbnail in thumbnails])
    flat = fine.reshape(len(fine), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    strength = flat.std(axis=1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6), np.flatnonzero(strength >= _MIN_DETAIL)


def _matches(
    hashes: np.ndarray,
    details: np.ndarray,
    other_hashes: np.ndarray,
    other_details: np.ndarray,
    indices: np.ndarray,
    other_indices: np.ndarray,
    allowed: np.ndarray | None = None,
) -> dict[int, int]:
    """Return the first of ``other_indices`` whose hash is near and whose fine structure agrees, by index."""
    bits = np.zeros((len(indices), len(other_indices)), np.uint16)
    for word in range(hashes.shape[1]):
        bits += np.bitwise_count(hashes[indices, word][:, None] ^ other_hashes[other_indices, word])
    near = bits <= _MAX_BITS if allowed is None else (bits <= _MAX_BITS) & allowed
    found = {}
    for row in np.flatnonzero(near.any(axis=1)):
        candidates = other_indices[near[row]]
        same = candidates[other_details[candidates] @ details[indices[row]] >= _MIN_CORRELATION]
        if len(same):
            found[int(indices[row])] = int(same[0])
    return found
