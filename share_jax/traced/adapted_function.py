"""Adapting any function of parameters: `choose` finds its kernels, `AdaptedFunction` runs it with a task's update."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import jax

from share_jax.adapted import SHARED, TASKS, Forward, arguments
from share_jax.adapted_trees import AdaptedTrees, check_space
from share_jax.bank.slots import TaskSlots, as_slots
from share_jax.errors import ShareError, TargetError, first_line, message
from share_jax.layers.effective_params import effective_params
from share_jax.layers.stored_kernel import QUANTIZED, UNREACHED, WAYS_OUT, check_heads, is_quantized, no_update
from share_jax.layers.targets import Target, match
from share_jax.model_inputs import AS_FLAG, VALUE_READ, inputs_of
from share_jax.ops.remat_policy import POLICIES, Remat
from share_jax.parameterizations.base import Parameterization, check_method
from share_jax.parameterizations.shared_a import SharedA
from share_jax.traced.agreement import UNREAD
from share_jax.traced.discover import Reading, readings
from share_jax.traced.example_flags import Callee, example_flags, with_flags
from share_jax.traced.per_example import each_its_own, is_array
from share_jax.traced.program_output import adapted_call
from share_jax.trees import flat, merged, nested
from share_jax.typing import Array, PRNGKey, TaskId, Tree

STATE = "state"
"""The collection of what a model has beside its parameters."""

CACHES = "share_jax:caches"
"""The name by which caches go with the inputs of a mixed batch."""

OWN_RNGS = "share_jax:rngs"
"""The name by which a batch's own `rngs` goes to the model, beside the step's key."""

WRITTEN = "share_jax:written"
"""The name of the flag with which a model's output has the values beside it that `written` then have."""

_WHOLE: ContextVar[Callable[[str, Any], Any] | None] = ContextVar("whole", default=None)


class Model(Protocol):
    """A model as a pure function; it holds no arrays."""

    @property
    def name(self) -> str:
        """Of the model, for a checkpoint."""
        ...

    @property
    def caches(self) -> tuple[str, ...]:
        """Paths in the collection "state" of what each example of a batch has its own of, such as keys and values."""
        ...

    @property
    def random_state(self) -> tuple[str, ...]:
        """Paths in the collection "state" of keys and counters of random streams, which tell no model from another."""
        ...

    def apply(self, variables: Tree, *args: Any, rngs: PRNGKey | None = None, **kwargs: Any) -> Any:
        """The output for {"params": ..., ...}; with a key, as while it trains. It leaves its inputs as they are."""
        ...

    def written(self, inputs: Any) -> list[Any]:
        """What the model itself would write into among a call's inputs, such as the variables of a cache."""
        ...

    def variables(self, model: Any) -> dict[str, Any]:
        """{"params": ..., ...} of a model of this kind."""
        ...

    def callee(self, method: str | None = None) -> Callee:
        """What a call runs, whose first parameter is the model: the method of this name, or its usual one."""
        ...

    def twin(self, model: Any) -> "Model":
        """Another model with the same parameters, as this one is made.

        Raises:
            InputError: if it has others.
        """
        ...


