"""One report of one or several runs, made from their `results.json` alone.

    python -m experiments.report runs/newsgroups10 runs/clinc150 --output runs/report

Writes `report.html`, one page that fetches nothing and needs no JavaScript, `report.md` with its figures, `report.csv`
and `report.json`. Runs that differ in methods and seeds alone share a table; every other stream, protocol or setting is
a section of its own.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from share_jax.errors import InputError, ShareError, message


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 when the report is written, 2 for bad usage or input."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help="a run's folder, or a results.json")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/report"), help="folder (default: runs/report)")
    parser.add_argument("--overwrite", action="store_true", help="replace the report that is in the folder")
    args = parser.parse_args(argv)
    try:
        _check(args.output, args.overwrite)
        from experiments.report.page import CSV, JSON, MARKDOWN, write_page
        from experiments.report.sections import load_sections

        page = write_page(load_sections(args.workdirs), args.output)
    except ShareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in (page, *(page.with_name(name) for name in (MARKDOWN, CSV, JSON))):
        print(path)
    return 0


def _check(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(message(f"--output {output}", got="a file", expected="a folder", fix="choose another name"))
    taken = [name for name in ("report.html", "report.md") if (output / name).exists()]
    if taken and not overwrite:
        fix = "add --overwrite to replace it, or choose another folder"
        raise InputError(message(f"--output {output}", got=f"a folder with {taken[0]}", expected="no report", fix=fix))


if __name__ == "__main__":
    sys.exit(main())
