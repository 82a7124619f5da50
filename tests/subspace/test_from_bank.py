"""Adapters and subspaces out of a bank: factors and coefficients as they are learnt."""

import dataclasses

import numpy as np
import pytest
from random_banks import METHODS, MODELS, SHARE, TASKS, adapted_with, empty_bank, random_bank

import share_jax
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError
from share_jax.layers.effective_params import effective_params
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.from_bank import bank_adapters, bank_state
from share_jax.subspace.state import factors_of
from share_jax.trees import flat


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_an_adapter_is_what_the_model_adds_to_its_kernels(method, model):
    adapted, base = adapted_with(method, MODELS[model])
    bank = random_bank(adapted, base)
    for index, (task, adapter) in enumerate(bank_adapters(bank, adapted).items()):
        assert task == TASKS[index]
        slot = read_slot(bank.tasks, index)
        merged = flat(effective_params(method, adapted.targets, base["params"], bank.shared, slot))
        for name, factors in adapter.items():
            path, _, layer = name.rstrip("]").partition("[")
            delta = np.asarray(merged[path]) - np.asarray(flat(base["params"])[path])
            own = (delta[int(layer)] if layer else delta).reshape(factors.shape)
            np.testing.assert_allclose(factors.scale * factors.lora_a @ factors.lora_b, own, atol=1e-5)


def test_factors_and_scale_are_the_learnt_ones_to_the_bit():
    for method in METHODS[:2]:
        adapted, base = adapted_with(method)
        bank = random_bank(adapted, base)
        factors = bank_adapters(bank, adapted)["second"]["Dense_0/kernel"]
        assert factors.scale == method.alpha / method.rank
        trees = flat({"shared": bank.shared, "tasks": read_slot(bank.tasks, 1)})
        lora_a = trees.get("shared/Dense_0/lora_a", trees.get("tasks/Dense_0/lora_a"))
        np.testing.assert_array_equal(factors.lora_a, lora_a)
        np.testing.assert_array_equal(factors.lora_b, trees["tasks/Dense_0/lora_b"])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_state_holds_every_task_to_float32_rounding(method, model):
    adapted, base = adapted_with(method, MODELS[model])
    bank = random_bank(adapted, base)
    state = bank_state(bank, adapted)
    assert state.tasks == TASKS
    for task, adapter in bank_adapters(bank, adapted).items():
        assert relative_distance(adapter, factors_of(state, task)) < 1e-6


def test_bases_and_coefficients_of_share_are_the_states_own():
    adapted, base = adapted_with(SHARE)
    bank = random_bank(adapted, base)
    state = bank_state(bank, adapted)
    layer, leaves = state.layers["Dense_1/kernel"], flat({"shared": bank.shared, "tasks": bank.tasks})
    np.testing.assert_array_equal(layer.basis_a, leaves["shared/Dense_1/basis_a"])
    np.testing.assert_array_equal(layer.coeff_b, leaves["tasks/Dense_1/coeff_b"][:3])
    assert (layer.ranks == 2).all()
    assert (layer.change == 0).all()


def test_what_tasks_have_lost_comes_from_the_state_before():
    adapted, base = adapted_with(SHARE)
    bank = random_bank(adapted, base)
    state = bank_state(bank, adapted)
    layers = {n: dataclasses.replace(x, bound=x.bound + 0.5, change=x.change + 0.25) for n, x in state.layers.items()}
    before = dataclasses.replace(state, layers=layers)
    for name, layer in bank_state(bank, adapted, before).layers.items():
        np.testing.assert_array_equal(layer.bound, layers[name].bound)
        np.testing.assert_array_equal(layer.change, layers[name].change)
    other = {n: dataclasses.replace(x, coeff_a=x.coeff_a + 1) for n, x in layers.items()}
    with pytest.raises(InputError, match="other bases or coefficients of Dense_0/kernel"):
        bank_state(bank, adapted, dataclasses.replace(state, layers=other))


def test_a_bank_without_tasks_has_no_state():
    adapted, base = adapted_with(share_jax.SharedA())
    with pytest.raises(InputError, match="learn a task first"):
        bank_state(empty_bank(adapted, base), adapted)
