"""Other forms of the library's own computations, raced against those that it has.

    python -m experiments.studies.alternatives --json experiments/studies/alternatives/alternatives.json \
        --markdown experiments/studies/alternatives/ALTERNATIVES.md

`experiments.studies.alternatives.run` says what the parts are, by the names that `--only` takes. `--rows JSON` makes
the page of a document alone, and runs nothing. About five minutes on two free cores.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.bench.command import add_options, guarded, measure
from experiments.bench.page import section, versions_line
from experiments.bench.record import read
from share_jax.runtime.malloc import keep_freed

STUDY = "alternatives"


def page(found: dict[str, Any]) -> str:
    """The Markdown text of the study's document."""
    lines = [
        "# Alternatives: other forms of the same computations",
        "",
        "Written by `python -m experiments.studies.alternatives --json"
        " experiments/studies/alternatives/alternatives.json"
        " --markdown experiments/studies/alternatives/ALTERNATIVES.md`; do not change it by hand.",
        "",
        "Every case is run once per round, the library's form and the others in turn. A figure is a median over the"
        " rounds; a ratio is the median of the rounds' own ratios. There are no bars: a ratio above 1 says why the"
        " library has the form that it has.",
        "",
        *section(found, "Results"),
        "## Versions",
        "",
        versions_line([found]),
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None, *, memory_kept: bool = False) -> int:
    """Runs the study, and writes JSON, plot and page; 2 for bad input.

    Args:
        argv: the words of the command line; the process's own when None.
        memory_kept: whether the process keeps freed memory, for the record.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.studies.{STUDY}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument("--markdown", type=Path, help="where the page goes")
    parser.add_argument("--rows", type=Path, help="make the page of this JSON alone, and run nothing")
    args = parser.parse_args(argv)

    def work() -> None:
        module = f"experiments.studies.{STUDY}.run"
        found = read(args.rows, (STUDY,)) if args.rows else measure(STUDY, module, args, memory_kept)
        if args.markdown:
            args.markdown.write_text(page(found), encoding="utf-8")
            print(f"wrote {args.markdown}")

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main(memory_kept=keep_freed()))
