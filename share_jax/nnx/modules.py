"""NNX's linear layers with a shared low-rank adapter: the same parameters, and a required `task_id`.

Each takes the arguments of NNX's layer of the same kind, and two more: `num_tasks`, slots in the task stack, and
`method`, the parameterisation, `SharedA(rank=4, alpha=8)` by default. Parameters keep their paths and initial values.

    SharedLoRALinear(768, 3072, num_tasks=10, rngs=rngs)
    SharedLoRALinearGeneral(768, (12, 64), num_tasks=10, rngs=rngs)
    SharedLoRAEinsum("btd,ndh->btnh", (12, 768, 64), num_tasks=10, rngs=rngs)
    SharedLoRAConv(3, 64, (7, 7), num_tasks=10, rngs=rngs)
    SharedLoRAEmbed(32000, 768, num_tasks=10, rngs=rngs)
"""

from typing import Any

from flax import nnx

from share_jax.errors import TargetError, message
from share_jax.nnx.variables import TaskLayer
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.shared_a import SharedA
from share_jax.typing import Array, TaskId


class SharedLoRALinear(TaskLayer, nnx.Linear):
    """`nnx.Linear` plus scale * x @ A @ B[task_id].

    Example:
        >>> import jax.numpy as jnp
        >>> layer = SharedLoRALinear(6, 4, num_tasks=3, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((2, 5, 6)), jnp.array([2, 0])).shape
        (2, 5, 4)
    """

    default: Parameterization = SharedA()

    def __init__(
        self, *args: Any, num_tasks: int = 1, method: Parameterization | None = None, rngs: nnx.Rngs, **kwargs: Any
    ) -> None:
        """Creates the layer, then its adapter."""
        super().__init__(*args, rngs=rngs, **kwargs)
        self.add_leaves("kernel", (0,), num_tasks, method or self.default, rngs)

    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The output, (..., out_features), of inputs (batch, ..., in_features) for one id, or one per example."""
        return self.with_update(nnx.Linear.__call__, inputs, task_id)


class SharedLoRALinearGeneral(TaskLayer, nnx.LinearGeneral):
    """`nnx.LinearGeneral`, as in attention's 3-axis kernels, plus a low-rank update of its flattened kernel.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer = SharedLoRALinearGeneral(4, (2, 3), num_tasks=3, rngs=nnx.Rngs(0))  # two heads of width 3
        >>> jax.eval_shape(layer, jnp.ones((2, 4)), jnp.array([2, 0])).shape
        (2, 2, 3)
    """

    default: Parameterization = SharedA()

    def __init__(
        self, *args: Any, num_tasks: int = 1, method: Parameterization | None = None, rngs: nnx.Rngs, **kwargs: Any
    ) -> None:
        """Creates the layer, then its adapter.

        Raises:
            TargetError: if the layer has batch axes.
        """
        super().__init__(*args, rngs=rngs, **kwargs)
        if self.batch_axis:
            got, fix = f"batch_axis={dict(self.batch_axis)}", "leave this layer without an adapter"
            expected = "a kernel that is one matrix"
            raise TargetError(message(type(self).__name__, got=got, expected=expected, fix=fix))
        inputs = tuple(range(len(self.in_features)))
        self.add_leaves("kernel", inputs, num_tasks, method or self.default, rngs)

    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The layer's output for inputs, batch first, and one id, or one per example."""
        return self.with_update(nnx.LinearGeneral.__call__, inputs, task_id)


