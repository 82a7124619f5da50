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

LONGEST = 512
"""Tokens of a row that several texts share; attention costs with the square of it."""

TOGETHER = 2048
"""Tokens of a call."""

_GRID = 128


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


def groups_of(texts: Sequence[Sequence[int]], longest: int = LONGEST) -> list[Group]:
    """The division into rows that computes the fewest tokens, among those that keep texts of one start together.

    Texts are sorted, so that those with the longest common beginnings are neighbours, and cut into runs: a run of n
    texts with a stem of s tokens saves (n - 1) s of them, and the best cuts follow by dynamic programming.

    Args:
        texts: token ids, each at least one.
        longest: tokens that a row of several texts has at most.

    >>> groups_of([(7, 1, 2), (5, 5), (7, 1, 3, 4)])
    [Group(texts=(1,), stem=2, length=2), Group(texts=(0, 2), stem=2, length=5)]
    """
    order = sorted(range(len(texts)), key=lambda index: tuple(texts[index]))
    sizes = [len(texts[index]) for index in order]
    alike = [_common(texts[a], texts[b]) for a, b in pairwise(order)]
    saved, begins = [0] * (len(order) + 1), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        saved[end], begins[end] = saved[end - 1], end - 1
        stem, total = sizes[end - 1], sizes[end - 1]
        for start in range(end - 2, -1, -1):
            stem, total = min(stem, alike[start]), total + sizes[start]
            gain = (end - start - 1) * stem
            if not stem or total - gain > longest:
                break
            if saved[start] + gain > saved[end]:
                saved[end], begins[end] = saved[start] + gain, start
    found, end = [], len(order)
    while end:
        start = begins[end]
        stem = min([sizes[start], *alike[start : end - 1]])
        length = stem + sum(size - stem for size in sizes[start:end])
        found.append(Group(tuple(order[start:end]), stem, length))
        end = start
    return found[::-1]


def prefix_of_texts(
    model: Decoder, params: Tree, texts: Sequence[Sequence[int]], *, longest: int = LONGEST, together: int = TOGETHER
) -> list[np.ndarray]:
    """What lies below the model's cut, of each text alone: (tokens, d) float32, in the order of the texts.

    Args:
        model: cut where the output is wanted.
        params: its parameters.
        texts: token ids.
        longest: tokens of a row that several texts share.
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
    for group in groups_of(texts, longest):
        of_length.setdefault(-(-group.length // _GRID) * _GRID, []).append(group)
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
