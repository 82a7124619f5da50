"""The devices that a run uses: one, or a mesh of many, with the same calls for both.

The methods hold what they have learnt on the host, as with one device; only the train step and the evaluation of a
batch run on the mesh (`share_jax.train.placed_step`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.config.run_config import Config
from experiments.report.notify import to_nobody, to_stderr
from share_jax.ops.remat_policy import Remat
from share_jax.sharding.compiled_memory import Memory
from share_jax.sharding.layout import Layout, layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import parse_mesh
from share_jax.train.placed_step import PlacedStep, placed_base, placed_predict
from share_jax.train.step import Forward, Loss, StepState, forward_of, make_train_step
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
        return forward_of(adapted, self.remat(blocks))

    def remat(self, blocks: tuple[str, ...]) -> Remat | None:
        """What the backward pass computes again: these blocks, if the run says so."""
        return None if self.policy is None else Remat(self.policy, blocks)

    def base(self, variables: Tree, adapted: Any) -> Tree:
        """The frozen variables where the steps read them."""
        return placed_base(self.layout(adapted, variables["params"]), variables)

    def train_step(
        self, forward: Forward, loss: Loss, optimizer: Any, adapted: Any, params: Tree, *, train_shared: bool
    ) -> PlacedStep:
        """`make_train_step` for these devices."""
        layout = self.layout(adapted, params)
        options: Any = {"train_shared": train_shared, "accumulate": self.accumulate, "layout": layout}
        return PlacedStep(make_train_step(forward, loss, optimizer, **options), layout)

    def compiled(
        self, step: PlacedStep, state: StepState, base: Tree, samples: Sequence[Any], *, label: str
    ) -> PlacedStep:
        """The step compiled ahead, as `PlacedStep.compile`, with the memory of the largest told."""
        made = step.compile(state, base, samples)
        self.tell_memory(made, label)
        return made

    def tell_memory(self, step: PlacedStep, label: str) -> None:
        """Tells what the largest compiled step needs, if the backend says so."""
        if (memory := step.memory) is not None:
            self.tell(f"{label}: a train step needs {shown(memory)}")

    def predictor(self, forward: Forward, adapted: Any, params: Tree) -> Any:
        """A (base variables, shared, slot, inputs) -> output, whole and on the host; any number of examples."""
        return placed_predict(forward, self.layout(adapted, params))


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
