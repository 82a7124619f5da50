"""InfLoRA and SD-LoRA: the spaces and directions that are kept."""

from pathlib import Path

import numpy as np
import pytest
from flax import linen as nn
from method_jobs import EXAMPLES, begun, inputs, stream

from experiments.algorithms.inflora import InfLoRA, designed, grown, input_energy, outside
from experiments.algorithms.plan import MEMORY, Plan
from experiments.algorithms.sd_lora import DecoupledLoRA, SDLoRA, length
from share_jax.bank.slots import read_slot
from share_jax.parameterizations.base import Parameterization
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.trees import flat

PATH = "encoder/layer_0/ffn_down"


def _energy(rng: np.random.Generator, rank: int, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, width) within a space of some rank, and their energy."""
    rows = rng.normal(size=(40, rank)) * np.linspace(3, 1, rank) @ np.linalg.qr(rng.normal(size=(width, rank)))[0].T
    return rows, rows.T @ rows


def test_a_designed_matrix_ignores_the_kept_space_and_takes_most_of_what_is_left() -> None:
    rng = np.random.default_rng(0)
    old, energy = _energy(rng, 4)
    basis = grown(energy, np.zeros((12, 0)), 1.0)
    assert basis.shape == (12, 4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-12)
    _, new = _energy(rng, 6)
    a = designed(new, basis, 3)
    np.testing.assert_allclose(a.T @ a, np.eye(3) / 3, atol=1e-12)
    np.testing.assert_allclose(old @ a, 0, atol=1e-10)  # whatever B is, an old input's answer stays
    taken = np.trace(3 * a.T @ new @ a)
    best = np.linalg.eigvalsh(outside(new, basis))[::-1][:3].sum()
    assert taken == pytest.approx(best)
    for seed in range(20):
        other = np.linalg.qr(np.random.default_rng(seed).normal(size=(12, 3)) - basis @ (basis.T @ a))[0]
        assert np.trace(other.T @ outside(new, basis) @ other) <= best
    assert np.all(designed(energy, basis, 2) == 0)  # nothing is left of inputs within the space


def test_the_space_grows_by_the_fewest_directions_that_hold_the_share() -> None:
    rng = np.random.default_rng(1)
    _, first = _energy(rng, 3)
    _, second = _energy(rng, 5)
    basis = grown(first, np.zeros((12, 0)), 0.9)
    for energy, before, share in ((second, basis, 0.8), (second, basis, 0.97), (second, basis, 1.0)):
        after = grown(energy, before, share)
        np.testing.assert_allclose(after.T @ after, np.eye(after.shape[1]), atol=1e-12)
        np.testing.assert_allclose(after @ (after.T @ before), before, atol=1e-12)  # what was kept stays
        held = [np.trace(m.T @ energy @ m) / np.trace(energy) for m in (after, before)]
        assert held[0] >= share - 1e-8
        top = np.linalg.eigvalsh(outside(energy, before))[::-1][: after.shape[1] - before.shape[1] - 1]
        assert held[1] + top.sum() / np.trace(energy) < share
    assert grown(second, basis, 0.0).shape == basis.shape


def test_energy_is_that_of_the_layer_s_inputs_without_padding(tmp_path: Path) -> None:
    sequence, _ = begun(tmp_path, Plan(SeparateLoRA(2), "sum", frozen=("lora_a",), extension=InfLoRA(2, 0.9)))
    adapted, params, slot = sequence.adapted, sequence.job.backbone.params, read_slot(sequence.fresh.tasks, 0)
    batch = {"inputs": inputs(3), "weights": np.array([1, 1, 0], np.float32)}
    found = input_energy(adapted, params, slot, batch)
    assert set(found) == {PATH}
    _, seen = adapted.model.apply({"params": params}, **inputs(2), capture_intermediates=True)
    rows = nn.gelu(seen["intermediates"]["encoder"]["layer_0"]["ffn_up"]["__call__"][0]).reshape(-1, 32)
    np.testing.assert_allclose(found[PATH], rows.T @ rows, rtol=1e-4, atol=1e-5)


def test_inflora_trains_b_alone_and_its_update_does_not_touch_inputs_in_the_kept_space(tmp_path: Path) -> None:
    plan = Plan(SeparateLoRA(2), "sum", frozen=("lora_a",), extension=InfLoRA(2, 0.9))
    sequence, course = begun(tmp_path, plan, weight_decay=0.1)
    course = sequence.learn_next(course)
    kept = flat(course.memory)
    columns = int(kept[f"{PATH}/columns"])
    basis = kept[f"{PATH}/basis"][:, :columns]
    assert 0 < columns < 32
    begin = flat(sequence.start(course.bank, 1, False, course.memory).slot)
    course = sequence.learn_next(course)
    end = flat(read_slot(course.bank.tasks, 1))
    assert np.array_equal(begin[f"{PATH}/lora_a"], end[f"{PATH}/lora_a"])  # not even weight decay moves it
    update = np.asarray(4 * end[f"{PATH}/lora_a"] @ end[f"{PATH}/lora_b"])
    assert np.abs(update).max() > 1e-4
    assert np.abs(basis.T @ update).max() < 1e-6 * np.abs(update).max() + 1e-9
    assert int(flat(course.memory)[f"{PATH}/columns"]) >= columns


def test_directions_have_unit_length_and_stay_while_their_magnitudes_train(tmp_path: Path) -> None:
    method = DecoupledLoRA(2, 8.0, 3)
    assert isinstance(method, Parameterization)
    sequence, course = begun(tmp_path, Plan(method, "adapter", extension=SDLoRA()), steps=4, learning_rate=0.05)
    views = []
    for index in range(3):
        views.append(flat(sequence.plan.extension.view(sequence.scene, course.bank, course.memory, index)))
        course = sequence.learn_next(course)
    for index, view in enumerate(views):
        a, b = view[f"{PATH}/earlier_a"], view[f"{PATH}/earlier_b"]
        for task in range(3):
            own = a[:, 2 * task : 2 * task + 2] @ b[2 * task : 2 * task + 2]
            assert float(np.linalg.norm(own)) == pytest.approx(1 if task < index else 0, abs=1e-5)
        assert np.array_equal(a[:, :2], views[-1][f"{PATH}/earlier_a"][:, :2]) or index == 0
    slots = [flat(read_slot(course.bank.tasks, task)) for task in range(3)]
    magnitudes = np.array([slot[f"{PATH}/magnitudes"] for slot in slots])
    reached = [float(4 * length(slot[f"{PATH}/lora_a"], slot[f"{PATH}/lora_b"])) for slot in slots]
    assert np.all(magnitudes[0] == 0)
    assert magnitudes[1, 0] != pytest.approx(reached[0], rel=1e-4)  # it has trained on from there
    assert magnitudes[2, 0] != pytest.approx(magnitudes[1, 0], rel=1e-4)
    assert np.all(np.triu(magnitudes) == 0)


def test_a_new_task_starts_with_the_function_that_the_last_one_ended_with(tmp_path: Path) -> None:
    sequence, course = begun(
        tmp_path, Plan(DecoupledLoRA(2, 8.0, 3), "adapter", "one", extension=SDLoRA()), learning_rate=0.05
    )
    forward, images = sequence.plan.extension.answer(sequence.scene), inputs(5)
    for index in range(2):
        base = sequence.base_for(course.bank, course.memory, index)
        course = sequence.learn_next(course)
    ended = forward(base, {}, read_slot(course.bank.tasks, 1), images, None)
    begins = sequence.start(course.bank, 2, False, course.memory).slot
    base = sequence.base_for(course.bank, course.memory, 2)
    np.testing.assert_allclose(forward(base, {}, begins, images, None), ended, atol=1e-5)
    assert np.all(flat(begins)[f"{PATH}/lora_b"] == 0)
    assert MEMORY in base
    assert len(stream().tasks[0].train) == EXAMPLES
