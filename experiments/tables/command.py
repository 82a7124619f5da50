"""What the commands of this folder have in common: their options are parsed, and they end as a run does."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from experiments.report.notify import to_stderr

Options = TypeVar("Options")

AGAIN = "repeat the command to go on"


def run_command(
    prog: str,
    options: type[Options],
    make: Callable[[Options, Callable[[str], None]], None],
    argv: Sequence[str] | None = None,
) -> int:
    """A command line: 0 when it ran or was told to stop, 2 for bad usage or input, 130 when interrupted.

    Args:
        prog: its name, for the usage.
        options: the dataclass of its flags.
        make: does the work, and tells of it in lines.
        argv: the words after the name; the process's own when None.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # JAX's batched SVD can hang when OpenBLAS threads it
    from experiments.run import guarded

    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: make(tyro.cli(options, args=words, prog=prog), to_stderr), AGAIN)
