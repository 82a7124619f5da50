"""Calls with other flags than the example call: a kernel that they read past its layer is found before they run."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from share_jax.errors import TargetError, message
from share_jax.linen.bypass import bypassed
from share_jax.linen.model_checks import RAISED
from share_jax.trees import flat
from share_jax.typing import Tree

MOST = 64
"""Kinds of call that are looked at: more are numbers that count, as a position does, and no flags."""


@dataclass(frozen=True)
class LaterCalls:
    """The kinds of call of one model that are known to read kernels in their layers alone.

    Attributes:
        known: what such calls have beside arrays; filled as new kinds come.
    """

    known: set[Any] = field(default_factory=set)

    def note(self, args: tuple, kwargs: dict[str, Any]) -> None:
        """The example call, which `adapt` has looked at."""
        self.known.add(kind(args, kwargs))

    def check(
        self, model: nn.Module, variables: Tree, args: tuple, kwargs: dict[str, Any], paths: Collection[str]
    ) -> None:
        """Traces a call of a new kind once.

        Args:
            model: the Linen model.
            variables: its own, without those of the adapter.
            args: the positional arguments.
            kwargs: the named ones.
            paths: of parameters whose update, or whose own value, their layer gets when it is called; of them the
                kernels are looked at.

        Raises:
            TargetError: if the call reads one of them without calling its layer.
        """
        own = kind(args, kwargs)
        if own in self.known or len(self.known) >= MOST:
            return
        leaves = flat(variables["params"])
        kernels = sorted(path for path in paths if leaves[path].ndim > 1)
        try:
            around = bypassed(model, variables, args, kwargs, kernels)
        except (*RAISED, jax.errors.JAXTypeError, Warning):  # the call itself says why it fails, if it does
            return
        if around:
            fix = "pass the same flags in the example call of adapt, or use space='parameter'"
            got, expected = "a call that reads it without calling its layer", "the layers of the example call"
            raise TargetError(message(f"target {around[0]}", got=got, expected=expected, fix=fix))
        self.known.add(own)


def kind(args: tuple, kwargs: dict[str, Any]) -> Any:
    """What a call has beside arrays, and where its arrays are; as text where it cannot be hashed.

    >>> kind((np.ones(3),), {"train": False}) == kind((np.zeros(2),), {"train": False})
    True
    >>> kind((np.ones(3),), {"train": False}) == kind((np.ones(3),), {"train": True})
    False
    """
    leaves, structure = jax.tree.flatten((args, kwargs))
    arrays = (jax.Array, np.ndarray, jax.ShapeDtypeStruct, float)  # a number that changes is no flag
    found = tuple(None if isinstance(leaf, arrays) else (type(leaf), leaf) for leaf in leaves)
    try:
        hash(found)
    except TypeError:
        found = repr(found)
    return structure, found
