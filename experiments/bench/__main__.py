"""Speed, measured against what people would use instead.

    python -m experiments.bench train --peers .venv-peers/bin/python --json runs/bench/train.json
    python -m experiments.bench page runs/bench/*.json

Suites: train, prefix, serve, adapters, tasks, limit, forms. Each is raced in rounds: every case once per round, ours
and the peers' in turn, on the same threads; a plot is drawn beside the JSON. `page` writes experiments/BENCH.md from
the JSON of all suites. `input`, `scaling` and `memory` are further measurements with options of their own: see their
--help.
"""

import argparse
import runpy
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.bench.machine import Watch, machine, use_threads
from share_jax.errors import ShareError, message
from share_jax.runtime.malloc import keep_freed

SUITES = ("train", "prefix", "serve", "adapters", "tasks", "limit", "forms")
MODULES = {
    "limit": "experiments.bench.roofline",
    "forms": "experiments.studies.alternatives.race",
    "scaling": "experiments.studies.scaling.run",
}
"""The modules that are not called as their suite or measurement."""
OTHERS = ("input", "scaling", "memory")
PAGE = Path("experiments/BENCH.md")


def module_of(name: str) -> str:
    """The module of a suite or a further measurement."""
    return MODULES.get(name, f"experiments.bench.{name}")


def measure(suite: str, args: argparse.Namespace, memory_kept: bool) -> dict[str, Any]:
    """Runs a suite and returns its document. What starts JAX is imported in here, after the threads are set."""
    threads = use_threads(args.threads)
    from experiments.bench.peer import Peer, versions_of
    from experiments.bench.record import document
    from experiments.bench.suite import Options
    from experiments.report.versions import versions

    watch, folder = Watch(), args.workdir or Path(tempfile.mkdtemp(prefix="bench-"))
    options = Options(args.rounds, folder, tiny=args.tiny, quiet=args.quiet, only=args.only)
    peer = Peer(args.peers, threads) if args.peers else None
    try:
        found = import_module(module_of(suite)).run(options, peer)
        if not found.results:
            fix = "python -m experiments.bench SUITE without --only names every part"
            raise ShareError(message("--only", got=repr(args.only), expected="a part of the suite", fix=fix))
        children = [peer.process.pid] if peer else []
        return document(
            suite,
            found.results,
            found.ratios,
            {**versions(), **versions_of(peer)},
            machine={**machine(threads), "memory_kept": memory_kept, **watch.found(children)},
            rounds=args.rounds,
            tiny=args.tiny,
            **found.further,
        )
    finally:
        if peer:
            peer.close()
        if args.workdir is None:
            import shutil

            shutil.rmtree(folder, ignore_errors=True)


def shown(found: dict[str, Any]) -> str:
    """The document as text for a terminal."""
    rows = [(f"{r['case']}, {r['system']}", r) for r in found["results"]]
    wide = max(len(name) for name, _ in rows)
    lines = [f"{n:{wide}} {1000 * r['median_s']:9.1f} ms, interquartile {1000 * r['iqr_s']:.1f}" for n, r in rows]
    lines += ["", *(f"{name}: {value:.3f}" for name, value in found["ratios"].items()), ""]
    for bar in found["bars"]:
        verdict = "met" if bar["met"] else "NOT MET"
        lines.append(f"{verdict:8} {bar['name']}: {bar['value']:.3f}, limit {bar['limit']:.3f}")
    lines += [f"not measured: {pattern}" for pattern in found["not_measured"]]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line of the suites."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("name", choices=(*SUITES, "page", *OTHERS), help="what to measure, or page")
    made.add_argument("documents", nargs="*", type=Path, help="for page: the suites' JSON files")
    made.add_argument("--json", type=Path, help="where the document goes; the plot goes beside it, as PNG")
    made.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter of an environment with the peers")
    made.add_argument("--rounds", type=int, default=20, help="repetitions of what bars are read from (20)")
    made.add_argument("--threads", type=int, help="processors to run on, for both sides; all when left out")
    made.add_argument("--workdir", type=Path, help="folder for files that are measured; a temporary one when left out")
    made.add_argument("--tiny", action="store_true", help="a smoke test in seconds; its figures mean nothing")
    made.add_argument("--only", default="", metavar="REGEX", help="parts to run, such as 'vit, query.*float32'")
    made.add_argument("--quiet", action="store_true", help="no progress")
    made.add_argument("--out", type=Path, default=PAGE, help=f"for page: where it goes ({PAGE})")
    return made


def main(argv: Sequence[str] | None = None, *, memory_kept: bool = False) -> int:
    """Runs what is asked for; 0, or 2 for bad input or a peer that fails.

    Args:
        argv: the words of the command line; the process's own when None.
        memory_kept: whether the process keeps freed memory, for the record.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in OTHERS:
        sys.argv = [f"python -m experiments.bench.{words[0]}", *words[1:]]
        runpy.run_module(module_of(words[0]), run_name="__main__")
        return 0
    args = parser().parse_args(words)
    try:
        if args.rounds < 1:
            raise ShareError(message("--rounds", got=args.rounds, expected="at least 1", fix="pass 20"))
        if args.name == "page":
            from experiments.bench.page import page
            from experiments.bench.record import read

            if not args.documents:
                raise ShareError(message("documents", got="none", expected="JSON files", fix="page runs/bench/*.json"))
            text = page([read(path) for path in args.documents])
            args.out.write_text(text, encoding="utf-8")
            print(f"wrote {args.out}")
            return 0
        found = measure(args.name, args, memory_kept)
        print(shown(found))
        if args.json:
            from experiments.bench.plot import plot
            from experiments.bench.record import write

            write(args.json, found)
            picture = args.json.with_suffix(".png")
            plot(found, picture)
            print(f"wrote {args.json} and {picture}")
    except ShareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(memory_kept=keep_freed()))
