"""Speed, measured against what people would use instead.

    python -m experiments.bench train --peers .venv-peers/bin/python --json runs/bench/train.json
    python -m experiments.bench page runs/bench/*.json

Suites: train, prefix, serve, adapters, tasks, roofline, lm, gpu, tests. Each is raced in rounds: every case once per
round, ours and the peers' in turn, on the same threads; a plot is drawn beside the JSON. `page` writes
experiments/BENCH.md from the JSON of all suites. `input` and `memory` are further measurements with options of their
own: see their --help. `gpu` is for a machine with a GPU, whose interpreter may have the peers itself.
"""

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.bench.command import add_options, guarded, measure
from experiments.bench.page import page
from experiments.bench.record import SUITES, read
from share_jax.errors import ShareError, message
from share_jax.runtime.malloc import keep_freed

OTHERS = ("input", "memory")
PAGE = Path("experiments/BENCH.md")


def parser() -> argparse.ArgumentParser:
    """The command line of the suites."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("name", choices=(*SUITES, "page", *OTHERS), help="what to measure, or page")
    made.add_argument("documents", nargs="*", type=Path, help="for page: the suites' JSON files")
    made.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter of an environment with the peers")
    made.add_argument("--out", type=Path, default=PAGE, help=f"for page: where it goes ({PAGE})")
    add_options(made)
    return made


def write_page(documents: Sequence[Path], out: Path) -> None:
    """Writes the page of the suites' documents.

    Raises:
        ShareError: there are none, or one cannot be read.
    """
    if not documents:
        raise ShareError(message("documents", got="none", expected="JSON files", fix="page runs/bench/*.json"))
    out.write_text(page([read(path) for path in documents]), encoding="utf-8")
    print(f"wrote {out}")


def main(argv: Sequence[str] | None = None, *, memory_kept: bool = False) -> int:
    """Runs what is asked for; 0, or 2 for bad input or a peer that fails.

    Args:
        argv: the words of the command line; the process's own when None.
        memory_kept: whether the process keeps freed memory, for the record.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in OTHERS:
        module = f"experiments.bench.{words[0]}"
        sys.argv = [f"python -m {module}", *words[1:]]
        runpy.run_module(module, run_name="__main__")
        return 0
    args = parser().parse_args(words)
    if args.name == "page":
        return guarded(lambda: write_page(args.documents, args.out))
    return guarded(lambda: measure(args.name, f"experiments.bench.{args.name}", args, memory_kept))


if __name__ == "__main__":
    sys.exit(main(memory_kept=keep_freed()))
