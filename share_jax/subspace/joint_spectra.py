"""Old bases and new columns in one stack: its spectra, and the records after cutting them to any k."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from share_jax.adapters.factors import Adapter
from share_jax.adapters.stacking import Packed, groups, pack
from share_jax.annotations import Float
from share_jax.linalg.basis_products import side_by_side
from share_jax.linalg.incremental import compressed_stack, rotate
from share_jax.linalg.spectrum import Spectrum, spectra
from share_jax.runtime.threads import parallel_map
from share_jax.subspace.factor_columns import Columns, columns_of
from share_jax.subspace.initialization import without_tasks
from share_jax.subspace.projection import join, project_layer, widened
from share_jax.subspace.state import Subspace
from share_jax.subspace.task_drift import moved

StackMode = Literal["incremental", "dense"]
"""How old tasks enter the stack: by few columns of the same spectrum, or all of them, as an oracle."""


@dataclass(frozen=True)
class Joint:
    """One target on its way through a merge: the old record, the new tasks, the spectra of the joint stacks.

    `packed` and `columns` are without the axis of layers.
    """

    old: Subspace
    packed: Packed
    columns: Columns
    a: Spectrum
    b: Spectrum


def joint_spectra(
    layers: Mapping[str, Subspace], adapters: Sequence[Adapter], path: StackMode, k: int | None, seed: int
) -> dict[str, Joint]:
    """Spectra of [old, new] for every target that a new task touches (all, if there is none), by shape."""
    out: dict[str, Joint] = {}
    touched = {n: x for n, x in layers.items() if not adapters or any(n in adapter for adapter in adapters)}
    for names in groups({n: (*x.shape, x.geometry) for n, x in touched.items()}).values():
        group = [touched[name] for name in names]
        p = max(x.pseudo_rank for x in group)
        packed = pack(adapters, names, columns=p) if adapters else _no_tasks(group, p)
        group = [widened(x, packed.a.shape[-1]) for x in group]
        columns = columns_of(packed, group[0].geometry) if adapters else _no_columns(group)
        jobs = [
            (layer, side, new[i]) for side, new in zip("ab", columns[:2], strict=True) for i, layer in enumerate(group)
        ]
        found = spectra([[x] for x in parallel_map(lambda job: _stack(*job, path), jobs)], k=k, seed=seed)
        for i, (name, layer) in enumerate(zip(names, group, strict=True)):
            own = Packed(*(x[i] for x in packed))
            out[name] = Joint(layer, own, columns.layer(i), found[i], found[i + len(group)])
    return out


def _stack(
    old: Subspace, side: str, new: Float[np.ndarray, "tasks rows q"], path: StackMode
) -> Float[np.ndarray, "rows n"]:
    """[old, new] of one side: all that is known and the new columns, or fewer columns of the same spectrum."""
    basis, coeff = getattr(old, f"basis_{side}"), getattr(old, f"coeff_{side}")
    fresh = side_by_side(new)
    if path == "dense":
        return np.concatenate([basis @ side_by_side(coeff), fresh], axis=1)
    return compressed_stack(basis, coeff, fresh)


def _no_tasks(group: Sequence[Subspace], p: int) -> Packed:
    """The packed factors of no task at all."""
    a, b = (np.zeros((len(group), 0, d, p), np.float32) for d in group[0].shape)
    return Packed(a, b, np.zeros((len(group), 0), np.int32))


def _no_columns(group: Sequence[Subspace]) -> Columns:
    q = group[0].coeff_a.shape[2]
    a, b = (np.zeros((len(group), 0, x.shape[0], q), np.float32) for x in (group[0].basis_a, group[0].basis_b))
    return Columns(a, b)


def energies(x: Joint) -> tuple[float, float]:
    """Energy of all that was ever stacked on either side, kept or not."""
    new = [float(side.sum()) for side in x.columns.energies()]
    return float(x.old.energy_a.sum()) + new[0], float(x.old.energy_b.sum()) + new[1]


def apply(joint: Mapping[str, Joint], ks: Mapping[str, tuple[int, int]]) -> dict[str, Subspace]:
    """The records after the merge, with bases cut to `ks`."""
    return dict(zip(joint, parallel_map(lambda name: _merged(joint[name], ks[name]), list(joint)), strict=True))


def _merged(x: Joint, ks: tuple[int, int]) -> Subspace:
    """One target's record on its new bases: old coefficients are rotated, new ones are projections."""
    a, b = (np.ascontiguousarray(side.basis[:, :k]) for side, k in zip((x.a, x.b), ks, strict=True))
    bare = without_tasks(x.old.shape, x.old.geometry, a, b, x.old.coeff_a.shape[2])
    rotated = rotate(a, x.old.basis_a, x.old.coeff_a), rotate(b, x.old.basis_b, x.old.coeff_b)
    slots = [moved(x.old, a, b, *rotated), project_layer(bare, x.packed, x.columns)]
    return replace(bare, **join(slots)._asdict())
