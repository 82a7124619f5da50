"""What the baselines' rates and strengths were chosen on: `python -m experiments.tables.choices --help`.

A baseline whose paper gives no value for streams like these gets the one with the best final accuracy on a fifth of the
training examples that were held out of training (`--held-out`), stream by stream; the test examples are not looked at.
As with the tables, what is finished is kept and the command may be repeated.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from experiments.baselines import Baselines, flag
from experiments.config import Config, Numbers
from experiments.tables.entries import SMALL, Entry, config_of
from experiments.tables.jobs import cores, run_apart
from share_jax.memory import keep_freed
from share_jax.train.files import replace_text

AGAIN = "repeat the command to go on"

GRID: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "full_finetune": ("full_learning_rate", (3e-5, 1e-4, 3e-4)),
    "ewc_lora": ("ewc_strength", (1.0, 10.0, 100.0, 1000.0)),
    "lwf_lora": ("lwf_strength", (1.0, 3.0, 10.0)),
    "o_lora": ("olora_strength", (1.0, 10.0, 30.0, 100.0)),
    "l2p": ("prompt_learning_rate", (3e-3, 1e-2, 3e-2)),
}
"""The field of `Baselines` and the values tried, by method."""

ENTRIES = tuple(entry for entry in SMALL if not entry.label)
"""The streams on which the published baselines are compared."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One value of one method on one stream."""

    entry: Entry
    method: str
    value: float

    @property
    def field(self) -> str:
        """The field of `Baselines` that has the value."""
        return GRID[self.method][0]

    def config(self, workdir: Path, seeds: Numbers) -> Config:
        """Its run."""
        base = config_of(self.entry, workdir, seeds=seeds, compile_cache=workdir / "compiled" / self.entry.name)
        name = f"{self.entry.name}-{self.method}-{self.value:g}"
        chosen = replace(base.baselines, **{self.field: self.value})
        return replace(base, methods=(self.method,), held_out=True, baselines=chosen, workdir=workdir / name)


TRIALS = tuple(
    Trial(entry, method, value) for entry in ENTRIES for method, (_, values) in GRID.items() for value in values
)


@dataclass(frozen=True)
class Options:
    """Tries the values, keeping what is finished, and writes them down."""

    seeds: Numbers = (0, 1)
    """Seeds of every trial, separated by commas."""
    workdir: Path = Path("runs/choices")
    """Where every trial has a folder of its own."""
    page: Path = Path("experiments/CHOICES.md")
    """What is written."""


def accuracy(results: Mapping[str, Any]) -> float:
    """Mean over the seeds of the final accuracy over all tasks, of the only method of a `results.json`, in percent."""
    (method,) = results["methods"].values()
    return 100 * method["mean"]["acc"]


def used(trial: Trial) -> bool:
    """Whether the tables are made with this value."""
    own: Baselines = config_of(trial.entry, Path()).baselines
    return getattr(own, trial.field) == trial.value


def page(found: Mapping[Trial, float], seeds: Sequence[int]) -> str:
    """The trials as Markdown: a table for each stream and a row for each method, its values as in `GRID`."""
    lines = [
        "# Choices",
        "",
        "Written by `python -m experiments.tables.choices`; not to be changed by hand. Rates and strengths for which"
        " the papers have no value for streams like these, by final accuracy in percent on a fifth of the training"
        f" examples, on which nothing was trained (seeds {', '.join(map(str, seeds))}; test examples are not used). The"
        " best is bold; what the tables are made with is marked *.",
    ]
    for entry in ENTRIES:
        lines += ["", f"## {entry.experiment}, {entry.protocol}-incremental", ""]
        lines += ["| method | flag | accuracy by value |", "| :-- | :-- | :-- |"]
        for method, (field, _) in GRID.items():
            tried = [(x, found[x]) for x in TRIALS if x.entry is entry and x.method == method and x in found]
            best = max((a for _, a in tried), default=0.0)
            cells = [
                f"{x.value:g}{'*' if used(x) else ''}: " + (f"**{a:.2f}**" if a == best else f"{a:.2f}")
                for x, a in tried
            ]
            lines.append(f"| `{method}` | `{flag(field)}` | {', '.join(cells) or '-'} |")
    return "\n".join(lines) + "\n"


def make(options: Options, tell: Callable[[str], None]) -> None:
    """Runs the trials and writes the page, after every run and at the end.

    Raises:
        ShareError: for anything that the user can mend.
        Preempted: if it was told to stop.
    """
    from experiments.tables.runs import unfinished

    configs = {trial: trial.config(options.workdir, options.seeds) for trial in TRIALS}
    write = partial(_write, options, configs)
    run_apart(unfinished(list(configs.values()), tell), len(cores()), tell, write, AGAIN)
    write()
    tell(f"Written: {options.page}")


def _write(options: Options, configs: Mapping[Trial, Config]) -> None:
    from experiments.tables.runs import finished

    results = {trial: finished(config) for trial, config in configs.items()}
    found = {trial: accuracy(content) for trial, content in results.items() if content is not None}
    replace_text(page(found, options.seeds), options.page)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 when it ran or was told to stop, 2 for bad usage or input, 130 when interrupted."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # JAX's batched SVD can hang when OpenBLAS threads it
    from experiments.run import guarded

    def work() -> None:
        arguments = list(sys.argv[1:] if argv is None else argv)
        make(tyro.cli(Options, args=arguments, prog="python -m experiments.tables.choices"), _to_stderr)

    return guarded(work, AGAIN)


if __name__ == "__main__":
    keep_freed()
    sys.exit(main())
