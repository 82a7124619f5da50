"""`share-jax info OUT`: the figures of a set."""

import argparse
import time
from typing import Any

from share_jax.cli.options import command, emit


def add_parser(subparsers: Any) -> None:
    """Adds the command."""
    parser = command(
        subparsers, "info", run, "Show a set's tasks, sizes, errors and proven bounds.", "share-jax info shared --json"
    )
    parser.add_argument("set", metavar="OUT", help="the set")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from share_jax.adapter_set.store import read_set
    from share_jax.cli.report import summary, text

    begin = time.perf_counter()
    done = read_set(args.set)
    data = summary(done.folder, done, time.perf_counter() - begin)
    emit(args, data, lambda: text(args.set, data))
    return 0
