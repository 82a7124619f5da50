"""A place between two sublayers of an encoder: what lies below it is frozen and can be computed once per example."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from share_jax.errors import InputError, message

Sublayer = Literal["attention", "ffn"]


class Cut(NamedTuple):
    """Just before a sublayer.

    Attributes:
        layer: its layer's number, from 0.
        sublayer: which of the layer's two.

    Example:
        >>> Cut(2, "ffn")  # layers 0 and 1 and the attention of layer 2 are frozen
        Cut(layer=2, sublayer='ffn')
    """

    layer: int
    sublayer: Sublayer = "attention"


START = Cut(0)


def parts(first: Cut, last: Cut | None, layers: int) -> Iterator[tuple[int, Sublayer | None]]:
    """What lies between two cuts, in order: a layer's number, and its sublayer alone, or None for the whole layer.

    >>> list(parts(Cut(1, "ffn"), None, 3)), list(parts(START, Cut(1, "ffn"), 3))
    ([(1, 'ffn'), (2, None)], [(0, None), (1, 'attention')])
    """
    start, stop = _place(first), 2 * layers if last is None else _place(last)
    while start < stop:
        index, second = divmod(start, 2)
        if second:
            yield index, "ffn"
        elif start + 1 == stop:
            yield index, "attention"
        else:
            yield index, None
        start = 2 * index + 2


def check_cut(cut: Cut, layers: int) -> None:
    """Refuses a cut that an encoder of so many layers does not have."""
    if not 0 <= cut.layer <= layers:
        raise InputError(message("first_layer", got=cut.layer, expected=f"0 to {layers}", fix="pass first_layer=0"))
    if cut.sublayer not in ("attention", "ffn"):
        expected = "'attention' or 'ffn'"
        raise InputError(message("first_sublayer", got=repr(cut.sublayer), expected=expected, fix="pass 'attention'"))
    if cut == Cut(layers, "ffn"):
        got, expected = f"'ffn' of layer {layers}", f"a layer below {layers}, the number of layers"
        raise InputError(message("first_sublayer", got=got, expected=expected, fix="lower first_layer"))


def _place(cut: Cut) -> int:
    return 2 * cut.layer + (cut.sublayer == "ffn")
