"""Runs the entries of a table one after another: what is finished is kept, what was stopped goes on.

`experiments.tables.jobs` runs several at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from experiments import run as runner
from experiments.config.run_config import Config
from experiments.report.results import load_results
from experiments.tables.entries import same_run
from experiments.workdir import FILE
from share_jax.runtime.preemption import Preemption


def finished(config: Config) -> dict[str, Any] | None:
    """The results of a run if it has ended, with exactly these settings; None otherwise.

    Raises:
        FormatError: its `results.json` is damaged.
    """
    path = config.workdir / runner.RESULTS
    results = load_results(path) if path.exists() else None
    return results if results is not None and same_run(results, config) else None


def unfinished(configs: Sequence[Config], tell: Callable[[str], None]) -> list[Config]:
    """What is left to run, to be resumed where it was begun; of the rest it is told that it is kept."""
    left = []
    for config in configs:
        if finished(config) is None:
            left.append(replace(config, resume=(config.workdir / FILE).exists()))
        else:
            tell(f"{config.workdir.name}: finished before, kept")
    return left


def run_all(
    configs: Sequence[Config],
    preemption: Preemption,
    tell: Callable[[str], None],
    after: Callable[[], object] = lambda: None,
) -> None:
    """Runs what is not finished, in order.

    Args:
        configs: one run each, in workdirs of their own.
        preemption: what tells the run at work to stop.
        tell: told in a line what is begun and what is kept.
        after: called after every run.

    Raises:
        ShareError: for anything that the user can fix; what was finished before stays.
        Preempted: if it was told to stop.
    """
    for config in unfinished(configs, tell):
        tell(f"{config.workdir.name}: {'goes on' if config.resume else 'begins'}")
        runner.run(config, preemption)
        after()
