"""What an experiment is, and the experiments by name: each is a file of this folder that holds an `EXPERIMENT`.

A new stream is one such file. One of a user's own, in a program or a notebook, is handed to `register`.
"""

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from experiments import config as folder
from experiments.config.numbers import ConfigError
from share_jax.errors import InputError, message

if TYPE_CHECKING:  # the command line is read before anything heavy is loaded
    from flax.typing import Dtype

    from experiments.assets import Asset
    from experiments.backbones.backbone import Backbone
    from experiments.streams.base import Stream

Preset = Literal["quick", "short", "default", "full"]
Protocol = Literal["task", "domain", "class"]


@dataclass(frozen=True, eq=False)
class Experiment:
    """A stream of tasks with the model that learns it.

    Attributes:
        name: of the stream, on the command line.
        presets: the fields of `Config`, and numbers of methods, that each amount of work sets; "short" stands between
            quick and default, where an experiment has it.
        stream: configuration -> the stream under its own protocol, its inputs as the whole model takes them.
        backbone: (configuration, that stream, width of the head, compute type) -> the frozen model.
        protocol: the stream's own.
        pretrained_here: whether the model is pretrained for the run, on training images of all tasks.
        methods: what a run compares when it is not told; the usual ones when None.
        assets: weights and texts that are downloaded for it.
        reads: which of the settings `weights` and `task_order` it reads; the others are refused.
        minutes: by preset the wall time with one seed and the experiment's `methods` on two free CPU cores, where it
            is known.
    """

    name: str
    presets: Mapping[Preset, Mapping[str, Any]]
    stream: Callable[[Any], "Stream"]
    backbone: Callable[[Any, "Stream", int, "Dtype"], "Backbone"]
    protocol: Protocol = "task"
    pretrained_here: bool = False
    methods: tuple[str, ...] | None = None
    assets: tuple["Asset", ...] = ()
    reads: tuple[str, ...] = ()
    minutes: Mapping[Preset, int] = field(default_factory=dict)


_REGISTERED: dict[str, Experiment] = {}


def register(experiment: Experiment) -> None:
    """Adds an experiment to those that a run may name, until the process ends.

    Raises:
        InputError: there is one of that name.
    """
    if experiment.name in experiments():
        got = f"{experiment.name!r} twice"
        raise InputError(message("experiment", got=got, expected="a new name", fix="choose another name"))
    _REGISTERED[experiment.name] = experiment


def experiments() -> dict[str, Experiment]:
    """Every experiment by name."""
    return {**_found(), **_REGISTERED}


def experiment(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ConfigError: there is none.
    """
    if (found := experiments().get(name)) is None:
        expected = f"one of {', '.join(experiments())}"
        raise ConfigError(message("--experiment", got=name, expected=expected, fix="check the name"))
    return found


def protocol_of(name: str, protocol: Protocol | None = None) -> Protocol:
    """The protocol that holds: the one that was asked for, or the stream's own.

    >>> protocol_of("digits5"), protocol_of("rotated_mnist10"), protocol_of("digits5", "class")
    ('task', 'domain', 'class')
    """
    return protocol or experiment(name).protocol


@cache
def _found() -> dict[str, Experiment]:
    modules = [import_module(f"{folder.__name__}.{each.name}") for each in pkgutil.iter_modules(folder.__path__)]
    found = [module.EXPERIMENT for module in modules if hasattr(module, "EXPERIMENT")]
    return {each.name: each for each in found}
