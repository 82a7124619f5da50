"""`share-jax tasks BANK`: what a language model's bank holds."""

import argparse
import math
from pathlib import Path
from typing import Any

from share_jax import bank, checkpoint
from share_jax.cli.options import emit
from share_jax.cli.report import megabytes
from share_jax.cli.table import table
from share_jax.language.settings import read_settings
from share_jax.subspace.state import report

EXAMPLE = "share-jax tasks bank"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bank", metavar="BANK", help="the folder of the tasks")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    settings = read_settings(args.bank)
    # What a manifest says needs JAX; that there is no bank is told without.
    from share_jax.checkpoint.manifest import exists

    store = checkpoint.open_checkpoint(args.bank) if exists(Path(args.bank)) else None
    names = () if store is None else store.names
    bounds = _bounds(store) if names else {}
    tasks = {name: {**_info(store, name), **_size(store, name), "error_bound": bounds.get(name)} for name in names}
    data = {
        "bank": str(args.bank),
        "model": settings.model,
        "method": settings.method,
        "rank": settings.rank,
        "tasks": tasks,
        "in_flight": _inflight(store),
    }
    emit(args, data, lambda: _text(data))
    return 0


def _info(store: Any, name: str) -> dict[str, Any]:
    info = store.info(name)
    return {key: info.get(key) for key in ("examples", "steps", "loss", "scores")}


def _size(store: Any, name: str) -> dict[str, int]:
    leaves = store.record(name)["leaves"].values()
    size = bank.bytes_on_disk(store.root / store.record(name)["path"])
    return {"parameters": sum(math.prod(leaf["shape"]) for leaf in leaves), "bytes": size}


def _bounds(store: Any) -> dict[str, float]:
    """The proven error of every task's update, relative to its norm, of one evolving subspace."""
    from share_jax.checkpoint.state_leaves import holds_state, saved_state  # loads JAX, as above

    if not holds_state(store):
        return {}
    return {name: each.error_bound for name, each in report(saved_state(store)[0]).items()}


def _inflight(store: Any) -> dict[str, Any] | None:
    record = None if store is None else store.manifest.inflight
    return None if record is None else {"task": record["info"]["task"], "updates": record["info"]["step"]}


def _text(data: dict[str, Any]) -> str:
    bounded = any(task["error_bound"] is not None for task in data["tasks"].values())
    head = [("task", "parameters", "size", "examples", "exact match", "bits per byte", *["error at most"] * bounded)]
    rows = []
    for name, task in data["tasks"].items():
        found = task["scores"] or {}
        exact = f"{found['exact_match']:.1%}" if found else "-"
        bits = f"{found['bits_per_byte']:.4f}" if found else "-"
        examples = "-" if task["examples"] is None else str(task["examples"])
        bound = () if task["error_bound"] is None else (f"{task['error_bound']:.2g}",)
        rows.append((name, f"{task['parameters']:,}", megabytes(task["bytes"]), examples, exact, bits, *bound))
    first = f"{data['bank']}: {len(rows)} tasks of {data['model']}, {data['method']}, rank {data['rank']}"
    more = (
        []
        if data["in_flight"] is None
        else [f"in flight: {data['in_flight']['task']}, {data['in_flight']['updates']} updates"]
    )
    return "\n".join([first, *([table(head + rows)] if rows else []), *more])
