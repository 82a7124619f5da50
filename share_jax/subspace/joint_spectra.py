"""Old bases and new columns in one stack: its spectra, and the records after cutting them to any k."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jax.numpy as jnp
import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import Packed, groups, pack, pad
from share_jax.linalg.incremental import compressed_stack, rotate
from share_jax.linalg.spectrum import Spectra, spectra_of_stacks
from share_jax.subspace.factor_columns import Columns, columns_of, side_by_side
from share_jax.subspace.initialization import without_tasks
from share_jax.subspace.projection import join, project_columns, stacked, widened
from share_jax.subspace.state import Subspace
from share_jax.subspace.task_drift import moved

Path = Literal["incremental", "dense"]


@dataclass(frozen=True)
class Joint:
    """One target on its way through a merge: the old record, the new tasks, the spectra of the joint stacks."""

    old: Subspace
    packed: Packed
    columns: Columns
    a: Spectra
    b: Spectra


def joint_spectra(
    layers: Mapping[str, Subspace], adapters: Sequence[Adapter], path: Path, k: int | None, seed: int
) -> dict[str, Joint]:
    """Spectra of [old, new] for every target that a new task touches (all, if there is none), by shape."""
    out: dict[str, Joint] = {}
    touched = {n: x for n, x in layers.items() if not adapters or any(n in adapter for adapter in adapters)}
    keys = {n: (*x.shape, x.geometry) for n, x in touched.items()}
    for names in groups(keys).values():
        group = [touched[name] for name in names]
        p = max(x.pseudo_rank for x in group)
        packed = pack(adapters, names, columns=p) if adapters else _no_tasks(group, p)
        group = [widened(x, packed.a.shape[-1]) for x in group]
        columns = columns_of(packed, group[0].geometry) if adapters else _no_columns(group)
        sides = []
        for side, new in zip("ab", columns[:2], strict=True):
            bases = stacked([getattr(x, f"basis_{side}") for x in group], 1)
            coeffs = [_flat(getattr(x, f"coeff_{side}")) for x in group]
            coeff = stacked([pad(c, 0, bases.shape[-1]) for c in coeffs], 1, 256)
            fresh = side_by_side(new)
            if path == "dense":
                stack = np.concatenate([bases @ coeff, fresh], axis=-1)
            else:
                stack = np.asarray(compressed_stack(jnp.asarray(bases), jnp.asarray(coeff), jnp.asarray(fresh)))
            sides.append(spectra_of_stacks(stack, k=k, seed=seed))
        for i, (name, layer) in enumerate(zip(names, group, strict=True)):
            own = type(packed)(*(x[i : i + 1] for x in packed))
            spectra = [Spectra(*(x[i : i + 1] for x in side)) for side in sides]
            out[name] = Joint(layer, own, Columns(columns.a[i : i + 1], columns.b[i : i + 1]), *spectra)
    return out


def _no_tasks(group: Sequence[Subspace], p: int) -> Packed:
    """The packed factors of no task at all."""
    a, b = (np.zeros((len(group), 0, d, p), np.float32) for d in group[0].shape)
    return Packed(a, b, np.zeros((len(group), 0), np.int32))


def _no_columns(group: Sequence[Subspace]) -> Columns:
    q = group[0].coeff_a.shape[2]
    a, b = (np.zeros((len(group), 0, x.shape[0], q), np.float32) for x in (group[0].basis_a, group[0].basis_b))
    return Columns(a, b)


def _flat(coeff: np.ndarray) -> np.ndarray:
    """All tasks' coefficients side by side, (k, T p)."""
    tasks, k, q = coeff.shape
    return np.swapaxes(coeff, 0, 1).reshape(k, tasks * q)


def energies(x: Joint) -> tuple[float, float]:
    """Energy of all that was ever stacked on either side, kept or not."""
    new = [float(np.sum(np.square(side, dtype=np.float64))) for side in x.columns[:2]]
    return float(x.old.energy_a.sum()) + new[0], float(x.old.energy_b.sum()) + new[1]


def apply(joint: Mapping[str, Joint], ks: Mapping[str, tuple[int, int]]) -> dict[str, Subspace]:
    """The records after the merge, with bases cut to `ks`."""
    out: dict[str, Subspace] = {}
    keys = {name: (*x.old.shape, x.old.geometry, x.old.basis_a.shape[0]) for name, x in joint.items()}
    for names in groups(keys).values():
        group = [joint[name] for name in names]
        bases = []
        for side, which in enumerate("ab"):
            spectra = [getattr(x, which).basis[0][:, : ks[n][side]] for n, x in zip(names, group, strict=True)]
            bases.append([np.ascontiguousarray(x) for x in spectra])
        rotated = [_rotated([x.old for x in group], bases[side], which) for side, which in enumerate("ab")]
        bare = [
            without_tasks(x.old.shape, x.old.geometry, bases[0][i], bases[1][i], x.old.coeff_a.shape[2])
            for i, x in enumerate(group)
        ]
        packed = type(group[0].packed)(*(np.concatenate(f) for f in zip(*(x.packed for x in group), strict=True)))
        a, b = (np.concatenate(f) for f in zip(*(x.columns[:2] for x in group), strict=True))
        new = project_columns(bare, packed, Columns(a, b))
        for i, name in enumerate(names):
            old = group[i].old
            slots = moved(old, bases[0][i], bases[1][i], rotated[0][i], rotated[1][i])
            out[name] = replace(bare[i], **join([slots, new[i]])._asdict())
    return out


def _rotated(olds: Sequence[Subspace], new: Sequence[np.ndarray], side: str) -> list[np.ndarray]:
    """Old coefficients of one side on the new bases."""
    old = stacked([getattr(x, f"basis_{side}") for x in olds], 1)
    coeffs = [getattr(x, f"coeff_{side}") for x in olds]
    flat = [pad(_flat(c), 0, old.shape[-1]) for c in coeffs]
    turned = np.asarray(rotate(jnp.asarray(stacked(new, 1)), jnp.asarray(old), jnp.asarray(stacked(flat, 1, 256))))
    out = []
    for i, c in enumerate(coeffs):
        (tasks, _, q), k = c.shape, new[i].shape[1]
        own = turned[i, :k, : tasks * q].reshape(k, tasks, q)
        out.append(np.ascontiguousarray(np.swapaxes(own, 0, 1)))
    return out
