"""Adapting an unmodified Linen model: `adapt` finds the kernels, `Adapted` runs the model with a task's update."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flax.linen as nn

from share_jax.adapted import SHARED, TASKS, Forward, arguments, check_variables
from share_jax.adapted_trees import AdaptedTrees, check_space
from share_jax.bank.slots import TaskSlots
from share_jax.errors import InputError, TargetError, message
from share_jax.layers.effective_params import effective_params
from share_jax.layers.projected import Projected, project
from share_jax.layers.targets import Target, match
from share_jax.linen.bypass import bypassed
from share_jax.linen.discover import ParameterUse, uses
from share_jax.linen.gathered_layers import gathering_layers
from share_jax.linen.intercept import interceptor, layer_slots
from share_jax.linen.remat import rematerialised
from share_jax.ops.remat_policy import Remat
from share_jax.parameterizations.base import Parameterization, check_method
from share_jax.parameterizations.shared_a import SharedA
from share_jax.trees import at, flat, merged, nested
from share_jax.typing import Array, PRNGKey, TaskId, Tree


@dataclass(frozen=True)
class Adapted(AdaptedTrees):
    """An unmodified model and the kernels of it that tasks adapt. Made by `adapt`; holds no arrays.

    Attributes:
        model: the Linen model, as it was.
        method: the parameterisation of each kernel's update.
        targets: the adapted kernels, in path order.
        heads: paths of the parameters that each task owns whole, such as a classifier's kernel and bias.
        space: "activation" or "parameter".
        kernels: of every kernel that the model uses, adapted or not, by path: its axes within one layer, and how many
            of them are inputs.
    """

    model: nn.Module
    method: Parameterization
    targets: tuple[Target, ...]
    heads: tuple[str, ...]
    space: str
    kernels: Mapping[str, tuple[int, int]] = field(repr=False, compare=False, default_factory=dict)

    @property
    def _layers(self) -> frozenset[tuple[str, ...]]:
        return frozenset(target.module_path for target in self.targets)

    @property
    def name(self) -> str:
        """Class of the model."""
        return type(self.model).__name__

    def apply(self, variables: Tree, *args: Any, task_id: TaskId, **kwargs: Any) -> Any:
        """`model.apply` with the update and the heads of a task, or of each example's own task.

        Args:
            variables: "params" and whatever else the model has, with "shared" and "tasks" from `init`.
            *args: the model's inputs.
            task_id: an integer scalar, or one id per example (batch,); concrete or traced.
            **kwargs: as for `model.apply`.

        Raises:
            TaskError: if a concrete id is not a slot.
        """
        return self.apply_slot(variables, self.slot(variables[TASKS], task_id), *args, **kwargs)

    def apply_slot(self, variables: Tree, slot: TaskSlots | Tree, *args: Any, **kwargs: Any) -> Any:
        """The same for slots from `slot`, or for one task's leaves at hand, as in training."""
        slots = slot if isinstance(slot, TaskSlots) else TaskSlots(slot)
        rest = {name: tree for name, tree in variables.items() if name not in (SHARED, TASKS)}
        shared, params = variables[SHARED], variables["params"]
        of_heads = slots.heads or slots
        if self.heads and not of_heads.batched:
            own = flat(of_heads.leaves)
            params = merged(params, nested({path: own[path] for path in self.heads}))
        if self.space == "parameter":
            params = effective_params(self.method, self.targets, params, shared, slots.leaves)
            return self.model.apply({**rest, "params": params}, *args, **kwargs)
        tasks = layer_slots(slots, self.method, self.targets, self.heads)
        heads = self.heads if of_heads.batched else ()
        head_layers = frozenset(tuple(path.split("/")[:-1]) for path in heads)
        with nn.intercept_methods(interceptor(self._layers, head_layers)):
            return self.model.apply({**rest, "params": params, SHARED: shared, TASKS: tasks}, *args, **kwargs)

    def forward(self, remat: Remat | None = None) -> Forward:
        """`apply_slot` as training calls it; `remat` says what the backward pass computes again."""

        def run(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
            args, kwargs = arguments(inputs, key)
            return self.apply_slot({**base, SHARED: shared}, slot, *args, **kwargs)

        return rematerialised(run, remat)

    def gathering(self, whole: Callable[[str, Any], Any]) -> AbstractContextManager[None]:
        """Within it plain layers run on `whole(path, leaf)` of each of their parameters."""
        return gathering_layers({path.rpartition("/")[0] for path in self.kernels}, whole)

    def project(self, path: str, variables: Tree, x: Array) -> Projected:
        """Both products of one adapted Dense layer, to be kept and handed to it in place of its input; see `Projected`.

        Args:
            path: of the kernel, a target.
            variables: "params", and "shared" as it is when the kept products are used: not before the first task is
                learnt, where A is what that trains.
            x: the layer's input, batch first.

        Raises:
            TargetError: if that kernel is not adapted, its layer is no plain Dense or has a parameter of each task's
                own, the space is "parameter", or the method's first product takes leaves of the task.
            InputError: if `variables` lacks what the products take, or the input is not of the layer's width.
        """
        found = next((target for target in self.targets if target.path == path), None)
        if found is None:
            expected = f"one of {[target.path for target in self.targets]}"
            raise TargetError(message("path to project", got=repr(path), expected=expected, fix="pass a target's path"))
        if self.space == "parameter":
            fix = "adapt with space='activation'"
            raise TargetError(message("space", got="'parameter'", expected="'activation'", fix=fix))
        own = [head for head in self.heads if tuple(head.split("/")[:-1]) == found.module_path]
        if own:
            fix = "take it out of the heads, or keep the layer's input"
            raise TargetError(message(f"heads of {path}", got=own, expected="no part of the layer", fix=fix))
        check_variables(variables, "variables to project with")
        leaves = {name: at(variables.get(name, {}), found.module_path) for name in ("params", SHARED)}
        layer = nn.Dense(found.d_out, use_bias="bias" in leaves["params"])
        plain: Any = partial(layer.apply, {"params": leaves["params"]}, x)
        return project(self.method, found, leaves["params"], leaves[SHARED], x, plain)


def adapt(
    model: nn.Module,
    variables: Tree,
    *args: Any,
    targets: Sequence[str] | str,
    method: Parameterization | None = None,
    heads: Sequence[str] | str = (),
    space: str = "activation",
    **kwargs: Any,
) -> Adapted:
    """Chooses kernels of an unmodified Linen model and checks, by one abstract evaluation, that they can be adapted.

    Args:
        model: any Linen model.
        variables: {"params": pretrained tree, ...}, as for `model.apply`.
        *args: an example of the model's inputs, arrays or `jax.ShapeDtypeStruct`; only shapes are used.
        targets: regular expressions, each matching whole kernel paths such as r".*/ffn/kernel"; empty adapts nothing
            but the heads.
        method: the parameterisation; `SharedA()` (rank 4, alpha 8) by default.
        heads: regular expressions over all parameter paths: leaves that each task owns whole.
        space: "activation" adds to the layers' outputs (low memory, batches of different tasks); "parameter" adds to
            the kernels (any module that owns a kernel, any lifted transform).
        **kwargs: as for `model.apply`.

    Returns:
        An `Adapted`; `print` it to see what matched.

    Raises:
        TargetError: if a pattern matches nothing, or a kernel that it matches cannot be adapted in this space.
        InputError: if `method` is not a parameterisation, `variables` has no "params", or a parameter is not an array.
    """
    check_space(space)
    method = SharedA() if method is None else method
    check_method(method, "adapt the model's __call__; its other methods are not chosen here")
    check_variables(variables, "variables")
    params = flat(variables["params"])
    boxed = [path for path, leaf in params.items() if not hasattr(leaf, "ndim")]
    if boxed:
        raise InputError(
            message(
                f"parameter {boxed[0]}",
                got=type(params[boxed[0]]).__name__,
                expected="an array",
                fix="take the arrays out of their boxes with flax.linen.unbox(variables)",
            )
        )
    owned = match(heads, params, what="head") if heads else ()
    found = uses(model, variables, args, kwargs)
    kernels = [
        path
        for path, leaf in params.items()
        if leaf.ndim >= 2 and path not in owned and (path not in found or found[path].is_kernel)
    ]
    chosen = match(targets, kernels, what="target") if targets else ()
    if not chosen and not owned:
        raise TargetError(
            message(
                "targets",
                got="no pattern",
                expected="at least one target or head",
                fix="pass targets=[r'.*/kernel']",
            )
        )
    picked = tuple(_target(path, params[path].shape, found.get(path), space) for path in chosen)
    around = bypassed(model, variables, args, kwargs, chosen) if space == "activation" and chosen else ()
    if around:
        raise TargetError(
            message(
                f"target {around[0]}",
                got="a kernel that the model also reads without calling its layer",
                expected="a kernel that is used by its layer alone",
                fix="use space='parameter', or the layer's own call (an Embed's attend) in the model",
            )
        )
    axes = {path: (len(use.shape), use.in_axes) for path, use in found.items() if use.is_kernel}
    return Adapted(model=model, method=method, targets=picked, heads=owned, space=space, kernels=axes)


def _target(path: str, shape: tuple[int, ...], use: ParameterUse | None, space: str) -> Target:
    def refuse(reason: str) -> TargetError:
        return TargetError(
            message(f"target {path}", got=reason, expected=f"a kernel that {space} space can adapt", fix=fix)
        )

    fix = "narrow the pattern" if space == "parameter" else "narrow the pattern, or use space='parameter'"
    if use is None:
        raise refuse("a parameter that the example call does not reach")
    if space == "activation" and use.obstacle is not None:
        raise refuse(use.obstacle)
    stacked = None
    if use.shape != tuple(shape):
        if tuple(shape[1:]) != use.shape:
            raise refuse(f"shape {tuple(shape)} outside and {use.shape} inside its layer")
        stacked = shape[0]
    if use.parameter_obstacle is not None:
        raise refuse(use.parameter_obstacle)
    return Target(path, tuple(path.split("/")[:-1]), use.layer, use.shape, use.in_axes, stacked)
