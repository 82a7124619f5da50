"""How many columns of a spectrum to keep. Nothing here goes above the numerical rank."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def tail_energies(singular_values: Float[Array, "*batch m"], total: Float[Array, "*batch"]) -> Float[Array, "*batch n"]:
    """Squared tail norms after keeping 0, 1, ..., m columns (m + 1 values): `total - sum_{j<=k} s_j^2`, at least 0.

    `total` is the squared Frobenius norm of the whole stack, which may hold more than the given values. Where it holds
    just them, the tail is summed from its small end, so nothing cancels.
    """
    squares = singular_values**2
    tails = jnp.cumsum(squares[..., ::-1], axis=-1)[..., ::-1]
    tails = jnp.concatenate([tails, jnp.zeros_like(tails[..., :1])], axis=-1)
    missing = jnp.maximum(total - jnp.sum(squares, axis=-1), 0)
    rounding = total * (8 * jnp.finfo(singular_values.dtype).eps)
    return tails + jnp.where(missing > rounding, missing, 0)[..., None]


def _first(holds: Bool[Array, "*batch n"], rank: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
    """The first index at which `holds`, never above `rank`; `rank` where none does."""
    index = jnp.where(jnp.any(holds, axis=-1), jnp.argmax(holds, axis=-1), rank)
    return jnp.minimum(index, rank).astype(jnp.int32)


@jax.jit
def k_by_explained_variance(
    singular_values: Float[Array, "*batch m"],
    total: Float[Array, "*batch"],
    rank: Int[Array, "*batch"],
    threshold: float | Float[Array, ""],
) -> Int[Array, "*batch"]:
    """The smallest k with `sum_{j<=k} s_j^2 >= threshold * total`, at most `rank`."""
    tails = tail_energies(singular_values, total)
    return _first(tails <= (1 - threshold) * total[..., None], rank)


@jax.jit
def k_by_relative_error(
    singular_values: Float[Array, "*batch m"],
    total: Float[Array, "*batch"],
    rank: Int[Array, "*batch"],
    error: float | Float[Array, ""],
) -> Int[Array, "*batch"]:
    """The smallest k whose tail norm is at most `error` times the norm of the stack, at most `rank`."""
    tails = tail_energies(singular_values, total)
    return _first(tails <= error**2 * total[..., None], rank)
