"""The methods by name; a file of `experiments.algorithms` says how one runs, its own numbers, and their tuned values.

A new method is one such file with its records in `METHODS`, and its name below, which places it in tables. One of a
user's own is handed to `register`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from types import MappingProxyType
from typing import Any

from experiments.config.numbers import MethodNumbers
from share_jax.errors import InputError, message

ID_ALONE = "sequential_lora_heads"
"""What differs from `sequential_lora` only where the task's id is given."""

MAIN = ("shared_a", "separate_lora", "sequential_lora", ID_ALONE, "frozen_head", "joint", "majority")
"""What a run compares when it is not told."""

PUBLISHED = (
    "full_finetune",
    "houlsby_adapters",
    "houlsby_adapters_sequential",
    "ewc_lora",
    "lwf_lora",
    "er_lora",
    "der_lora",
    "o_lora",
    "inflora",
    "sd_lora",
    "l2p",
)
"""Published baselines."""

PROMPTED = ("frozen", "frozen_few_shot")
"""A language model without any training, asked plainly and with examples in the prompt."""

METHODS = (*MAIN, "share", "share_coefficients", *PROMPTED, *PUBLISHED)

_SECOND = {
    ID_ALONE: "sequential_lora",
    "share_coefficients": "share",
    "frozen_few_shot": "frozen",
    "houlsby_adapters_sequential": "houlsby_adapters",
}
"""The file of a method that is the second of its file; others have a file of their own name."""


@dataclass(frozen=True, eq=False)
class Method:
    """A method.

    Attributes:
        name: on the command line and in tables.
        run: job -> outcome, see `experiments.algorithms.job`.
        numbers: what it reads beside the fields that every run has.
        rate: the field of `numbers` with its peak rate; the run's own when None.
        tuned: by stream, or by stream and protocol such as "clinc150-class", what presets have instead of defaults:
            the bold numbers of `experiments/CHOICES.md`. What stands under a protocol replaces what stands under the
            stream. A rate or strength at the end of what was tried leaves the adapter nearly as it was after the first
            task, where a method forgets little by learning little.
        not_tokens: why it is refused on the tasks of a language model; "" where it runs on them.
    """

    name: str
    run: Callable[[Any], Any]
    numbers: tuple[type[MethodNumbers], ...] = ()
    rate: str | None = None
    tuned: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: MappingProxyType({}))
    not_tokens: str = ""


_REGISTERED: dict[str, Method] = {}


def register(method: Method) -> None:
    """Adds a method to those that a run may name, until the process ends.

    Raises:
        InputError: there is one of that name.
    """
    if method.name in method_names():
        fix = "choose another name"
        raise InputError(message("method", got=f"{method.name!r} twice", expected="a new name", fix=fix))
    _REGISTERED[method.name] = method


def method_names() -> tuple[str, ...]:
    """Every method, in the order of tables; no file is imported for it."""
    return (*METHODS, *_REGISTERED)


def method(name: str) -> Method:
    """The method of a name, whose file is imported now.

    Raises:
        InputError: there is none.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in METHODS:
        expected = f"one of {', '.join(method_names())}"
        raise InputError(message("method", got=repr(name), expected=expected, fix="check the name"))
    module = import_module(f"experiments.algorithms.{_SECOND.get(name, name)}")
    return next(each for each in module.METHODS if each.name == name)


def numbers_of(names: Iterable[str] | None = None) -> tuple[type[MethodNumbers], ...]:
    """The numbers of methods, of all when None, each kind once."""
    chosen = method_names() if names is None else names
    return tuple(dict.fromkeys(kind for name in chosen for kind in method(name).numbers))


def tuned(stream: str, protocol: str) -> dict[str, float]:
    """What the methods have for a stream instead of their defaults, by field."""
    found: dict[str, float] = {}
    for each in map(method, method_names()):
        found |= each.tuned.get(f"{stream}-{protocol}", each.tuned.get(stream, {}))
    return found


def rate_field(name: str) -> str:
    """The field with the peak rate of everything but the heads: a method's own where it has one, else the run's."""
    return (method(name).rate if name in method_names() else None) or "learning_rate"


def fields_of(kind: type[MethodNumbers]) -> frozenset[str]:
    """The names of a kind's fields."""
    return frozenset(each.name for each in fields(kind))
