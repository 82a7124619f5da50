"""Along which axis the examples of a batch lie in the values of a program, and whether in their order.

Shapes do not tell the examples of a batch from the same examples sorted, or from as many of anything else: a layer
there would take the slot of another example. So the axis is followed from the inputs through every operation that is
known to keep it (`axis_rules`); all others lose it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from share_jax.errors import InputError, message
from share_jax.traced.axis_rules import BODIES, RULES, shape_of, unknown
from share_jax.traced.places import INPUT, MIXED, Lies, State


class Followed(NamedTuple):
    """Where examples lie in a program, and the first operation that makes one depend on another.

    Attributes:
        outputs: in the program's outputs.
        layers: in the inputs of its layers that `layer_input` has marked.
        mixes: the operation's name; None where none is known.
    """

    outputs: list[State]
    layers: list[State]
    mixes: str | None


def followed(program: ClosedJaxpr, inputs: Sequence[State], size: int) -> Followed:
    """Where examples lie in the outputs of a program, and in the inputs of its layers that `layer_input` has marked.

    Args:
        program: traced.
        inputs: where they lie in its inputs.
        size: of the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> program = jax.make_jaxpr(lambda x: (x.T, x[::-1], x[jnp.argsort(x[:, 0])], x.sum(0)))(jnp.ones((5, 2)))
        >>> followed(program, [Lies(0)], 5).outputs  # doctest: +NORMALIZE_WHITESPACE
        [Lies(axis=1, rows=1, order='own'), Lies(axis=0, rows=1, order='turned'),
         Lies(axis=0, rows=1, order='moved'), 'mixed']
        >>> followed(jax.make_jaxpr(lambda x: x - x.mean())(jnp.ones((5, 2))), [Lies(0)], 5).mixes
        'sub'
    """
    marks: list[State] = []
    mixing: list[str] = []
    known = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    outputs = _Body(program.jaxpr, known, size, marks, mixing).run(inputs)
    return Followed(outputs, marks, mixing[0] if mixing else None)


def in_order(program: ClosedJaxpr, inputs: Sequence[State], size: int) -> list[State]:
    """Where examples lie in the outputs of a program; an order that is lost may have been found again.

    Raises:
        InputError: if an output has them in another order than the inputs, or an example depends on another one.
    """
    outputs, _, mixes = followed(program, inputs, size)
    if mixes is not None:
        got, expected = f"an example that others change, by {mixes}", "examples that are computed each by itself"
        fix = "pass one id for the whole batch; inputs that all examples share are named in `unbatched` of adapt"
        raise InputError(message("model in a batch of different tasks", got=got, expected=expected, fix=fix))
    for lies in outputs:
        if isinstance(lies, Lies) and lies.order != "own":
            got, expected = "an output with the batch in another order", "outputs in the order of the inputs"
            fix = "put the output back into its order, or pass one id for the whole batch"
            raise InputError(message("model in a batch of different tasks", got=got, expected=expected, fix=fix))
    return outputs


@dataclass
class _Body:
    """A program, or the body of one of its operations.

    Attributes:
        jaxpr: the program.
        known: values of constants, and of what depends on nothing else; filled.
        size: of the batch.
        marks: where examples lie in the marked values; filled.
        mixing: names of operations that make an example depend on another one, where that is used; filled.
        outside: of inputs that a call hands on, what they are there.
    """

    jaxpr: Jaxpr
    known: dict[Any, Any]
    size: int
    marks: list[State]
    mixing: list[str]
    outside: Mapping[Any, tuple["_Body", Any]] = field(default_factory=dict)
    states: dict[Any, State] = field(default_factory=dict)
    made: dict[Any, JaxprEqn] = field(default_factory=dict)
    results: Sequence[bool] | None = None  # which of the outputs are needed; all if None
    needed: set[Any] = field(default_factory=set)
    used: bool = True  # whether a result of the operation that is being followed is needed

    def mixes(self, eqn: JaxprEqn) -> None:
        if self.used:
            self.mixing.append(eqn.primitive.name)

    def run(self, inputs: Sequence[State]) -> list[State]:
        self.made = {out: eqn for eqn in self.jaxpr.eqns for out in eqn.outvars}
        self.states = dict.fromkeys(self.jaxpr.constvars) | dict(zip(self.jaxpr.invars, inputs, strict=True))
        self.needed = _needed(self.jaxpr, self.results)
        for eqn in self.jaxpr.eqns:
            self.used = not self.needed.isdisjoint(eqn.outvars)
            own = [self._state(atom) for atom in eqn.invars]
            name = "scatter" if eqn.primitive.name.startswith("scatter") else eqn.primitive.name
            if name == "name" and eqn.params["name"] == INPUT:
                self.marks.append(own[0])
            if name not in BODIES and all(state in (None, MIXED) for state in own):
                found: list[State] = [MIXED if MIXED in own else None] * len(eqn.outvars)
            else:
                found = RULES.get(name, unknown)(self, eqn, own)
            self.states |= zip(eqn.outvars, found, strict=True)
        return [self._state(atom) for atom in self.jaxpr.outvars]

    def _state(self, atom: Any) -> State:
        return None if isinstance(atom, Literal) else self.states[atom]

    def inner(
        self, jaxpr: Any, inputs: Sequence[State], atoms: Sequence[Any] = (), outputs: Sequence[Any] | None = None
    ) -> list[State]:
        closed = isinstance(jaxpr, ClosedJaxpr)
        own, consts = (jaxpr.jaxpr, jaxpr.consts) if closed else (jaxpr, ())
        outside = {var: (self, atom) for var, atom in zip(own.invars, atoms, strict=False)}
        known = dict(zip(own.constvars, consts, strict=False))
        mixing = self.mixing if self.used else []
        results = None if outputs is None else [out in self.needed for out in outputs]
        return _Body(own, known, self.size, self.marks, mixing, outside, results=results).run(inputs)

    def constant(self, atom: Any) -> Any:
        """The value of what depends on no input; None of all else."""
        if isinstance(atom, Literal):
            return atom.val
        if atom in self.outside:
            body, there = self.outside[atom]
            return body.constant(there)
        if atom not in self.known:
            eqn = self.made.get(atom)
            inputs = [None] if eqn is None else [self.constant(each) for each in eqn.invars]
            if eqn is None or any(value is None for value in inputs):
                self.known[atom] = None
            else:
                with jax.ensure_compile_time_eval():
                    found = eqn.primitive.bind(*inputs, **eqn.params)
                self.known |= zip(eqn.outvars, found if eqn.primitive.multiple_results else [found], strict=True)
        return self.known[atom]

    def counted(self, indices: Any, at: int) -> int | None:
        """The axis of indices along which their `at`-th number is i for example i; None if there is none."""
        eqn, last = None if isinstance(indices, Literal) else self.made.get(indices), len(shape_of(indices)) - 1
        joined = eqn is not None and eqn.primitive.name == "concatenate" and eqn.params["dimension"] == last
        if eqn is not None and joined and all(shape_of(piece)[-1] == 1 for piece in eqn.invars):
            indices, at = eqn.invars[at], 0
        value = self.constant(indices)
        if value is None:
            return None
        places = np.asarray(value)[..., at]
        for axis in (axis for axis, length in enumerate(places.shape) if length == self.size):
            own = np.arange(self.size).reshape([-1 if each == axis else 1 for each in range(places.ndim)])
            if np.array_equal(places, np.broadcast_to(own, places.shape)):
                return axis
        return None


def _needed(jaxpr: Jaxpr, results: Sequence[bool] | None) -> set[Any]:
    """The variables on which the program's results depend, and those results.

    Args:
        jaxpr: the program.
        results: which of its outputs they are; all if None.
    """
    chosen = jaxpr.outvars if results is None else [out for out, own in zip(jaxpr.outvars, results, strict=True) if own]
    needed = {atom for atom in chosen if not isinstance(atom, Literal)}
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            needed |= {atom for atom in eqn.invars if not isinstance(atom, Literal)}
    return needed
