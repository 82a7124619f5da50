"""The products of an adapter, in the forms that compilers do not spoil.

There are two ways to an adapted layer's output, and `merging_pays` says which one a layer takes, from shapes alone:

* **beside** the layer: y + up(down(x)). Rank-r products over all rows, forward and backward; one task per example
  costs no more than one task for the batch. XLA's CPU backend would compute the backward pass of the activation before
  them again for each of their few columns. Two habits keep it from that. x is flattened to two dimensions before
  `x @ a`. The second product is a batched one on a CPU, with one (r, d_out) factor per example: its gradient is
  h.T @ dy for each example, and needs no transposed copy of dy. Elsewhere it is flat, too, for one task per batch.
* **merged** into the layer's kernel: x @ (W + A B). The kernel is small beside the rows of a batch, so the sum costs
  less than the rank-r products, of which a forward pass then needs none, and a train step only those of the gradients
  of what trains. The gradient of x takes the merged kernel too: with a frozen A that leaves x @ A and h.T @ dy, where
  beside the layer five products stand.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from share_jax.annotations import Float
from share_jax.typing import Array

OUTER_COLUMNS = 16
"""Columns up to which the sum of outer products is taken; from 32 on a product can be the faster."""


def down_product(x: Float[Array, "batch n d_in"], matrix: Float[Array, "*batch d_in q"]) -> Float[Array, "batch n q"]:
    """x @ matrix, with one matrix for the batch or one per example.

    Args:
        x: inputs (batch, n, d_in).
        matrix: (d_in, q), or (batch, d_in, q).

    Returns:
        (batch, n, q)
    """
    if matrix.ndim == 3:
        return jnp.einsum("bnd,bdq->bnq", x, matrix)
    batch, n, d_in = x.shape
    return (x.reshape(batch * n, d_in) @ matrix).reshape(batch, n, matrix.shape[-1])


def up_product(h: Float[Array, "batch n q"], matrix: Float[Array, "*batch q d_out"]) -> Float[Array, "batch n d_out"]:
    """h @ matrix, with one matrix for the batch or one per example; on a CPU a batched product in either case.

    Args:
        h: the inner columns (batch, n, q).
        matrix: (q, d_out), or (batch, q, d_out).

    Returns:
        (batch, n, d_out)
    """
    if matrix.ndim == 2 and jax.default_backend() != "cpu":
        return down_product(h, matrix)
    per_example = jnp.broadcast_to(matrix, (h.shape[0], *matrix.shape[-2:]))
    return jnp.einsum("bnq,bqd->bnd", h, per_example)


def outer_sum(a: Float[Array, "d_in q"], b: Float[Array, "q d_out"]) -> Float[Array, "d_in d_out"]:
    """a @ b, for few columns as a sum of outer products.

    A compiler draws that into the sum with a kernel, one pass over memory, where the product would be written and read
    again. Terms are added in the product's order: where a CPU fuses both operations alike, the bits are the product's
    too.

    Args:
        a: (d_in, q)
        b: (q, d_out)

    Returns:
        (d_in, d_out)
    """
    return outer_products(a, b) if a.shape[-1] <= OUTER_COLUMNS else a @ b


def outer_products(a: Float[Array, "d_in q"], b: Float[Array, "q d_out"]) -> Float[Array, "d_in d_out"]:
    """`outer_sum` in that form whatever the columns: one sum, so a program does not grow with them."""
    return (a[:, :, None] * b[None]).sum(1)


_MERGING: ContextVar[bool] = ContextVar("merging", default=True)


@contextmanager
def without_merging() -> Iterator[None]:
    """Layers that are traced within it are adapted as on an accelerator: for studies of its programs on a CPU."""
    token = _MERGING.set(False)
    try:
        yield
    finally:
        _MERGING.reset(token)


def merging_pays(rows: int, d_in: int, d_out: int, dtype: DTypeLike) -> bool:
    """Whether x @ (W + A B) is cheaper than x @ W + (x A) B, and as exact.

    A B takes d_in d_out multiplications per column of A, the two products beside the layer rows (d_in + d_out).
    A sum in less than float32 would round away an update that is small beside its kernel, and so do accelerators,
    whose matrix units round float32 inputs; there rank-r products are no burden.

    Args:
        rows: of x, all leading axes together.
        d_in: of the kernel.
        d_out: of the kernel.
        dtype: the layer computes in.
    """
    exact = jnp.finfo(dtype).bits >= 32 and jax.default_backend() == "cpu"
    return _MERGING.get() and exact and rows * (d_in + d_out) >= d_in * d_out


def with_merged_kernel(
    layer: Callable[[Any, Any, Array], Array], delta: Callable[[Any, Array], Array]
) -> Callable[[Any, Any, Array], Array]:
    """A layer with an update merged into its kernel, whose derivatives by the update's leaves are taken beside it.

    Without that, a gradient of a factor would go through the gradient of the whole kernel, x.T @ dy.

    Args:
        layer: (params, leaves, x) to the output, on params with the update merged in.
        delta: (leaves, x) to what the update adds to the output, computed beside the layer.

    Returns:
        `layer`; its derivatives, of every order and mode, are those of the layer without the update plus the delta.
    """
    run = jax.custom_jvp(layer)

    def rule(primals: tuple, tangents: tuple) -> tuple:
        params, leaves, x = primals
        d_params, d_leaves, d_x = tangents
        y, through = _along(lambda params, x: layer(params, leaves, x), (params, x), (d_params, d_x))
        _, beside = _along(lambda leaves: delta(leaves, x), (leaves,), (d_leaves,), primal=False)
        if through is None:
            return y, jnp.zeros_like(y) if beside is None else beside
        return y, through if beside is None else through + beside

    run.defjvp(rule, symbolic_zeros=True)
    return run


def _along(
    function: Callable[..., Array], primals: tuple, tangents: tuple, *, primal: bool = True
) -> tuple[Any, Array | None]:
    """`jax.jvp` by those leaves alone whose tangents are not zero; the tangent is None if all are."""
    flat, structure = jax.tree.flatten(primals)
    rates = jax.tree.leaves(tangents)
    moving = [index for index, rate in enumerate(rates) if not isinstance(rate, SymbolicZero)]
    if not moving:
        return function(*primals) if primal else None, None

    def by(*chosen: Array) -> Array:
        own = dict(zip(moving, chosen, strict=True))
        return function(*jax.tree.unflatten(structure, [own.get(index, leaf) for index, leaf in enumerate(flat)]))

    return jax.jvp(by, tuple(flat[index] for index in moving), tuple(rates[index] for index in moving))
