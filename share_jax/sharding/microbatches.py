"""A batch in parts: what belongs to an example is split, what belongs to the batch goes to every part.

The convention of every batch: a leaf with axes has the examples along its first, a scalar belongs to the whole batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from share_jax.errors import InputError, message
from share_jax.typing import Array


def batch_size(batch: Any) -> int:
    """Examples in a batch, padding included.

    Raises:
        InputError: if its leaves disagree, or none has an axis.
    """
    sizes = sorted({leaf.shape[0] for leaf in jax.tree.leaves(batch) if getattr(leaf, "ndim", 0)})
    if len(sizes) != 1:
        fix = "give every array of the batch the examples as its first axis"
        raise InputError(message("examples in a batch", got=sizes or "no arrays", expected="one number", fix=fix))
    return sizes[0]


def check_divides(what: str, size: int, parts: int, fix: str) -> None:
    """Refuses a number of examples that does not fall into equal parts.

    Raises:
        InputError: naming what does not divide.
    """
    if parts < 1:
        raise InputError(message(what, got=f"{parts} parts", expected="at least 1", fix=fix))
    if size % parts:
        near = max(parts, round(size / parts) * parts)
        raise InputError(message(what, got=size, expected=f"a multiple of {parts}, such as {near}", fix=fix))


def _examples(leaf: Any) -> bool:
    return leaf.ndim > 0


def interleaved(batch: Any, parts: int) -> Any:
    """Per-example leaves (batch, ...) as (parts, batch / parts, ...); scalars are left alone.

    Part i takes examples i, i + parts, ...: of a batch that is sharded over devices in blocks, every device then
    holds its share of every part, and nothing has to be sent.
    """

    def split(leaf: Array) -> Array:
        return jnp.swapaxes(leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(lambda leaf: split(leaf) if _examples(leaf) else leaf, batch)


def sum_over_parts(run: Callable[[Any, Array], Any], batch: Any, parts: int, pin: Callable[[Any], Any]) -> Any:
    """The sum of `run` over the parts of a batch, one after another, so that only one part's activations exist.

    Args:
        run: (part, its number) to a tree of sums.
        batch: the whole batch.
        parts: how many microbatches; must divide the batch.
        pin: applied to each part, to fix where its examples lie.

    Raises:
        InputError: if the parts do not divide the batch.
    """
    check_divides(
        "examples in a batch", batch_size(batch), parts, "change the batch size or the number of microbatches"
    )
    whole = interleaved(batch, parts)
    leaves, treedef = jax.tree.flatten(whole)
    split = [_examples(leaf) for leaf in leaves]

    def part(own: list[Array]) -> Any:
        rest = iter(own)
        return pin(treedef.unflatten([next(rest) if of else leaf for of, leaf in zip(split, leaves, strict=True)]))

    def body(sums: Any, item: tuple[list[Array], Array]) -> tuple[Any, None]:
        own, number = item
        return jax.tree.map(jnp.add, sums, run(part(own), number)), None

    stacked = [leaf for of, leaf in zip(split, leaves, strict=True) if of]
    numbers = jnp.arange(parts, dtype=jnp.int32)
    shapes = jax.eval_shape(lambda: run(part([leaf[0] for leaf in stacked]), numbers[0]))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    sums, _ = jax.lax.scan(body, zeros, (stacked, numbers))
    return sums
