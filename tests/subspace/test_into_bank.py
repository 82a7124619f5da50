"""Adapters and subspaces into a bank: what comes back is what went out, or the error says how much was lost."""

import jax
import numpy as np
import pytest
from random_banks import (
    HEADED,
    METHODS,
    MODELS,
    SHARE,
    TASKS,
    adapted_with,
    empty_bank,
    logits,
    random_bank,
)

import share_jax
from share_jax.adapters.factors import Factors
from share_jax.errors import InputError, TargetError, TaskError
from share_jax.parameterizations.share import ShareAdapt
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.from_bank import bank_adapters, bank_heads, bank_state
from share_jax.subspace.into_bank import with_adapters, with_state
from share_jax.trees import flat


def same_trees(x, y):
    x, y = flat(x), flat(y)
    assert x.keys() == y.keys()
    for path, leaf in x.items():
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(y[path]), err_msg=path)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS[:2], ids=str)
def test_a_banks_adapters_make_the_bank_again_to_the_bit(method, model):
    adapted, base = adapted_with(method, MODELS[model])
    bank = random_bank(adapted, base)
    again, reports = with_adapters(empty_bank(adapted, base), adapted, bank_adapters(bank, adapted), {})
    assert again.names == TASKS
    same_trees(again.shared, bank.shared)
    same_trees(again.tasks, learnt(bank))
    assert max(report.relative_change for report in reports.values()) < 1e-12


def learnt(bank):
    return jax.tree.map(lambda leaf: leaf[: len(bank.names)], bank.tasks)


@pytest.mark.parametrize("model", MODELS)
def test_a_share_bank_and_its_state_are_one_to_the_bit(model):
    adapted, base = adapted_with(SHARE, MODELS[model])
    bank = random_bank(adapted, base)
    state = bank_state(bank, adapted)
    again, reports = with_state(empty_bank(adapted, base), adapted, state, {})
    same_trees(again.shared, bank.shared)
    same_trees(again.tasks, learnt(bank))
    assert all(0 <= report.relative_change <= report.error_bound < 2e-6 for report in reports.values())
    back = bank_state(again, adapted, state)
    for name, layer in state.layers.items():
        for field, value in vars(layer).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(getattr(back.layers[name], field), value, err_msg=field)


