"""`share-jax bench SET`: how long it takes to load, reconstruct and export, and what the files weigh."""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from share_jax.adapter_set.store import read_set
from share_jax.cli.inputs import check_no_bank
from share_jax.cli.options import Progress, emit, whole
from share_jax.cli.report import megabytes, size_change, summary
from share_jax.cli.table import table
from share_jax.formats.format import writer
from share_jax.subspace.state import factors_of

EXAMPLE = "share-jax bench shared"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET", help="the set")
    parser.add_argument("--repeat", type=whole, default=3, metavar="N", help="runs of each; the median is shown (3)")
    parser.add_argument("--tasks", type=whole, default=20, metavar="N", help="tasks to take, evenly spread (20)")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    progress = Progress(args)
    begin = time.perf_counter()
    check_no_bank(args.set)
    load = _median(lambda: read_set(args.set), args.repeat)
    progress("measured", 1, 3)
    done = read_set(args.set)
    data = summary(done.folder, done, 0.0)

    names = spread(list(done.manifest.tasks), args.tasks)
    rebuild = [_median(lambda n=name: factors_of(done.state, n), args.repeat) for name in names]
    progress("measured", 2, 3)
    with tempfile.TemporaryDirectory() as temp:
        export = []
        sizes = []
        for i, name in enumerate(names):
            entry = done.task(name)
            out = Path(temp) / str(i)
            out.mkdir()
            start = time.perf_counter()
            adapter = factors_of(done.state, name)
            extras = done.extras(name)
            config = done.manifest.configs[entry.config]
            writer("PEFT")(out, adapter, config, extras, entry.metadata, entry.dtype, done.manifest.forms)
            export.append(time.perf_counter() - start)
            sizes.append(sum(path.stat().st_size for path in out.iterdir()))
    progress("measured", 3, 3)
    progress.close()
    result = {
        "tasks": data["tasks"],
        "measured_tasks": len(names),
        "seconds": {
            "load": load,
            "reconstruct_per_task": _middle(rebuild),
            "export_per_task": _middle(export),
            "total": time.perf_counter() - begin,
        },
        "bytes_in": data["bytes_in"],
        "bytes_out": data["bytes_out"],
        "exported_bytes_per_task": _middle(sizes),
        "ratio": data["ratio"],
        "ratio_without_basis": data["bytes_in"] / max(data["bytes_out"] - data["bytes"]["basis"], 1),
        "coefficients_ratio": data["coefficients"]["ratio"],
    }
    rows = [
        ("load the set", f"{load * 1e3:.1f} ms"),
        ("reconstruct a task", f"{result['seconds']['reconstruct_per_task'] * 1e3:.2f} ms"),
        ("export a task", f"{result['seconds']['export_per_task'] * 1e3:.2f} ms"),
        ("originals", megabytes(data["bytes_in"])),
        ("the set", f"{megabytes(data['bytes_out'])}, {size_change(data['ratio'])}"),
        ("the set without its bases", size_change(result["ratio_without_basis"], 1)),
        ("one task's coefficients", f"{size_change(result['coefficients_ratio'], 1)} than its LoRA"),
    ]
    emit(args, result, lambda: table(rows))
    return 0


def spread(names: Sequence[str], most: int) -> list[str]:
    """At most that many of the names, evenly spread from the first to the last.

    >>> spread("abcdefg", 3)
    ['a', 'd', 'g']
    """
    count = min(most, len(names))
    return [names[i * (len(names) - 1) // max(count - 1, 1)] for i in range(count)]


def _median(call: Callable[[], object], repeat: int) -> int | float:
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return _middle(times)


def _middle(values: list) -> int | float:
    return sorted(values)[len(values) // 2]
