"""The library's own methods, for where a leaf or a method is known by its name alone.

A manifest holds a method's name, and the layers of a module of one's own have each their own method.
"""

from share_jax.parameterizations.base import LeafSpec, Parameterization, specs
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


def leaf_specs(owner: str, method: Parameterization | None = None) -> dict[str, LeafSpec]:
    """What is known of leaves by their names.

    Args:
      owner: "shared" or "task": whose leaves.
      method: whose leaves they are, where that is known; its own come before those of the library's methods.
    """
    made: dict[str, LeafSpec] = {}
    for each in (*BUILT_IN, *(() if method is None else (method,))):
        made |= specs(each, owner)
    return made
