"""The label doctor: looks for everything that spoils a data set, and goes on after a defect."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tqdm import tqdm

from .diagnosis import Diagnosis
from .finding import gather
from .leakage import leaks, shared_names
from .pair import Pair
from .pair_facts import PairFacts, measure_pair
from .problem import Problem
from .split import Split
from .split_files import unlisted_images
from .split_rules import apply_split_rules
from .split_statistics import SplitStatistics

_THREADS = 8


def examine(source: str, splits: Sequence[Split], problems: Sequence[Problem] = (), quick: bool = False) -> Diagnosis:
    """Return everything that is wrong with ``splits``.

    Args:
        source: config or folder, to name it.
        splits: what `splits_of_config` or `splits_of_folder` found.
        problems: what it found wrong.
        quick: read masks and headers only, not the images.

    Raises:
        MissingExtraError: there are TIFFs, and rasterio is not installed.
    """
    groups = _same_splits(splits)
    examined = survey([group[0] for group in groups], decode=not quick)
    found = [*problems, *defects(examined, quick)]
    return Diagnosis(
        source=source,
        findings=tuple(gather(found)),
        statistics=tuple(
            SplitStatistics.of([split.name for split in group], split, facts)
            for group, (split, facts) in zip(groups, examined, strict=True)
        ),
        unlisted=len(unlisted_images(splits)),
        quick=quick,
        examined=examined,
    )


def survey(splits: Sequence[Split], decode: bool) -> list[tuple[Split, list[PairFacts]]]:
    """Return every split with the facts of its pairs, read in parallel.

    Args:
        splits: what to read.
        decode: read the images' pixels too.
    """
    work = [(pair, split) for split in splits for pair in split.pairs]
    threads = min(_THREADS, os.cpu_count() or 1) if decode else _THREADS
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(partial(_measure, decode=decode), work)
        title, unit = ("examining", "pair") if decode else ("checking masks", "mask")
        facts = iter(tqdm(found, desc=title, total=len(work), unit=unit, disable=None, leave=False))
        return [(split, [next(facts) for _ in split.pairs]) for split in splits]


def defects(examined: Sequence[tuple[Split, list[PairFacts]]], quick: bool) -> list[Problem]:
    """Return the defects of the pairs, of the splits and between the splits."""
    # the rules of a split may take back what its pairs said
    of_splits = apply_split_rules(examined)
    of_pairs = [problem for _, facts in examined for fact in facts for problem in fact.problems]
    between = shared_names([split for split, _ in examined]) if quick else leaks(examined)
    return [*of_pairs, *of_splits, *between]


def _measure(work: tuple[Pair, Split], decode: bool) -> PairFacts:
    return measure_pair(*work, decode=decode)


def _same_splits(splits: Sequence[Split]) -> list[list[Split]]:
    """Return the splits in groups of the same images: the test split may well be the validation split."""
    groups: list[list[Split]] = []
    for split in splits:
        for group in groups:
            if not split.trains and not group[0].trains and split.pairs and split.contents() == group[0].contents():
                group.append(split)
                break
        else:
            groups.append([split])
    return groups
