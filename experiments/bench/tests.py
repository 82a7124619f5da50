"""Suite `tests`: seconds and peak memory of every file of the fast tests, and of starting up.

Each file runs once in a process of its own, so that its peak memory is its own, and so is what importing takes: the sum
over all files is more than what `make test` takes. `--only` takes files by their paths.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.bench.commands import run_command
from experiments.bench.peer import ROOT, Peer
from experiments.bench.steps import OURS
from experiments.bench.suite import Options, SuiteResult, raced
from experiments.bench.timing import Case, Key, ratio
from share_jax.errors import ShareError, message

PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not faults")
NOTHING = 5
"""pytest's status where a file has slow tests alone."""

START_UP = {
    "python": ("-c", "pass"),
    "import jax": ("-c", "import jax"),
    "import share_jax": ("-c", "import share_jax"),
    "share-jax --help": ("-m", "share_jax.cli", "--help"),
}
"""Commands of the interpreter by name."""


def files_of(options: Options) -> list[Path]:
    """The files that are run, relative to the checkout; of a smoke test the smallest alone."""
    found = [path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    found = [path for path in found if options.takes(path.as_posix())]
    return sorted(found, key=lambda path: (ROOT / path).stat().st_size)[:1] if options.tiny else found


def command(words: Sequence[str]) -> dict[str, Any]:
    """Runs the interpreter; its status, wall and processor seconds, peak memory, and the last line that it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = run_command([sys.executable, *words], environment, ROOT)
    return {
        "status": ended.status,
        "seconds": ended.seconds,
        "cpu_s": ended.cpu_s,
        "peak_bytes": ended.peak_bytes,
        "last": ended.said.strip().splitlines()[-1] if ended.said.strip() else "",
    }


def counted(last: str) -> dict[str, int]:
    """How many tests passed and failed, from pytest's last line.

    >>> counted("2 failed, 13 passed, 1 error in 3.21s")
    {'tests': 13, 'failed': 3}
    """
    found = {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|error)", last)}
    failed = found.get("failed", 0) + found.get("error", 0)
    return {"tests": found.get("passed", 0), **({"failed": failed} if failed else {})}


def file_row(path: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """A file's row of the results, grouped by its folder."""
    return {
        "case": f"{path.parent.as_posix()}: {path.name}",
        "system": OURS,
        "median_s": found["seconds"],
        "iqr_s": 0.0,
        "repetitions": 1,
        "cpu_s": found["cpu_s"],
        "peak_bytes": found["peak_bytes"],
        **counted(found["last"]),
    }


def start_up_cases() -> list[Case]:
    """What a process takes until it can begin."""
    return [
        Case(f"start-up: {name}", OURS, lambda words=words: float(command(words)["seconds"]))
        for name, words in START_UP.items()
    ]


def run(options: Options, peer: Peer | None) -> SuiteResult:
    """The suite; it needs no peer.

    Raises:
        ShareError: pytest itself does not run.
    """
    rows: list[dict[str, Any]] = []
    files = files_of(options)
    for number, path in enumerate(files, start=1):
        found = command((*PYTEST, str(path)))
        if found["status"] not in (0, 1, NOTHING):
            fix = "install the requirements for development: make setup"
            raise ShareError(message(f"pytest {path}", got=found["last"], expected="tests that run", fix=fix))
        if found["status"] != NOTHING:
            rows.append(file_row(path, found))
        options.notify(f"{number} of {len(files)}, {path}: {found['seconds']:.1f} s, {found['last']}")
    ratios = file_ratios(rows)
    if options.takes("start-up"):
        times, more = raced(start_up_cases(), options.rounds, options)
        rows, ratios = rows + more, ratios | start_ratios(times)
    return SuiteResult(rows, ratios)


def file_ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What part of all seconds the slowest files take, and what part each folder takes."""
    spent = {row["case"]: row["cpu_s"] for row in rows}
    if not spent:
        return {}
    whole, folders = sum(spent.values()), dict[str, float]()
    for case, seconds in spent.items():
        folder = case.partition(": ")[0]
        folders[folder] = folders.get(folder, 0.0) + seconds
    slowest = sum(sorted(spent.values())[-10:])
    ordered = sorted(folders.items(), key=lambda item: -item[1])
    return {
        "processor time of the ten slowest files / all": slowest / whole,
        **{f"processor time of {folder} / all": seconds / whole for folder, seconds in ordered},
    }


def start_ratios(times: Mapping[Key, Mapping[int, float]]) -> dict[str, float]:
    """Ours to what lies below it: the command line never loads JAX, and the package does not before it is used."""
    of = {name: times[f"start-up: {name}", OURS] for name in START_UP}
    return {
        "start-up: import share_jax / import jax": ratio(of["import share_jax"], of["import jax"]),
        "start-up: share-jax --help / import jax": ratio(of["share-jax --help"], of["import jax"]),
    }
