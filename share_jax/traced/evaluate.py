"""The output of a function with a task's update at the operations that use its kernels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from share_jax.errors import TargetError, message
from share_jax.layers.targets import Target
from share_jax.parameterizations.base import Parameterization
from share_jax.traced.interpreter import run
from share_jax.traced.kernel_view import KernelView, view_of
from share_jax.traced.operations import Operation, sides_of
from share_jax.trees import at
from share_jax.typing import Array, Tree


@dataclass(frozen=True)
class _Adding:
    """Adds each target's update where its kernel is used."""

    method: Parameterization
    targets: Mapping[str, Target]

    def use(self, view: KernelView, operation: Operation) -> Array:
        target, use = self.targets[view.path], operation.use
        layers = 0 if target.stacked is None else 1
        order = tuple(axis + layers for axis in target.order)
        sides = sides_of(use, view.shape, order[: target.in_axes], order[target.in_axes :])
        if sides is None or (use.stacked is None) != (target.stacked is None):
            self.refuse(view, "a kernel that is used along other axes than in the example call")
            return operation.plain()
        return operation.adapted(self.method, sides)

    def refuse(self, view: KernelView, reason: str) -> None:
        fix = "adapt with an example call of the same kind, or use space='parameter'"
        expected = "the operations of the example call"
        raise TargetError(message(f"target {view.path}", got=reason, expected=expected, fix=fix))


def adapted_call(
    function: Callable[[dict[str, Array]], Any],
    kernels: Mapping[str, Array],
    method: Parameterization,
    targets: Sequence[Target],
    trees: tuple[Tree, Tree],
) -> Any:
    """The function's output with the update of one task.

    Args:
        function: (the targets' kernels by path) to any tree; it is traced.
        kernels: the targets' kernels by path.
        method: the parameterisation.
        targets: the adapted kernels.
        trees: the `shared` tree, and the slot of one task.

    Raises:
        TargetError: if it uses a kernel in another way than in the example call.
    """
    rest: list[Any] = []

    def arrays(kernels: dict[str, Array]) -> list[Any]:
        leaves, structure = jax.tree.flatten(function(kernels))
        is_array = [isinstance(leaf, jax.Array) for leaf in leaves]
        rest[:] = [structure, is_array, [leaf for leaf, own in zip(leaves, is_array, strict=True) if not own]]
        return [leaf for leaf, own in zip(leaves, is_array, strict=True) if own]

    closed = jax.make_jaxpr(arrays)({target.path: kernels[target.path] for target in targets})
    by_path = {target.path: target for target in sorted(targets, key=lambda target: target.path)}
    visitor = _Adding(method, by_path)
    views = [
        view_of(path, kernels[path], *(at(tree, target.module_path) for tree in trees))
        for path, target in by_path.items()
    ]
    found = []
    for value in run(closed.jaxpr, closed.consts, views, visitor):
        if isinstance(value, KernelView):
            visitor.refuse(value, "a kernel that the model returns")
        found.append(value)
    structure, is_array, others = rest
    ours, theirs = iter(found), iter(others)
    return jax.tree.unflatten(structure, [next(ours) if own else next(theirs) for own in is_array])
