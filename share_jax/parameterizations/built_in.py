"""The library's own methods, for where a leaf or a method is known by its name alone.

A manifest holds a method's name, and the layers of a module of one's own have each their own method.
"""

from collections.abc import Mapping
from typing import Any

from share_jax.errors import FormatError, InputError, message
from share_jax.parameterizations.base import LeafSpec, Parameterization, specs
from share_jax.parameterizations.method_names import NAMES
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.parameterizations.share import Share, ShareAdapt
from share_jax.parameterizations.shared_a import SharedA

BUILT_IN: tuple[Parameterization, ...] = (SharedA(), SeparateLoRA(), Share(), ShareAdapt())
"""One of each; their numbers do not matter here."""


def built_in(name: str) -> Parameterization | None:
    """The library's method of this name; None for any other.

    >>> built_in("shared_a"), built_in("module")
    (SharedA(rank=4, alpha=8.0, init_std=0.02), None)
    """
    return next((method for method in BUILT_IN if method.name == name), None)


def method_named(name: str, **numbers: Any) -> Parameterization:
    """The method of a name with those of the numbers that it has.

    >>> method_named("separate", rank=2, alpha=4.0, num_basis=8)
    SeparateLoRA(rank=2, alpha=4.0, init_std=0.02)

    Raises:
        InputError: there is no such method, or a number is out of range.
    """
    known = built_in(name)
    if known is None or name not in NAMES:
        raise InputError(message("method", got=repr(name), expected=", ".join(NAMES), fix="choose one"))
    own: Any = type(known)
    return own(**{key: value for key, value in numbers.items() if key in own.__dataclass_fields__})


def leaf_specs(owner: str, method: Parameterization | None = None) -> dict[str, LeafSpec]:
    """What is known of leaves by their names.

    Args:
        owner: "shared" or "task": whose leaves.
        method: whose leaves they are, where that is known; beside those of the library's methods.

    Raises:
        InputError: if one of its leaves has the name of a library's leaf and other axes, or trains otherwise.
    """
    made: dict[str, LeafSpec] = {}
    for each in (*BUILT_IN, *(() if method is None else (method,))):
        for name, spec in specs(each, owner).items():
            first = made.setdefault(name, spec)
            if (first.axes, first.trains) != (spec.axes, spec.trains):
                what, got = f"leaf {name!r} of method {each.name!r}", f"axes {spec.axes}, trains {spec.trains!r}"
                expected = f"axes {first.axes}, trains {first.trains!r}, as the library's leaf of this name"
                raise InputError(message(what, got=got, expected=expected, fix="give the leaf a name of its own"))
    return made


def method_of(stored: Mapping[str, Any], what: str) -> Parameterization:
    """The parameterisation that a checkpoint's identity describes.

    Args:
        stored: its name and fields.
        what: the folder, for the message.

    Raises:
        FormatError: it is none of the library's, or has other fields.

    >>> method_of({"name": "shared_a", "rank": 2, "alpha": 4.0, "init_std": 0.02}, "bank")
    SharedA(rank=2, alpha=4.0, init_std=0.02)
    """
    numbers = {name: value for name, value in stored.items() if name != "name"}
    known = built_in(str(stored.get("name")))
    fix = "load it in Python with share_jax.load_bank, which knows the model, and export it from there"
    if known is None:
        got, expected = repr(stored.get("name")), f"one of {sorted(method.name for method in BUILT_IN)}"
        raise FormatError(message(f"method of {what}", got=got, expected=expected, fix=fix))
    try:
        return type(known)(**numbers)
    except (TypeError, InputError) as error:
        raise FormatError(
            message(f"method of {what}", got=error, expected=f"those of {type(known).__name__}", fix=fix)
        ) from None
