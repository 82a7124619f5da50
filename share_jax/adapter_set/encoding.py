"""How a state's arrays lie in the two files of a set.

`basis` holds `{layer}.basis_a` (d_in, k) and `{layer}.basis_b` (d_out, k'); `coefficients` holds `{layer}.coeff_a`
(k, P) and `{layer}.coeff_b` (k', P), the columns of all tasks side by side without padding. In int8 each has a
`.scale`, one float32 per column. What is left are small tables, one row per layer and one column per task.

int8, columns geometry: in the gauge of `share_jax.adapter_set.int8_gauge`, r rows of a task's `coeff_a` are exactly
127 times the identity, with scale 1/127. Such a task's columns do not stand in `{layer}.coeff_a`: the numbers of those
rows are in `{layer}.coeff_a.pivots`, its other rows in `{layer}.coeff_a.rest`, task after task. `pivoted` says which
tasks these are; they are found by their values alone.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from share_jax.adapter_set.int8_gauge import UNIT_SCALE, identity_rows
from share_jax.adapter_set.manifest import LayerEntry, Manifest
from share_jax.annotations import Bool, Int, Int8
from share_jax.errors import FormatError, InputError, message
from share_jax.storage.safetensors_file import TensorFile, numpy_dtype
from share_jax.storage.untrusted import shown
from share_jax.subspace.quantize import QuantizedArray, StoredLayer, restored_arrays
from share_jax.subspace.state import ShareState, Subspace

TABLES = ("norm", "energy_a", "energy_b", "change", "bound")
"""Per layer and task, float32; `bound` is rounded up, so that it stays a bound."""

_DTYPES = {"f32": "F32", "bf16": "BF16", "int8": "I8"}

Tensors = dict[str, np.ndarray]


def layer_entry(layer: Subspace) -> LayerEntry:
    """The sizes of a layer, as the manifest keeps them."""
    d_in, d_out = layer.shape
    return LayerEntry(d_in, d_out, layer.geometry, layer.num_basis, layer.pseudo_rank)


def encode_state(state: ShareState, stored: Mapping[str, StoredLayer]) -> tuple[Tensors, Tensors]:
    """(tensors of the basis file, tensors of the coefficients file).

    Raises:
        InputError: a task's update is so large that float32 does not hold its norms.
    """
    basis: Tensors = {}
    coefficients: Tensors = {}
    pivoted = np.zeros((len(state.layers), len(state.tasks)), np.uint8)
    for i, (name, layer) in enumerate(state.layers.items()):
        parts, used = stored[name], _used_columns(layer.ranks, layer.coeff_a.shape[2], layer.geometry)
        basis |= _encode_basis(f"{name}.basis_a", parts.basis_a) | _encode_basis(f"{name}.basis_b", parts.basis_b)
        plain = used
        if parts.coeff_a.scales is not None and layer.geometry == "columns":
            pivots, rest = _split_identity_rows(parts.coeff_a, layer.ranks)
            pivoted[i, list(pivots)] = 1
            plain = used & (pivoted[i] == 0)[:, None]
            if pivots:
                rows = np.concatenate(list(pivots.values()))
                coefficients[f"{name}.coeff_a.pivots"] = rows.astype(_row_dtype(layer.num_basis[0]))
                coefficients[f"{name}.coeff_a.rest"] = rest
        coefficients |= _encode_coefficients(f"{name}.coeff_a", parts.coeff_a, plain)
        coefficients |= _encode_coefficients(f"{name}.coeff_b", parts.coeff_b, used)
    if any(layer.basis_a.scales is not None for layer in stored.values()):
        coefficients["pivoted"] = pivoted
    return basis, coefficients | _encode_tables(state)


def _encode_basis(name: str, part: QuantizedArray) -> Tensors:
    return {name: part.values} | ({} if part.scales is None else {f"{name}.scale": part.scales})


def _encode_coefficients(name: str, part: QuantizedArray, keep: Bool[np.ndarray, "T p"]) -> Tensors:
    """The columns of `keep` side by side, of values (T, k, p)."""
    scales = {} if part.scales is None else {f"{name}.scale": part.scales.reshape(keep.shape)[keep]}
    return scales | {name: np.moveaxis(np.asarray(part.values), 0, 1)[:, keep]}


def _encode_tables(state: ShareState) -> Tensors:
    out: Tensors = {}
    size, layers = (len(state.layers), -1), list(state.layers.values())
    for table in TABLES:
        exact = np.array([getattr(layer, table) for layer in layers], np.float64).reshape(size)
        with np.errstate(over="ignore"):
            short = exact.astype(np.float32)
        if not np.isfinite(short).all():
            i, t = np.argwhere(~np.isfinite(short))[0]
            what = f"target {shown(list(state.layers)[i])} of {shown(state.tasks[t])}"
            got, fix = f"{table} {exact[i, t]:.3g}", "leave that adapter out or train it again"
            raise InputError(message(what, got=got, expected="a number that float32 holds", fix=fix))
        if table == "bound":
            short = np.where(short < exact, np.nextafter(short, np.float32(np.inf)), short)
        out[table] = short
    out["ranks"] = np.array([layer.ranks for layer in layers], np.int32).reshape(size)
    return out


def decode_state(
    manifest: Manifest, basis: TensorFile, coefficients: TensorFile
) -> tuple[ShareState, dict[str, StoredLayer]]:
    """The state that the two files hold, and its arrays as they are stored.

    Raises:
        FormatError: a tensor is missing, unexpected, or of another shape, dtype or value than the manifest says.
    """
    size = (len(manifest.layers), len(manifest.tasks))
    dtype = _DTYPES[manifest.storage]
    bases, coeffs = _Reader(basis), _Reader(coefficients)
    tables = {table: coeffs.read(table, size, "F32").astype(np.float64) for table in TABLES}
    ranks = coeffs.read("ranks", size, "I32")
    pivoted = coeffs.read("pivoted", size, "U8") != 0 if dtype == "I8" else np.zeros(size, bool)
    layers, stored = {}, {}
    for i, (name, entry) in enumerate(manifest.layers.items()):
        _check_ranks(coeffs, entry, ranks[i], pivoted[i])
        rows_a, rows_b = (d * entry.pseudo_rank if entry.geometry == "flat" else d for d in (entry.d_in, entry.d_out))
        k_a, k_b = entry.num_basis
        used = _used_columns(ranks[i], 1 if entry.geometry == "flat" else entry.pseudo_rank, entry.geometry)
        plain = used & ~pivoted[i][:, None]
        stored[name] = StoredLayer(
            basis_a=_decode_basis(bases, f"{name}.basis_a", (rows_a, k_a), dtype),
            basis_b=_decode_basis(bases, f"{name}.basis_b", (rows_b, k_b), dtype),
            coeff_a=_decode_coefficients(coeffs, f"{name}.coeff_a", k_a, plain, dtype),
            coeff_b=_decode_coefficients(coeffs, f"{name}.coeff_b", k_b, used, dtype),
        )
        if pivoted[i].any():
            _restore_identity_rows(stored[name].coeff_a, coeffs, name, np.where(pivoted[i], ranks[i], 0))
        layers[name] = Subspace(
            **restored_arrays(stored[name]),
            **{table: values[i] for table, values in tables.items()},
            ranks=ranks[i],
            geometry=entry.geometry,
            shape=(entry.d_in, entry.d_out),
        )
    for reader in (bases, coeffs):
        reader.refuse_others()
    return ShareState(tuple(manifest.tasks), layers), stored


def _check_ranks(coeffs: "_Reader", entry: LayerEntry, ranks: np.ndarray, pivoted: np.ndarray) -> None:
    if ranks.min(initial=0) < 0 or ranks.max(initial=0) > entry.pseudo_rank:
        raise coeffs.wrong("ranks", f"{ranks.max(initial=0)}", f"0 to {entry.pseudo_rank}")
    if (pivoted & ((entry.geometry == "flat") | (ranks < 1) | (ranks >= entry.num_basis[0]))).any():
        raise coeffs.wrong("pivoted", "a task that cannot be", "ranks from 1 to below k")


def _decode_basis(bases: "_Reader", name: str, shape: tuple[int, int], dtype: str) -> QuantizedArray:
    values = bases.read(name, shape, dtype)
    return QuantizedArray(values, bases.read(f"{name}.scale", shape[1:], "F32") if dtype == "I8" else None)


def _decode_coefficients(
    coeffs: "_Reader", name: str, k: int, keep: Bool[np.ndarray, "T p"], dtype: str
) -> QuantizedArray:
    """Values (T, k, p) whose columns of `keep` are read; the others are zero."""
    count = int(keep.sum())
    packed = coeffs.read(name, (k, count), dtype)
    values = np.zeros((k, *keep.shape), packed.dtype)
    values[:, keep] = packed
    values = np.ascontiguousarray(np.moveaxis(values, 1, 0))
    if dtype != "I8":
        return QuantizedArray(values)
    scales = np.ones(keep.shape, np.float32)
    scales[keep] = coeffs.read(f"{name}.scale", (count,), "F32")
    return QuantizedArray(values, scales.reshape(-1))


def _split_identity_rows(
    part: QuantizedArray, ranks: Int[np.ndarray, " T"]
) -> tuple[dict[int, Int[np.ndarray, " r"]], Int8[np.ndarray, " n"]]:
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


def _restore_identity_rows(part: QuantizedArray, coeffs: "_Reader", name: str, ranks: Int[np.ndarray, " T"]) -> None:
    """Writes the tasks that `_split_identity_rows` took out into `part`; `ranks` is 0 for the others."""
    k, scales = part.values.shape[1], np.asarray(part.scales).reshape(len(ranks), -1)
    pivots = coeffs.read(f"{name}.coeff_a.pivots", (int(ranks.sum()),), "U8" if _row_dtype(k) == np.uint8 else "U32")
    rest = coeffs.read(f"{name}.coeff_a.rest", (int(((k - ranks) * ranks).sum()),), "I8")
    row = at = 0
    for t in np.flatnonzero(ranks):
        rank = int(ranks[t])
        rows, others = pivots[row : row + rank].astype(int), (k - rank) * rank
        if len(set(rows.tolist())) != rank or rows.max() >= k:
            raise coeffs.wrong(f"{name}.coeff_a.pivots", "a row twice or past the last", f"{rank} rows of {k}")
        part.values[t][np.setdiff1d(np.arange(k), rows), :rank] = rest[at : at + others].reshape(k - rank, rank)
        part.values[t][rows, :rank] = 127 * np.eye(rank, dtype=np.int8)
        scales[t, :rank] = UNIT_SCALE
        row, at = row + rank, at + others


def _row_dtype(k: int) -> type:
    return np.uint8 if k <= 256 else np.uint32


def drop_tasks(stored: Mapping[str, StoredLayer], tasks: list[int], count: int) -> dict[str, StoredLayer]:
    """The stored arrays without some of `count` tasks; no byte of the others changes."""

    def cut(part: QuantizedArray) -> QuantizedArray:
        scales = part.scales
        if scales is not None:
            scales = np.delete(scales.reshape(count, -1), tasks, axis=0).reshape(-1)
        return QuantizedArray(np.delete(part.values, tasks, axis=0), scales)

    return {n: replace(x, coeff_a=cut(x.coeff_a), coeff_b=cut(x.coeff_b)) for n, x in stored.items()}


def _used_columns(ranks: Int[np.ndarray, " T"], width: int, geometry: str) -> Bool[np.ndarray, "T p"]:
    """The coefficient columns that each task really has: as many as its rank, or one in the flat geometry."""
    used = np.minimum(ranks, 1) if geometry == "flat" else ranks
    return np.arange(width)[None, :] < np.asarray(used)[:, None]


class _Reader:
    """Reads the tensors of a file that a manifest expects, each checked, and knows which ones these were."""

    def __init__(self, file: TensorFile) -> None:
        self._file = file
        self._expected: set[str] = set()

    def read(self, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """One tensor.

        Raises:
            FormatError: it is missing, of another shape or dtype, or not finite.
        """
        self._expected.add(name)
        info = self._file.info(name)
        if info.shape != shape or info.dtype != dtype:
            raise self.wrong(name, f"{info.dtype} {info.shape}", f"{dtype} {shape}")
        values = self._file.read(name)
        if values.dtype == numpy_dtype(dtype) and dtype in ("F32", "BF16") and not np.isfinite(values).all():
            raise self.wrong(name, "NaN or infinity", "finite values")
        return values

    def refuse_others(self) -> None:
        """Raises FormatError if the file has a tensor that was not read."""
        others = sorted(set(self._file.tensors) - self._expected)
        if others:
            raise self.wrong(others[0], "a tensor that the manifest does not know", "none")

    def wrong(self, name: str, got: str, expected: str) -> FormatError:
        """The error of one tensor."""
        fix = "restore the set or compress again"
        return FormatError(message(f"{self._file.label} tensor {shown(name)}", got=got, expected=expected, fix=fix))
