"""What all suites have in common: their options, the race with its progress, and what they found."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.bench.timing import Case, Key, race, summary
from experiments.report.notify import to_stderr


@dataclass(frozen=True)
class Options:
    """How a suite is run.

    Attributes:
        rounds: repetitions of what bars are read from.
        folder: for files that pass between processes, or that are measured.
        tiny: models and sizes of a smoke test, whose figures mean nothing.
        quiet: no progress.
        only: a regular expression for the parts of a suite that are run, found anywhere in their names.
    """

    rounds: int
    folder: Path
    tiny: bool = False
    quiet: bool = False
    only: str = ""

    def takes(self, part: str) -> bool:
        """Whether a part of the suite is run."""
        return re.search(self.only, part) is not None

    def notify(self, text: str) -> None:
        """Says what is going on."""
        if not self.quiet:
            to_stderr(text)


@dataclass(frozen=True)
class SuiteResult:
    """What a suite, or a part of it, found: rows of results, ratios by name, and what else is worth keeping."""

    results: list[dict[str, Any]]
    ratios: dict[str, float]
    further: dict[str, Any] = field(default_factory=dict)


def raced(
    cases: Sequence[Case], rounds: int, options: Options
) -> tuple[dict[Key, dict[int, float]], list[dict[str, Any]]]:
    """Races the cases; their times by round, and their rows."""
    first = cases[0].case if cases else "nothing"
    times = race(cases, rounds, notify=lambda text: options.notify(f"{first} and {len(cases) - 1} more: {text}"))
    return times, [summary(case, times[case.key]) for case in cases]


def merged_results(parts: Sequence[SuiteResult]) -> SuiteResult:
    """Parts of a suite as one."""
    rows = [row for part in parts for row in part.results]
    return SuiteResult(
        rows,
        {name: value for part in parts for name, value in part.ratios.items()},
        {name: value for part in parts for name, value in part.further.items()},
    )
