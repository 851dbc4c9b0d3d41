"""The order in which training images are drawn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class InfiniteSampler(Sampler[tuple[int, int]]):
    """Endless shuffled images as (number of the draw, index), the same sequence for any number of processes.

    Every pass over the data is a new permutation from ``seed``; of each step's images of the joint sequence, process
    ``rank`` takes its part. So k processes with batch b draw what one process with batch k*b draws, and no worker is
    restarted between passes.

    Args:
        size: number of images.
        seed: seed of all permutations.
        rank: number of this process.
        world_size: number of processes.
        start: draws of the joint sequence that are done already, for a resumed run.
    """

    def __init__(self, size: int, seed: int, rank: int = 0, world_size: int = 1, start: int = 0) -> None:
        self.size, self.seed, self.rank, self.world_size = size, seed, rank, world_size
        self.start = start

    def _joint(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            yield from torch.randperm(self.size, generator=generator).tolist()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this process's draws, without end."""
        return itertools.islice(enumerate(self._joint()), self.start + self.rank, None, self.world_size)

    def __len__(self) -> int:
        """Return the number of this process's images in one pass."""
        return -(-self.size // self.world_size)