@dataclass(frozen=True)
class AdaptedFunction(AdaptedTrees):
    """A model as a function and the kernels of it that tasks adapt; holds no arrays.

    Made by `share_jax.adapt` of an NNX module, and by `share_jax.adapt_function` of any other function.

    Attributes:
        model: the function.
        method: the parameterisation of each kernel's update.
        targets: the adapted kernels, in path order.
        heads: paths of the parameters that each task owns whole, such as a classifier's kernel and bias.
        space: "activation" or "parameter".
        unbatched: inputs that all examples of a mixed batch share.
        kernels: of every kernel whose inputs stand first, by path: its axes within one layer, and how many are inputs.
        flags: what the example call had beside arrays, such as {"train": False}; a call that gives none has these.

    Example:
        >>> import jax.numpy as jnp
        >>> from share_jax import adapt_function
        >>> params, x = {"w": jnp.ones((4, 3)), "b": jnp.zeros((1, 3))}, jnp.ones((2, 4))
        >>> adapted = adapt_function(lambda params, x: x @ params["w"] + params["b"], params, x, targets="w", heads="b")
        >>> trees = adapted.init(jax.random.key(0), params, num_tasks=3)
        >>> adapted.apply({**adapted.variables(params), **trees}, x, task_id=jnp.array([2, 0])).shape
        (2, 3)
    """

    model: Model
    method: Parameterization
    targets: tuple[Target, ...]
    heads: tuple[str, ...]
    space: str
    unbatched: tuple[str, ...] = ()
    kernels: Mapping[str, tuple[int, int]] = field(repr=False, compare=False, default_factory=dict)
    flags: Mapping[str, Any] = field(repr=False, hash=False, default_factory=dict)

    @property
    def name(self) -> str:
        """Class or function that was adapted."""
        return self.model.name

    @property
    def random_state(self) -> tuple[str, ...]:
        """Paths in the collection "state" of what a saved bank does not ask for again."""
        return self.model.random_state

    def variables(self, model: Any) -> dict[str, Any]:
        """The base variables {"params": ..., ...} that training, checkpoints and `apply` take.

        Args:
            model: the module, or the function's parameters, with values; of the structure that was adapted.

        Raises:
            InputError: if it is of another structure.
        """
        return self.model.variables(model)

    def apply(self, variables: Tree, *args: Any, task_id: TaskId, rngs: PRNGKey | None = None, **kwargs: Any) -> Any:
        """The model's output with the update and the heads of a task, or of each example's own task.

        Args:
            variables: what `variables` returned, with "shared" and "tasks" from `init`.
            *args: the model's inputs.
            task_id: an integer scalar, or one id per example (batch,); concrete or traced.
            rngs: a key for a call as in training, from which every stream of random numbers is drawn; None predicts.
                An `nnx.Rngs` goes to the module's own argument of this name, and predicts.
            **kwargs: the model's inputs by name.

        Variables of NNX among the inputs, such as those of a cache, are written as the module itself writes them.

        Raises:
            TaskError: if a concrete id is not a slot.
            InputError: if there is not one id per example.
        """
        return self.apply_slot(variables, self.slot(variables[TASKS], task_id), *args, rngs=rngs, **kwargs)

    def apply_slot(
        self, variables: Tree, slot: TaskSlots | Tree, *args: Any, rngs: PRNGKey | None = None, **kwargs: Any
    ) -> Any:
        """The same for slots from `slot`, or for one task's leaves at hand, as in training."""
        kwargs, rngs = _own_rngs(kwargs, rngs)
        written = self.model.written((args, kwargs))
        if not written:
            return self._apply(variables, slot, args, kwargs, rngs, self.unbatched)
        out, values = self._apply(variables, slot, args, {**kwargs, WRITTEN: True}, rngs, self.unbatched)
        for variable, value in zip(written, values, strict=True):
            variable.set_value(value)
        return out

    def _apply(
        self,
        variables: Tree,
        slot: TaskSlots | Tree,
        args: tuple,
        kwargs: dict[str, Any],
        rngs: PRNGKey | None,
        unbatched: Sequence[str],
    ) -> Any:
        kwargs, rngs = _own_rngs(kwargs, rngs)
        kwargs = with_flags(self.model.callee(kwargs.get("method")), self.flags, args, kwargs)
        slots = as_slots(slot)
        heads = slots.heads or slots
        if not slots.batched and not heads.batched:
            return self._one_task(variables, slots.leaves, heads.leaves, args, kwargs, rngs)
        slots, heads = slots.at_hand(), heads.at_hand()
        mapped = {name: own.leaves for name, own in (("slot", slots), ("heads", heads)) if own.batched}
        fixed = {name: own.leaves for name, own in (("slot", slots), ("heads", heads)) if not own.batched}
        state = flat(variables.get(STATE, {}))
        kwargs = {**kwargs, CACHES: {path: state[path] for path in self.model.caches}}

        def with_caches(caches: dict[str, Any]) -> dict[str, Any]:
            return {**variables, STATE: nested({**state, **caches})} if caches else dict(variables)

        def call(own: Any, args: tuple, kwargs: dict[str, Any], key: PRNGKey | None) -> Any:
            both, caches = {**fixed, **own}, kwargs.pop(CACHES)
            return self._one_task(with_caches(caches), both["slot"], both["heads"], args, kwargs, key)

        def shapes(own: Any, args: tuple, kwargs: dict[str, Any], key: PRNGKey | None) -> Any:
            rest = {n: tree for n, tree in with_caches(kwargs.pop(CACHES)).items() if n not in (SHARED, TASKS)}
            return self.model.apply(rest, *args, rngs=key, **kwargs)

        return each_its_own(call, shapes, mapped, args, kwargs, rngs, unbatched)

    def _one_task(
        self, variables: Tree, slot: Tree, heads: Tree, args: tuple, kwargs: dict[str, Any], key: PRNGKey | None
    ) -> Any:
        rest = {name: tree for name, tree in variables.items() if name not in (SHARED, TASKS)}
        shared, params = variables[SHARED], variables["params"]
        own, whole = flat(heads), _WHOLE.get()
        params = merged(params, nested({path: own[path] for path in self.heads}))
        if whole is not None:
            params = nested({path: whole(path, x) if path in self.kernels else x for path, x in flat(params).items()})
        if self.space == "parameter":
            params = effective_params(self.method, self.targets, params, shared, slot)
            return self.model.apply({**rest, "params": params}, *args, rngs=key, **kwargs)
        leaves = flat(params)

        def function(kernels: dict[str, Array]) -> Any:
            return self.model.apply({**rest, "params": nested({**leaves, **kernels})}, *args, rngs=key, **kwargs)

        return adapted_call(function, leaves, self.method, self.targets, (shared, slot))

    def with_model(self, model: Any) -> "AdaptedFunction":
        """The same targets and heads of a twin: a module, or a function, with other flags and the same parameters.

        Args:
            model: such as the module in evaluation mode; of an adapted function another function.

        Raises:
            InputError: if it is no such model, or has other parameters.
        """
        return replace(self, model=self.model.twin(model))

    def forward(self, remat: Remat | None = None) -> Forward:
        """`apply_slot` as training calls it; `remat` says what the backward pass computes again.

        Raises:
            TargetError: if `remat` names blocks, which a function does not have.
        """

        def run(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
            args, kwargs = arguments(inputs)
            unbatched = (*self.unbatched, *inputs_of(inputs).unbatched)
            return self._apply({**base, SHARED: shared}, slot, args, kwargs, key, unbatched)

        if remat is None:
            return run
        if remat.blocks:
            fix = "put the blocks under jax.checkpoint or nnx.remat in the model, or leave `blocks` out"
            got = f"blocks {list(remat.blocks)}"
            raise TargetError(message("remat", got=got, expected="a policy for the whole model", fix=fix))
        return jax.checkpoint(run, policy=POLICIES[remat.policy])

    @contextmanager
    def gathering(self, whole: Callable[[str, Any], Any]) -> Iterator[None]:
        """Within it the function runs on `whole(path, leaf)` of each kernel, all of them gathered at the start."""
        token = _WHOLE.set(whole)
        try:
            yield
        finally:
            _WHOLE.reset(token)


def choose(
    model: Model,
    variables: Tree,
    args: tuple,
    kwargs: dict[str, Any],
    *,
    targets: Sequence[str] | str,
    method: Parameterization | None,
    heads: Sequence[str] | str,
    space: str,
    unbatched: Sequence[str],
) -> AdaptedFunction:
    """Chooses kernels of a function and checks, by one abstract evaluation, that they can be adapted.

    Args:
        model: the function.
        variables: {"params": tree, ...}, arrays or shapes.
        args: an example of the inputs, arrays or shapes.
        kwargs: the same by name.
        targets: regular expressions over kernel paths.
        method: the parameterisation; `SharedA()` by default.
        heads: regular expressions over all parameter paths.
        space: "activation" or "parameter".
        unbatched: inputs that all examples of a mixed batch share.

    Raises:
        TargetError: if a pattern matches nothing, or a kernel that it matches cannot be adapted in this space.
        InputError: if `method` is not a parameterisation.
    """
    check_space(space)
    kwargs, key = _own_rngs({name: kwargs[name] for name in kwargs if name != "rngs"}, kwargs.get("rngs"))
    kwargs = kwargs if key is None else {**kwargs, "rngs": key}
    method = SharedA() if method is None else method
    check_method(method, "choose one of share_jax's, or write the functions of parameterizations/base.py")
    params = flat(variables["params"])
    owned = match(heads, params, what="head") if heads else ()
    check_heads(owned, params)
    matrices = {path: leaf for path, leaf in params.items() if leaf.ndim >= 2 and path not in owned}
    found = _readings(model, variables, matrices, args, kwargs)
    biases = {path for path in matrices if path.rpartition("/")[2] == "bias" and not found.get(path, Reading()).layers}
    kernels = [path for path in matrices if path not in biases]
    chosen = match(targets, kernels, what="target") if targets else ()
    if not chosen and not owned:
        fix = "pass targets=[r'.*/kernel']"
        raise TargetError(message("targets", got="no pattern", expected="at least one target or head", fix=fix))
    shapes = {path: tuple(params[path].shape) for path in chosen}
    picked = tuple(_target(path, params[path], found.get(path), space, shapes) for path in chosen)
    axes = {}
    for path, reading in found.items():
        use = reading.chosen()
        first = (
            () if use is None else tuple(axis for axis in range(len(matrices[path].shape)) if axis not in use.stacked)
        )
        if use is not None and first[: len(use.inputs)] == use.inputs and not is_quantized(matrices[path]):
            axes[path] = (len(first), len(use.inputs))
    flags = example_flags(model.callee(), args, kwargs, others=("mutable", "rngs", OWN_RNGS))
    return AdaptedFunction(model, method, picked, owned, space, tuple(unbatched), axes, flags)


def _own_rngs(kwargs: dict[str, Any], rngs: Any) -> tuple[dict[str, Any], PRNGKey | None]:
    """A call's named inputs with the model's own `rngs` apart, and the step's key: no array is none."""
    kwargs = dict(kwargs)
    if "rngs" in kwargs:
        kwargs[OWN_RNGS] = kwargs.pop("rngs")
    if rngs is None or is_array(rngs):
        return kwargs, rngs
    return {**kwargs, OWN_RNGS: rngs}, None


def _readings(model: Model, variables: Tree, kernels: dict[str, Any], args: tuple, kwargs: dict) -> dict[str, Reading]:
    """How the model uses its kernels in the example call."""
    others = {path: leaf for path, leaf in flat(variables["params"]).items() if path not in kernels}
    leaves, structure = jax.tree.flatten((args, kwargs, {**variables, "params": others}))
    own = [is_array(leaf) for leaf in leaves]

    def function(kernels: dict[str, Array], arrays: list[Any]) -> Any:
        values = iter(arrays)
        whole = [next(values) if array else leaf for leaf, array in zip(leaves, own, strict=True)]
        args, kwargs, rest = jax.tree.unflatten(structure, whole)
        return model.apply({**rest, "params": nested({**rest["params"], **kernels})}, *args, **kwargs)

    try:
        return readings(function, kernels, [leaf for leaf, array in zip(leaves, own, strict=True) if array])
    except ShareError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
        got = f"{type(error).__name__}: {first_line(error, 'no reason')}"
        fix = AS_FLAG if isinstance(error, VALUE_READ) else "pass the same arguments to adapt as to the model"
        expected = "the arguments that the model takes"
        raise TargetError(message("example call of the model", got=got, expected=expected, fix=fix)) from error


def _target(path: str, leaf: Any, reading: Reading | None, space: str, chosen: Mapping[str, Any]) -> Target:
    shape = tuple(leaf.shape)

    def refuse(reason: str, fix: str = "") -> TargetError:
        if not fix and space == "activation":
            fix = QUANTIZED if is_quantized(leaf) else WAYS_OUT
        fix = fix or "narrow the pattern"
        expected = f"a kernel that {space} space can adapt"
        return TargetError(message(f"target {path}", got=reason, expected=expected, fix=fix))

    if reading is None:
        raise refuse(UNREAD, UNREACHED)
    reason = no_update(leaf)
    if reason is not None and not (is_quantized(leaf) and space == "activation"):
        raise refuse(reason, "narrow the pattern, or use space='activation'" if is_quantized(leaf) else "")
    use = reading.chosen()
    obstacle = reading.obstacle or reading.conflict(shape)
    if space == "activation" and (obstacle or use is None):
        raise refuse(obstacle or "a parameter that no product, convolution or lookup uses")
    parts = tuple(path.split("/"))
    alone = sum(other.rpartition("/")[0] == path.rpartition("/")[0] for other in chosen) == 1
    owner = parts[:-1] if alone else parts  # of two kernels of one module each has leaves of its own
    if use is None:
        return Target(path, owner, "parameter", shape, len(shape) - 1, None)
    own = [axis for axis in range(len(shape)) if axis not in use.stacked]
    inputs = tuple(own.index(axis) for axis in use.inputs)
    order = None if inputs == tuple(range(len(inputs))) else inputs
    name = LAYERS[use.kind] if len(own) == 2 or use.kind != "product" else "DenseGeneral"
    layers = math.prod(shape[axis] for axis in use.stacked) if use.stacked else None
    own_shape = tuple(shape[axis] for axis in own)
    return Target(path, owner, name, own_shape, len(inputs), layers, order, use.stacked or (0,))


LAYERS = {"product": "Dense", "convolution": "Conv", "lookup": "Embed"}
"""Flax's layer that uses a kernel in this way."""
