"""An NNX module as a pure function of its variables: split once, merged into a copy at every call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
from flax import nnx
from flax.errors import TraceContextError

from share_jax.adapted import SHARED, TASKS
from share_jax.errors import InputError, first_line, message
from share_jax.nnx.stored_kernels import Groups, apart, grouped, stored_kernels
from share_jax.nnx.variables import SharedVariable, TaskVariable
from share_jax.nnx.written_inputs import copied, rngs_argument, variables_in
from share_jax.traced.adapted_function import OWN_RNGS, STATE, WRITTEN
from share_jax.traced.example_flags import with_key
from share_jax.trees import flat, nested, own_containers, text_of
from share_jax.typing import PRNGKey, Tree

PARAMS = "params"
"""With `STATE` the collections of a module: its `nnx.Param`s, and all other variables, each by its path."""

COLLECTIONS = (PARAMS, STATE, SHARED, TASKS)

Place = tuple[str, tuple[Any, ...]]
"""A variable's collection, and its path in NNX's state, where places in lists are whole numbers."""


@dataclass(frozen=True)
class ModuleFunction:
    """A module without its arrays. It keeps the module's class and paths; nothing of the module itself is changed.

    A call works on a copy, so that what the module writes into its variables never leaks from one call into the next.

    Attributes:
        module: class of the module.
        predicting: its graph in evaluation mode, as after `module.eval()`.
        training: its graph as it was handed over, but with batch statistics that stay as they are.
        places: of every variable, by its path as text.
        streams: names of its streams of random numbers.
        caches: paths of its `nnx.Cache` variables, of which each example of a batch has its own.
        random_state: paths of the keys and counters of those streams.
        stored: of its quantised kernels, each one leaf of "params", the variables that store it.
    """

    module: type[nnx.Module]
    predicting: Any = field(repr=False)
    training: Any = field(repr=False)
    places: Mapping[str, Place] = field(repr=False)
    streams: tuple[str, ...] = field(repr=False)
    caches: tuple[str, ...] = field(repr=False)
    random_state: tuple[str, ...] = field(repr=False, default=())
    stored: Groups = field(repr=False, default_factory=dict)

    @property
    def name(self) -> str:
        """Class of the module."""
        return self.module.__name__

    def apply(
        self,
        variables: Tree,
        *args: Any,
        rngs: PRNGKey | None = None,
        method: str = "__call__",
        mutable: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The module's output.

        Args:
            variables: {"params": tree, "state": tree}.
            *args: the module's inputs.
            rngs: a key for a call as in training: every stream of the module is reseeded from it, and an argument
                `rngs` of its own is made of it. None predicts.
            method: the method that is called.
            mutable: whether what the module wrote into its other variables, such as a cache, is returned, too.
            **kwargs: the module's inputs by name.

        Returns:
            The output, or (output, {"state": tree}).

        Raises:
            InputError: if it writes into a variable that is neither its own nor in its inputs.
        """
        writes = kwargs.pop(WRITTEN, False)
        args, kwargs = copied(own_containers((args, kwargs)))
        written = variables_in((args, kwargs)) if writes else []
        copy = self._merged(variables, self.predicting if rngs is None else self.training)
        if rngs is not None:
            keys: Any = {name: jax.random.fold_in(rngs, index) for index, name in enumerate(self.streams)}
            nnx.reseed(copy, policy="match_shape", **keys)
        if OWN_RNGS in kwargs:
            kwargs["rngs"] = kwargs.pop(OWN_RNGS)
        own = {"made": rngs_argument, "optional": not self.streams}
        kwargs = with_key(self.callee(method), "rngs", rngs, args, kwargs, **own)
        try:
            out = getattr(copy, method)(*args, **kwargs)
        except TraceContextError as error:
            got = first_line(error).split(" (http")[0]
            expected = "writes into its own variables or its inputs'"
            fix = "pass what it writes into as an input that is a pytree, without pytree=False"
            raise InputError(message(f"call of {self.name}", got=got, expected=expected, fix=fix)) from error
        if mutable:
            after = {path: leaf for path, (place, leaf) in variables_by_path(copy).items() if place[0] == STATE}
            out = out, {STATE: nested(after)}
        return (out, [variable.get_value() for variable in written]) if writes else out

    def written(self, inputs: Any) -> list[Any]:
        """The variables among a call's inputs, such as those of a cache that is a module."""
        return variables_in(inputs)

    def _merged(self, variables: Tree, graph: Any) -> Any:
        trees = {name: flat(variables.get(name, {})) for name in COLLECTIONS}
        trees[PARAMS] = apart(trees[PARAMS], self.stored)
        missing = [path for path, place in self.places.items() if path not in trees[place[0]]]
        if missing:
            fix = "pass what `variables` of the adapted model returned"
            raise InputError(message("variables", got=f"none at {missing[0]}", expected="one per variable", fix=fix))
        state = nnx.from_flat_state({place[1]: trees[place[0]][path] for path, place in self.places.items()})
        return nnx.merge(graph, state, copy=True)

    def callee(self, method: str | None = None) -> Any:
        """The method of this name, `__call__` if there is none."""
        return getattr(self.module, method or "__call__")

    def twin(self, model: Any) -> "ModuleFunction":
        """Another module with the same parameters as a function."""
        if not isinstance(model, nnx.Module):
            fix = "pass a module with the same parameters"
            raise InputError(message("twin", got=type(model).__name__, expected="an nnx.Module", fix=fix))
        made = function_of(model)
        own, other = ({path for path, place in each.places.items() if place[0] == PARAMS} for each in (self, made))
        if own != other:
            got = f"{made.name}, which differs at {sorted(own ^ other)[0]}"
            raise InputError(message("twin", got=got, expected=f"the parameters of {self.name}", fix="pass its twin"))
        return made

    def variables(self, model: Any) -> dict[str, Any]:
        """{"params": tree, "state": tree} of a module with these variables, arrays as they are."""
        if not isinstance(model, nnx.Module):
            fix = "pass the module that was adapted"
            raise InputError(message("module", got=type(model).__name__, expected="an nnx.Module", fix=fix))
        found = variables_by_path(model)
        if {path: place for path, (place, _) in found.items()} != dict(self.places):
            other = sorted(found.keys() ^ self.places.keys())
            got = f"a {type(model).__name__} that differs at {other[0]}" if other else "variables of other types"
            raise InputError(message("module", got=got, expected=f"the {self.name} that was adapted", fix="pass that"))
        return trees_of(found, self.stored)


