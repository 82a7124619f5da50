"""What the baselines' rates and strengths were chosen on: `python -m experiments.tables.choices --help`.

A baseline whose paper gives no value for streams like these gets the one with the best final accuracy on a fifth of the
training examples that were held out of training (`--held-out`), stream by stream; the test examples are not looked at.
As with the tables, what is finished is kept and the command may be repeated.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments.config.methods import PUBLISHED, numbers_of
from experiments.config.numbers import MethodNumbers, flag
from experiments.config.run_config import Config, Numbers, changed, value
from experiments.tables.command import AGAIN, run_command
from experiments.tables.entries import CLASSES, SMALL, Entry, config_of, selected
from experiments.tables.jobs import cores, run_apart
from share_jax.storage.atomic_write import replace_text

GRID: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "full_finetune": ("full_learning_rate", (3e-6, 1e-5, 3e-5, 1e-4, 3e-4)),
    "ewc_lora": ("ewc_strength", (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)),
    "lwf_lora": ("lwf_strength", (0.3, 1.0, 3.0, 10.0, 30.0)),
    "o_lora": ("olora_strength", (1.0, 10.0, 30.0, 100.0, 300.0, 1e3)),
    "l2p": ("prompt_learning_rate", (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)),
}
"""The field and the values tried, by method."""

ENTRIES = (*(entry for entry in SMALL if not entry.label), *CLASSES)
"""The streams on which the published baselines are compared."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One run on one stream: each method that has a value at this place of its list, with that value."""

    entry: Entry
    place: int

    @property
    def values(self) -> dict[str, float]:
        """The value of each method."""
        return {name: values[self.place] for name, (_, values) in GRID.items() if self.place < len(values)}

    def config(self, workdir: Path, seeds: Numbers, data_folder: Path | None = None) -> Config:
        """Its run; the folder is CLINC150's."""
        base = config_of(
            self.entry,
            workdir,
            seeds=seeds,
            data_folder=data_folder,
            compile_cache=workdir / "compiled" / self.entry.name,
        )
        own = workdir / f"{self.entry.name}-{self.place + 1}"
        tried = {GRID[name][0]: number for name, number in self.values.items()}
        plain = replace(base, methods=tuple(self.values), held_out=True, workdir=own, numbers=_untuned(base))
        return changed(plain, **tried)


def _untuned(config: Config) -> tuple[MethodNumbers, ...]:
    """The numbers with those of the published methods at their defaults."""
    published = numbers_of(PUBLISHED)
    return tuple(each for each in config.numbers if type(each) not in published)


TRIALS = tuple(
    Trial(entry, place) for entry in ENTRIES for place in range(max(len(values) for _, values in GRID.values()))
)


@dataclass(frozen=True)
class Options:
    """Tries the values, keeping what is finished, and writes them down."""

    seeds: Numbers = (0,)
    """Seeds of every trial, separated by commas."""
    only: str | None = None
    """Try only the streams in whose entry's name this regular expression is found, such as mnist."""
    data_folder: Path | None = None
    """CLINC150's folder with data_full.json and domains.json; from TensorFlow Datasets when None."""
    workdir: Path = Path("runs/choices")
    """Where every trial has a folder of its own."""
    page: Path = Path("experiments/CHOICES.md")
    """What is written."""


def accuracy(results: Mapping[str, Any], method: str) -> float:
    """Mean over the seeds of a method's final accuracy over all tasks, from a `results.json`, in percent."""
    return 100 * results["methods"][method]["mean"]["acc"]


def used(entry: Entry, method: str) -> float:
    """The value with which the tables are made."""
    return value(config_of(entry, Path()), GRID[method][0])


def page(found: Mapping[Trial, Mapping[str, Any]], seeds: Sequence[int]) -> str:
    """The trials as Markdown: a table for each stream and a row for each method, its values as in `GRID`."""
    lines = [
        "# Choices",
        "",
        "Written by `python -m experiments.tables.choices`; not to be changed by hand. Rates and strengths for which"
        " the papers have no value for streams like these, by final accuracy in percent on a fifth of the training"
        f" examples, on which nothing was trained (seed {', '.join(map(str, seeds))}; test examples are not used). The"
        " best is bold; what the tables are made with is marked *.",
    ]
    for entry in ENTRIES:
        lines += ["", f"## {entry.experiment}, {entry.protocol}-incremental", ""]
        lines += ["| method | flag | accuracy by value |", "| :-- | :-- | :-- |"]
        for method, (field, _) in GRID.items():
            mine = [trial for trial in found if trial.entry is entry and method in trial.values]
            tried = {trial.values[method]: accuracy(found[trial], method) for trial in mine}
            own, best = used(entry, method), max(tried.values(), default=0.0)
            cells = [
                f"{value:g}{'*' if value == own else ''}: " + (f"**{acc:.2f}**" if acc == best else f"{acc:.2f}")
                for value, acc in tried.items()
            ]
            lines.append(f"| `{method}` | `{flag(field)}` | {', '.join(cells) or '-'} |")
    return "\n".join(lines) + "\n"


def make(options: Options, tell: Callable[[str], None]) -> None:
    """Runs the trials and writes the page, after every run and at the end.

    Raises:
        ShareError: for anything that the user can fix.
        Preempted: if it was told to stop.
    """
    from experiments.tables.runs import unfinished

    chosen = selected(ENTRIES, options.only)
    configs = {trial: trial.config(options.workdir, options.seeds, options.data_folder) for trial in TRIALS}
    write = partial(_write, options, configs)
    asked = [config for trial, config in configs.items() if trial.entry in chosen]
    run_apart(unfinished(asked, tell), len(cores()), tell, write, AGAIN)
    write()
    tell(f"Written: {options.page}")


def _write(options: Options, configs: Mapping[Trial, Config]) -> None:
    from experiments.tables.runs import finished

    results = {trial: finished(config) for trial, config in configs.items()}
    found = {trial: content for trial, content in results.items() if content is not None}
    replace_text(page(found, options.seeds), options.page)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 when it ran or was told to stop, 2 for bad usage or input, 130 when interrupted."""
    return run_command("python -m experiments.tables.choices", Options, make, argv)


if __name__ == "__main__":
    sys.exit(main())
