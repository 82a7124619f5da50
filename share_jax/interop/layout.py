"""How a state's arrays lie in the two files of a set.

`basis` holds `{layer}.basis_a` (d_in, k) and `{layer}.basis_b` (d_out, k'); `coefficients` holds `{layer}.coeff_a`
(k, P) and `{layer}.coeff_b` (k', P), the columns of all tasks side by side without padding. In int8 each has a
`.scale`, one float32 per column. The rest are small tables, one row per layer and one column per task.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from share_jax.errors import FormatError, line
from share_jax.interop.manifest import LayerEntry, Manifest
from share_jax.interop.paths import shown
from share_jax.interop.tensorfile import TensorFile, numpy_dtype

if TYPE_CHECKING:
    from share_jax.core.quantize import Stored, StoredLayer
    from share_jax.core.subspace import ShareState, Subspace

TABLES = ("norm", "energy_a", "energy_b", "change", "bound")
"""Per layer and task, float32; `bound` is rounded up, so that it stays a bound."""

_DTYPES = {"f32": "F32", "bf16": "BF16", "int8": "I8"}


def layer_entry(layer: "Subspace") -> LayerEntry:
    """The sizes of a layer, as the manifest keeps them."""
    d_in, d_out = layer.shape
    return LayerEntry(d_in, d_out, layer.geometry, layer.num_basis, layer.pseudo_rank)


def encode_state(
    state: "ShareState", stored: Mapping[str, "StoredLayer"]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(tensors of the basis file, tensors of the coefficients file)."""
    basis: dict[str, np.ndarray] = {}
    coefficients: dict[str, np.ndarray] = {}
    for name, layer in state.layers.items():
        keep = _columns(layer.ranks, layer.coeff_a.shape[2], layer.geometry)
        for side in "ab":
            part: Stored = getattr(stored[name], f"basis_{side}")
            basis[f"{name}.basis_{side}"] = part.values
            if part.scales is not None:
                basis[f"{name}.basis_{side}.scale"] = np.asarray(part.scales, np.float32).reshape(-1)
            part = getattr(stored[name], f"coeff_{side}")
            coefficients[f"{name}.coeff_{side}"] = np.moveaxis(np.asarray(part.values), 0, 1)[:, keep]
            if part.scales is not None:
                coefficients[f"{name}.coeff_{side}.scale"] = np.asarray(part.scales, np.float32)[:, 0, :][keep]
    layers = list(state.layers.values())
    for table in TABLES:
        exact = np.array([getattr(layer, table) for layer in layers], np.float64).reshape(len(layers), -1)
        short = exact.astype(np.float32)
        if table == "bound":
            short = np.where(short < exact, np.nextafter(short, np.float32(np.inf)), short)
        coefficients[table] = short
    coefficients["ranks"] = np.array([layer.ranks for layer in layers], np.int32).reshape(len(layers), -1)
    return basis, coefficients


def decode_state(manifest: Manifest, basis: TensorFile, coefficients: TensorFile) -> "ShareState":
    """The state that the two files hold.

    Raises:
      FormatError: a tensor is missing, unexpected, or of another shape, dtype or value than the manifest says.
    """
    from share_jax.core.quantize import Stored, StoredLayer, restore_layer
    from share_jax.core.subspace import ShareState, Subspace

    tasks = tuple(manifest.tasks)
    size = (len(manifest.layers), len(tasks))
    tables = {table: _read(coefficients, table, size, "F32").astype(np.float64) for table in TABLES}
    ranks = _read(coefficients, "ranks", size, "I32")
    expected = {"ranks", *TABLES}
    dtype = _DTYPES[manifest.storage]
    layers = {}
    for i, (name, entry) in enumerate(manifest.layers.items()):
        flat = entry.geometry == "flat"
        width = 1 if flat else entry.pseudo_rank
        if ranks[i].min(initial=0) < 0 or ranks[i].max(initial=0) > entry.pseudo_rank:
            raise _wrong(coefficients, "ranks", f"{ranks[i].max(initial=0)}", f"0 to {entry.pseudo_rank}")
        keep = _columns(ranks[i], width, entry.geometry)
        parts: dict[str, Stored] = {}
        for side, d, k in zip("ab", (entry.d_in, entry.d_out), entry.num_basis, strict=True):
            rows = d * entry.pseudo_rank if flat else d
            values = _read(basis, f"{name}.basis_{side}", (rows, k), dtype)
            packed = _read(coefficients, f"{name}.coeff_{side}", (k, int(keep.sum())), dtype)
            coeff = np.zeros((k, *keep.shape), packed.dtype)
            coeff[:, keep] = packed
            scales = coeff_scales = None
            if dtype == "I8":
                scales = _read(basis, f"{name}.basis_{side}.scale", (k,), "F32").reshape(1, k)
                coeff_scales = np.ones((len(tasks), 1, width), np.float32)
                coeff_scales[:, 0, :][keep] = _read(coefficients, f"{name}.coeff_{side}.scale", (keep.sum(),), "F32")
            parts[f"basis_{side}"] = Stored(values, scales)
            parts[f"coeff_{side}"] = Stored(np.ascontiguousarray(np.moveaxis(coeff, 1, 0)), coeff_scales)
        expected |= {f"{name}.{part}{end}" for part in parts for end in ("", ".scale")}
        like = Subspace(
            **{part: stored.values for part, stored in parts.items()},
            ranks=ranks[i],
            **{table: values[i] for table, values in tables.items()},
            geometry=entry.geometry,
            shape=(entry.d_in, entry.d_out),
        )
        layers[name] = restore_layer(StoredLayer(**parts), like)
    for file in (basis, coefficients):
        unexpected = sorted(set(file.tensors) - expected)
        if unexpected:
            raise _wrong(file, unexpected[0], "a tensor that the manifest does not know", "none")
    return ShareState(tasks, layers)


def _columns(ranks: np.ndarray, width: int, geometry: str) -> np.ndarray:
    """(T, p) mask of the coefficient columns that a task really has."""
    used = np.minimum(ranks, 1) if geometry == "flat" else ranks
    return np.arange(width)[None, :] < np.asarray(used)[:, None]


def _read(file: TensorFile, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    info = file.info(name)
    if info.shape != tuple(int(n) for n in shape) or info.dtype != dtype:
        raise _wrong(file, name, f"{info.dtype} {info.shape}", f"{dtype} {tuple(int(n) for n in shape)}")
    values = file.read(name)
    if values.dtype == numpy_dtype(dtype) and dtype in ("F32", "BF16") and not np.isfinite(values).all():
        raise _wrong(file, name, "NaN or infinity", "finite values")
    return values


def _wrong(file: TensorFile, name: str, got: str, expected: str) -> FormatError:
    mend = "restore the set or compress again"
    return FormatError(line(f"{file.label} tensor {shown(name)}", got=got, expected=expected, mend=mend))