@pytest.mark.parametrize("method", METHODS[:2], ids=str)
def test_a_state_makes_the_same_updates_in_a_bank_of_any_method(method):
    adapted, base = adapted_with(method)
    bank = random_bank(adapted, base)
    again, reports = with_state(empty_bank(adapted, base), adapted, bank_state(bank, adapted), {})
    for task in TASKS:
        assert reports[task].error_bound < 2e-6
        np.testing.assert_allclose(logits(adapted, base, again, task), logits(adapted, base, bank, task), atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_learnt_tasks_keep_their_bits_when_others_come_in(method):
    adapted, base = adapted_with(method)
    bank = random_bank(adapted, base)
    more = {"fourth": bank_adapters(bank, adapted)["first"], "fifth": bank_adapters(bank, adapted)["second"]}
    after, reports = with_adapters(bank, adapted, more, {})
    assert after.names == (*TASKS, "fourth", "fifth")
    same_trees(after.shared, bank.shared)
    for task in TASKS:
        np.testing.assert_array_equal(logits(adapted, base, after, task), logits(adapted, base, bank, task))
    np.testing.assert_allclose(logits(adapted, base, after, "fourth"), logits(adapted, base, bank, "first"), atol=1e-5)
    assert max(report.error_bound for report in reports.values()) < 2e-6


def test_share_says_how_much_a_projection_loses():
    adapted, base = adapted_with(SHARE)
    bank = random_bank(adapted, base)
    draw = np.random.default_rng(0).standard_normal
    strange = {"Dense_0/kernel": Factors(draw((7, 4)).astype("f"), draw((4, 6)).astype("f"), 0.5)}
    after, reports = with_adapters(bank, adapted, {"new": strange}, {})
    error = relative_distance(strange, bank_adapters(after, adapted)["new"])
    assert 0.05 < error < 1
    assert reports["new"].relative_change == pytest.approx(error)
    assert error <= reports["new"].error_bound < 1.5


def test_a_wider_adapter_fits_where_there_is_room_for_its_rank_alone():
    adapted, base = adapted_with(share_jax.SeparateLoRA(rank=3, alpha=5))
    draw = np.random.default_rng(0).standard_normal

    def adapter(rank):
        return {"Dense_0/kernel": Factors(draw((7, rank)).astype("f"), draw((rank, 6)).astype("f"), 0.5)}

    small = adapter(2)
    after, _ = with_adapters(empty_bank(adapted, base), adapted, {"small": small}, {})
    assert relative_distance(small, bank_adapters(after, adapted)["small"]) < 1e-6
    with pytest.raises(InputError, match=r"task 'wide', Dense_0/kernel rank: got 4, .* adapt with rank=4"):
        with_adapters(empty_bank(adapted, base), adapted, {"wide": adapter(4)}, {})


def test_shared_a_takes_what_its_columns_give_and_refuses_the_rest():
    adapted, base = adapted_with(share_jax.SharedA(rank=3))
    bank = random_bank(adapted, base)
    mine = bank_adapters(bank, adapted)["first"]["Dense_0/kernel"]
    turn = np.random.default_rng(0).standard_normal((3, 3))
    turned = Factors((mine.lora_a @ turn).astype("f"), np.linalg.solve(turn, mine.lora_b).astype("f"), mine.scale)
    after, reports = with_adapters(bank, adapted, {"turned": {"Dense_0/kernel": turned}}, {})
    assert reports["turned"].error_bound < 1e-5
    other = Factors(np.random.default_rng(9).standard_normal((7, 3)).astype("f"), mine.lora_b)
    with pytest.raises(InputError, match=r"another A than the bank's.*take a bank of SeparateLoRA"):
        with_adapters(bank, adapted, {"other": {"Dense_0/kernel": other}}, {})
    two = {"one": {"Dense_0/kernel": mine}, "other": {"Dense_0/kernel": other}}
    with pytest.raises(InputError, match="6 columns in A of 2 adapters, expected at most 3"):
        with_adapters(empty_bank(adapted, base), adapted, two, {})
    assert bank.names == TASKS != after.names


def test_heads_come_along_and_have_to_be_all_there():
    adapted, base = adapted_with(METHODS[1], HEADED)
    bank = random_bank(adapted, base)
    adapters, heads = bank_adapters(bank, adapted), bank_heads(bank, adapted)
    after, _ = with_adapters(empty_bank(adapted, base), adapted, adapters, heads)
    for task in TASKS:
        np.testing.assert_array_equal(logits(adapted, base, after, task), logits(adapted, base, bank, task))
    with pytest.raises(TargetError, match="head Dense_1/bias of task 'first': got none"):
        with_adapters(empty_bank(adapted, base), adapted, adapters, {})


def test_what_does_not_fit_the_model_is_refused():
    adapted, base = adapted_with(METHODS[1])
    bank = random_bank(adapted, base)
    adapter = bank_adapters(bank, adapted)["first"]
    with pytest.raises(TaskError, match="a name that no task has"):
        with_adapters(bank, adapted, {"first": adapter}, {})
    with pytest.raises(TargetError, match="Dense_9/kernel"):
        with_adapters(bank, adapted, {"new": {"Dense_9/kernel": adapter["Dense_0/kernel"]}}, {})
    with pytest.raises(TargetError, match=r"Dense_1/kernel \(7, 6\), expected \(6, 7\)"):
        with_adapters(bank, adapted, {"new": {"Dense_1/kernel": adapter["Dense_0/kernel"]}}, {})
    temporary, base = adapted_with(ShareAdapt())
    with pytest.raises(InputError, match="adapt with SeparateLoRA, SharedA or Share"):
        with_adapters(empty_bank(temporary, base), temporary, {"new": adapter}, {})


@pytest.mark.parametrize("unlike", [False, True])
def test_what_adapters_leave_free_of_a_shared_a_is_as_it_was_initialised(unlike):
    adapted, base = adapted_with(share_jax.SharedA(rank=4))
    empty, draw = empty_bank(adapted, base), np.random.default_rng(0).standard_normal
    a, b = draw((7, 1)).astype("f"), np.zeros((1, 6), "f") if unlike else draw((1, 6)).astype("f")
    adapters = {"one": {"Dense_0/kernel": Factors(a, b)}, "two": {"Dense_0/kernel": Factors(-a if unlike else a, b)}}
    bank, reports = with_adapters(empty, adapted, adapters, {})
    free = 0 if unlike else 1  # updates of zero need no column
    mine, fresh = (np.asarray(flat(x.shared)["Dense_0/lora_a"]) for x in (bank, empty))
    np.testing.assert_array_equal(mine[:, free:], fresh[:, free:])
    assert np.linalg.matrix_rank(mine) == 4
    assert max(each.error_bound for each in reports.values()) < 1e-6


def test_tasks_on_other_bases_are_not_mixed():
    adapted, base = adapted_with(SHARE)
    state = bank_state(random_bank(adapted, base), adapted)
    other, _ = with_adapters(empty_bank(adapted, base), adapted, bank_adapters(random_bank(adapted, base), adapted), {})
    renamed = type(state)(tuple(f"new {task}" for task in state.tasks), state.layers)
    with pytest.raises(InputError, match="tasks on other bases"):
        with_state(other, adapted, renamed, {})
