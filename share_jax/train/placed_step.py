"""A train step, and a prediction, that put their arguments where they belong: on one device, or over a mesh.

What has been learnt stays on the host's default device. A step's arguments are put on the mesh when it is called, and
a task's leaves are brought back when it ends; all other code is the same for one device and for many.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from share_jax.bank.slots import TaskSlots, as_slots
from share_jax.runtime.processes import to_host
from share_jax.sharding.compiled_memory import Memory, memory_of
from share_jax.sharding.layout import Layout
from share_jax.sharding.microbatches import batch_size
from share_jax.sharding.placement import feed, put, put_base, put_batch, put_state
from share_jax.train.step import make_predict
from share_jax.train.update import Forward, StepState
from share_jax.typing import Array, Tree

Shapes = tuple[tuple[int, ...], ...]


def shapes(batch: Any) -> Shapes:
    """The shapes of a batch's leaves: what one compiled step can take."""
    return tuple(np.shape(leaf) for leaf in jax.tree.leaves(batch))


@dataclass(frozen=True)
class PlacedStep:
    """A train step that puts its state and batches where they belong.

    Attributes:
        run: from `make_train_step`, with the same layout.
        layout: where arrays lie; one device when None.
        compiled: the step as compiled ahead, by the shapes of batches; compiled at its first calls when None.

    Example:
        >>> import jax.numpy as jnp
        >>> def update(state, base, batch):
        ...     return state._replace(step=state.step + 1), {"loss": batch["inputs"].mean()}
        >>> state, batch = StepState({}, {}, None, jnp.int32(0), jax.random.key(0)), {"inputs": jnp.ones((4, 2))}
        >>> step = PlacedStep(jax.jit(update)).compile(state, {}, [batch])  # ahead
        >>> state, metrics = step(state, {}, batch)
        >>> int(state.step), float(metrics["loss"])
        (1, 1.0)
    """

    run: Any
    layout: Layout | None = None
    compiled: Mapping[Shapes, Any] | None = None

    def compile(self, state: StepState, base: Tree, samples: Iterable[Any]) -> "PlacedStep":
        """Compiled ahead, so that nothing compiles any more.

        Args:
            state: with the shapes of every state to come.
            base: the frozen variables, placed.
            samples: one batch of each shape to come; a batch of another shape will be a KeyError.
        """
        made = {}
        for batch in {shapes(batch): batch for batch in samples}.values():
            placed = self.place(state), base, self.batch(batch, batch_size(batch))
            made[shapes(batch)] = self.run.lower(*placed).compile()
        return replace(self, compiled=made)

    @property
    def memory(self) -> Memory | None:
        """What the largest compiled step needs on each device; None if the backend does not say."""
        known = [memory for step in (self.compiled or {}).values() if (memory := memory_of(step)) is not None]
        return max(known, key=lambda memory: memory.total, default=None)

    def __call__(self, state: StepState, base: Tree, batch: Any) -> tuple[StepState, dict[str, Array]]:
        """One update; the state is donated."""
        if self.layout is None and self.compiled is None:
            return self.run(state, base, batch)
        run = self.run if self.compiled is None else self.compiled[shapes(batch)]
        return run(state, base, self.batch(batch, batch_size(batch)))

    def place(self, state: StepState) -> StepState:
        """The state where the step wants it."""
        return state if self.layout is None else put_state(self.layout, state)

    def batch(self, batch: Any, size: int) -> Any:
        """A global batch of `size` examples, of which `batch` holds all, or those that this process feeds."""
        if self.layout is None:
            return batch
        return put_batch(self.layout, batch) if batch_size(batch) == size else feed(self.layout, batch, size)

    def whole(self, state: StepState) -> StepState:
        """The state after a task, its leaves whole on every host."""
        if self.layout is None:
            return state
        return state._replace(shared=to_host(state.shared), slot=to_host(state.slot))


def placed_base(layout: Layout | None, variables: Tree) -> Tree:
    """The frozen variables where steps and predictions read them."""
    return variables if layout is None else put_base(layout, variables)


def placed_predict(forward: Forward, layout: Layout | None) -> Any:
    """(base variables, shared, slot, inputs) to the model's output; any number of examples on a mesh, too.

    The slot is one task's, or a stack with an id per example (`TaskSlots` from `AdaptedModel.slot`). On a mesh the
    output is whole and on the host.
    """
    run = make_predict(forward, layout)
    if layout is None:
        return run

    def predict(base: Tree, shared: Tree, slot: TaskSlots | Tree, inputs: Any) -> Any:
        size = batch_size(inputs)
        fill = -size % layout.batch_parts  # examples that fill the batch up to a multiple of the mesh
        shared = put(dict(shared), layout.shared(shared))
        slots = as_slots(slot)
        where = (layout.tasks if slots.batched else layout.slot)(slots.leaves)
        rows = inputs, slots.ids
        rows = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], fill, axis=0)]), rows)
        inputs, ids = put_batch(layout, rows)
        slots = replace(slots, leaves=put(dict(slots.leaves), where), ids=ids)

        def cut(leaf: Any) -> np.ndarray:  # what has no axis of examples stays whole
            own = np.asarray(leaf)
            return own[:size] if fill and own.ndim and len(own) == size + fill else own

        return jax.tree.map(cut, run(base, shared, slots, inputs))

    return predict
