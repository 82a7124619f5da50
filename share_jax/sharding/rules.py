"""Logical axes and where they go on a mesh: the rules that base, `shared` and `tasks` are sharded by.

| logical axis | of | by default |
|---|---|---|
| batch | the examples of a batch | data and fsdp |
| task | the stack of task slots | replicated |
| d_in | the input side of a kernel, and of the A or basis on it | fsdp |
| d_out | the output side of a kernel, and of the B or basis on it | tensor |

Everything else is replicated: ranks and coefficients, biases, norms, counters. A kernel of more than two axes is split
along the first input (output) axis whose length the devices divide. A weight that they do not divide at all is
replicated along that side, and so is its adapter: nothing is padded and nothing fails, and `Layout.table` shows it.
A batch or a task axis that does not divide is refused, since the user chose its size.
"""

import math
from collections.abc import Mapping

from jax.sharding import Mesh

from share_jax.errors import InputError, message

Where = str | tuple[str, ...] | None
"""A mesh axis, several, or replicated."""

Rules = Mapping[str, Where]

RULES: Rules = {"batch": ("data", "fsdp"), "task": None, "d_in": "fsdp", "d_out": "tensor"}


def axes_of(where: Where) -> tuple[str, ...]:
    """The mesh axes as a tuple."""
    return () if where is None else (where,) if isinstance(where, str) else tuple(where)


def parts(mesh: Mesh, where: Where) -> int:
    """Into how many parts a dimension falls."""
    return math.prod(mesh.shape[axis] for axis in axes_of(where))


def complete(rules: Rules | None, mesh: Mesh) -> dict[str, Where]:
    """The rules with the defaults for what they leave out, checked against the mesh.

    Raises:
        InputError: for an unknown logical or mesh axis, or one mesh axis for two sides of one array.
    """
    given = {} if rules is None else dict(rules)
    for name, where in given.items():
        if name not in RULES:
            raise InputError(
                message("sharding rule", got=repr(name), expected=f"one of {', '.join(RULES)}", fix="rename it")
            )
        for axis in axes_of(where):
            if axis not in mesh.shape:
                fix = "name an axis of the mesh, or None"
                raise InputError(
                    message(f"rule for {name}", got=repr(axis), expected=f"some of {tuple(mesh.shape)}", fix=fix)
                )
    whole = {**RULES, **given}
    used = [axis for name in ("task", "d_in", "d_out") for axis in axes_of(whole[name])]
    twice = sorted({axis for axis in used if used.count(axis) > 1})
    if twice:
        fix = "give each of task, d_in and d_out axes of its own"
        got = f"{twice[0]!r} for two of task, d_in and d_out"
        raise InputError(message("sharding rules", got=got, expected="each mesh axis once in an array", fix=fix))
    return whole
