"""How a state's arrays lie in the two files of a set.

`basis` holds `{layer}.basis_a` (d_in, k) and `{layer}.basis_b` (d_out, k'); `coefficients` holds `{layer}.coeff_a`
(k, P) and `{layer}.coeff_b` (k', P), the columns of all tasks side by side without padding. In int8 each has a
`.scale`, one float32 per column, and the `coeff_a` of a task in the pivoted gauge (`share_jax.adapter_set.int8_gauge`)
lies apart: `{layer}.coeff_a.pivots` are the rows that are the identity, `{layer}.coeff_a.rest` the other rows, task
after task. What is left are small tables, one row per layer and one column per task.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from share_jax.adapter_set.int8_gauge import UNIT, identity_rows
from share_jax.adapter_set.manifest import LayerEntry, Manifest
from share_jax.errors import FormatError, message
from share_jax.storage.safetensors_file import TensorFile, numpy_dtype
from share_jax.storage.untrusted import shown
from share_jax.subspace.quantize import Stored, StoredLayer, restore_layer
from share_jax.subspace.state import ShareState, Subspace

TABLES = ("norm", "energy_a", "energy_b", "change", "bound")
"""Per layer and task, float32; `bound` is rounded up, so that it stays a bound."""

_DTYPES = {"f32": "F32", "bf16": "BF16", "int8": "I8"}


def layer_entry(layer: Subspace) -> LayerEntry:
    """The sizes of a layer, as the manifest keeps them."""
    d_in, d_out = layer.shape
    return LayerEntry(d_in, d_out, layer.geometry, layer.num_basis, layer.pseudo_rank)


def encode_state(
    state: ShareState, stored: Mapping[str, "StoredLayer"]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(tensors of the basis file, tensors of the coefficients file)."""
    basis: dict[str, np.ndarray] = {}
    coefficients: dict[str, np.ndarray] = {}
    pivoted = np.zeros((len(state.layers), len(state.tasks)), np.uint8)
    for i, (name, layer) in enumerate(state.layers.items()):
        columns = _columns(layer.ranks, layer.coeff_a.shape[2], layer.geometry)
        for side in "ab":
            part: Stored = getattr(stored[name], f"basis_{side}")
            basis[f"{name}.basis_{side}"] = part.values
            if part.scales is not None:
                basis[f"{name}.basis_{side}.scale"] = part.scales
            part = getattr(stored[name], f"coeff_{side}")
            keep = columns
            if part.scales is not None:
                if side == "a" and layer.geometry == "columns":
                    pivots, rest = _take_identities(part, layer.ranks)
                    pivoted[i, list(pivots)] = 1
                    keep = columns & (pivoted[i] == 0)[:, None]
                    if pivots:
                        rows = np.concatenate(list(pivots.values()))
                        coefficients[f"{name}.coeff_a.pivots"] = rows.astype(_row_dtype(layer.num_basis[0]))
                        coefficients[f"{name}.coeff_a.rest"] = rest
                coefficients[f"{name}.coeff_{side}.scale"] = part.scales.reshape(columns.shape)[keep]
            coefficients[f"{name}.coeff_{side}"] = np.moveaxis(np.asarray(part.values), 0, 1)[:, keep]
    if any(x.scales is not None for layer in stored.values() for x in (layer.basis_a,)):
        coefficients["pivoted"] = pivoted
    layers = list(state.layers.values())
    for table in TABLES:
        exact = np.array([getattr(layer, table) for layer in layers], np.float64).reshape(len(layers), -1)
        short = exact.astype(np.float32)
        if table == "bound":
            short = np.where(short < exact, np.nextafter(short, np.float32(np.inf)), short)
        coefficients[table] = short
    coefficients["ranks"] = np.array([layer.ranks for layer in layers], np.int32).reshape(len(layers), -1)
    return basis, coefficients


