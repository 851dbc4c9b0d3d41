"""What a check says of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .kind import KINDS
from .problem import Problem


def shown(path: str) -> str:
    """Return ``path`` as text that can be written anywhere; bytes that are no UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Finding:
    """One kind of defect and every file that has it.

    Attributes:
        code: key of `KINDS`.
        severity: error: training would fail or its figures would mislead; warning: worth a look.
        files: words on each file (which may be empty) by its path.
        others: by a file's path, another that one should look at beside it.
    """

    code: str
    severity: str
    files: Mapping[str, str]
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """What was found."""
        return KINDS[self.code].message

    @property
    def remedy(self) -> str:
        """What to do."""
        return KINDS[self.code].remedy

    @property
    def fixable(self) -> bool:
        """Whether there is one safe answer, which ``tools/check_dataset.py --fix`` gives."""
        return KINDS[self.code].fixable

    @property
    def line(self) -> str:
        """The first file, what is wrong with it and what to do, in one line."""
        path, words = next(iter(self.files.items()))
        return f"{shown(path)}: {shown(words or self.message)}; {self.remedy}"

    def as_dict(self) -> dict:
        """Return plain values for JSON."""
        return dict(
            severity=self.severity,
            code=self.code,
            message=self.message,
            remedy=self.remedy,
            fixable=self.fixable,
            files=[dict(path=shown(path), what=shown(words)) for path, words in self.files.items()],
        )


def gather(problems: Iterable[Problem]) -> list[Finding]:
    """Return one finding of each kind, errors first, in the order of `KINDS`."""
    groups: dict[tuple[str, str], dict[str, Problem]] = {}
    for problem in problems:
        severity = problem.severity or KINDS[problem.code].severity
        groups.setdefault((severity, problem.code), {}).setdefault(problem.path, problem)
    order = list(KINDS)
    return [
        Finding(
            code,
            severity,
            files={path: problem.words for path, problem in group.items()},
            others={path: problem.other for path, problem in group.items() if problem.other},
        )
        for (severity, code), group in sorted(groups.items(), key=lambda item: (item[0][0], order.index(item[0][1])))
    ]
