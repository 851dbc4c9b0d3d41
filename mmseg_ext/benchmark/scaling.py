"""Time and memory of one method against the size of the image, as a whole and in tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ..mapping import TilePlan
from ..report import markdown_table
from .cell import Cell, Contender
from .machine import machine_line
from .record import Record

LINEAR_WITHIN = 0.15


def scaling_cells(contender: Contender, sizes: Sequence[int], tiles: tuple[int, int], batch: int = 1) -> list[Cell]:
    """Return the cells of one table: every size as a whole, and in tiles from the tile's size up.

    Args:
        contender: what runs.
        sizes: rows and columns of the images.
        tiles: rows and columns of a tile, and the overlap of neighbours.
        batch: tiles in one forward pass.
    """
    whole = [Cell(contender, size) for size in sizes]
    return [*whole, *(Cell(contender, size, batch, tiles) for size in sizes if size >= tiles[0])]


def scaling_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the figures of each of ``records``; where one failed, they are None.

    ``relative`` is the median over the rounds of the seconds for a megapixel, relative to the smallest image that is
    mapped in tiles (of whole images: to the same size, where it was measured). ``computed`` is how often a pixel goes
    through the network.
    """
    smallest = min((record.cell.size_px for record in records if record.cell.tiles), default=None)
    reference = {
        record.cell.tiles: record for record in records if record.cell.size_px == smallest and not record.failed
    }
    return [_row(record, reference.get(record.cell.tiles)) for record in records]


def _row(record: Record, reference: Record | None) -> dict[str, Any]:
    cell = record.cell
    row: dict[str, Any] = dict(
        size_px=cell.size_px,
        batch=cell.batch,
        tiles=cell.tiles,
        backend=record.backend,
        precision=record.precision,
        failed=record.failed,
        round_seconds=record.round_seconds,
        computed=_computed(cell),
    )
    row.update(dict.fromkeys(("seconds", "seconds_per_megapixel", "relative", "peak_bytes")))
    if record.failed or not record.turns:
        return row
    seconds = median(second for turn in record.turns for second in turn.seconds)
    peaks = [turn.peak_bytes for turn in record.turns if turn.peak_bytes is not None]
    row.update(seconds=seconds, seconds_per_megapixel=seconds / cell.megapixels, peak_bytes=max(peaks, default=None))
    if reference is not None:
        pairs = zip(record.round_seconds, reference.round_seconds, strict=False)  # a stop may end within a round
        row["relative"] = median(own / theirs for own, theirs in pairs) * reference.cell.megapixels / cell.megapixels
    return row


def _computed(cell: Cell) -> float:
    """Return the pixels that the network computes for one pixel of the image."""
    if cell.tiles is None:
        return 1.0
    plan = TilePlan(cell.size_px, cell.size_px, *cell.tiles, stride=32)
    height, width = plan.tile_shape
    return len(plan.row_starts) * height * len(plan.column_starts) * width / cell.size_px**2


def scaling_markdown(facts: Mapping[str, Any], contender: Contender, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the machine, one table of whole images and tiles, and whether time is linear in pixels."""
    tiled = {row["size_px"]: row for row in rows if row["tiles"]}
    whole = {row["size_px"]: row for row in rows if not row["tiles"]}
    lines = [[f"{size:,}", *_cells(whole.get(size)), *_cells(tiled.get(size))] for size in sorted({*whole, *tiled})]
    units = ("s", "s/megapixel", "relative", "peak MiB")
    header = ["px", *(f"whole, {unit}" for unit in units), *(f"tiles, {unit}" for unit in units)]
    ran = sorted({f"{row['backend']} {row['precision']}" for row in rows if row["backend"]})
    table = markdown_table(header, lines)
    return "\n\n".join(
        [machine_line(facts), f"{contender} (ran: {', '.join(ran) or 'nothing'}):", table, *_verdicts(tiled, whole)]
    )


def _cells(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return [""] * 4
    if row["seconds"] is None:
        return [row["failed"] or "not measured", "", "", ""]
    relative = "" if row["relative"] is None else f"{row['relative']:.2f}"
    peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:,.0f}"
    return [f"{row['seconds']:.3f}", f"{row['seconds_per_megapixel']:.3f}", relative, peak]


def _verdicts(tiled: Mapping[int, Mapping[str, Any]], whole: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Return a sentence about tiles and one about whole images, from the smallest tiled size up."""
    verdicts = []
    for name, rows in (("In tiles", tiled), ("As a whole", whole)):
        found = {size: row for size, row in rows.items() if row["relative"] is not None and size >= min(tiled)}
        if len(found) > 1:
            worst = max(abs(row["relative"] - 1) for row in found.values())
            words = "linear" if worst <= LINEAR_WITHIN else "not linear"
            verdicts.append(
                f"{name}: from {min(found):,} to {max(found):,} px the time for a megapixel differs by at most "
                f"{100 * worst:.0f} % from that at {min(found):,} px, so it is {words} within "
                f"{100 * LINEAR_WITHIN:.0f} %."
            )
    if tiled:
        (tile, overlap) = next(iter(tiled.values()))["tiles"]
        computed = ", ".join(f"{row['computed']:.2f} at {size:,} px" for size, row in sorted(tiled.items()))
        verdicts.append(
            f"Tiles of {tile} px overlap by {overlap} px or more, so the network computes a pixel this often: "
            f"{computed}."
        )
    return verdicts
