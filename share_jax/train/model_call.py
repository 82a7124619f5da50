"""How a learner calls a model that is not changed for it: flags, random streams, and what of its output counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from share_jax.adapted import Forward
from share_jax.errors import InputError, message
from share_jax.model_inputs import Inputs, inputs_of
from share_jax.typing import PRNGKey, Tree

Output = Callable[[Any], Any] | str | int
"""A function of what the model returned, the name of a part of it, or the place of one."""


@dataclass(frozen=True)
class ModelCall:
    """What a model is called with beside a batch's inputs.

    Attributes:
        train_kwargs: arguments by name while a task is learnt, such as {"train": True}.
        predict_kwargs: the same for predictions.
        rngs: streams of random numbers that a Linen model draws from while a task is learnt.
        output: what of the model's output the loss and predictions get; all of it when None.
        unbatched: inputs without a batch axis, by name or by place as "0".
    """

    train_kwargs: Mapping[str, Any] = field(default_factory=dict)
    predict_kwargs: Mapping[str, Any] = field(default_factory=dict)
    rngs: tuple[str, ...] = ("dropout",)
    output: Output | None = None
    unbatched: tuple[str, ...] = ()

    def forward(self, run: Forward) -> Forward:
        """A model's forward pass, called in this way; a batch's own inputs by name come before those kept here."""

        def call(base: Tree, shared: Tree, slot: Any, inputs: Any, key: PRNGKey | None) -> Any:
            training = key is not None
            kept = self.train_kwargs if training else self.predict_kwargs
            given = self.inputs(inputs, training=training)
            out = run(base, shared, slot, given, key)
            if not kept.get("mutable"):
                return picked(out, self.output)
            main, state = out
            return picked(main, self.output) if training else (picked(main, self.output), state)

        return call

    def inputs(self, inputs: Any, *, training: bool) -> Any:
        """A batch's inputs with the arguments and the streams of this call."""
        kept = self.train_kwargs if training else self.predict_kwargs
        if not kept and self.rngs == ("dropout",) and not self.unbatched:
            return inputs
        given = inputs_of(inputs)
        made = Inputs(*given.args, **{**kept, **given.kwargs})
        return made.called_with(self.rngs, self.unbatched)

    def shares(self, place: str) -> bool:
        """Whether an input has no batch axis.

        Args:
            place: its path in a batch, such as "inputs/mask" or "inputs/0/nodes".
        """
        own = place.removeprefix("inputs").removeprefix("/") or "0"
        return any(own == name or own.startswith(f"{name}/") for name in self.unbatched)


PLAIN = ModelCall()
"""Batches' inputs alone."""


def picked(out: Any, output: Output | None) -> Any:
    """The part of a model's output that counts.

    Raises:
        InputError: if there is no such part.

    >>> picked({"logits": 1, "hidden": 2}, "logits"), picked((3, 4), 0), picked(5, lambda out: out + 1)
    (1, 3, 6)
    """
    if output is None:
        return out
    if callable(output):
        return output(out)
    try:
        if isinstance(output, str) and not isinstance(out, Mapping):
            return getattr(out, output)
        return out[output]
    except (AttributeError, LookupError, TypeError) as error:
        fix = "pass output= the name or the place of one of its parts, or a function of it"
        got, expected = described(out), f"one with a part {output!r}"
        raise InputError(message("output of the model", got=got, expected=expected, fix=fix)) from error


def described(out: Any) -> str:
    """What a model returned, in a few words.

    >>> described((1, 2)), described({"logits": 1})
    ('a tuple of 2', "a dict of ['logits']")
    """
    if isinstance(out, Mapping):
        return f"a {type(out).__name__} of {list(out)[:6]}"
    if hasattr(out, "shape"):
        return f"an array of shape {tuple(out.shape)}"
    length = f" of {len(out)}" if isinstance(out, list | tuple) else ""
    return f"a {type(out).__name__}{length}"
