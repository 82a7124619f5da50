"""What the command lines of the bench and of `experiments.studies.alternatives` share: options, a measured run."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from experiments.bench.machine import Watch, machine, use_threads
from share_jax.errors import ShareError, message

ACCELERATED = ("gpu",)
"""Suites that do not run on the CPU alone."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a race."""
    parser.add_argument("--json", type=Path, help="where the document goes; the plot goes beside it, as PNG")
    parser.add_argument("--rounds", type=int, default=20, help="repetitions of what bars are read from (20)")
    parser.add_argument("--threads", type=int, help="processors to run on, for both sides; all when left out")
    parser.add_argument("--workdir", type=Path, help="folder for measured files; a temporary one when left out")
    parser.add_argument("--tiny", action="store_true", help="a smoke test in seconds; its figures mean nothing")
    parser.add_argument("--only", default="", metavar="REGEX", help="parts to run, such as 'vit, query.*float32'")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def guarded(work: Callable[[], object]) -> int:
    """Does the work of a command line: 0, or 2 and one line for bad input or a peer that fails."""
    try:
        work()
    except ShareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(suite: str, module: str, args: argparse.Namespace, memory_kept: bool) -> dict[str, Any]:
    """Runs a suite, prints what it found, and writes its document and plot where `args.json` says.

    What starts JAX is imported in here, after the threads are set.

    Args:
        suite: its name in the document.
        module: has the suite's `run`.
        args: of `add_options`; `peers` may be among them.
        memory_kept: whether the process keeps freed memory, for the record.
    """
    if args.rounds < 1:
        raise ShareError(message("--rounds", got=args.rounds, expected="at least 1", fix="pass 20"))
    if suite in ACCELERATED:
        os.environ.setdefault("JAX_PLATFORMS", "")  # whatever there is
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peers' process has its share
    threads = use_threads(args.threads)
    from experiments.bench.peer import Peer

    peers: Path | None = getattr(args, "peers", None)
    if peers is None and suite in ACCELERATED and not args.tiny and find_spec("peft") is not None:
        peers = Path(sys.executable)
    folder = args.workdir or Path(tempfile.mkdtemp(prefix="bench-"))
    watch = Watch()
    peer = Peer(peers, threads) if peers else None
    try:
        made_on = {**machine(threads), "memory_kept": memory_kept}
        found = _document(suite, module, args, folder, peer)
        children = [peer.process.pid] if peer else []
        found["machine"] = {**made_on, **watch.found(children)}
    finally:
        if peer:
            peer.close()
        if args.workdir is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(shown(found))
    if args.json:
        from experiments.bench.record import write

        write(args.json, found)
        print(f"wrote {args.json}{_drawn(found, args.json.with_suffix('.png'))}")
    return found


def _drawn(found: dict[str, Any], picture: Path) -> str:
    """Draws the document where there is matplotlib; what was written besides."""
    if find_spec("matplotlib") is None:
        return ", and no plot without matplotlib"
    from experiments.bench.plot import plot

    plot(found, picture)
    return f" and {picture}"


def _document(suite: str, module: str, args: argparse.Namespace, folder: Path, peer: Any) -> dict[str, Any]:
    from experiments.bench.peer import versions_of
    from experiments.bench.record import document
    from experiments.bench.suite import Options
    from experiments.report.versions import versions

    options = Options(args.rounds, folder, tiny=args.tiny, quiet=args.quiet, only=args.only)
    found = import_module(module).run(options, peer)
    if not found.results:
        fix = "leave --only out to run every part"
        raise ShareError(message("--only", got=repr(args.only), expected="a part of the suite", fix=fix))
    return document(
        suite,
        found.results,
        found.ratios,
        {**versions(), **versions_of(peer)},
        rounds=args.rounds,
        tiny=args.tiny,
        **found.further,
    )


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
