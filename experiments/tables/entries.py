"""What the tables are made of: plain entries, each one stream under one protocol."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from experiments.config.command_words import without_folder
from experiments.config.experiment import Preset, Protocol, protocol_of
from experiments.config.methods import ID_ALONE, MAIN, PUBLISHED
from experiments.config.run_config import Config, Numbers, changed, command_line, preset
from share_jax.errors import InputError, message

SHARED = ("shared_a", "share", "share_coefficients")
HEADLINE = (*SHARED, *(name for name in MAIN if name not in SHARED))
"""Ours and what every run should show beside it, in the order of the README."""

EVERY = (*HEADLINE, *PUBLISHED)
WITHOUT_ID = ("shared_a", "share", "separate_lora", "sequential_lora", "frozen_head", "joint", "majority")


@dataclass(frozen=True)
class Entry:
    """One stream under one protocol.

    Attributes:
        experiment: the stream.
        protocol: what is known of an example when it is answered.
        methods: what is compared, in the order of the table.
        seeds: of initialisation and data order.
        overrides: fields of `Config`, or of the numbers of methods, that differ from the preset's.
        label: what tells it from another entry of the stream and protocol.
        why: a sentence for the page, where the entry answers a question of its own.
        reads_folder: whether the stream is read from the tables' data folder.
    """

    experiment: str
    protocol: Protocol
    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    label: str = ""
    why: str = ""
    reads_folder: bool = False

    @property
    def name(self) -> str:
        """Also that of its folder.

        >>> Entry("digits5", "task", ("majority",)).name
        'digits5-task'
        >>> Entry("digits5", "task", ("majority",), overrides={"rank": 8}, label="rank_8").name
        'digits5-task-rank_8'
        """
        return "-".join(filter(None, (self.experiment, self.protocol, self.label)))


def _allowed(protocol: Protocol, methods: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in methods if protocol == "task" or name != ID_ALONE)


SMALL = (
    Entry("rotated_mnist10", "domain", _allowed("domain", EVERY)),
    Entry("split_mnist5", "task", EVERY),
    Entry("digits5", "task", EVERY),
    Entry(
        "rotated_mnist10",
        "domain",
        ("shared_a", "separate_lora", "frozen_head", "majority"),
        overrides={"rank": 8, "alpha": 16.0},
        label="rank_8",
        why="Twice the rank of the table above, at which a task of `shared_a` adds two thirds of the parameters that a "
        "separate LoRA of that table has.",
    ),
)
"""The longest first, which keeps two processes busy until the end."""

TEXT = (
    Entry("clinc150", "task", HEADLINE, reads_folder=True),
    Entry("newsgroups10", "task", HEADLINE),
    Entry("clinc150", "domain", WITHOUT_ID, reads_folder=True),
    Entry("newsgroups10", "domain", WITHOUT_ID),
    Entry("newsgroups10", "class", WITHOUT_ID),
)
CLASSES = (
    Entry("split_mnist5", "class", _allowed("class", EVERY)),
    Entry("clinc150", "class", _allowed("class", EVERY), label="every_method", reads_folder=True),
)
"""Without an id and with every method: what tells methods apart most."""

TABLES: Mapping[str, tuple[Entry, ...]] = MappingProxyType({"small": SMALL, "text": TEXT, "class": CLASSES})


def config_of(
    entry: Entry,
    workdir: Path,
    *,
    seeds: Numbers = (),
    amount: Preset = "default",
    data_folder: Path | None = None,
    cache_dir: Path | None = None,
    compile_cache: Path | None = None,
    quiet: bool = False,
) -> Config:
    """The run of an entry.

    Args:
        entry: what to run.
        workdir: the folder of the tables; the run's own is WORKDIR/NAME.
        seeds: the entry's own when empty.
        amount: the preset.
        data_folder: CLINC150's, as of `Config`; other streams of the tables have none.
        cache_dir: as of `Config`.
        compile_cache: as of `Config`.
        quiet: whether there is no progress bar.

    Raises:
        ConfigError: a field is out of range.
    """
    own = protocol_of(entry.experiment) == entry.protocol
    base = preset(entry.experiment, amount, None if own else entry.protocol)
    return changed(
        base,
        methods=entry.methods,
        seeds=tuple(seeds) or entry.seeds,
        workdir=workdir / entry.name,
        data_folder=data_folder if entry.reads_folder else None,
        cache_dir=cache_dir,
        compile_cache=compile_cache,
        quiet=quiet,
        **entry.overrides,
    )


def selected(entries: tuple[Entry, ...], pattern: str | None) -> tuple[Entry, ...]:
    """The entries whose name holds a match of a regular expression; all when None.

    Raises:
        InputError: it is no regular expression, or no entry matches.
    """
    if pattern is None:
        return entries
    names = ", ".join(entry.name for entry in entries)
    try:
        found = tuple(entry for entry in entries if re.search(pattern, entry.name))
    except re.error as error:
        got, expected = f"{pattern!r} ({error})", "a regular expression"
        raise InputError(message("--only", got=got, expected=expected, fix=f"such as one of {names}")) from None
    if not found:
        raise InputError(message("--only", got=repr(pattern), expected=f"a match in {names}", fix="check the name"))
    return found


def same_run(results: Mapping[str, Any], config: Config) -> bool:
    """Whether the content of a `results.json` is what a configuration would give."""
    return without_folder(results.get("command", "")) == without_folder(command_line(config))
