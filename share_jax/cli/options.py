"""What the commands' parsers share: one-line usage errors, `--json`, examples."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Prints one line and leaves."""
        text = " ".join(message.split())
        self.exit(2, f"{self.prog}: {text}; see {self.prog} --help\n")


def complete(parser: argparse.ArgumentParser, command: ModuleType) -> None:
    """Adds what a command takes, `--json`, `--progress`, and the example in its help.

    Args:
        parser: the command's.
        command: its file, which has `EXAMPLE`, `add_arguments(parser)` and `run(args)`, the exit status.
    """
    parser.epilog = f"example:\n  {command.EXAMPLE}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(run=command.run)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--progress", action="store_true", help="show progress even if stderr is not a terminal")
    command.add_arguments(parser)


def add_output(parser: argparse.ArgumentParser, what: str, place: str = "DIR") -> None:
    """Adds `-o` and `--overwrite`."""
    parser.add_argument("-o", "--output", required=True, metavar=place, help=f"where {what} is written")
    parser.add_argument("--overwrite", action="store_true", help="replace a set or an adapter that is there")


def add_size(parser: argparse.ArgumentParser, held: str) -> None:
    """Adds the ways to choose k, one of which may be given.

    Args:
        parser: the command's.
        held: what --max-error says.
    """
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--k", type=whole, metavar="N", help="basis columns per layer and side")
    size.add_argument("--explained-variance", type=fraction, metavar="X", help="smallest k that explains this share")
    size.add_argument("--max-error", type=error_limit, metavar="E", help=held)


def add_task_names(parser: argparse.ArgumentParser) -> None:
    """Adds `--name`."""
    parser.add_argument(
        "--name", nargs="+", metavar="TASK", help="the tasks' names, one per DIR (default: the folders')"
    )


def choice_of(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of `add_size`, as the fields of a `Choice`."""
    given = {"k": args.k, "explained_variance": args.explained_variance, "max_error": args.max_error}
    return {name: value for name, value in given.items() if value is not None}


def whole(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def seed(text: str) -> int:
    """A whole number that seeds take, from 0 to 2^63 - 1."""
    value = int(text)
    if not 0 <= value < 2**63:
        raise ValueError(text)
    return value


def fraction(text: str) -> float:
    """A number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError(text)
    return value


def error_limit(text: str) -> float:
    """A number above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise ValueError(text)
    return value


def below_one(text: str) -> float:
    """A number of at least 0 and below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError(text)
    return value


def number(text: str) -> float:
    """A finite number."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


whole.__name__, fraction.__name__ = "whole number (1 or more)", "fraction (0 to 1)"
error_limit.__name__, below_one.__name__ = "error (above 0, below 1)", "share (0 or more, below 1)"
number.__name__ = "number"


class Progress:
    """One line on stderr: rewritten in place on a terminal, else a plain line now and then when asked for."""

    def __init__(self, args: argparse.Namespace):
        """Reads `--progress` and looks at stderr."""
        self._tty = sys.stderr.isatty()
        self._on = self._tty or args.progress
        self._last = 0.0

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        """Shows that `done` of `total` are done."""
        now = time.monotonic()
        if not self._on or (now - self._last < (0.1 if self._tty else 1.0) and done != total):
            return
        self._last = now
        text = f"{what} {done}" + (f"/{total}" if total else "")
        sys.stderr.write(f"\r\x1b[K{text}" if self._tty else f"{text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Clears the line."""
        if self._on and self._tty:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def warn(*lines: str | None) -> list[str]:
    """Prints each warning that there is as a line of stderr, and returns them."""
    given = [line for line in lines if line is not None]
    for line in given:
        print(f"share-jax: warning: {line}", file=sys.stderr)
    return given


def emit(args: argparse.Namespace, data: Any, text: Callable[[], str]) -> None:
    """Prints the result: JSON with `--json`, else the text."""
    if args.json:
        print(json.dumps(data, indent=2, allow_nan=False))
    else:
        print(text())
