"""What of a call's inputs NNX writes into: variables, as of a cache that is a module, and streams of random numbers."""

import inspect
from typing import Any

import jax
from flax import nnx

from share_jax.traced.per_example import is_array
from share_jax.typing import PRNGKey


def _is_variable(value: Any) -> bool:
    return isinstance(value, nnx.Variable)


def variables_in(inputs: Any) -> list[nnx.Variable]:
    """The variables in a tree of modules, variables and arrays.

    >>> len(variables_in(({"cache": nnx.Variable(1.0)}, 2.0)))
    1
    """
    return [leaf for leaf in jax.tree.leaves(inputs, is_leaf=_is_variable) if _is_variable(leaf)]


def copied(inputs: Any) -> Any:
    """The inputs with variables of their own, which belong to the trace that is going on.

    >>> variable = nnx.Variable(1.0)
    >>> copied({"cache": variable})["cache"] is variable
    False
    """
    return jax.tree.map(lambda leaf: leaf, inputs) if variables_in(inputs) else inputs


def rngs_argument(parameter: inspect.Parameter, own: Any, key: PRNGKey) -> Any:
    """A method's argument `rngs` for a call with a key: streams of it, or the key where the method takes an array.

    Args:
        parameter: of the method.
        own: what the call gives itself, whose kind is taken.
        key: of this step.
    """
    says = (
        parameter.annotation
        if isinstance(parameter.annotation, str)
        else inspect.formatannotation(parameter.annotation)
    )
    takes_key = is_array(own) if own is not None else "Rngs" not in says and ("Array" in says or "Key" in says)
    return key if takes_key else nnx.Rngs(key)
