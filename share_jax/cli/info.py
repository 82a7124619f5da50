"""`share-jax info SET`: the figures of a set."""

import argparse
import time

from share_jax.adapter_set.store import read_set
from share_jax.cli.inputs import check_no_bank
from share_jax.cli.options import emit
from share_jax.cli.report import summary, text

EXAMPLE = "share-jax info shared --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET", help="the set")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    check_no_bank(args.set)
    done = read_set(args.set)
    data = summary(done.folder, done, time.perf_counter() - begin)
    emit(args, data, lambda: text(args.set, data))
    return 0
