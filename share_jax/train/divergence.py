"""The first loss that is not finite, found without making a device wait."""

from collections import deque
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from share_jax.trees import flat
from share_jax.typing import Array, Tree

BEHIND = 16
"""Losses that are read together, and that may still be under way when they are."""


class BadLoss(NamedTuple):
    """The first step whose loss is not finite.

    Attributes:
        step: its number.
        loss: nan, inf or -inf.
        note: what `add` was given beside the loss.
    """

    step: int
    loss: float
    note: Any


class LossWatch:
    """Reads the losses of a training some steps behind, so that the device always has work queued.

    Every loss is read once, in order, so the first bad one is found with its own step, at most `2 * behind` steps
    later. Before anything is saved, `drain` reads what is left: no state past a bad loss counts as good.
    """

    def __init__(self, behind: int = BEHIND) -> None:
        """Watches nothing yet; `behind` losses are read at a time."""
        self._behind = behind
        self._queue: deque[tuple[int, Array, Any]] = deque()

    def add(self, step: int, loss: Array, note: Any = None) -> BadLoss | None:
        """Takes a step's loss, which may still be under way; the first bad one among those read now, or None."""
        self._queue.append((step, loss, note))
        return self._read(self._behind) if len(self._queue) >= 2 * self._behind else None

    def drain(self) -> BadLoss | None:
        """Reads all losses that are left, waiting for them."""
        return self._read(len(self._queue))

    def _read(self, count: int) -> BadLoss | None:
        taken = [self._queue.popleft() for _ in range(count)]
        for (step, _, note), loss in zip(taken, jax.device_get([loss for _, loss, _ in taken]), strict=True):
            if not np.isfinite(loss):
                return BadLoss(step, float(loss), note)
        return None


def not_finite(tree: Tree) -> str | None:
    """The path of the first leaf with a number that is not finite, or None. Waits for the arrays."""
    leaves = {path: leaf for path, leaf in flat(tree).items() if jnp.issubdtype(leaf.dtype, jnp.inexact)}
    whole = jax.device_get(_finite(leaves))
    return next((path for path, good in whole.items() if not good), None)


@jax.jit
def _finite(leaves: dict[str, Array]) -> dict[str, Array]:
    return {path: jnp.isfinite(leaf).all() for path, leaf in leaves.items()}


def lower_rate(state: Any, step: int) -> str:
    """The fix text of a `DivergedError`, with the learning rate if the optimizer's state shows it.

    Args:
        state: a `StepState`.
        step: the step that diverged.
    """
    rates = optax.tree_utils.tree_get_all_with_path(state.opt_state, "learning_rate")
    shown = f", now {float(rates[0][1]):.3g}" if rates else " (optax.inject_hyperparams would show it here)"
    ways = "clip the gradients, or look for inputs that are not finite"
    return f"lower the learning rate{shown}, {ways}; the bank is as it was"