def decode_state(
    manifest: Manifest, basis: TensorFile, coefficients: TensorFile
) -> "tuple[ShareState, dict[str, StoredLayer]]":
    """The state that the two files hold, and its arrays as they are stored.

    Raises:
        FormatError: a tensor is missing, unexpected, or of another shape, dtype or value than the manifest says.
    """
    tasks = tuple(manifest.tasks)
    size = (len(manifest.layers), len(tasks))
    tables = {table: _read(coefficients, table, size, "F32").astype(np.float64) for table in TABLES}
    ranks = _read(coefficients, "ranks", size, "I32")
    expected = {"ranks", *TABLES}
    dtype = _DTYPES[manifest.storage]
    pivoted = np.zeros(size, bool)
    if dtype == "I8":
        expected.add("pivoted")
        pivoted = _read(coefficients, "pivoted", size, "U8") != 0
    layers, stored = {}, {}
    for i, (name, entry) in enumerate(manifest.layers.items()):
        flat = entry.geometry == "flat"
        width = 1 if flat else entry.pseudo_rank
        if ranks[i].min(initial=0) < 0 or ranks[i].max(initial=0) > entry.pseudo_rank:
            raise _wrong(coefficients, "ranks", f"{ranks[i].max(initial=0)}", f"0 to {entry.pseudo_rank}")
        columns = _columns(ranks[i], width, entry.geometry)
        if (pivoted[i] & (flat | (ranks[i] < 1) | (ranks[i] >= entry.num_basis[0]))).any():
            raise _wrong(coefficients, "pivoted", "a task that cannot be", "ranks from 1 to below k")
        parts: dict[str, Stored] = {}
        for side, d, k in zip("ab", (entry.d_in, entry.d_out), entry.num_basis, strict=True):
            rows = d * entry.pseudo_rank if flat else d
            values = _read(basis, f"{name}.basis_{side}", (rows, k), dtype)
            keep = columns & ~pivoted[i][:, None] if side == "a" else columns
            packed = _read(coefficients, f"{name}.coeff_{side}", (k, int(keep.sum())), dtype)
            coeff = np.zeros((k, *keep.shape), packed.dtype)
            coeff[:, keep] = packed
            scales = coeff_scales = None
            if dtype == "I8":
                scales = _read(basis, f"{name}.basis_{side}.scale", (k,), "F32")
                coeff_scales = np.ones(keep.shape, np.float32)
                coeff_scales[keep] = _read(coefficients, f"{name}.coeff_{side}.scale", (int(keep.sum()),), "F32")
            coeff = np.ascontiguousarray(np.moveaxis(coeff, 1, 0))
            if side == "a" and coeff_scales is not None and pivoted[i].any():
                _put_identities(coeff, coeff_scales, coefficients, name, np.where(pivoted[i], ranks[i], 0))
                expected |= {f"{name}.coeff_a.pivots", f"{name}.coeff_a.rest"}
            parts[f"basis_{side}"] = Stored(values, scales)
            parts[f"coeff_{side}"] = Stored(coeff, None if coeff_scales is None else coeff_scales.reshape(-1))
        expected |= {f"{name}.{part}{end}" for part in parts for end in ("", ".scale")}
        like = Subspace(
            **{part: np.broadcast_to(np.float32(0), array.values.shape) for part, array in parts.items()},  # replaced
            ranks=ranks[i],
            **{table: values[i] for table, values in tables.items()},
            geometry=entry.geometry,
            shape=(entry.d_in, entry.d_out),
        )
        stored[name] = StoredLayer(**parts)
        layers[name] = restore_layer(stored[name], like)
    for file in (basis, coefficients):
        unexpected = sorted(set(file.tensors) - expected)
        if unexpected:
            raise _wrong(file, unexpected[0], "a tensor that the manifest does not know", "none")
    return ShareState(tasks, layers), stored


def _take_identities(part: "Stored", ranks: np.ndarray) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """(task -> the rows that are the identity, the other rows of those tasks one after another)."""
    pivots, rest = {}, [np.zeros(0, np.int8)]
    scales = np.asarray(part.scales).reshape(len(ranks), -1)
    for t in np.flatnonzero(ranks):
        values = part.values[t][:, : ranks[t]]
        rows = identity_rows(values, scales[t, : ranks[t]])
        if rows is not None:
            pivots[int(t)] = rows
            rest.append(np.delete(values, rows, axis=0).reshape(-1))
    return pivots, np.concatenate(rest)


def _put_identities(coeff: np.ndarray, scales: np.ndarray, file: TensorFile, name: str, ranks: np.ndarray) -> None:
    """Fills in the tasks that `_take_identities` took out; `ranks` is 0 for the others."""
    k = coeff.shape[1]
    pivots = _read(file, f"{name}.coeff_a.pivots", (int(ranks.sum()),), "U8" if _row_dtype(k) == np.uint8 else "U32")
    rest = _read(file, f"{name}.coeff_a.rest", (int(((k - ranks) * ranks).sum()),), "I8")
    row = at = 0
    for t in np.flatnonzero(ranks):
        rank = int(ranks[t])
        rows, others = pivots[row : row + rank].astype(int), (k - rank) * rank
        if len(set(rows.tolist())) != rank or rows.max() >= k:
            raise _wrong(file, f"{name}.coeff_a.pivots", "a row twice or past the last", f"{rank} rows of {k}")
        coeff[t][np.setdiff1d(np.arange(k), rows), :rank] = rest[at : at + others].reshape(k - rank, rank)
        coeff[t][rows, :rank] = 127 * np.eye(rank, dtype=np.int8)
        scales[t, :rank] = UNIT
        row, at = row + rank, at + others


def _row_dtype(k: int) -> type:
    return np.uint8 if k <= 256 else np.uint32


def without_columns(stored: Mapping[str, "StoredLayer"], tasks: list[int], count: int) -> "dict[str, StoredLayer]":
    """The stored arrays without some of `count` tasks; no byte of the others changes."""

    def cut(part: "Stored") -> "Stored":
        scales = part.scales
        if scales is not None:
            scales = np.delete(scales.reshape(count, -1), tasks, axis=0).reshape(-1)
        return Stored(np.delete(part.values, tasks, axis=0), scales)

    return {n: replace(x, coeff_a=cut(x.coeff_a), coeff_b=cut(x.coeff_b)) for n, x in stored.items()}


def _columns(ranks: np.ndarray, width: int, geometry: str) -> np.ndarray:
    """(T, p) mask of the coefficient columns that a task really has."""
    used = np.minimum(ranks, 1) if geometry == "flat" else ranks
    return np.arange(width)[None, :] < np.asarray(used)[:, None]


def _read(file: TensorFile, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    info = file.info(name)
    if info.shape != shape or info.dtype != dtype:
        raise _wrong(file, name, f"{info.dtype} {info.shape}", f"{dtype} {shape}")
    values = file.read(name)
    if values.dtype == numpy_dtype(dtype) and dtype in ("F32", "BF16") and not np.isfinite(values).all():
        raise _wrong(file, name, "NaN or infinity", "finite values")
    return values


def _wrong(file: TensorFile, name: str, got: str, expected: str) -> FormatError:
    fix = "restore the set or compress again"
    return FormatError(message(f"{file.label} tensor {shown(name)}", got=got, expected=expected, fix=fix))
