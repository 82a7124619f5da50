"""Texts that begin alike are computed in one row, and each comes out as it would alone."""

from functools import partial

import jax
import numpy as np
import pytest
from tiny_decoders import tiny

from share_jax.errors import InputError
from share_jax.models.text_stems import groups_of, padded_length, prefix_of_texts, price

LENGTHS = (3, 6, 9, 12)


def cost(length):
    return price(padded_length(length, LENGTHS))


def test_texts_of_one_start_share_a_row_and_no_better_cut_exists():
    rng = np.random.default_rng(0)
    starts = [tuple(rng.integers(0, 3, 4)) for _ in range(3)]
    texts = [(*starts[rng.integers(3)], *rng.integers(0, 3, rng.integers(1, 4))) for _ in range(8)]
    groups = groups_of(texts, LENGTHS)
    assert sorted(index for group in groups for index in group.texts) == list(range(8))
    assert all(group.length <= 12 or len(group.texts) == 1 for group in groups)
    order = sorted(range(8), key=lambda index: texts[index])
    best = min(_cost([texts[i] for i in order], cuts) for cuts in range(2**7))
    found = sum(cost(group.length) for group in groups)
    np.testing.assert_allclose(found, best, rtol=1e-12)
    assert found < sum(cost(len(text)) for text in texts)


def _cost(texts, cuts):
    total, run = 0, [texts[0]]
    for place, text in enumerate(texts[1:]):
        if cuts >> place & 1:
            total, run = total + _of(run), []
        run.append(text)
    return total + _of(run)


def _of(run):
    stem = (
        len(run[0])
        if len(run) == 1
        else next(k for k in range(len(min(run, key=len)), -1, -1) if len({text[:k] for text in run}) == 1)
    )
    length = stem + sum(len(text) - stem for text in run)
    return np.inf if len(run) > 1 and (length > LENGTHS[-1] or not stem) else cost(length)


@pytest.mark.parametrize("family", ["llama", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_each_text_comes_out_as_alone(family):
    """Also where layers see a window alone, and where one text is the beginning of another or equal to it."""
    model, variables, _ = tiny(family, first_layer=1)
    start = (3, 1, 4, 1, 5, 9, 2, 6)
    texts = [(*start, 5, 3), start, (*start, 5, 8, 9, 7, 9), (2, 7), (*start, 5, 3)]
    assert len(groups_of(texts)) == 2
    found = prefix_of_texts(model, variables["params"], texts)
    prefix = jax.jit(partial(model.apply, method="prefix"))
    for text, own in zip(texts, found, strict=True):
        np.testing.assert_allclose(own, prefix(variables, np.asarray([text]))[0], rtol=0, atol=1e-5)


def test_a_text_without_tokens_is_refused():
    model, variables, _ = tiny("llama", first_layer=1)
    with pytest.raises(InputError, match="text: got no token"):
        prefix_of_texts(model, variables["params"], [(1,), ()])
