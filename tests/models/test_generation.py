"""Generation with adapters: the tokens of the plain forward pass, whatever stands beside a prompt."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoders import random_slots, tiny

from share_jax.bank.bank import TaskBank
from share_jax.bank.router import add_task, empty_router
from share_jax.bank.slots import TaskSlots, append, gather
from share_jax.errors import InputError, TaskError
from share_jax.linen.adapted_model import adapt
from share_jax.models import decoding
from share_jax.models.generation import generate, prompt_features
from share_jax.models.sampling import Sampling, drawn
from share_jax.models.text_tokenizer import padded
from share_jax.parameterizations.shared_a import SharedA

PROMPTS = [[5, 9, 13], [7, 30, 41, 12, 60, 22, 35, 50, 11, 3, 3, 18, 27, 44, 9, 8, 55, 31, 20], [33], [5, 9, 13]]
TASKS = ["b", "a", "c", "a"]


@cache
def served(family="mistral"):
    """(adapted, params, bank of three tasks in four slots)."""
    model, variables, reference = tiny(family)
    targets = [r"layer_\d/(attention/query|mlp/down)/kernel"]
    adapted = adapt(model, variables, reference["input_ids"], targets=targets, method=SharedA(2, 4.0))
    made = random_slots(adapted, variables["params"], 4)
    return adapted, variables["params"], TaskBank(made["shared"], made["tasks"], ("a", "b", "c"))


@cache
def plain(family="mistral"):
    """The model that is called anew for every token, on rows of 48 tokens, padded on the right."""
    adapted, params, bank = served(family)
    variables = {"params": params, "shared": bank.shared, "tasks": bank.tasks}
    run = jax.jit(lambda ids, task: adapted.apply(variables, ids, task_id=task))

    def logits(ids, task):
        return np.asarray(run(jnp.asarray([ids + [0] * (48 - len(ids))]), jnp.int32(bank.index(task))))[0, : len(ids)]

    return logits


@cache
def mixed():
    adapted, params, bank = served()
    return generate(adapted, bank, TASKS, PROMPTS, params=params, max_tokens=8)


def test_a_mixed_batch_gives_each_prompt_the_tokens_of_the_plain_forward_pass():
    for prompt, task, got in zip(PROMPTS, TASKS, mixed(), strict=True):
        ids = list(prompt)
        for _ in range(8):
            ids.append(int(plain()(ids, task)[-1].argmax()))
        assert list(got.tokens) == ids[len(prompt) :]
        assert (got.text, got.stopped) == (None, False)
    assert mixed()[0].tokens != mixed()[3].tokens  # one prompt, two tasks


def test_each_prompt_gets_what_it_gets_alone():
    adapted, params, bank = served()
    assert generate(adapted, bank, TASKS[1], [PROMPTS[1]], params=params, max_tokens=8) == [mixed()[1]]


def test_cached_logits_are_those_of_the_plain_forward_pass_and_of_a_prompt_alone():
    adapted, params, bank = served()
    variables = {"params": params, "shared": bank.shared}
    ids, mask = padded(PROMPTS, 24, 0, left=True)
    step = jax.jit(lambda slots, *rest: adapted.apply_slot(variables, slots, *rest, method="decode"))
    tokens = np.asarray([[17, 40, 6, 21]] * 4)
    found = {}
    for rows in (np.arange(4), np.asarray([1])):
        slots = TaskSlots(gather(bank.tasks, bank.ids([TASKS[row] for row in rows])), per_example=True)
        logits, cache = decoding.prefill(adapted, variables, slots, ids[rows], mask[rows], 16)
        every, starts = [logits], jnp.asarray(24 - mask[rows].sum(axis=1), jnp.int32)
        for place in range(4):
            logits, cache = step(slots, jnp.asarray(tokens[rows, place]), cache, jnp.int32(24 + place), starts)
            every.append(logits)
        found[len(rows)] = np.stack(every, axis=1)
    np.testing.assert_allclose(found[4][1], found[1][0], rtol=0, atol=1e-5)
    for row, (prompt, task) in enumerate(zip(PROMPTS, TASKS, strict=True)):
        whole = plain()(list(prompt) + tokens[row].tolist(), task)[len(prompt) - 1 :]
        np.testing.assert_allclose(found[4][row], whole, rtol=0, atol=1e-4)


def test_neither_tasks_nor_how_many_there_are_compile_anything():
    adapted, params, bank = served()
    mixed()
    before = [program._cache_size() for program in (decoding.prefill, decoding.write)]
    larger = replace(bank, tasks=append(bank.tasks, bank.tasks))
    again = generate(adapted, larger, TASKS, PROMPTS, params=params, max_tokens=8)
    assert again == mixed()
    generate(adapted, larger, "c", [*PROMPTS[:3], [1, 2]], params=params, max_tokens=5, stop=[4])
    assert [program._cache_size() for program in (decoding.prefill, decoding.write)] == before


def test_a_stop_token_ends_its_row_alone():
    adapted, params, bank = served()
    ends = mixed()[1].tokens[3]
    got = generate(adapted, bank, TASKS, PROMPTS, params=params, max_tokens=8, stop=[ends])
    for one, other in zip(got, mixed(), strict=True):
        where = other.tokens.index(ends) if ends in other.tokens else None
        assert one.tokens == other.tokens[:where]
        assert one.stopped == (where is not None)


def test_drawn_tokens_follow_their_key_and_stay_among_the_likely_ones():
    adapted, params, bank = served()
    options = {"params": params, "max_tokens": 8, "temperature": 0.8, "top_k": 5, "top_p": 0.9}
    one, same, other = (
        generate(adapted, bank, TASKS, PROMPTS, key=jax.random.key(seed), **options) for seed in (0, 0, 1)
    )
    assert one == same != other
    least = {**options, "top_k": 1}
    assert generate(adapted, bank, TASKS, PROMPTS, key=jax.random.key(0), **least) == mixed()


def test_top_k_and_top_p_leave_what_they_say():
    logits = jnp.log(jnp.asarray([[0.1, 0.4, 0.3, 0.2]] * 400))
    keys = jax.random.split(jax.random.key(0), 400)

    def left(k, p, temperature=1.0):
        how = Sampling(jnp.float32(temperature), jnp.int32(k), jnp.float32(p))
        return np.bincount(jax.jit(drawn)(keys, logits, how), minlength=4)

    assert (left(2, 1.0) > 0).tolist() == [False, True, True, False]
    assert (left(4, 0.75) > 0).tolist() == [False, True, True, True]
    assert (left(4, 0.69) > 0).tolist() == [False, True, True, False]
    assert (left(3, 0.5) > 0).tolist() == [False, True, True, False]
    np.testing.assert_allclose(left(9, 1.0) / 400, [0.1, 0.4, 0.3, 0.2], atol=0.08)
    assert left(9, 1.0, 0.05)[1] > 390


def test_a_router_chooses_the_tasks():
    adapted, params, bank = served()
    rng = np.random.default_rng(0)
    router = empty_router(adapted.model.config.hidden_size)
    for name, low in (("a", 3), ("b", 20), ("c", 40)):
        texts = [rng.integers(low, low + 6, 6).tolist() for _ in range(30)]
        router = add_task(router, name, prompt_features(adapted.model, params, texts))
    prompts = [[41, 44, 40, 43, 42], [3, 7, 5, 4], [22, 21, 20, 25, 24], [42, 44, 45] * 6]
    got = generate(adapted, bank, None, prompts, params=params, max_tokens=2, router=router)
    assert [each.task for each in got] == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"tasks": "d"}, TaskError, "task name: got 'd'"),
        ({"tasks": ["a"]}, InputError, "tasks: got 1, expected 4, one per prompt"),
        ({"tasks": None}, InputError, "tasks and router: got neither"),
        ({"prompts": [[]]}, InputError, "prompt 0: got no token"),
        ({"prompts": ["text"]}, InputError, "prompts: got a text without a tokenizer"),
        ({"prompts": "text"}, InputError, "prompts: got one text"),
        ({"prompts": [[1] * 60]}, InputError, "prompt 0: got 60 tokens and max_tokens=8, expected at most 64"),
        ({"max_tokens": 0}, InputError, "max_tokens: got 0"),
        ({"temperature": -1.0}, InputError, "temperature: got -1.0"),
        ({"temperature": 1.0}, InputError, "key: got none"),
        ({"top_k": 0}, InputError, "top_k: got 0"),
        ({"top_k": 5}, InputError, "top_k: got 5, expected none at temperature 0"),
        ({"top_p": 0.9}, InputError, "top_p: got 0.9, expected none at temperature 0"),
        ({"top_p": 0.0}, InputError, "top_p: got 0.0"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes, error, words):
    adapted, params, bank = served()
    given = {"tasks": TASKS, "prompts": PROMPTS, "max_tokens": 8, **changes}
    with pytest.raises(error, match=words):
        generate(adapted, bank, given.pop("tasks"), given.pop("prompts"), params=params, **given)
    assert generate(adapted, bank, "a", [], params=params) == []
    for prompts, size, line in (([[10**6]], 16, "prompt 0"), ([[1] * 65], 16, "got 65 tokens, expected at most 64"),
                                ([[1]], 0, "batch_size: got 0")):  # fmt: skip
        with pytest.raises(InputError, match=line):
            prompt_features(adapted.model, params, prompts, batch_size=size)
