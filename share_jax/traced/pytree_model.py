"""Adapting a function of any tree of parameters: of Equinox, Haiku, or plain JAX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from share_jax.errors import InputError, TargetError, message
from share_jax.parameterizations.base import Parameterization
from share_jax.traced.adapted_function import OWN_RNGS, AdaptedFunction, choose
from share_jax.traced.example_flags import with_key
from share_jax.traced.per_example import is_array
from share_jax.trees import flat, nested, own_containers
from share_jax.typing import PRNGKey, Tree

KEYS = ("key", "rngs")
"""The arguments of a function that get the step's key while it trains."""


@dataclass(frozen=True)
class PytreeModel:
    """A function of a tree of parameters.

    Attributes:
        function: (parameters, *inputs) to an output.
        structure: of the tree.
        paths: of its leaves; None for what is no array.
        others: the leaves that are no arrays, such as an activation function.
    """

    function: Callable[..., Any]
    structure: Any = field(repr=False)
    paths: tuple[str | None, ...] = field(repr=False)
    others: tuple[Any, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """Of the function."""
        return getattr(self.function, "__qualname__", type(self.function).__name__)

    @property
    def caches(self) -> tuple[str, ...]:
        """None: a function has parameters alone."""
        return ()

    @property
    def random_state(self) -> tuple[str, ...]:
        """None: a key is an input of the function."""
        return ()

    def apply(self, variables: Tree, *args: Any, rngs: PRNGKey | None = None, **kwargs: Any) -> Any:
        """The function's output; a key goes to its `key` or its `rngs`, before one that the inputs have."""
        leaves, others = flat(variables["params"]), iter(self.others)
        ordered = [next(others) if path is None else leaves[path] for path in self.paths]
        if OWN_RNGS in kwargs:
            kwargs["rngs"] = kwargs.pop(OWN_RNGS)
        for name in KEYS:
            kwargs = with_key(self.function, name, rngs, args, kwargs)
        args, kwargs = own_containers((args, kwargs))
        return self.function(jax.tree.unflatten(self.structure, ordered), *args, **kwargs)

    def written(self, inputs: Any) -> list[Any]:
        """Nothing: a function is pure."""
        return []

    def callee(self, method: str | None = None) -> Callable[..., Any]:
        """The function."""
        return self.function

    def twin(self, model: Any) -> "PytreeModel":
        """Another function of the same parameters."""
        if not callable(model):
            fix = "pass a function (params, *inputs)"
            raise InputError(message("twin", got=type(model).__name__, expected="something to call", fix=fix))
        return replace(self, function=model)

    def variables(self, model: Any) -> dict[str, Any]:
        """{"params": the leaves of a tree of parameters, by path}."""
        paths, leaves, structure = _by_path(model)
        if structure != self.structure or paths != self.paths:
            expected, fix = "the structure that was adapted", "pass the parameters of the same model"
            raise InputError(message("parameters", got="a tree of another structure", expected=expected, fix=fix))
        return {"params": nested({path: leaf for path, leaf in zip(paths, leaves, strict=True) if path is not None})}


def _by_path(params: Any) -> tuple[tuple[str | None, ...], list[Any], Any]:
    found, structure = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in found]
    texts = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found]
    paths = tuple(text if is_array(leaf) else None for text, leaf in zip(texts, leaves, strict=True))
    named = [path for path in paths if path is not None]
    twice = next((path for path in named if named.count(path) > 1), None)
    if twice is not None or "" in named:
        got = "an array alone" if twice is None else f"two leaves at {twice}"
        expected, fix = "a tree with a path for each leaf", "rename one of its keys"
        raise InputError(message("parameters", got=got, expected=expected, fix=fix))
    return paths, leaves, structure


def adapt_function(
    function: Callable[..., Any],
    params: Any,
    *args: Any,
    targets: Sequence[str] | str,
    method: Parameterization | None = None,
    heads: Sequence[str] | str = (),
    space: str = "activation",
    unbatched: Sequence[str] = (),
    **kwargs: Any,
) -> AdaptedFunction:
    """Chooses kernels of any JAX function and checks, by one abstract evaluation, that they can be adapted.

    The function is traced: its products, convolutions and lookups say which axes of a kernel are inputs, and the update
    is added there. No module class is known.

    Args:
        function: (params, *inputs) to an output, batch first; pure. While it trains its `key` or `rngs` is a key.
        params: any tree of arrays or `jax.ShapeDtypeStruct`, such as an Equinox module; other leaves stay as they are.
        *args: an example of the inputs, arrays or shapes; only shapes are used.
        targets: regular expressions, each matching whole kernel paths such as r"layers/.*/weight"; empty adapts nothing
            but the heads.
        method: the parameterisation; `SharedA()` (rank 4, alpha 8) by default.
        heads: regular expressions over all parameter paths: leaves that each task owns whole.
        space: "activation" adds at the operations (low memory, batches of different tasks); "parameter" adds to the
            kernels.
        unbatched: inputs that all examples of a mixed batch share, by name, or by place as "0". Their first axis may
            be as long as the batch.
        **kwargs: more inputs, by name.

    Returns:
        An `AdaptedFunction`; `print` it to see what matched.

    Raises:
        TargetError: if a pattern matches nothing, or a kernel that it matches cannot be adapted in this space.
        InputError: if `function` cannot be called, `method` is not a parameterisation, or the tree has no paths.

    Example:
        >>> import jax.numpy as jnp, jax
        >>> params = {"w": jnp.ones((6, 4)), "b": jnp.zeros((1, 4))}
        >>> adapted = adapt_function(lambda p, x: x @ p["w"] + p["b"], params, jnp.ones((2, 6)), targets="w")
        >>> trees = adapted.init(jax.random.key(0), params, 3)
        >>> adapted.apply({"params": params, **trees}, jnp.ones((2, 6)), task_id=jnp.array([2, 0])).shape
        (2, 4)
    """
    if not callable(function):
        fix = "pass a function (params, *inputs), or use share_jax.adapt for a module of Flax"
        raise InputError(message("function", got=type(function).__name__, expected="something to call", fix=fix))
    paths, leaves, structure = _by_path(params)
    others = tuple(leaf for leaf, path in zip(leaves, paths, strict=True) if path is None)
    if len(others) == len(leaves):
        raise TargetError(message("parameters", got="no array", expected="a tree of arrays", fix="pass the parameters"))
    model = PytreeModel(function, structure, paths, others)
    chosen = {"targets": targets, "method": method, "heads": heads, "space": space, "unbatched": unbatched}
    return choose(model, model.variables(params), args, kwargs, **chosen)
