"""`share-jax diff SET TASK TASK`: how far two tasks' updates lie apart."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

from share_jax.adapter_set.store import read_set
from share_jax.cli.inputs import check_no_bank
from share_jax.cli.options import emit
from share_jax.cli.table import table
from share_jax.subspace.error_bounds import update_distance, update_norm
from share_jax.subspace.state import factors_of

EXAMPLE = "share-jax diff shared cola mrpc"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET", help="the set")
    parser.add_argument("tasks", nargs=2, metavar="TASK", help="the two tasks")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    check_no_bank(args.set)
    done = read_set(args.set)
    for task in args.tasks:
        done.task(task)

    first, second = (factors_of(done.state, task) for task in args.tasks)
    norms, distance = (update_norm(first), update_norm(second)), update_distance(first, second)
    layers: dict[str, dict[str, Any]] = {
        name: {
            "distance": float(distance[name]),
            "norms": [float(norm.get(name, 0.0)) for norm in norms],
        }
        for name in done.state.layers
        if name in distance
    }
    for entry in layers.values():
        entry["cosine"] = _cosine(entry["norms"], entry["distance"])
    total = math.sqrt(sum(entry["distance"] ** 2 for entry in layers.values()))
    sizes = [math.sqrt(sum(entry["norms"][i] ** 2 for entry in layers.values())) for i in (0, 1)]
    data = {
        "tasks": args.tasks,
        "distance": total,
        "norms": sizes,
        "relative_distance": total / sizes[0] if sizes[0] else None,
        "cosine": _cosine(sizes, total),
        "per_layer": layers,
    }

    def text() -> str:
        rows = [("layer", "distance", *args.tasks, "cosine")]
        rows += [
            (name, f"{e['distance']:.4g}", *(f"{n:.4g}" for n in e["norms"]), _shown(e["cosine"]))
            for name, e in [*layers.items(), ("all", {"distance": total, "norms": sizes, "cosine": data["cosine"]})]
        ]
        return table(rows)

    emit(args, data, text)
    return 0


def _cosine(norms: Sequence[float], distance: float) -> float | None:
    """The cosine of the angle between two updates of these norms at this distance."""
    x, y = norms
    if not x or not y:
        return None
    return max(-1.0, min(1.0, (x * x + y * y - distance * distance) / (2 * x * y)))


def _shown(cosine: float | None) -> str:
    return "-" if cosine is None else f"{cosine:.4f}"
