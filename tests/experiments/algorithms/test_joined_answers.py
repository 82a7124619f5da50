"""Answers to one prompt are scored in one row, and come out as in rows of their own."""

from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny_decoders import tiny

from experiments.algorithms import token_scoring
from experiments.algorithms.joined_answers import joined_inputs, joined_rows
from share_jax.train.token_rows import TokenRows, token_arrays

PROMPTS = ((5, 9, 3, 7, 2, 8), (5, 9, 3, 7, 2, 8, 11), (6, 4, 4, 12, 9))
ANSWERS = (((21,), (22, 23), (24, 25, 26)), ((21, 22), (27,)), ((30, 31),))
"""The last prompt has one answer."""


def rows():
    """The arrays of a row for each answer, which a stop token, 1, ends."""
    each = [(prompt, answer) for prompt, own in zip(PROMPTS, ANSWERS, strict=True) for answer in own]
    texts = TokenRows(tuple((*p, *a, 1) for p, a in each), tuple(len(p) for p, _ in each), (1,) * len(each))
    return token_arrays(texts, np.arange(len(texts)), 12, 4)


def test_rows_of_one_prompt_are_one_row_with_its_answers_behind_it():
    inputs = rows()
    found = joined_rows(inputs)
    assert [(row.first, row.end, row.prompt) for row in found] == [(0, 3, 6), (3, 5, 7), (5, 6, 5)]
    made = joined_inputs(inputs, found[:1])
    used = found[0].length
    assert made["input_ids"][0, :used].tolist() == [5, 9, 3, 7, 2, 8, 21, 22, 23, 24, 25, 26]
    assert made["attention_mask"][0, :used].tolist() == [1] * 6 + [2] + [3] * 2 + [4] * 3
    assert made["targets"][0, :9].tolist() == [21, 1, 22, 23, 1, 24, 25, 26, 1]
    assert made["columns"][0, :9].tolist() == [5, 6, 5, 7, 8, 5, 9, 10, 11]
    assert made["stems"].tolist() == [6]


def test_texts_that_begin_alike_without_a_prompt_stay_apart():
    inputs = rows()
    inputs["columns"][:, 0] = 0
    assert joined_rows(inputs) == []
    assert joined_rows({name: array[[0, 3, 5]] for name, array in rows().items()}) == []


def job_of(size):
    """What scoring reads of a job."""
    return SimpleNamespace(
        config=SimpleNamespace(eval_batch_size=size, length_buckets=()),
        preemption=SimpleNamespace(point=lambda: None),
        stream=SimpleNamespace(tasks=[SimpleNamespace(kind="tokens")]),
    )


@pytest.mark.parametrize("first_layer", [0, 1])
def test_answers_score_as_in_rows_of_their_own(first_layer, monkeypatch):
    model, variables, _ = tiny("llama", first_layer=first_layer)
    inputs = rows()
    if first_layer:
        prefix = jax.jit(partial(model.apply, method="prefix"))
        hidden = np.asarray(prefix(variables, inputs.pop("input_ids"), inputs["attention_mask"]))
        inputs = {**inputs, "hidden": hidden}
    scored = []

    def predictor(base, shared, slot, rows):
        scored.append(rows["attention_mask"].shape)
        return run(base, rows)

    run = jax.jit(lambda base, rows: model.apply(base, **rows))
    joined = token_scoring.token_predictions(job_of(2), predictor, variables, {}, {}, inputs)
    assert scored == [(2, 64)] * 2
    monkeypatch.setattr(token_scoring, "joined_rows", lambda inputs: [])
    alone = token_scoring.token_predictions(job_of(3), predictor, variables, {}, {}, inputs)
    assert scored[2:] == [(3, 12)] * 2
    wanted = inputs["targets"] >= 0
    np.testing.assert_allclose(joined[wanted], alone[wanted], rtol=0, atol=1e-5)
    assert joined.shape == alone.shape
