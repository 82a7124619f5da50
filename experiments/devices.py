"""The devices that a run uses: one, or a mesh of many, with the same calls for both.

The methods hold what they have learnt on the host, as with one device; only the train step and the evaluation of a
batch run on the mesh. `Devices` puts their arguments there and, after a task, brings the task's leaves back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.config.run_config import Config
from experiments.data.shapes import Shapes, shapes
from experiments.report.notify import to_nobody, to_stderr
from share_jax.ops.remat_policy import Remat
from share_jax.runtime.processes import to_host
from share_jax.sharding.compiled_memory import Memory, memory_of
from share_jax.sharding.layout import Layout, layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import parse_mesh
from share_jax.sharding.microbatches import batch_size
from share_jax.sharding.placement import feed, put, put_base, put_batch, put_state
from share_jax.train.step import Forward, Loss, StepState, forward_of, make_predict, make_train_step
from share_jax.typing import Tree


@dataclass(frozen=True)
class Devices:
    """How train steps and predictions run.

    Attributes:
        mesh: of all devices; one device when None.
        accumulate: microbatches of each batch.
        policy: what the blocks of the model keep between the passes, by `Remat`; everything when None.
        tell: told in a line what the first step of a method needs on each device.
    """

    mesh: Mesh | None = None
    accumulate: int = 1
    policy: str | None = None
    tell: Callable[[str], None] = field(default=to_nobody, compare=False)

    def layout(self, adapted: Any, params: Tree) -> Layout | None:
        """Where a model's arrays lie; None on one device."""
        return None if self.mesh is None else layout_of(self.mesh, params, adapted)

    def forward(self, adapted: Any, blocks: tuple[str, ...]) -> Forward:
        """How the model answers, its blocks computed again in the backward pass if the run says so."""
        return forward_of(adapted, None if self.policy is None else Remat(self.policy, blocks))

    def base(self, variables: Tree, adapted: Any) -> Tree:
        """The frozen variables where the steps read them."""
        layout = self.layout(adapted, variables["params"])
        return variables if layout is None else put_base(layout, variables)

    def train_step(
        self,
        forward: Forward,
        loss: Loss,
        optimizer: Any,
        adapted: Any,
        params: Tree,
        *,
        train_shared: bool,
        label: str,
    ) -> "Step":
        """`make_train_step` for these devices, to be lowered and compiled."""
        layout = self.layout(adapted, params)
        run = make_train_step(
            forward, loss, optimizer, train_shared=train_shared, accumulate=self.accumulate, layout=layout
        )
        return Step(run, layout, self.tell, label)

    def predictor(self, forward: Forward, adapted: Any, params: Tree) -> Any:
        """A (base variables, shared, slot, inputs) -> output, whole and on the host; any number of examples."""
        layout = self.layout(adapted, params)
        run = make_predict(forward, layout)
        if layout is None:
            return run

        def predict(base: Tree, shared: Tree, slot: Tree, inputs: Any) -> Any:
            size = batch_size(inputs)
            fill = -size % layout.batch_parts
            inputs = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], fill, axis=0)]), inputs)
            placed = put(dict(shared), layout.shared(shared)), put(dict(slot), layout.slot(slot))
            out = run(base, *placed, put_batch(layout, inputs))
            return jax.tree.map(lambda leaf: np.asarray(leaf)[:size], out)

        return predict


@dataclass(frozen=True)
class Step:
    """A train step that puts its state and batches where they belong."""

    run: Any
    layout: Layout | None
    tell: Callable[[str], None]
    label: str
    compiled: Mapping[Shapes, Any] = field(default_factory=dict)

    def compile(self, state: StepState, base: Tree, samples: Sequence[Any]) -> "Step":
        """Compiled ahead, so that nothing compiles any more, with the memory of the largest told.

        Args:
            state: with the shapes of every state to come.
            base: the frozen variables.
            samples: one batch of each shape to come; a batch of another shape will be a KeyError.
        """
        made = {}
        for batch in {shapes(batch): batch for batch in samples}.values():
            placed = self.state(state), base, self.batch(batch, batch_size(batch))
            made[shapes(batch)] = self.run.lower(*placed).compile()
        known = [memory for compiled in made.values() if (memory := memory_of(compiled)) is not None]
        if known:
            self.tell(f"{self.label}: a train step needs {shown(max(known, key=lambda memory: memory.total))}")
        return replace(self, compiled=made)

    def __call__(self, state: StepState, base: Tree, batch: Any) -> tuple[StepState, dict[str, Any]]:
        """One update."""
        return self.compiled[shapes(batch)](state, base, self.batch(batch, batch_size(batch)))

    def state(self, state: StepState) -> StepState:
        """The state where the step wants it."""
        return state if self.layout is None else put_state(self.layout, state)

    def batch(self, batch: Any, size: int) -> Any:
        """A global batch of `size` examples, of which `batch` holds all, or those that this process feeds."""
        if self.layout is None:
            return batch
        return put_batch(self.layout, batch) if batch_size(batch) == size else feed(self.layout, batch, size)

    def end(self, state: StepState) -> StepState:
        """The state after a task, its leaves whole on every host."""
        if self.layout is None:
            return state
        return state._replace(shared=to_host(state.shared), slot=to_host(state.slot))


def shown(memory: Memory) -> str:
    """A line on what a step needs.

    >>> shown(Memory(3_000_000, 1_000_000, 1_000_000, 2_500_000, 0))
    '5.5 MB on each device: 3.0 MB of weights, state and batch, 2.5 MB while it runs'
    """
    mega = [f"{size / 1e6:,.1f} MB" for size in (memory.total, memory.arguments, memory.temporaries)]
    return f"{mega[0]} on each device: {mega[1]} of weights, state and batch, {mega[2]} while it runs"


def open_devices(config: Config) -> Devices:
    """The devices that a configuration asks for.

    Raises:
        InputError: if the mesh does not fit the devices.
    """
    mesh = None
    if config.mesh is not None:
        mesh = make_mesh(parse_mesh(config.mesh))
    elif jax.process_count() > 1:
        mesh = make_mesh(parse_mesh(f"data={jax.device_count()}"))
    quiet = config.quiet or jax.process_index() != 0
    return Devices(mesh, config.accumulate, config.remat, to_nobody if quiet else to_stderr)
