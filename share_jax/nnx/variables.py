"""The variables of adapters in a module of one's own, and how a layer computes with them.

They are no `nnx.Param`s: `wrt=nnx.Param` neither trains nor counts them. Each class is the filter of its own variables:

    tasks = nnx.state(model, TaskVariable)
    layer.scale = SharedVariable(jnp.ones(8))
    layer.offset = TaskVariable(jnp.zeros((num_tasks, 8)))
"""

from collections.abc import Callable
from typing import Any

from flax import nnx

from share_jax.bank.slots import slots_of
from share_jax.errors import InputError, message
from share_jax.layers.fresh_trees import init_stack
from share_jax.layers.targets import Target
from share_jax.parameterizations.base import Parameterization, check_method, specs
from share_jax.traced.per_example import each_its_own
from share_jax.traced.program_output import adapted_call
from share_jax.typing import Array, Leaves, PRNGKey, TaskId


class SharedVariable(nnx.Variable):
    """What all tasks share, such as `lora_a`; a filter for it.

    Example:
        >>> from share_jax.nnx import SharedLoRALinear
        >>> layer = SharedLoRALinear(4, 3, num_tasks=3, rngs=nnx.Rngs(0))
        >>> {path: leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(layer, SharedVariable))}
        {('lora_a',): (4, 4)}
    """


class TaskVariable(nnx.Variable):
    """What belongs to tasks, stacked (T, ...); a filter for it.

    Example:
        >>> from share_jax.nnx import SharedLoRALinear
        >>> layer = SharedLoRALinear(4, 3, num_tasks=3, rngs=nnx.Rngs(0))
        >>> {path: leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(layer, TaskVariable))}
        {('lora_b',): (3, 4, 3)}
    """


class TaskLayer(nnx.Module):
    """What these layers have beside the layer of NNX that they are.

    Attributes:
        method: the parameterisation.
        num_tasks: slots in the task stack, T.
    """

    method: Parameterization
    num_tasks: int

    def add_leaves(
        self, kernel: str, inputs: tuple[int, ...], num_tasks: int, method: Parameterization, rngs: nnx.Rngs
    ) -> None:
        """Creates the adapter's variables beside a kernel that is there.

        Args:
            kernel: the attribute that it is.
            inputs: which of its axes are inputs.
            num_tasks: slots, T.
            method: the parameterisation.
            rngs: its stream "params" draws them.

        Raises:
            InputError: if `num_tasks` is below 1, or the method is no parameterisation.
        """
        check_method(method, "choose one of share_jax's, or write the functions of parameterizations/base.py")
        if num_tasks < 1:
            raise InputError(message("num_tasks", got=num_tasks, expected="at least 1", fix="pass the number of slots"))
        self.method, self.num_tasks = method, num_tasks
        self.target = Target(kernel, (), type(self).__name__, getattr(self, kernel).shape, len(inputs), None, inputs)
        sides = self.target.d_in, self.target.d_out
        for name, leaf in method.init_shared(rngs.params(), *sides).items():
            setattr(self, name, SharedVariable(leaf))
        for name, leaf in init_stack(method, rngs.params(), *sides, num_tasks).items():
            setattr(self, name, TaskVariable(leaf))

    def with_update(self, plain: Callable[[Any, Array], Array], x: Array, task_id: TaskId) -> Array:
        """The layer's output with the update of a task, or of each example's own.

        Args:
            plain: (the layer, x) to its output without an update.
            x: the layer's input, batch first.
            task_id: an integer scalar, or one id per example (batch,).

        Raises:
            TaskError: if a concrete id is not a slot.
            InputError: if there is not one id per example.
        """
        own = {name: getattr(self, name)[...] for owner in ("shared", "task") for name in specs(self.method, owner)}
        shared = {name: own[name] for name in specs(self.method, "shared")}
        slots = slots_of({name: own[name] for name in specs(self.method, "task")}, task_id)
        graph, state = nnx.split(self)
        variables: dict[str, Any] = {str(name): state[name] for name in state}
        path = self.target.path

        def call(slot: Leaves, args: tuple, kwargs: dict[str, Any], key: PRNGKey | None) -> Any:
            def function(kernels: dict[str, Array]) -> Array:
                layer: Any = nnx.merge(graph, {**variables, path: variables[path].replace(kernels[path])}, copy=True)
                return plain(layer, *args)

            kernel = {path: getattr(self, path)[...]}
            return adapted_call(function, kernel, self.method, (self.target,), (shared, slot))

        if not slots.batched:
            return call(slots.leaves, (x,), {}, None)

        def shapes(slot: Any, args: tuple, kwargs: dict[str, Any], key: PRNGKey | None) -> Any:
            return plain(nnx.merge(graph, state, copy=True), *args)

        return each_its_own(call, shapes, slots.at_hand().leaves, (x,), {}, None)
