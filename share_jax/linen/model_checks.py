"""What `adapt` takes of a model and its variables, and one line for each thing that it does not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
from flax.errors import FlaxError, InvalidRngError, ModifyScopeVariableError

from share_jax.adapted import SHARED, TASKS, check_variables
from share_jax.errors import InputError, ShareError, TargetError, first_line, message
from share_jax.model_inputs import AS_FLAG, VALUE_READ
from share_jax.trees import flat

RAISED = (TypeError, ValueError, LookupError, AttributeError, NameError, AssertionError, ArithmeticError, FlaxError)
"""What models raise for arguments that they do not take."""


def check_model(model: Any) -> None:
    """Refuses what is no Linen module.

    Raises:
        InputError: naming what it is.
    """
    if isinstance(model, nn.Module):
        return
    got, fix = type(model).__name__, "pass the module, such as MyModel(), and its variables"
    if isinstance(model, type):
        got, fix = f"the class {model.__name__}", f"make a module of it, such as {model.__name__}()"
    raise InputError(message("model", got=got, expected="a flax.linen.Module", fix=fix))


def check_trees(variables: Any) -> None:
    """Refuses variables that are no trees of arrays, and collections that have the adapter's names.

    Raises:
        InputError: naming the collection or the parameter.
    """
    check_variables(variables, "variables")
    params = variables["params"]
    if not isinstance(params, Mapping) or _of_nnx(params):
        fix = "pass the parameters as nested dicts: flax.nnx.to_pure_dict(state) of an NNX state"
        raise InputError(message('variables["params"]', got=type(params).__name__, expected="nested dicts", fix=fix))
    for path, leaf in flat(params).items():
        if not hasattr(leaf, "ndim") or not hasattr(leaf, "dtype"):
            boxed = isinstance(leaf, nn.meta.AxisMetadata)
            unbox = "take the arrays out of their boxes with flax.linen.unbox(variables)"
            fix = unbox if boxed else "pass the arrays of the model that is not quantised"
            fix = "pass nested dicts: flax.nnx.to_pure_dict(state) of an NNX state" if _of_nnx(leaf) else fix
            raise InputError(message(f"parameter {path}", got=type(leaf).__name__, expected="an array", fix=fix))


def _of_nnx(value: Any) -> bool:
    return type(value).__module__.startswith("flax.nnx.")


def check_collections(found: Mapping[str, Any]) -> None:
    """Refuses a model that has collections with the names of the adapter's trees.

    Raises:
        InputError: naming them.
    """
    own = sorted({SHARED, TASKS} & found.keys())
    if own:
        expected, fix = f"none named '{SHARED}' or '{TASKS}'", "rename the model's own collection"
        raise InputError(message("collections of the model", got=own, expected=expected, fix=fix))


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Puts one line in place of what a model raises for arguments that it does not take.

    Raises:
        TargetError: in place of it, with it behind.
    """
    try:
        yield
    except ShareError:
        raise
    except RAISED as error:
        got = f"{type(error).__name__}: {first_line(error, 'no text')}"
        expected = "the arguments that model.apply takes"
        raise TargetError(message(what, got=got, expected=expected, fix=advice(error))) from error


def advice(error: Exception) -> str:
    """What to do about an error that a model raised."""
    text = str(error)
    if isinstance(error, VALUE_READ):
        return AS_FLAG
    if isinstance(error, InvalidRngError):
        return "pass the random streams that the model draws from as rngs={name: key}, or switch its dropout off"
    if isinstance(error, ModifyScopeVariableError):
        return "name the collections that the model changes, as mutable=['cache']"
    if isinstance(error, NameError) and "axis name" in text:
        return "run layers that average over devices, as BatchNorm with axis_name, in their evaluation mode"
    if "missing" in text and "argument" in text:
        return "pass every argument that the model's __call__ takes, flags too"
    return "pass the same arguments to adapt as to model.apply"
