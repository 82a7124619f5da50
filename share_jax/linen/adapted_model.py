"""Adapting an unmodified Linen model: `adapt` finds the kernels, `Adapted` runs the model with a task's update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from share_jax.bank.accounting import ParameterCounts, count, separate_lora_count
from share_jax.bank.slots import as_task_id, capacity, gather
from share_jax.errors import InputError, TargetError, entries, message
from share_jax.layers.effective_params import effective_params
from share_jax.layers.projected import Projected, project
from share_jax.layers.targets import Target, match, table
from share_jax.linen.bypass import bypassed
from share_jax.linen.discover import Use, uses
from share_jax.linen.intercept import interceptor, static_mark
from share_jax.linen.variables import SHARED, TASKS, TaskId, init_stack
from share_jax.parameterizations.base import Parameterization, check_method
from share_jax.parameterizations.shared_a import SharedA
from share_jax.trees import at, flat, merged, nested
from share_jax.typing import Array, Leaves, PRNGKey, Tree

SPACES = ("activation", "parameter")


@dataclass(frozen=True)
class Adapted:
    """An unmodified model and the kernels of it that tasks adapt. Made by `adapt`; holds no arrays.

    Attributes:
      model: the Linen model, as it was.
      method: the parameterisation of each kernel's update.
      targets: the adapted kernels, in path order.
      heads: paths of the parameters that each task owns whole, such as a classifier's kernel and bias.
      space: "activation" or "parameter".
      kernels: of every kernel that the model uses, adapted or not, by path: its axes within one layer, and how many of
        them are inputs.
    """

    model: nn.Module
    method: Parameterization
    targets: tuple[Target, ...]
    heads: tuple[str, ...]
    space: str
    kernels: Mapping[str, tuple[int, int]] = field(repr=False, compare=False, default_factory=dict)
    _by_module: dict[tuple[str, ...], Target] = field(repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_module.update({target.module_path: target for target in self.targets})

    def __str__(self) -> str:
        heads = f"\nowned by each task: {', '.join(self.heads)}" if self.heads else ""
        return f"{self.method} in {self.space} space on {len(self.targets)} kernels:\n{table(self.targets)}{heads}"

    def init(self, key: PRNGKey, params: Tree, num_tasks: int) -> dict[str, Any]:
        """Fresh `shared` and `tasks` trees, with which every task's model equals the base model bitwise or to rounding.

        Args:
          key: typed PRNG key.
          params: the base model's parameters; each task's heads start as copies of theirs.
          num_tasks: slots, T.

        Returns:
          {"shared": tree, "tasks": tree of leaves (T, ...)}

        Raises:
          InputError: if `num_tasks` is below 1, or `params` is not the tree that was adapted.
        """
        if num_tasks < 1:
            raise InputError(message("num_tasks", got=num_tasks, expected="at least 1", fix="pass the number of slots"))
        leaves = flat(params)
        missing = [path for path in self.heads if path not in leaves]
        if "params" in params or missing:  # Flax takes no layer of that name
            got = 'the tree {"params": ...}' if "params" in params else f"a tree without {missing[0]}"
            expected, fix = "the base model's parameters", 'pass variables["params"]'
            raise InputError(message("params", got=got, expected=expected, fix=fix))
        key_shared, key_tasks = jax.random.split(key)
        shared, tasks = {}, {}
        for index, target in enumerate(self.targets):
            one_shared = jax.random.fold_in(key_shared, index)
            for name, leaf in self._layers(target, one_shared, self._init_shared(target)).items():
                shared["/".join((*target.module_path, name))] = leaf
            one_tasks = jax.random.fold_in(key_tasks, index)
            stack = self._layers(target, one_tasks, self._init_tasks(target, num_tasks))
            for name, leaf in stack.items():
                path = "/".join((*target.module_path, name))
                tasks[path] = leaf if target.stacked is None else jnp.moveaxis(leaf, 0, 1)
        for path in self.heads:
            tasks[path] = jnp.repeat(jnp.asarray(leaves[path])[None], num_tasks, axis=0)
        return {SHARED: nested(shared), TASKS: nested(tasks)}

    def _init_shared(self, target: Target) -> Any:
        return lambda key: self.method.init_shared(key, target.d_in, target.d_out)

    def _init_tasks(self, target: Target, num_tasks: int) -> Any:
        return lambda key: init_stack(self.method, key, target.d_in, target.d_out, num_tasks)

    def _layers(self, target: Target, key: PRNGKey, init: Any) -> Leaves:
        return init(key) if target.stacked is None else jax.vmap(init)(jax.random.split(key, target.stacked))

    def slot(self, tasks: Tree, task_id: TaskId) -> dict[str, Any]:
        """The slot of one task, or a batched slot with one task per example of the batch.

        Args:
          tasks: the `tasks` tree, leaves (T, ...).
          task_id: an integer scalar, or one id per example (batch,).

        Raises:
          TaskError: if a concrete id is not a slot.
          InputError: if ids per example are given in parameter space, which has one kernel for the batch.
        """
        ids = as_task_id(task_id, capacity(tasks))
        if ids.ndim and self.space == "parameter":
            raise InputError(
                message(
                    "task_id in parameter space",
                    got=f"{ids.shape[0]} ids",
                    expected="one id for the whole batch",
                    fix="adapt with space='activation' for batches of different tasks",
                )
            )
        slot = gather(dict(tasks), ids)
        if ids.ndim:
            # nn.scan and nn.vmap take the axis they stack from the front.
            for target in self.targets:
                if target.stacked is not None:
                    own = at(slot, target.module_path)
                    moved = {name: jnp.moveaxis(leaf, 1, 0) for name, leaf in own.items()}
                    slot = merged(slot, nested({"/".join((*target.module_path, n)): x for n, x in moved.items()}))
        return slot

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

    def apply_slot(self, variables: Tree, slot: Tree, *args: Any, **kwargs: Any) -> Any:
        """The same for a slot that is already at hand, as in training."""
        rest = {name: tree for name, tree in variables.items() if name not in (SHARED, TASKS)}
        shared, params = variables[SHARED], variables["params"]
        own, base = flat(slot), flat(params)
        whole = {path: own[path] for path in self.heads if own[path].ndim == base[path].ndim}
        mixed = {path: own[path] for path in self.heads if path not in whole}
        params = merged(params, nested(whole)) if whole else params
        if self.space == "parameter":
            params = effective_params(self.method, self.targets, params, shared, slot)
            return self.model.apply({**rest, "params": params}, *args, **kwargs)
        marks = {
            "/".join((*t.module_path, static_mark(self.method))): np.zeros((t.stacked,) if t.stacked else (), bool)
            for t in self.targets
        }
        adapters = nested({**{path: x for path, x in own.items() if path not in self.heads}, **mixed, **marks})
        head_layers = frozenset(tuple(path.split("/")[:-1]) for path in mixed)
        with nn.intercept_methods(interceptor(self.method, self._by_module, head_layers)):
            return self.model.apply({**rest, "params": params, SHARED: shared, TASKS: adapters}, *args, **kwargs)

    def project(self, path: str, variables: Tree, x: Array) -> Projected:
        """Both products of one adapted Dense layer, to be kept and handed to it in place of its input; see `Projected`.

        Args:
          path: of the kernel, a target.
          variables: "params", and "shared" as it is when the kept products are used: not before the first task is
            learnt, where A is what that trains.
          x: the layer's input, batch first.

        Raises:
          TargetError: if that kernel is not adapted, its layer is no plain Dense or has a parameter of each task's own,
            the space is "parameter", or the method's first product takes leaves of the task.
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
        return project(self.method, found, leaves["params"], leaves[SHARED], x)

    def effective_params(self, variables: Tree, task_id: int) -> dict[str, Any]:
        """The parameters of an ordinary model that answers as this task does: base + delta, and the task's heads.

        Raises:
          TaskError: if the id is not a slot.
        """
        slot = gather(variables[TASKS], as_task_id(task_id, capacity(variables[TASKS])))
        own = flat(slot)
        params = merged(variables["params"], nested({path: own[path] for path in self.heads}))
        return effective_params(self.method, self.targets, params, variables[SHARED], slot)

    def counts(self, params: Tree, variables: Tree, tasks: int, *, separate_rank: int | None = None) -> ParameterCounts:
        """Parameters from the real trees, against `tasks` separate LoRAs on the same kernels.

        Args:
          params: the base model's parameters.
          variables: the trees of `init`.
          tasks: how many of the slots are counted.
          separate_rank: rank of the separate LoRAs; the method's own rank, or pseudo-rank, by default.
        """
        stack = flat(variables[TASKS])
        heads = sum(stack[path][0].size for path in self.heads)
        per_task = sum(leaf[0].size for path, leaf in stack.items() if path not in self.heads)
        rank = separate_rank if separate_rank is not None else self.method.rank
        kernels = [(t.d_in, t.d_out) for t in self.targets for _ in range(t.stacked or 1)]
        return ParameterCounts(
            base=count(params) - sum(flat(params)[path].size for path in self.heads),
            shared=count(variables[SHARED]),
            per_task=per_task,
            heads_per_task=heads,
            tasks=tasks,
            separate_per_task=separate_lora_count(kernels, rank),
            head_sets=tasks,
        )


