"""The two rules every product here obeys: never below float32, and full precision where a claim hangs on it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def working(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x` in float64 if it is that, else in float32: bf16 and f16 are upcast, nothing is ever lowered."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def product(x: Float[Array, "*batch n m"], y: Float[Array, "*batch m q"]) -> Float[Array, "*batch n q"]:
    """`x @ y` at `Precision.HIGHEST`: accelerators otherwise round the inputs of a float32 product to bf16."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def transpose(x: Float[Array, "*batch n m"]) -> Float[Array, "*batch m n"]:
    """The last two axes exchanged."""
    return jnp.swapaxes(x, -1, -2)


def gram(x: Float[Array, "*batch d n"]) -> Float[Array, "*batch n n"]:
    """`x.T @ x`, (n, n)."""
    return product(transpose(x), x)
