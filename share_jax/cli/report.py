"""The figures of a set, from its files and its state."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.adapter_set.store import AdapterSet, stored_bytes
from share_jax.cli.table import table
from share_jax.storage.safetensors_file import TensorFile
from share_jax.subspace.state import report


def summary(folder: Path, done: AdapterSet, seconds: float) -> dict[str, Any]:
    """What `compress`, `add` and `info` print; bytes are those of the files on the disk."""
    manifest = done.manifest
    files = stored_bytes(folder, manifest)
    bytes_in, bytes_out = sum(t.bytes_in for t in manifest.tasks.values()), sum(files.values())
    reports = report(done.state)
    per_task = {
        name: {
            "relative_error": task.relative_error,
            "error_bound": task.cut + reports[name].error_bound,
            "last_change": reports[name].relative_change,
            "measured": task.measured,
        }
        for name, task in manifest.tasks.items()
    }
    errors = [task["relative_error"] for task in per_task.values()] or [0.0]
    ks = [k for entry in manifest.layers.values() for k in entry.num_basis] or [0]
    return {
        "tasks": len(manifest.tasks),
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "ratio": bytes_in / bytes_out,
        "relative_error": {"mean": float(np.mean(errors)), "max": max(errors)},
        "per_task": per_task,
        "k": {"min": min(ks), "mean": float(np.mean(ks)), "max": max(ks)},
        "base_model": manifest.base_model,
        "storage": manifest.storage,
        "geometry": _geometries(done),
        "layers": len(manifest.layers),
        "bytes": {
            "basis": files.get(manifest.basis, 0),
            "coefficients": files.get(manifest.coefficients, 0),
            "uncompressed_tensors": sum(size for name, size in files.items() if name.startswith("extra-")),
            "manifest": files["manifest.json"],
        },
        "coefficients": coefficients(done),
        "seconds": seconds,
    }


def coefficients(done: AdapterSet) -> dict[str, float]:
    """What one task adds to the set, its coefficients and what decodes them, beside its LoRA factors.

    Bytes are those of the tensors in the file, without the tables and the header.
    """
    manifest, state = done.manifest, done.state
    numbers = 0.0
    for layer in state.layers.values():
        columns = np.minimum(layer.ranks, 1) if layer.geometry == "flat" else layer.ranks
        numbers += float(columns.sum()) * sum(layer.num_basis)
    with TensorFile(done.folder, manifest.coefficients) as file:
        own = sum(info.size for name, info in file.tensors.items() if ".coeff_" in name)
    lora, count = sum(task.lora_bytes for task in manifest.tasks.values()), max(len(manifest.tasks), 1)
    return {
        "numbers_per_task": numbers / count,
        "bytes_per_task": own / count,
        "lora_bytes_per_task": lora / count,
        "ratio": lora / max(own, 1),
    }


def _geometries(done: AdapterSet) -> dict[str, int]:
    found = [entry.geometry for entry in done.manifest.layers.values()]
    return {name: found.count(name) for name in sorted(set(found))}


def text(folder: object, data: Mapping[str, Any], tasks: int = 20) -> str:
    """The figures for a person."""
    k = data["k"]
    size = f"{megabytes(data['bytes_in'])} -> {megabytes(data['bytes_out'])}"
    rows = [
        ("tasks", str(data["tasks"])),
        ("base model", str(data["base_model"])),
        ("size", f"{size} ({size_change(data['ratio'])})"),
        ("one more task", f"{megabytes(data['coefficients']['bytes_per_task'])} "
                          f"({size_change(data['coefficients']['ratio'], 1)} than its LoRA)"),
        ("layers", f"{data['layers']}, k {k['min']} to {k['max']} (mean {k['mean']:.1f}), {data['storage']}, "
                   + ", ".join(data["geometry"])),
        ("relative error", f"mean {data['relative_error']['mean']:.3g}, max {data['relative_error']['max']:.3g}"),
        ("seconds", f"{data['seconds']:.2f}"),
    ]  # fmt: skip
    per_task = list(data["per_task"].items())
    compared = {"null_error": "at random", "cut_error": "cut alone"} if "null_error" in data else {}
    for name, what in zip(
        compared, ("random adapters of the same spectra", "each cut alone to the same bytes"), strict=False
    ):
        rows.insert(-1, (compared[name], f"mean {data[name]['mean']:.3g}, max {data[name]['max']:.3g} ({what})"))
    head = [("task", "relative error", *compared.values(), "error bound")]
    body = [
        (name, f"{t['relative_error']:.3g}" + ("" if t["measured"] else " (estimate)"),
         *(f"{t[each]:.3g}" for each in compared), f"{t['error_bound']:.3g}")
        for name, t in per_task[:tasks]
    ]  # fmt: skip
    more = [f"... and {len(per_task) - tasks} more (all with --json)"] if len(per_task) > tasks else []
    return "\n".join([str(folder), table(rows), "", table(head + body), *more])


def size_change(ratio: float, digits: int = 2) -> str:
    """How many times smaller something has become, or larger, from the ratio of its old size to its new one.

    >>> size_change(4.0), size_change(0.5, 1)
    ('4.00x smaller', '2.0x larger')
    """
    if ratio >= 1:
        return f"{ratio:.{digits}f}x smaller"
    return f"{1 / ratio if ratio else math.inf:.{digits}f}x larger"


def counted(adapters: int) -> str:
    """So many adapters, in words.

    >>> counted(1), counted(12)
    ('1 adapter', '12 adapters')
    """
    return f"{adapters} adapter{'' if adapters == 1 else 's'}"


def megabytes(count: int | float) -> str:
    """Bytes in the unit that reads best."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f} B"
