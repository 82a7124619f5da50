"""`share-jax validate SET`: every check there is; exit status 1 if one fails."""

import argparse
import os
import time
from typing import Any

import numpy as np

from share_jax.adapter_set.build import adapters_of
from share_jax.adapter_set.manifest import is_leftover, read_manifest
from share_jax.adapter_set.store import AdapterSet, check_files, read_set
from share_jax.cli.inputs import check_no_bank, open_inputs
from share_jax.cli.options import Progress, add_task_names, emit
from share_jax.errors import FormatError, InputError, message
from share_jax.storage.untrusted import check_folder
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.state import factors_of, report

_ORTHONORMAL = {"f32": 1e-4, "bf16": 2e-2, "int8": 5e-2}
"""Largest entry of basis.T @ basis - I that is let pass, by storage."""


EXAMPLE = "share-jax validate shared --against adapters/*"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("set", metavar="SET", help="the set")
    parser.add_argument("--against", nargs="+", metavar="DIR", help="original adapters, to measure the true errors")
    add_task_names(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    begin = time.perf_counter()
    check_no_bank(args.set)
    folder = check_folder(args.set, "set")
    if args.name and not args.against:
        fix = "add --against DIR, or leave it out"
        raise InputError(message("--name", got=", ".join(args.name), expected="none without --against", fix=fix))
    sources = open_inputs(args.against, tasks=args.name) if args.against else []
    failed: list[str] = []
    leftovers: list[str] = []
    measured: dict[str, dict[str, float]] = {}
    try:
        manifest = read_manifest(folder)
        failed += [str(error) for error in check_files(folder, manifest)]
        leftovers = sorted(n for n in os.listdir(folder) if is_leftover(n) and n not in manifest.files)
        if not failed:
            done = read_set(folder)
            failed += list(_arrays(done))
            measured, past = _against(done, sources, Progress(args))
            failed += past
    except FormatError as e:
        failed.append(str(e))
    data = {
        "valid": not failed,
        "failed": failed,
        "leftovers": leftovers,
        "measured": measured,
        "seconds": time.perf_counter() - begin,
    }

    def text() -> str:
        lines = [f"failed: {line}" for line in failed] or [f"{args.set}: valid"]
        lines += [f"left by a killed command, ignored: {name}" for name in leftovers]
        lines += [
            f"{n}: relative error {m['relative_error']:.4g}, bound {m['error_bound']:.4g}" for n, m in measured.items()
        ]
        return "\n".join(lines)

    emit(args, data, text)
    return 1 if failed else 0


def _arrays(done: AdapterSet) -> Any:

    for name, layer in done.state.layers.items():
        for side, basis in (("basis_a", layer.basis_a), ("basis_b", layer.basis_b)):
            gram = np.asarray(basis, np.float64).T @ np.asarray(basis, np.float64)
            off = float(np.abs(gram - np.eye(len(gram))).max(initial=0))
            if off > _ORTHONORMAL[done.manifest.storage]:
                yield f"{name}.{side}: columns are off orthonormal by {off:.2g}"
        for table in ("norm", "change", "bound", "energy_a", "energy_b"):
            if (getattr(layer, table) < 0).any():
                yield f"{name}: a negative {table}"
    for task in done.manifest.tasks:
        done.extras(task)


def _against(done: AdapterSet, sources: list, progress: Progress) -> tuple[dict[str, dict[str, float]], list[str]]:
    """(each original's measured error and bound, the tasks whose error is above their bound)."""
    measured, past = {}, []
    reports = report(done.state) if sources else {}
    for i, (name, adapter) in enumerate(adapters_of(sources, None)):
        bound = done.task(name).cut + reports[name].error_bound
        error = relative_distance(adapter, factors_of(done.state, name))
        measured[name] = {"relative_error": float(error), "error_bound": bound}
        if error > bound * 1.001 + 1e-6:
            past.append(f"{name}: measured error {error:.4g} is above the bound {bound:.4g}")
        progress("compared", i + 1, len(sources))
    progress.close()
    return measured, past
