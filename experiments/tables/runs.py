"""Runs the entries of a table one after another: what is finished is kept, what was stopped goes on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from experiments import run as runner
from experiments.config import Config
from experiments.report.results import load_results
from experiments.tables.entries import same_run
from experiments.workdir import FILE
from share_jax.train.preemption import Preemption


def finished(config: Config) -> dict[str, Any] | None:
    """The results of a run if it has ended, with exactly these settings; None otherwise.

    Raises:
        FormatError: its `results.json` is damaged.
    """
    path = config.workdir / runner.RESULTS
    results = load_results(path) if path.exists() else None
    return results if results is not None and same_run(results, config) else None


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
        ShareError: for anything that the user can mend; what was finished before stays.
        Preempted: if it was told to stop.
    """
    for number, config in enumerate(configs, start=1):
        where = f"{number} of {len(configs)}: {config.workdir.name}"
        if finished(config) is not None:
            tell(f"{where}: finished before, kept")
            continue
        begun = (config.workdir / FILE).exists()
        tell(f"{where}: {'goes on' if begun else 'begins'}")
        runner.run(replace(config, resume=begun), preemption)
        after()