def trees_of(found: Mapping[str, tuple[Place, Any]], stored: Groups | None = None) -> dict[str, Any]:
    """{"params": tree, "state": tree}; the second only where there are other variables than parameters.

    Args:
        found: place and value of every variable.
        stored: the variables that store a quantised kernel, which are one leaf.
    """
    trees: dict[str, dict[str, Any]] = {PARAMS: {}}
    for path, ((collection, _), leaf) in found.items():
        trees.setdefault(collection, {})[path] = leaf
    trees[PARAMS] = grouped(trees[PARAMS], stored or {})
    return {collection: nested(leaves) for collection, leaves in trees.items()}


def variables_by_path(model: nnx.Module) -> dict[str, tuple[Place, Any]]:
    """Place and value of every variable, by its path as text.

    Raises:
        InputError: if two paths are the same as text, or the module cannot be split.
    """
    found: dict[str, tuple[Place, Any]] = {}
    for path, variable in nnx.to_flat_state(split(model)[1]):
        text = text_of(path)
        if text in found or any("/" in str(key) for key in path):
            expected, fix = "a path of its own without '/'", "rename a key of the dict or attribute there"
            raise InputError(message("variable of the module", got=repr(path), expected=expected, fix=fix))
        is_variable = isinstance(variable, nnx.Variable)
        kinds = {nnx.Param: PARAMS, SharedVariable: SHARED, TaskVariable: TASKS}
        collection = next((name for kind, name in kinds.items() if isinstance(variable, kind)), STATE)
        found[text] = (collection, tuple(path)), variable.get_value() if is_variable else variable
    return dict(sorted(found.items()))


def split(model: nnx.Module) -> tuple[Any, Any]:
    """`nnx.split`, whose refusals are one line.

    Raises:
        InputError: as where variables are shared and `nnx_graph_mode` is off.
    """
    try:
        return nnx.split(model)
    except ValueError as error:
        got = " ".join(str(error).split())[:300]
        fix = "switch nnx_graph_mode on for modules that share variables"
        raise InputError(
            message("nnx.split of the module", got=got, expected="a graph and a state", fix=fix)
        ) from error


def function_of(model: nnx.Module) -> ModuleFunction:
    """A module as a function; the module stays as it is.

    Args:
        model: with arrays, or with shapes as `nnx.eval_shape` makes it.

    Raises:
        InputError: if it cannot be split.
    """
    graph, state = split(model)
    copies = [nnx.merge(graph, state, copy=True) for _ in range(2)]
    copies[0].eval()
    copies[1].set_attributes(use_running_average=True, raise_if_not_found=False)
    predicting, training = (nnx.split(copy)[0] for copy in copies)
    streams = {node.key.tag for _, node in nnx.iter_graph(copies[0]) if isinstance(node, nnx.RngStream)}
    found = variables_by_path(model)
    places = {path: place for path, (place, _) in found.items()}
    params = {keys: leaf for (collection, keys), leaf in found.values() if collection == PARAMS}
    kinds = {text_of(path): variable for path, variable in nnx.to_flat_state(state)}
    caches, drawn = (tuple(p for p in places if isinstance(kinds[p], kind)) for kind in (nnx.Cache, nnx.RngState))
    stored = stored_kernels(copies[0], params)
    return ModuleFunction(type(model), predicting, training, places, tuple(sorted(streams)), caches, drawn, stored)
