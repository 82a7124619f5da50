"""Makes a whole published table in one command: `python -m experiments.tables --help`.

    python -m experiments.tables small
    python -m experiments.tables text --data-folder path/to/clinc150
    python -m experiments.tables class --data-folder path/to/clinc150

Every entry of `experiments.tables.entries` is a run of `experiments.run` in a folder of its own below --workdir. What
is finished is kept and what was stopped goes on, so the command may be killed and repeated. After every run the table's
section of the page is written anew from the results alone; the other table's section stays as it is.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.config.experiment import Preset
from experiments.config.numbers import ConfigError
from experiments.config.run_config import Config, Numbers
from experiments.tables.command import AGAIN, run_command
from experiments.tables.entries import TABLES, Entry, config_of, selected
from experiments.tables.jobs import cores, run_apart
from share_jax.errors import message
from share_jax.runtime.malloc import keep_freed
from share_jax.runtime.preemption import Preemption

COMPILED = "compiled"
"""Folder of the workdir for compiled programs, by entry: every seed of a method but the first finds its own there."""


@dataclass(frozen=True)
class Options:
    """Runs every entry of a table, keeping what is finished, and writes its section of the results page."""

    table: Annotated[Literal["small", "text", "class"], tyro.conf.Positional]
    """Which table: small has the digits and MNIST streams with every method, text has CLINC150 and 20 Newsgroups under
    three protocols, class has split MNIST and CLINC150 without an id and with every method (CLINC150 so is not in
    text)."""
    seeds: Numbers = ()
    """Seeds of every entry, separated by commas; the entries' own, 0,1,2, when empty."""
    preset: Preset = "default"
    """Amount of work; the short tables are written at the default alone."""
    only: str | None = None
    """Run only the entries in whose name this regular expression is found, such as clinc150-class."""
    workdir: Path = Path("runs/tables")
    """Where every entry has a folder of its own."""
    data_folder: Path | None = None
    """CLINC150's folder with data_full.json and domains.json; from TensorFlow Datasets when None."""
    cache_dir: Path | None = None
    """Where weights and texts are kept; $SHARE_JAX_CACHE or the user's cache folder when None."""
    compile_cache: Path | None = None
    """Where compiled programs are kept, in a folder for each entry; the folder compiled in the workdir when None."""
    page: Path = Path("experiments/RESULTS.md")
    """The results page."""
    headline: Path = Path("docs/benchmarks/index.md")
    """The page of short tables, which are replaced between its markers once all of a block's entries have ended."""
    jobs: int = 0
    """Entries that are run at once, each in a process on a core of its own, as many as there are cores when 0; 1 runs
    one after another on all cores. The number of cores that a run has changes its sums in the last bits."""
    quiet: bool = False
    """No progress bar; there is none either with several jobs."""

    def __post_init__(self) -> None:
        """Checks what the types cannot."""
        if self.jobs < 0:
            raise ConfigError(message("--jobs", got=self.jobs, expected="at least 0", fix="pass 1 or 2"))


def configs_of(options: Options) -> list[Config]:
    """The runs of all the table's entries, whatever --only says."""

    def config(entry: Entry) -> Config:
        return config_of(
            entry,
            options.workdir,
            seeds=options.seeds,
            amount=options.preset,
            data_folder=options.data_folder,
            cache_dir=options.cache_dir,
            compile_cache=(options.compile_cache or options.workdir / COMPILED) / entry.name,
            quiet=options.quiet,
        )

    return [config(entry) for entry in TABLES[options.table]]


def command(options: Options) -> str:
    """What makes the table, without the paths of the machine."""
    words = [f"python -m experiments.tables {options.table}"]
    words += ["--data-folder FOLDER"] if options.table != "small" and options.data_folder else []
    words += [f"--seeds {','.join(map(str, options.seeds))}"] if options.seeds else []
    words += [f"--preset {options.preset}"] if options.preset != "default" else []
    words += [f"--jobs {options.jobs}"] if options.jobs else []
    return " ".join(words)


def make(options: Options, tell: Callable[[str], None]) -> None:
    """Runs what is asked for and writes the page, after every run and at the end.

    Raises:
        ShareError: for anything that the user can fix.
        Preempted: if it was told to stop.
    """
    from experiments.tables.runs import run_all, unfinished
    from experiments.tables.write import check_page

    began = time.monotonic()
    configs = configs_of(options)
    chosen = {entry.name for entry in selected(TABLES[options.table], options.only)}
    check_page(options.page, options.table)
    write = partial(_write, options, configs)
    asked = [config for config in configs if config.workdir.name in chosen]
    jobs = options.jobs or len(cores())
    if jobs > 1:
        run_apart(unfinished(asked, tell), jobs, tell, write, AGAIN)
    else:
        with Preemption(lambda what: tell(f"terminated: {what}; {AGAIN}")) as preemption:
            run_all(asked, preemption, tell, write)
    for path in write():
        tell(f"Written: {path}")
    tell(f"{len(asked)} entries in {(time.monotonic() - began) / 60:.1f} minutes")


def _write(options: Options, configs: Sequence[Config]) -> list[Path]:
    from experiments.tables.headline import write_headline
    from experiments.tables.page import Section
    from experiments.tables.runs import finished
    from experiments.tables.write import write_section

    found = {config.workdir.name: finished(config) for config in configs}
    why = {entry.name: entry.why for entry in TABLES[options.table] if entry.why}
    section = Section(options.table, command(options), found, why)
    write_section(options.page, section)
    shown = options.preset == "default" and write_headline(options.headline, section.command, found)
    return [options.page, *([options.headline] if shown else [])]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 when it ran or was told to stop, 2 for bad usage or input, 130 when interrupted."""
    return run_command("python -m experiments.tables", Options, make, argv)


if __name__ == "__main__":
    keep_freed()
    sys.exit(main())
