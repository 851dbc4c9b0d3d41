"""Random numbers that follow from the seed and a count, so that nothing of them need be stored."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset


def _seed_cpu(seed: int, counts: tuple[int, ...]) -> int:
    """Seed Python and NumPy, and return the seed that goes with them for torch."""
    mixed = np.random.SeedSequence((seed % 2**64, *counts)).generate_state(3, np.uint64)
    random.seed(int(mixed[0]))
    np.random.seed(int(mixed[1]) % 2**32)  # noqa: NPY002  MMSegmentation draws from it
    return int(mixed[2]) % 2**63


def seed_everything(seed: int, *counts: int) -> None:
    """Seed Python, NumPy and torch; the same ``seed`` and ``counts`` (not negative) give the same random numbers."""
    torch.manual_seed(_seed_cpu(seed, counts))


@contextlib.contextmanager
def seeded(seed: int, *counts: int) -> Iterator[None]:
    """Seed the generators of the CPU for a while, and put them back as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    torch.default_generator.manual_seed(_seed_cpu(seed, counts))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


class SeededDraws(Dataset):
    """A data set whose augmentation follows from the number of the draw, whatever process or worker makes it.

    Args:
        dataset: training data set.
        seed: seed of the run.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, draw_and_index: tuple[int, int]) -> dict:
        """Return image ``index``, augmented as draw number ``draw`` of the run."""
        draw, index = draw_and_index
        with seeded(self.seed, 0, draw):
            return self.dataset[index]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.dataset)  # type: ignore[arg-type]