def check_variables(variables: Any, what: str) -> None:
    """Refuses what is no dict of collections with "params" among them, such as the parameters without their name.

    Raises:
      InputError: naming what it has instead.
    """
    if not isinstance(variables, Mapping) or "params" not in variables:
        got, fix = entries(variables, 6), 'pass {"params": params}'
        raise InputError(message(what, got=got, expected='a dict with "params"', fix=fix))


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
      space: "activation" adds to the layers' outputs (low memory, batches of different tasks); "parameter" adds to the
        kernels (any module that owns a kernel, any lifted transform).
      **kwargs: as for `model.apply`.

    Returns:
      An `Adapted`; `print` it to see what matched.

    Raises:
      TargetError: if a pattern matches nothing, or a kernel that it matches cannot be adapted in this space.
      InputError: if `method` is not a parameterisation, `variables` has no "params", or a parameter is not an array.
    """
    if space not in SPACES:
        raise TargetError(message("space", got=repr(space), expected=" or ".join(SPACES), fix="pass one of them"))
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


def _target(path: str, shape: tuple[int, ...], use: Use | None, space: str) -> Target:
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
    if use.obstacle is not None and use.obstacle.startswith("DenseGeneral"):
        raise refuse(use.obstacle)
    return Target(path, tuple(path.split("/")[:-1]), use.layer, use.shape, use.in_axes, stacked)
