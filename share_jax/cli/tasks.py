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
    tasks = {name: {**_info(store, name), **_size(store, name)} for name in names}
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


def _inflight(store: Any) -> dict[str, Any] | None:
    record = None if store is None else store.manifest.inflight
    return None if record is None else {"task": record["info"]["task"], "updates": record["info"]["step"]}


def _text(data: dict[str, Any]) -> str:
    head = [("task", "parameters", "size", "examples", "exact match", "bits per byte")]
    rows = []
    for name, task in data["tasks"].items():
        found = task["scores"] or {}
        exact = f"{found['exact_match']:.1%}" if found else "-"
        bits = f"{found['bits_per_byte']:.4f}" if found else "-"
        known = (f"{task['parameters']:,}", megabytes(task["bytes"]), str(task["examples"]))
        rows.append((name, *known, exact, bits))
    first = f"{data['bank']}: {len(rows)} tasks of {data['model']}, {data['method']}, rank {data['rank']}"
    more = (
        []
        if data["in_flight"] is None
        else [f"in flight: {data['in_flight']['task']}, {data['in_flight']['updates']} updates"]
    )
    return "\n".join([first, *([table(head + rows)] if rows else []), *more])
