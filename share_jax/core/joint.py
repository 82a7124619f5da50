"""Old bases and new columns in one stack: its spectra, and the records after cutting them to any k."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jax.numpy as jnp
import numpy as np

from share_jax.core.columns import Columns, columns_of, side_by_side
from share_jax.core.drift import moved
from share_jax.core.fold import Adapter
from share_jax.core.initialize import without_tasks
from share_jax.core.pack import Packed, groups, pack, pad
from share_jax.core.project import join, project_columns, stacked
from share_jax.core.spectra import Spectra, spectra_of_stacks
from share_jax.core.subspace import Subspace
from share_jax.linalg import compressed_stack, rotate

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
    """Spectra of [old, new] for every target that a new task touches, all of one shape at once."""
    out: dict[str, Joint] = {}
    touched = {n: x for n, x in layers.items() if any(n in adapter for adapter in adapters)}
    keys = {n: (*x.shape, x.geometry) for n, x in touched.items()}
    for names in groups(keys).values():
        group = [touched[name] for name in names]
        p = max(x.pseudo_rank for x in group)
        packed = pack(adapters, names, columns=p)
        group = [_widened(x, packed.a.shape[-1]) for x in group]
        columns = columns_of(packed, group[0].geometry)
        sides = []
        for side, new in zip("ab", columns, strict=True):
            bases = stacked([getattr(x, f"basis_{side}") for x in group], 1)
            coeffs = [np.swapaxes(getattr(x, f"coeff_{side}"), 0, 1).reshape(-1, _columns(x)) for x in group]
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
            out[name] = Joint(layer, own, Columns(*(x[i : i + 1] for x in columns)), *spectra)
    return out


def _columns(layer: Subspace) -> int:
    return layer.coeff_a.shape[0] * layer.coeff_a.shape[2]


def _widened(layer: Subspace, p: int) -> Subspace:
    """A flat record for a larger rank: its vectors get the zeros of further columns. Others stay as they are."""
    if layer.geometry == "columns":
        return layer
    sides = [pad(x, 0, p * d) for x, d in zip((layer.basis_a, layer.basis_b), layer.shape, strict=True)]
    return replace(layer, basis_a=sides[0], basis_b=sides[1])


def energies(x: Joint) -> tuple[float, float]:
    """Energy of all that was ever stacked on either side, kept or not."""
    new = [float(np.sum(np.square(side, dtype=np.float64))) for side in x.columns]
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
        columns = Columns(*(np.concatenate(f) for f in zip(*(x.columns for x in group), strict=True)))
        new = project_columns(bare, packed, columns)
        for i, name in enumerate(names):
            old = group[i].old
            slots = moved(old, bases[0][i], bases[1][i], rotated[0][i], rotated[1][i])
            out[name] = replace(bare[i], **join([slots, new[i]])._asdict())
    return out


def _rotated(olds: Sequence[Subspace], new: Sequence[np.ndarray], side: str) -> list[np.ndarray]:
    """Old coefficients of one side on the new bases."""
    old = stacked([getattr(x, f"basis_{side}") for x in olds], 1)
    coeffs = [getattr(x, f"coeff_{side}") for x in olds]
    flat = [pad(np.swapaxes(c, 0, 1).reshape(c.shape[1], -1), 0, old.shape[-1]) for c in coeffs]
    turned = np.asarray(rotate(jnp.asarray(stacked(new, 1)), jnp.asarray(old), jnp.asarray(stacked(flat, 1, 256))))
    out = []
    for i, c in enumerate(coeffs):
        tasks, _, q = c.shape
        own = turned[i, : new[i].shape[1], : tasks * q]
        out.append(np.ascontiguousarray(np.swapaxes(own.reshape(-1, tasks, q), 0, 1)))
    return out
