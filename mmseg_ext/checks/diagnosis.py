"""What the label doctor says of a data set."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from .finding import Finding, shown
from .pair_facts import PairFacts
from .split import Split
from .split_statistics import SplitStatistics

_SHOWN_FILES = 3


@dataclass(frozen=True)
class Diagnosis:
    """Findings and figures.

    Attributes:
        source: config or folder that was examined.
        findings: errors first.
        statistics: figures of every split.
        unlisted: images beside the listed ones that no split lists.
        quick: whether the images' pixels were left unread.
        examined: every split with its pairs' facts.
    """

    source: str
    findings: tuple[Finding, ...]
    statistics: tuple[SplitStatistics, ...]
    unlisted: int = 0
    quick: bool = False
    examined: Sequence[tuple[Split, Sequence[PairFacts]]] = field(default=(), repr=False)

    @property
    def exit_code(self) -> int:
        """0 without findings, 1 with warnings only, 2 with errors."""
        severities = {finding.severity for finding in self.findings}
        return 2 if "error" in severities else int(bool(severities))

    @property
    def is_fixable(self) -> bool:
        """Whether any finding has one safe answer."""
        return any(finding.fixable for finding in self.findings)

    @property
    def root(self) -> str | None:
        """The folder that holds all splits; None for raw folders and for splits in several places."""
        roots = {os.path.dirname(os.path.abspath(split.images_dir)) for split, _ in self.examined}
        return roots.pop() if len(roots) == 1 and not any(split.raw for split, _ in self.examined) else None

    def as_dict(self) -> dict:
        """Return plain values for JSON."""
        return dict(
            source=shown(self.source),
            exit_code=self.exit_code,
            quick=self.quick,
            findings=[finding.as_dict() for finding in self.findings],
            splits=[statistics.as_dict() for statistics in self.statistics],
            unlisted_images=self.unlisted,
        )

    def text(self) -> str:
        """Return the report for a terminal, ending with a line break."""
        lines = [shown(self.source), "", *_table(self.statistics)]
        for statistics in self.statistics:
            lines += statistics.advice()
        if self.unlisted:
            lines.append(f"images that no split lists: {self.unlisted}")
        for finding in self.findings:
            lines += ["", f"{finding.severity}: {finding.message} [{finding.code}]"]
            files = list(finding.files.items())
            for path, words in files[:_SHOWN_FILES]:
                lines.append(f"    {shown(path)}" + (f": {shown(words)}" if words else ""))
            if len(files) > _SHOWN_FILES:
                lines.append(f"    ... and {len(files) - _SHOWN_FILES} more")
            lines.append("  -> --fix DEST writes a repaired copy" if finding.fixable else f"  -> {finding.remedy}")
        return "\n".join([*lines, "", self._verdict(), ""])

    def summary_html(self) -> str:
        """Return the report as HTML."""
        return f"<pre>{html.escape(self.text())}</pre>"

    def _verdict(self) -> str:
        if not self.findings:
            return "nothing wrong was found" + (" (images were not looked into: --quick)" if self.quick else "")
        counts = [(sum(f.severity == kind for f in self.findings), kind) for kind in ("error", "warning")]
        return ", ".join(f"{count} {kind}{'s' * (count > 1)}" for count, kind in counts if count)


def _table(statistics: Sequence[SplitStatistics]) -> list[str]:
    """Return aligned lines with a row for each split."""
    rows = [["split", "pairs", "size", "bands", "labels", "without road"], *(s.row() for s in statistics)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
