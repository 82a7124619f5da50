"""Answers that need no computing again: those of leaves of which no bit has changed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.algorithms.evaluation import Predict
from share_jax.checkpoint import fingerprints
from share_jax.trees import flat
from share_jax.typing import Tree


def fingerprint(*trees: Tree) -> str:
    """sha256 of the paths, types, shapes and bits of all leaves, in whatever order they are."""
    leaves = ((f"{number}/{path}", leaf) for number, tree in enumerate(trees) for path, leaf in flat(tree).items())
    return fingerprints.fingerprint(dict(sorted(leaves, key=lambda item: item[0]))).whole


class LogitsCache:
    """The last logits of each task's test examples, with what they were computed from.

    A compiled program gives the same bits for the same bits, so a task whose slot, shared leaves and base are what they
    were is not answered again.
    """

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._known: dict[int, tuple[Mapping[str, np.ndarray], Tree, str, np.ndarray]] = {}

    def unless_changed(self, logits: Predict, read: Callable[[int], tuple[Tree, Tree, Tree]]) -> Predict:
        """`logits`, but with the known answer where nothing has changed.

        Args:
            logits: computes the answer of a task's slot.
            read: by a task's number, what it is computed from: the base, which is compared by identity, the shared
                leaves and the slot.
        """

        def answer(index: int, inputs: Mapping[str, np.ndarray]) -> Any:
            base, shared, slot = read(index)
            now, known = fingerprint(shared, slot), self._known.get(index)
            if known is not None and known[0] is inputs and known[1] is base and known[2] == now:
                return known[3]
            values = logits(index, inputs)
            if known is None or known[0] is inputs:
                self._known[index] = inputs, base, now, values
            return values

        return answer
