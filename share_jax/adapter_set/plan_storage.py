"""What storing a target's bases costs and loses at many sizes: rounded bases and their Gram matrices are made once."""

from collections.abc import Sequence

import numpy as np

from share_jax.adapter_set.encoding import encode_state
from share_jax.adapter_set.int8_gauge import pivoted_layer
from share_jax.annotations import Float
from share_jax.subspace.quantize import RoundedBasis, StoredLayer, round_basis, squared_rounding, store_layer
from share_jax.subspace.state import ShareState, Subspace, leading

_TENSOR, _PER_LAYER = 100, 130
"""Bytes of a tensor's header, and of a layer in the manifest, about."""


def stored_sizes(
    name: str, layer: Subspace, tasks: tuple[str, ...], sizes: Sequence[tuple[int, int]], storage: str
) -> list[tuple[Float[np.ndarray, " T"], int]]:
    """At every size: what rounding adds to every task's squared error, and bytes.

    Args:
        name: of the target.
        layer: the target on its largest bases.
        tasks: names of the tasks.
        sizes: (k, k') of either side.
        storage: f32, bf16 or int8.
    """
    if storage == "f32":
        cuts = [leading(layer, *size) for size in sizes]
        return [(np.zeros(len(tasks)), _bytes(name, cut, tasks, store_layer(cut, storage))) for cut in cuts]
    most = [max(k) for k in zip(*sizes, strict=True)]
    whole = [round_basis(basis[:, :k], storage) for basis, k in zip((layer.basis_a, layer.basis_b), most, strict=True)]
    return [_rounded(name, leading(layer, k, kp), tasks, (whole[0].leading(k), whole[1].leading(kp)), storage)
            for k, kp in sizes]  # fmt: skip


def _rounded(
    name: str, cut: Subspace, tasks: tuple[str, ...], bases: tuple[RoundedBasis, RoundedBasis], storage: str
) -> tuple[Float[np.ndarray, " T"], int]:
    """`stored_sizes` of one size."""
    pivots = storage == "int8" and cut.geometry == "columns" and cut.basis_a.shape[1] > 0
    layer = pivoted_layer(cut, bases[0].to_rounded()) if pivots else cut
    stored = store_layer(layer, storage, bases)
    return squared_rounding(cut, stored, bases), _bytes(name, layer, tasks, stored)


def _bytes(name: str, layer: Subspace, tasks: tuple[str, ...], stored: StoredLayer) -> int:
    basis, coefficients = encode_state(ShareState(tasks, {name: layer}), {name: stored})
    headers = _TENSOR * sum(key.startswith(f"{name}.") for key in (*basis, *coefficients))  # tables: once a set
    return sum(x.nbytes for x in (*basis.values(), *coefficients.values())) + headers + _PER_LAYER
