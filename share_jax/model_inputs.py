"""A model's inputs by place and by name together, as one tree of arrays that carries flags along."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from share_jax.typing import PRNGKey

VALUE_READ = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
"""What JAX raises where a model reads the value of an array in Python, as int(grid[0]) does."""

AS_FLAG = "give what the model reads in Python as a flag, such as an int or a tuple, or keep it in the model"
"""What to do about it: `Inputs` and `adapt` carry along as they are what is no array."""


def holds_arrays(value: Any) -> bool:
    """Whether an argument holds an array, or the shape of one; a flag, a name or None does not."""
    return any(isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(value))


@dataclass(frozen=True)
class _Rest:
    """What of `Inputs` is no array. Values that have no hash, such as lists, are compared alone."""

    count: int
    arrays: tuple[str | int, ...]
    others: dict[str | int, Any] = field(hash=False)
    rngs: tuple[str, ...]
    unbatched: tuple[str, ...]


@jax.tree_util.register_pytree_with_keys_class
class Inputs:
    """A model's arguments. Those that hold arrays are the tree's leaves, all others go along as they are.

    Attributes:
        args: the arguments by place.
        kwargs: the arguments by name.
        rngs: streams of random numbers that the model draws from while it trains.
        unbatched: those that have no batch axis, by name, or by place as "0".

    Example:
        >>> inputs = Inputs(np.ones(2), deterministic=True)
        >>> jax.tree.map(lambda leaf: leaf.shape, inputs).kwargs, len(jax.tree.leaves(inputs))
        ({'deterministic': True}, 1)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what the model is called with."""
        self.args, self.kwargs = args, kwargs
        given: dict[str | int, Any] = {**dict(enumerate(args)), **kwargs}
        self._arrays = tuple(name for name, value in given.items() if holds_arrays(value))
        self.rngs: tuple[str, ...] = ("dropout",)
        self.unbatched: tuple[str, ...] = ()

    def called_with(self, rngs: Sequence[str], unbatched: Sequence[str] = ()) -> "Inputs":
        """The same inputs of a model that draws from these streams while it trains, with what has no batch axis."""
        made = Inputs(*self.args, **self.kwargs)
        made.rngs, made.unbatched = tuple(rngs), tuple(unbatched)
        return made

    def tree_flatten_with_keys(self) -> tuple[list, _Rest]:
        """The arguments that hold arrays, and all else."""
        given = {**dict(enumerate(self.args)), **self.kwargs}
        leaves = [(jax.tree_util.DictKey(name), given.pop(name)) for name in self._arrays]
        return leaves, _Rest(len(self.args), self._arrays, given, self.rngs, self.unbatched)

    @classmethod
    def tree_unflatten(cls, rest: _Rest, leaves: Sequence[Any]) -> "Inputs":
        """The inputs with other arrays."""
        given = {**rest.others, **dict(zip(rest.arrays, leaves, strict=True))}
        args = [given.pop(place) for place in range(rest.count)]
        made = cls(*args, **{str(name): value for name, value in given.items()})
        made._arrays, made.rngs, made.unbatched = rest.arrays, rest.rngs, rest.unbatched
        return made


def inputs_of(inputs: Any) -> Inputs:
    """Any inputs of a batch: a dict by name, a plain tuple by place, all others as the one argument by place."""
    if isinstance(inputs, Inputs):
        return inputs
    if isinstance(inputs, dict):
        return Inputs(**inputs)
    return Inputs(*inputs) if type(inputs) is tuple else Inputs(inputs)


def streams(key: PRNGKey, names: Sequence[str]) -> dict[str, PRNGKey]:
    """A key for each stream of random numbers by name; "dropout" has the key itself, whatever other names there are."""
    return {name: key if name == "dropout" else jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names}
