"""The frozen layers' output of many texts, of which what several begin with is computed once.

Prompts of one kind mostly begin alike: with instructions, with a schema, with worked examples, or with a question that
is put to several tasks. Such texts become one row: their common beginning, the stem, and behind it the rest of each as
a document that goes on from the stem. `Decoder.prefix` takes both.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from share_jax.errors import InputError, message
from share_jax.models.decoder import Decoder
from share_jax.typing import Tree

LENGTHS = (64, 128, 192, 256, 384, 512)
"""Tokens that a row is padded to; each compiles once. Several texts share a row of no more than the last."""

TOGETHER = 2048
"""Tokens of a call."""

_GRID = 128
"""A longer row of one text is padded to a multiple of this."""

_ATTENTION = 2000
"""Tokens of a row for which attention costs as much as all products: with 576 channels on a CPU, see `price`."""


class Group(NamedTuple):
    """Texts that are computed in one row.

    Attributes:
        texts: their numbers.
        stem: how many tokens all of them begin with.
        length: of the row: the stem and what else each text has.
    """

    texts: tuple[int, ...]
    stem: int
    length: int


def padded_length(length: int, lengths: Sequence[int] = LENGTHS) -> int:
    """What a row of so many tokens is padded to.

    >>> padded_length(65), padded_length(600)
    (128, 640)
    """
    return next((each for each in lengths if each >= length), -(-length // _GRID) * _GRID)


def price(padded: int) -> float:
    """What a row costs, in tokens: its products grow with its length, and attention with the square of that."""
    return padded * (1 + padded / _ATTENTION)


def groups_of(texts: Sequence[Sequence[int]], lengths: Sequence[int] = LENGTHS) -> list[Group]:
    """The cheapest division into rows by `price`, padding counted, of those that keep texts of one start together.

    Texts are sorted, so that those with the longest common beginnings are neighbours, and cut into runs: the tokens of
    a run's stem are computed once, and the best cuts follow by dynamic programming.

    Args:
        texts: token ids, each at least one.
        lengths: what rows are padded to, rising; a row of several texts has no more than the last.

    >>> groups_of([(7, 1, 2), (5, 5), (7, 1, 3, 4)])
    [Group(texts=(1,), stem=2, length=2), Group(texts=(0, 2), stem=2, length=5)]
    """
    order = sorted(range(len(texts)), key=lambda index: tuple(texts[index]))
    sizes = [len(texts[index]) for index in order]
    alike = [_common(texts[a], texts[b]) for a, b in pairwise(order)]
    prices = [price(padded_length(length, lengths)) for length in range(max([*lengths[-1:], *sizes]) + 1)]
    cost, begins = [0.0] * (len(order) + 1), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        stem = length = sizes[end - 1]
        cost[end], begins[end] = cost[end - 1] + prices[length], end - 1
        for start in range(end - 2, -1, -1):
            shared = min(stem, alike[start])
            length += sizes[start] - shared + (end - start - 2) * (stem - shared)
            stem = shared
            if not stem or length > lengths[-1]:
                break
            if cost[start] + prices[length] < cost[end]:
                cost[end], begins[end] = cost[start] + prices[length], start
    found, end = [], len(order)
    while end:
        start = begins[end]
        stem = min([sizes[start], *alike[start : end - 1]])
        length = stem + sum(size - stem for size in sizes[start:end])
        found.append(Group(tuple(order[start:end]), stem, length))
        end = start
    return found[::-1]


def prefix_of_texts(
    model: Decoder, params: Tree, texts: Sequence[Sequence[int]], *, together: int = TOGETHER
) -> list[np.ndarray]:
    """What lies below the model's cut, of each text alone: (tokens, d) float32, in the order of the texts.

    Args:
        model: cut where the output is wanted.
        params: its parameters.
        texts: token ids.
        together: tokens of a call; a longer text has one for itself.

    Returns:
        The values of `Decoder.prefix` of each text, to the accuracy of another order of summation.

    Raises:
        InputError: a text has no token.
    """
    if not all(texts):
        fix = "leave it out"
        raise InputError(message("text", got="no token", expected="at least one", fix=fix))
    of_length: dict[int, list[Group]] = {}
    for group in groups_of(texts):
        of_length.setdefault(padded_length(group.length), []).append(group)
    out: list[np.ndarray] = [np.zeros((0, 0), np.float32)] * len(texts)
    for length, groups in sorted(of_length.items()):
        rows = max(1, together // length)
        for start in range(0, len(groups), rows):
            part = groups[start : start + rows]
            found = _prefix(model, {"params": params}, *_packed(texts, part, rows, length))
            for group, row in zip(part, np.asarray(found, np.float32), strict=False):
                place = group.stem
                for index in group.texts:
                    own = len(texts[index]) - group.stem
                    out[index] = np.concatenate([row[: group.stem], row[place : place + own]])
                    place += own
    return out


def _packed(
    texts: Sequence[Sequence[int]], groups: Sequence[Group], rows: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, documents and stems of a call; the stem is document 1, padding is 0."""
    ids, mask, stems = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32), np.zeros(rows, np.int32)
    for row, group in enumerate(groups):
        place = stems[row] = group.stem
        ids[row, :place], mask[row, :place] = texts[group.texts[0]][:place], 1
        for number, index in enumerate(group.texts, start=2):
            rest = texts[index][group.stem :]
            ids[row, place : place + len(rest)], mask[row, place : place + len(rest)] = rest, number
            place += len(rest)
    return ids, mask, stems


@partial(jax.jit, static_argnames="model")
def _prefix(model: Decoder, variables: Tree, ids: jax.Array, mask: jax.Array, stems: jax.Array) -> jax.Array:
    return jnp.asarray(model.apply(variables, ids, mask, stems, method="prefix"), jnp.float32)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
