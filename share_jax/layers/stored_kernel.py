"""A kernel as its tree stores it: one array, or, where it is quantised, codes with what decodes them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.errors import TargetError, message
from share_jax.typing import Array

QUANTIZED = "narrow the pattern, or quantise the weights alone, not the inputs of their layers"
"""What to do about a quantised kernel that activation space cannot adapt."""
WAYS_OUT = "narrow the pattern, let each task own it whole by heads=, or use space='parameter'"
"""What to do about another parameter that it cannot adapt."""
UNREACHED = "narrow the pattern, or adapt with an example call that uses it"
"""What to do about a parameter that no update can move."""


class Parts(NamedTuple):
    """A leaf of a tree of parameters in two parts.

    Attributes:
        codes: the array of the kernel's own shape; the leaf itself where that is an array.
        others: the other arrays, such as scales.
        joined: (codes, others) to a leaf of the same structure.
    """

    codes: Any
    others: list[Any]
    joined: Callable[[Any, list[Any]], Any]


def parts(leaf: Any) -> Parts:
    """The parts of a leaf, of which libraries for quantisation make a tree of its own.

    Args:
        leaf: an array or its shape, or a tree of them with the `shape` of the kernel, one of which has that shape.

    >>> parts(np.ones((4, 3))).others
    []
    """
    leaves, structure = jax.tree.flatten(leaf)
    place = next((i for i, each in enumerate(leaves) if np.shape(each) == tuple(leaf.shape)), 0)

    def joined(codes: Any, others: list[Any]) -> Any:
        return jax.tree.unflatten(structure, [*others[:place], codes, *others[place:]])

    return Parts(leaves[place], [each for i, each in enumerate(leaves) if i != place], joined)


def codes_of(leaf: Any) -> Array:
    """The array of a leaf that has the kernel's own shape."""
    return parts(leaf).codes


def are_codes(array: Any) -> bool:
    """Whether an array holds integers, or floats of a byte or less, to which no update can be added.

    >>> are_codes(np.zeros(2, np.int8)), are_codes(np.zeros(2, np.float32)), are_codes(jnp.zeros(2, jnp.float8_e4m3fn))
    (True, False, True)
    """
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.finfo(array.dtype).bits < 16
    return bool(jnp.issubdtype(array.dtype, jnp.integer))


def is_quantized(leaf: Any) -> bool:
    """Whether a leaf of two axes or more stores codes."""
    return leaf.ndim >= 2 and are_codes(codes_of(leaf))


def no_update(leaf: Any) -> str | None:
    """Why a kernel has no parameter space; None if it has.

    >>> no_update(np.zeros((2, 2), np.int8))
    'a quantised kernel of int8 codes, to which no update can be added'
    """
    codes = codes_of(leaf)
    if are_codes(codes):
        return f"a quantised kernel of {codes.dtype} codes, to which no update can be added"
    floating = jnp.issubdtype(codes.dtype, jnp.floating)
    return None if floating else f"numbers of dtype {codes.dtype}, to which no update can be added"


def check_heads(heads: Iterable[str], params: Mapping[str, Any]) -> None:
    """Refuses heads that are no floating arrays: a task could own them, but not learn them.

    Args:
        heads: paths.
        params: leaves by path.

    Raises:
        TargetError: naming the first.
    """
    for path in heads:
        if not jnp.issubdtype(codes_of(params[path]).dtype, jnp.floating) or codes_of(params[path]) is not params[path]:
            got = f"{codes_of(params[path]).dtype} numbers"
            fix = "leave it out of the heads, or quantise the model without it"
            raise TargetError(message(f"head {path}", got=got, expected="a floating array, which learns", fix=fix))
