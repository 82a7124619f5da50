"""The output of a function with a task's update at the operations that use its kernels.

The update is never formed: where an operation contracts a kernel's inputs, x @ A @ B is added to its output, in the
output's axes and dtype; where it contracts the outputs, as a tied output layer does, that is x @ B.T @ A.T.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import jax

from share_jax.errors import TargetError, message
from share_jax.layers.effective_params import own_leaves
from share_jax.layers.stored_kernel import parts
from share_jax.layers.targets import Target
from share_jax.ops.products import without_merging
from share_jax.parameterizations.base import Parameterization
from share_jax.traced.discover import program_of
from share_jax.traced.interpreter import run
from share_jax.traced.joined import kernels_in
from share_jax.traced.kernel_view import KernelView, view_of
from share_jax.traced.operations import Operation, sides_of
from share_jax.typing import Array, Tree


@dataclass(frozen=True)
class _Adding:
    """Adds each target's update where its kernel is used."""

    method: Parameterization
    targets: Mapping[str, Target]
    abstract: bool = False

    def use(self, view: KernelView, operation: Operation) -> Array:
        target, use = self.targets[view.path], operation.use
        own = [axis for axis in range(len(view.shape)) if axis not in target.layer_axes]
        order = tuple(own[axis] for axis in target.order)
        sides = sides_of(use, view.shape, order[: target.in_axes], order[target.in_axes :])
        if sides is None or use.stacked != target.layer_axes:
            raise self._unlike(view, "a kernel that is used along other axes than in the example call")
        return operation.adapted(self.method, sides)

    def refuse(self, view: KernelView, name: str, reason: str) -> None:
        raise self._unlike(view, reason)

    def mark(self, view: KernelView, text: str) -> None:
        pass

    def custom(self, name: str) -> None:
        return None

    def _unlike(self, view: KernelView, reason: str) -> TargetError:
        fix = "adapt with an example call of the same kind, or use space='parameter'"
        expected = "the operations of the example call"
        return TargetError(message(f"target {view.path}", got=reason, expected=expected, fix=fix))


def adapted_call(
    function: Callable[[dict[str, Array]], Any],
    kernels: Mapping[str, Array],
    method: Parameterization,
    targets: Sequence[Target],
    trees: tuple[Tree, Tree],
    *,
    merging: bool = True,
) -> Any:
    """The function's output with the update of one task.

    Args:
        function: (the targets' kernels by path) to any tree; it is traced.
        kernels: the targets' kernels by path; of a quantised one the tree that stores it.
        method: the parameterisation.
        targets: the adapted kernels.
        trees: the `shared` tree, and the slot of one task.
        merging: whether products may add the update to the kernel where that is cheaper.

    Raises:
        TargetError: if it uses a kernel in another way than in the example call.
    """
    by_path = {target.path: target for target in sorted(targets, key=lambda target: target.path)}
    stored = {path: parts(kernels[path]) for path in by_path}
    codes = {path: own.codes for path, own in stored.items()}

    def of_codes(codes: dict[str, Array]) -> Any:
        return function({path: own.joined(codes[path], own.others) for path, own in stored.items()})

    closed, result = program_of(of_codes, codes)
    visitor = _Adding(method, by_path)
    views = []
    for path, target in by_path.items():
        pair = own_leaves(method, target, *trees)
        lengths = tuple(codes[path].shape[axis] for axis in target.layer_axes)
        if len(lengths) > 1:
            pair = jax.tree.map(lambda leaf, lengths=lengths: leaf.reshape(lengths + leaf.shape[1:]), pair)
        views.append(view_of(path, codes[path], *pair))
    with nullcontext() if merging else without_merging():
        found = run(closed.jaxpr, closed.consts, views, visitor)
    for view in (view for value in found for view in kernels_in(value)):
        visitor.refuse(view, "", "a kernel that the model returns")
    return result(found)
