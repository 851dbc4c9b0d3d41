"""Cells measured turn by turn, so that what slows the machine for a while slows all of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from tqdm import tqdm

from .cell import Cell
from .prepared import Settings
from .record import Record
from .worker import Failure, Ready, Turn, serve

_KILLED = -9


class _Worker:
    """A process that measures one cell.

    Args:
        cell: what it measures.
        settings: how.
        context: of multiprocessing.
    """

    def __init__(self, cell: Cell, settings: Settings, context: Any) -> None:
        self.record = Record(cell)
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, cell, settings))
        self._process.start()
        other.close()

    def get_ready(self) -> bool:
        """Wait until the cell is built and warm, or has failed; return whether that filled the cache of exports."""
        answer = self._answer()
        if isinstance(answer, Ready):
            self.record.backend, self.record.precision = answer.backend, answer.precision
            return answer.filled_cache
        return False

    def take_turn(self) -> None:
        """Measure once, unless the cell has failed."""
        if self.record.failed is None:
            try:
                self._connection.send(True)
            except BrokenPipeError:
                pass  # it has ended, which the answer tells
            answer = self._answer()
            if isinstance(answer, Turn):
                self.record.turns.append(answer)

    def _answer(self) -> Ready | Turn | Failure:
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            reason = "killed, as for lack of memory" if code == _KILLED else f"its process ended with code {code}"
            answer = Failure(reason)
        if isinstance(answer, Failure):
            self.record.failed = answer.reason
        return answer

    def end(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.join()


@contextmanager
def _workers(cells: Sequence[Cell], settings: Settings, context: Any, bar: tqdm) -> Iterator[list[_Worker]]:
    """Start a worker for each of ``cells``, one after the other, and end them."""
    workers: list[_Worker] = []
    try:
        for cell in cells:
            bar.set_description_str(str(cell))
            workers.append(_Worker(cell, settings, context))
            if workers[-1].get_ready():
                workers.pop().end()
                workers.append(_Worker(cell, settings, context))
                workers[-1].get_ready()
            bar.update()
        yield workers
    finally:
        for worker in workers:
            worker.end()


def _context() -> Any:
    """Return how processes start: copies of one that has imported everything, which a GPU's driver does not bear."""
    if torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([serve.__module__])
    return context


def measure(
    cells: Sequence[Cell], rounds: int = 5, settings: Settings | None = None, together: bool = False
) -> tuple[list[Record], bool]:
    """Measure ``cells``, each in a process of its own.

    Those of one size and batch take turns, ``rounds`` times; what cannot be measured fails alone. Ctrl-C ends the
    measurement early.

    Args:
        cells: what is measured, those of one size and batch in a row.
        rounds: turns of each.
        settings: how.
        together: let cells of all sizes take turns, which keeps all of them in memory.

    Returns:
        What was measured of each cell, in their order, as far as it was begun; and whether it came to its end.
    """
    context = _context()
    records: list[Record] = []
    groups = [list(cells)] if together else [list(group) for _, group in groupby(cells, _size_and_batch)]
    with tqdm(total=len(cells) * (rounds + 1), unit="turn", dynamic_ncols=True, disable=None) as bar:
        try:
            for group in groups:
                with _workers(group, settings or Settings(), context, bar) as workers:
                    records += [worker.record for worker in workers]
                    for _ in range(rounds):
                        for worker in workers:
                            bar.set_description_str(str(worker.record.cell))
                            worker.take_turn()
                            bar.update()
        except KeyboardInterrupt:
            return [record for record in records if record.turns or record.failed], False
    return records, True


def _size_and_batch(cell: Cell) -> tuple[int, int]:
    return cell.size_px, cell.batch
