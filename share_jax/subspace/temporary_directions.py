"""Learning a task with data inside the subspace (method, phase 2): temporary directions, or coefficients alone.

Everything that trains is a copy: the main bases and all old coefficients are never touched. The functions on arrays are
jnp and differentiable; `set_coefficients` puts the result into the record, `merge` the factors of `trained_factors`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from share_jax.adapters.factors import Factors
from share_jax.adapters.stacking import pad
from share_jax.errors import InputError, TaskError, message
from share_jax.linalg.products import product, transpose
from share_jax.subspace import error_bounds
from share_jax.subspace.projection import Slots, empty_slots, join, slots_of
from share_jax.subspace.state import ShareState, Subspace
from share_jax.typing import PRNGKey

INIT_STD = 0.02


def temporary(basis: Float[Array | np.ndarray, "d k"], phi: int) -> Float[Array, "d phi"]:
    """A copy of the top `phi` columns of a basis, to train while one task is learnt.

    Raises:
        InputError: `phi` is not between 1 and k.
    """
    if not 1 <= phi <= basis.shape[1]:
        expected = f"1 to k = {basis.shape[1]}"
        raise InputError(message("phi", got=phi, expected=expected, fix="the method takes at most k / 4"))
    return jnp.array(basis[:, :phi], copy=True)


def draw_coefficients(
    key: PRNGKey,
    phi: int,
    pseudo_rank: int,
    *,
    phi_b: int | None = None,
    zero_side: Literal["a", "b", "neither"] = "b",
    std: float = INIT_STD,
) -> tuple[Float[Array, "phi p"], Float[Array, "phi_b p"]]:
    """Starting coefficients: one side N(0, std^2), the other zero, so that the update is zero and gradients flow.

    Both sides at zero would be a saddle with exactly zero gradient; "neither" draws both, small.
    """
    key_a, key_b = jax.random.split(key)
    coeff_a = std * jax.random.normal(key_a, (phi, pseudo_rank))
    coeff_b = std * jax.random.normal(key_b, (phi if phi_b is None else phi_b, pseudo_rank))
    if zero_side == "a":
        return jnp.zeros_like(coeff_a), coeff_b
    if zero_side == "b":
        return coeff_a, jnp.zeros_like(coeff_b)
    return coeff_a, coeff_b


def factor_pair(
    basis_a: Float[Array, "d_in k"],
    coeff_a: Float[Array, "k p"],
    basis_b: Float[Array, "d_out kp"],
    coeff_b: Float[Array, "kp p"],
) -> tuple[Float[Array, "d_in p"], Float[Array, "p d_out"]]:
    """`lora_a = basis_a @ coeff_a` and `lora_b = (basis_b @ coeff_b).T`; differentiable in all four."""
    return product(basis_a, coeff_a), transpose(product(basis_b, coeff_b))


def trained_factors(
    basis_a: Float[Array, "d_in k"],
    coeff_a: Float[Array, "k p"],
    basis_b: Float[Array, "d_out kp"],
    coeff_b: Float[Array, "kp p"],
) -> Factors:
    """What was trained, as an adapter's factors: what a merge takes."""
    lora_a, lora_b = factor_pair(basis_a, coeff_a, basis_b, coeff_b)
    return Factors(np.asarray(lora_a), np.asarray(lora_b))


Pair = tuple[Float[Array | np.ndarray, "k p"], Float[Array | np.ndarray, "kp p"]]


def set_coefficients(state: ShareState, task: str, coefficients: Mapping[str, Pair]) -> ShareState:
    """A task whose coefficients were trained on the frozen bases: added, or replaced after fine-tuning.

    What is learnt is in the span, so its error is zero as it stands; bases and other tasks keep every bit.

    Raises:
        InputError: a coefficient's shape does not fit its basis, or the target's geometry is flat.
        TaskError: a target is unknown.
    """
    for name, (coeff_a, coeff_b) in coefficients.items():
        layer = state.layers.get(name)
        if layer is None:
            raise TaskError(message("target", got=name, expected="a target of the set", fix="merge an adapter instead"))
        shapes = (coeff_a.shape[0], coeff_b.shape[0])
        if layer.geometry == "flat" or shapes != layer.num_basis or coeff_a.shape[1] != coeff_b.shape[1]:
            got = f"{coeff_a.shape} and {coeff_b.shape} on {name}"
            expected = f"(k, p) and (k', p) with k, k' = {layer.num_basis}, columns geometry"
            raise InputError(message("coefficients", got=got, expected=expected, fix="train them on this set's bases"))
    layers = {}
    for name, layer in state.layers.items():
        pair = coefficients.get(name)
        row = empty_slots(layer, 1) if pair is None else _row(pair)
        layers[name] = _placed(layer, row, state.tasks.index(task) if task in state.tasks else None)
    names = state.tasks if task in state.tasks else (*state.tasks, task)
    return ShareState(names, layers)


def _row(pair: Pair) -> Slots:
    a, b = (np.asarray(x, np.float32)[None] for x in pair)
    energies = [np.sum(np.square(x, dtype=np.float64), axis=(1, 2)) for x in (a, b)]
    # orthonormal bases: the update's norm is that of the coefficients' product
    norm = np.sqrt(error_bounds.squared_norm(a, b))
    zero = np.zeros(1)
    return Slots(a, b, np.array([a.shape[2]], np.int32), norm, energies[0], energies[1], zero, zero)


def _placed(layer: Subspace, row: Slots, at: int | None) -> Subspace:
    slots = slots_of(layer)
    if at is None:
        return replace(layer, **join([slots, row])._asdict())
    q = max(slots.coeff_a.shape[2], row.coeff_a.shape[2])
    parts = [s._replace(coeff_a=pad(s.coeff_a, 2, q), coeff_b=pad(s.coeff_b, 2, q)) for s in (slots, row)]
    fields = [np.concatenate([old[:at], new, old[at + 1 :]]) for old, new in zip(*parts, strict=True)]
    return replace(layer, **Slots(*fields)._asdict())
