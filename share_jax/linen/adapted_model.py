"""Adapting an unmodified Linen model: `adapt` finds the kernels, `Adapted` runs the model with a task's update."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import flax.linen as nn

from share_jax.adapted import SHARED, TASKS, Forward, arguments, check_variables
from share_jax.adapted_trees import AdaptedTrees, check_space
from share_jax.bank.slots import TaskSlots, as_slots
from share_jax.errors import TargetError, message
from share_jax.layers.effective_params import effective_params
from share_jax.layers.fresh_trees import without_leaves
from share_jax.layers.projected import Projected, project
from share_jax.layers.stored_kernel import check_heads, is_quantized
from share_jax.layers.targets import Target, match, with_own_leaves
from share_jax.linen.choose import Call, choose
from share_jax.linen.discover import uses
from share_jax.linen.gathered_layers import gathering_layers
from share_jax.linen.intercept import interceptor, layer_slots
from share_jax.linen.later_calls import LaterCalls
from share_jax.linen.mixed import apply_mixed
from share_jax.linen.model_checks import check_collections, check_model, check_trees
from share_jax.linen.remat import rematerialised
from share_jax.model_inputs import inputs_of
from share_jax.ops.remat_policy import Remat
from share_jax.parameterizations.base import Parameterization, check_method
from share_jax.parameterizations.shared_a import SharedA
from share_jax.traced.example_flags import example_flags, with_flags
from share_jax.traced.program_output import adapted_call
from share_jax.trees import at, flat, keys_of, merged, nested, own_containers, path_of
from share_jax.typing import Array, PRNGKey, TaskId, Tree

OF_APPLY = ("mutable", "capture_intermediates")
"""Arguments of `Module.apply` itself that choose what comes back."""


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
        traced: paths of the targets whose update is added in the traced program, and not to their layer's output.
        apart: whether a batch of different tasks runs example by example, whatever its layers' inputs begin with.
        flags: what the example call had beside arrays, such as {"train": False}; a call that gives none has these.
        calls: kinds of call, by their flags, that are known to read kernels in their layers alone.
        unbatched: inputs that all examples of a mixed batch share.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> model, x = nn.Dense(3), jnp.ones((2, 4))
        >>> variables = model.init(jax.random.key(0), x)
        >>> adapted = adapt(model, variables, x, targets="kernel")
        >>> trees = adapted.init(jax.random.key(1), variables["params"], num_tasks=3)
        >>> adapted.apply({**variables, **trees}, x, task_id=jnp.array([2, 0])).shape
        (2, 3)
        >>> adapted.counts(variables["params"], trees, tasks=3).per_task  # rank 4 times 3 outputs
        12
    """

    model: nn.Module
    method: Parameterization
    targets: tuple[Target, ...]
    heads: tuple[str, ...]
    space: str
    kernels: Mapping[str, tuple[int, int]] = field(repr=False, compare=False, default_factory=dict)
    traced: frozenset[str] = field(repr=False, default=frozenset())
    apart: bool = field(repr=False, default=False)
    flags: Mapping[str, Any] = field(repr=False, hash=False, default_factory=dict)
    calls: LaterCalls = field(repr=False, compare=False, default_factory=LaterCalls)
    unbatched: tuple[str, ...] = field(repr=False, default=())

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
        return self._apply(variables, slot, args, kwargs, self.unbatched)

    def _apply(
        self, variables: Tree, slot: TaskSlots | Tree, args: tuple, kwargs: dict[str, Any], unbatched: Sequence[str]
    ) -> Any:
        slots = as_slots(slot)
        named = kwargs.get("method") or type(self.model).__call__
        callee = getattr(type(self.model), named) if isinstance(named, str) else named
        kwargs = with_flags(callee, self.flags, args, kwargs, always=OF_APPLY)
        if not (slots.batched or (slots.heads is not None and slots.heads.batched)):
            return self._run(variables, slots, args, kwargs)
        together = not (self.traced or self.apart)
        return apply_mixed(self._run, variables, slots, args, kwargs, together=together, unbatched=unbatched)

    def _run(self, variables: Tree, slots: TaskSlots, args: tuple, kwargs: dict[str, Any]) -> Any:
        rest = {name: tree for name, tree in variables.items() if name not in (SHARED, TASKS)}
        shared, params = variables[SHARED], variables["params"]
        of_heads = slots.heads or slots
        if self.heads and not of_heads.batched:
            own = flat(of_heads.leaves)
            params = merged(params, nested({path: own[path] for path in self.heads}))
        if self.space == "parameter":
            params = effective_params(self.method, self.targets, params, shared, slots.leaves)
            return self.model.apply({**rest, "params": params}, *own_containers(args), **own_containers(kwargs))
        plain = [target for target in self.targets if target.path not in self.traced]
        others = [target for target in self.targets if target.path in self.traced]
        heads = self.heads if of_heads.batched else ()
        at_layers_alone = [*(target.path for target in plain), *heads]
        self.calls.check(self.model, {**rest, "params": params}, args, kwargs, at_layers_alone)
        tasks = layer_slots(slots, self.method, plain, heads, others)
        at_layers = without_leaves(shared, others) if others else shared
        intercept = interceptor({target.module_path for target in plain}, {keys_of(path)[:-1] for path in heads})

        def call(params: Tree) -> Any:
            with nn.intercept_methods(intercept):
                collections = {**rest, "params": params, SHARED: at_layers, TASKS: tasks}
                return self.model.apply(collections, *own_containers(args), **own_containers(kwargs))

        if not others:
            return call(params)
        leaves = flat(params)

        def run(kernels: dict[str, Array]) -> Any:
            return call(nested({**leaves, **kernels}))

        return adapted_call(run, leaves, self.method, others, (shared, slots.leaves), merging=False)

    def with_model(self, model: nn.Module) -> "Adapted":
        """The same targets and heads of a twin: a module with other flags and the same parameters.

        Args:
            model: such as the module in evaluation mode, or with `decode=True`.

        Raises:
            InputError: if it is no Linen module.
        """
        check_model(model)
        return replace(self, model=model, calls=LaterCalls())

    def forward(self, remat: Remat | None = None) -> Forward:
        """`apply_slot` as training calls it; `remat` says what the backward pass computes again."""

        def run(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
            args, kwargs = arguments(inputs, key)
            unbatched = (*self.unbatched, *inputs_of(inputs).unbatched)
            out = self._apply({**base, SHARED: shared}, slot, args, kwargs, unbatched)
            return out[0] if self.flags.get("mutable") and "mutable" not in kwargs else out  # without the state

        return rematerialised(run, remat)

    def gathering(self, whole: Callable[[str, Any], Any]) -> AbstractContextManager[None]:
        """Within it plain layers run on `whole(path, leaf)` of each of their parameters."""
        return gathering_layers({path_of(keys_of(path)[:-1]) for path in self.kernels}, whole)

    def project(self, path: str, variables: Tree, x: Array) -> Projected:
        """Both products of one adapted Dense layer, to be kept and handed to it in place of its input; see `Projected`.

        Args:
            path: of the kernel, a target.
            variables: "params", and "shared" as it is when the kept products are used: not before the first task is
                learnt, where A is what that trains.
            x: the layer's input, batch first.

        Raises:
            TargetError: if that kernel is not adapted, or its layer is no plain Dense; if the layer has a parameter of
                each task's own; if the space is "parameter"; if the method's first product takes leaves of the task.
            InputError: if `variables` lacks what the products take, or the input is not of the layer's width.
        """
        found = next((target for target in self.targets if target.path == path), None)
        if found is None:
            expected = f"one of {[target.path for target in self.targets]}"
            raise TargetError(message("path to project", got=repr(path), expected=expected, fix="pass a target's path"))
        if self.space == "parameter":
            fix = "adapt with space='activation'"
            raise TargetError(message("space", got="'parameter'", expected="'activation'", fix=fix))
        if path in self.traced:
            got, fix = f"{found.layer}, whose update is added in the program", "keep the layer's input itself"
            raise TargetError(message(f"layer of {path}", got=got, expected="a plain Dense", fix=fix))
        own = [head for head in self.heads if keys_of(head)[:-1] == found.module_path]
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
    unbatched: Sequence[str] = (),
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
        space: "activation" adds to the outputs of layers, or of the matrix products that read a kernel (low memory,
            batches of different tasks); "parameter" adds to the kernels, whatever the model does with them.
        unbatched: inputs that all examples of a mixed batch share, by name, or by place as "0", such as a memory. Their
            first axis may be as long as the batch.
        **kwargs: as for `model.apply`. Arguments without arrays, such as `train=False`, become defaults of later calls.

    Returns:
        An `Adapted`; `print` it to see what matched.

    Raises:
        TargetError: if a pattern matches nothing, or a kernel that it matches cannot be adapted in this space.
        InputError: if `model` is no Linen module, `method` is not a parameterisation, `variables` has no "params", or a
            parameter is not an array.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> model, x = nn.Dense(3), jnp.ones((2, 4))
        >>> variables = model.init(jax.random.key(0), x)
        >>> print(adapt(model, variables, x, targets=".*kernel"))
        SharedA(rank=4, alpha=8.0, init_std=0.02) in activation space on 1 kernels:
        kernel  Dense  4 x 3
        >>> adapt(model, variables, x, targets=".*/kernel")
        Traceback (most recent call last):
        share_jax.errors.TargetError: target pattern: got '.*/kernel', which matches no path, expected ...
    """
    check_space(space)
    method = SharedA() if method is None else method
    check_method(method, "adapt the model's __call__; its other methods are not chosen here")
    check_model(model)
    check_trees(variables)
    check_collections(variables)
    params = flat(variables["params"])
    owned = match(heads, params, what="head") if heads else ()
    check_heads(owned, params)
    found = uses(model, variables, args, kwargs)
    kernels = [
        path
        for path, leaf in params.items()
        if leaf.ndim >= 2 and path not in owned and (path not in found or found[path].is_kernel)
    ]
    chosen = match(targets, kernels, what="target") if targets else ()
    if not chosen and not owned:
        fix = "pass targets=[r'.*/kernel']"
        raise TargetError(message("targets", got="no pattern", expected="at least one target or head", fix=fix))
    picked, traced, apart = choose(chosen, owned, params, found, space, Call(model, variables, args, kwargs))
    picked = with_own_leaves(picked, owned, method.leaves(1, 1))
    coded = {path for path, leaf in params.items() if is_quantized(leaf)}
    axes = {path: (len(use.shape), use.in_axes) for path, use in found.items() if use.is_kernel and path not in coded}
    flags = example_flags(type(model).__call__, args, kwargs, others=("rngs", "method"))
    calls = LaterCalls()
    calls.note(args, with_flags(type(model).__call__, flags, args, kwargs, always=OF_APPLY))
    return Adapted(model, method, picked, owned, space, axes, traced, apart, flags, calls, tuple(unbatched))