class SharedLoRAEinsum(TaskLayer, nnx.Einsum):
    """`nnx.Einsum` plus a low-rank update from the kernel's contracted axes to those that it keeps.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer = SharedLoRAEinsum("bd,ndh->bnh", (2, 4, 3), num_tasks=3, rngs=nnx.Rngs(0))
        >>> jax.eval_shape(layer, jnp.ones((2, 4)), jnp.array([2, 0])).shape
        (2, 2, 3)
    """

    default: Parameterization = SharedA()

    def __init__(
        self, *args: Any, num_tasks: int = 1, method: Parameterization | None = None, rngs: nnx.Rngs, **kwargs: Any
    ) -> None:
        """Creates the layer, then its adapter.

        Raises:
            TargetError: if the equation is not given here, or an axis of the kernel is neither contracted nor new.
        """
        super().__init__(*args, rngs=rngs, **kwargs)
        sides, _, out = (self.einsum_str or "").partition("->")
        x, _, kernel = sides.partition(",")
        letters = [letter for letter in kernel if letter.isalpha()]
        if len(letters) != len(self.kernel_shape) or any((letter in x) == (letter in out) for letter in letters):
            fix = "leave this layer without an adapter"
            expected = "an equation whose kernel axes are each contracted, or new in the output"
            raise TargetError(message(type(self).__name__, got=repr(self.einsum_str), expected=expected, fix=fix))
        inputs = tuple(axis for axis, letter in enumerate(letters) if letter in x)
        self.add_leaves("kernel", inputs, num_tasks, method or self.default, rngs)

    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The layer's output for inputs, batch first, and one id, or one per example."""
        return self.with_update(nnx.Einsum.__call__, inputs, task_id)


class SharedLoRAConv(TaskLayer, nnx.Conv):
    """`nnx.Conv`, groups included, plus a convolution to r channels followed by a product to the features.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer = SharedLoRAConv(3, 4, kernel_size=(3, 3), num_tasks=3, rngs=nnx.Rngs(0))
        >>> jax.eval_shape(layer, jnp.ones((2, 5, 5, 3)), jnp.array([2, 0])).shape
        (2, 5, 5, 4)
    """

    default: Parameterization = SharedA()

    def __init__(
        self, *args: Any, num_tasks: int = 1, method: Parameterization | None = None, rngs: nnx.Rngs, **kwargs: Any
    ) -> None:
        """Creates the layer, then its adapter.

        Raises:
            TargetError: if the layer has a mask.
        """
        super().__init__(*args, rngs=rngs, **kwargs)
        if self.mask is not None:
            expected, fix = "a kernel that is one matrix", "leave this layer without an adapter"
            raise TargetError(message(type(self).__name__, got="a mask", expected=expected, fix=fix))
        self.add_leaves("kernel", tuple(range(self.kernel.ndim - 1)), num_tasks, method or self.default, rngs)

    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The layer's output for inputs (batch, *spatial, channels) and one id, or one per example."""
        return self.with_update(nnx.Conv.__call__, inputs, task_id)


class SharedLoRAEmbed(TaskLayer, nnx.Embed):
    """`nnx.Embed` plus A[ids] @ B[task_id]; the tied output layer `attend` takes the transposed pair.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> layer = SharedLoRAEmbed(10, 4, num_tasks=3, rngs=nnx.Rngs(0))
        >>> tokens, tasks = jnp.array([[1, 2, 3], [4, 5, 6]]), jnp.array([2, 0])
        >>> states = jax.eval_shape(layer, tokens, tasks)
        >>> states.shape, jax.eval_shape(layer.attend, states, tasks).shape
        ((2, 3, 4), (2, 3, 10))
    """

    default: Parameterization = SharedA()

    def __init__(
        self, *args: Any, num_tasks: int = 1, method: Parameterization | None = None, rngs: nnx.Rngs, **kwargs: Any
    ) -> None:
        """Creates the layer, then its adapter."""
        super().__init__(*args, rngs=rngs, **kwargs)
        self.add_leaves("embedding", (0,), num_tasks, method or self.default, rngs)

    def __call__(self, inputs: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The rows, (..., features), of integer ids (batch, ...), for one task id, or one per example."""
        return self.with_update(nnx.Embed.__call__, inputs, task_id)

    def attend(self, query: Array, task_id: TaskId) -> Array:  # pyright: ignore[reportIncompatibleMethodOverride]
        """query (batch, ..., features) @ embedding.T with the update of one task, or of each example's own."""
        return self.with_update(nnx.Embed.attend, query, task_id)
