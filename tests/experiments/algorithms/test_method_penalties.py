"""EWC, LwF and O-LoRA: their terms against closed forms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from method_jobs import EXAMPLES, begun

from experiments.algorithms.ewc_lora import EWC, fisher_sum, penalty
from experiments.algorithms.lwf_lora import LwF, distillation, number_distance
from experiments.algorithms.o_lora import OLoRA, down_matrices, overlap
from experiments.algorithms.plan import MEMORY, Plan
from share_jax.bank.slots import read_slot
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.trees import flat


def test_ewc_ends_between_quadratics_where_the_closed_form_says() -> None:
    """Task i's loss is f_i / 2 (theta - mu_i)^2, whose Fisher information is f_i: the last one's optimum under the
    penalty is the mean of all mu weighted by f, as if all tasks had been learnt at once.
    """
    rng = np.random.default_rng(0)
    fisher, centre = rng.uniform(0.1, 3.0, (3, 5)).astype(np.float32), rng.normal(size=(3, 5)).astype(np.float32)
    fisher[:2, 4] = 0  # what mattered to no earlier task is free
    kept = {"w": jnp.asarray(fisher[:2].sum(0))}, {"w": jnp.asarray((fisher * centre)[:2].sum(0))}

    def objective(theta: dict) -> jax.Array:
        return 0.5 * jnp.sum(fisher[2] * jnp.square(theta["w"] - centre[2])) + penalty(*kept, theta)

    expected = (fisher * centre).sum(0) / fisher.sum(0)
    slope = jax.grad(objective)({"w": jnp.asarray(expected)})["w"]
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    assert expected[4] == pytest.approx(centre[2, 4])
    other = jax.grad(objective)({"w": jnp.asarray(expected + 0.5)})["w"]
    np.testing.assert_allclose(other, 0.5 * fisher.sum(0), rtol=1e-4)


def test_fisher_information_of_a_logistic_model_is_p_times_one_minus_p_times_x_squared() -> None:
    x, w = np.array([0.5, -1.0, 2.0], np.float32), np.array([[0.3, 0.1], [0.2, -0.4], [0.5, 0.1]], np.float32)
    count = 20_000

    def forward(base: dict, shared: dict, slot: dict, inputs: dict, key: None) -> jax.Array:
        return inputs["x"] @ slot["w"]

    batch = {
        "inputs": {"x": np.repeat(x[None], count, axis=0)},
        "weights": (np.arange(count) < count // 2).astype(np.float32),
        "classes": np.int32(2),
    }
    slot = {"w": jnp.asarray(w)}
    found = fisher_sum(forward, {}, slot, slot, batch, jax.random.key(0))["w"] / (count // 2)
    p = 1 / (1 + np.exp(x @ (w[:, 1] - w[:, 0])))
    expected = np.repeat((p * (1 - p) * x**2)[:, None], 2, axis=1)
    np.testing.assert_allclose(found, expected, rtol=0.03)  # 10,000 drawn labels


def test_fisher_information_of_a_number_is_the_squared_gradient_of_the_output() -> None:
    """Of y ~ N(x w, 1) the Fisher information of w is the mean of x squared; outputs past the first do not count."""
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    slot = {"w": jnp.ones((3, 2))}

    def forward(base: dict, shared: dict, slot: dict, inputs: dict, key: None) -> jax.Array:
        return inputs["x"] @ slot["w"]

    weights = np.array([1, 1, 1, 1, 0, 0], np.float32)
    batch = {"inputs": {"x": x}, "weights": weights, "classes": np.int32(0)}
    found = fisher_sum(forward, {}, slot, slot, batch, jax.random.key(0), number=True)["w"]
    np.testing.assert_allclose(found[:, 0], np.square(x[:4]).sum(axis=0), rtol=1e-5)
    assert np.all(found[:, 1] == 0)


def test_ewc_remembers_where_the_first_task_ended(tmp_path: Path) -> None:
    sequence, course = begun(tmp_path, Plan(SeparateLoRA(2), "adapter", extension=EWC(1.0, EXAMPLES)))
    assert not any(np.any(leaf) for leaf in flat(course.memory).values())
    course = sequence.learn_next(course)
    fisher, weighted = flat(course.memory["fisher"]), flat(course.memory["weighted"])
    end = flat(read_slot(course.bank.tasks, 0))
    assert set(fisher) == {path for path in end if "lora" in path}  # the head is the task's own
    for path, f in fisher.items():
        assert np.all(f >= 0)
        assert np.any(f > 0)
        np.testing.assert_allclose(weighted[path], f * end[path], rtol=1e-6, atol=1e-12)
    one = Plan(SeparateLoRA(2), "adapter", "one", extension=EWC(1.0, EXAMPLES))
    assert "head/kernel" in flat(begun(tmp_path / "one", one)[1].memory["fisher"])


def test_distillation_is_that_of_the_softened_answers_and_stops_when_they_are_equal() -> None:
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 4, 3, 5)).astype(np.float32) * 3
    classes, temperature = np.array([5, 2, 0]), 2.0

    def softened(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits / temperature)
        return powers / powers.sum(-1, keepdims=True)

    expected = np.zeros(4)
    for head, count in enumerate(classes):
        before, now = softened(teacher[:, head, :count]), softened(student[:, head, :count])
        expected += (before * np.log(before / now)).sum(-1)
    np.testing.assert_allclose(distillation(teacher, student, classes, temperature), expected, rtol=1e-4)

    def whole(student: jax.Array) -> jax.Array:
        return distillation(jnp.asarray(teacher), student, jnp.asarray(classes), temperature).sum()

    np.testing.assert_allclose(jax.grad(whole)(jnp.asarray(teacher)), 0, atol=1e-7)
    slope = np.asarray(jax.grad(whole)(jnp.asarray(student)))
    assert np.all(slope[:, 2] == 0)  # the head that has learnt nothing
    assert np.all(slope[:, 1, 2:] == 0)  # classes that the head does not have
    assert np.all(np.abs(slope[:, 0]).sum(-1) > 0)


def test_heads_that_answer_with_a_number_are_held_to_it() -> None:
    rng = np.random.default_rng(0)
    teacher, student = (jnp.asarray(x) for x in rng.normal(size=(2, 4, 3, 5)).astype(np.float32))
    numbers = jnp.array([True, False, True])
    expected = 0.5 * np.square(teacher[:, [0, 2], 0] - student[:, [0, 2], 0]).sum(axis=1)
    np.testing.assert_allclose(number_distance(teacher, student, numbers), expected, rtol=1e-5)
    slope = np.asarray(jax.grad(lambda x: number_distance(teacher, x, numbers).sum())(student))
    assert np.all(slope[:, 1] == 0)
    assert np.all(slope[:, :, 1:] == 0)
    np.testing.assert_allclose(slope[:, [0, 2], 0], (student - teacher)[:, [0, 2], 0], rtol=1e-5)
    assert not np.any(jax.grad(lambda x: number_distance(x, student, numbers).sum())(teacher))


def test_lwf_holds_every_earlier_head_to_the_model_that_the_task_found(tmp_path: Path) -> None:
    extension = LwF(1.0, 2.0)
    sequence, course = begun(tmp_path, Plan(SeparateLoRA(2), "adapter", "all", extension=extension))
    course = sequence.learn_next(course)
    view = sequence.base_for(course.bank, course.memory, 1)[MEMORY]
    assert view["classes"].tolist() == [2, 0, 0]
    teacher, last = flat(view["teacher"]), flat(read_slot(course.bank.tasks, 0))
    assert all(np.array_equal(teacher[path], last[path]) for path in last)
    before = flat(read_slot(course.bank.tasks, 0))["head/kernel"]
    course = sequence.learn_next(course)
    after = flat(read_slot(course.bank.tasks, 1))["head/kernel"]
    moved = [not np.array_equal(before[head], after[head]) for head in range(3)]
    assert moved == [True, True, False]  # the first head trains along, the third waits


def test_with_one_head_lwf_holds_what_that_head_has_learnt(tmp_path: Path) -> None:
    sequence, course = begun(tmp_path, Plan(SeparateLoRA(2), "adapter", "one", extension=LwF(1.0, 2.0)))
    assert sequence.batches(2, {}).dataset[0]["head"] == 0
    course = sequence.learn_next(course)
    view = sequence.base_for(course.bank, course.memory, 1)[MEMORY]
    assert view["classes"].tolist() == [2]
    course = sequence.learn_next(course)
    heads = [flat(read_slot(course.bank.tasks, task))["head/kernel"] for task in range(2)]
    assert heads[0].shape == (16, 2)
    assert not np.array_equal(heads[0], heads[1])
    answering = flat(sequence.answering(course.bank, 0))
    assert np.array_equal(answering["head/kernel"], heads[1])
    assert sequence.params(course.bank)["head_sets"] == 1


def test_the_overlap_is_zero_for_orthogonal_spaces_and_descends_to_it() -> None:
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(12, 9)))[0].astype(np.float32)
    earlier = jnp.asarray(np.stack([q[:, :3], q[:, 3:6], np.zeros((12, 3), np.float32)]))
    assert float(overlap(earlier, jnp.asarray(q[:, 6:]))) == pytest.approx(0, abs=1e-10)
    assert float(overlap(earlier, earlier[0])) == pytest.approx(3, rel=1e-5)  # |I_3|^2
    a = jnp.asarray(rng.normal(size=(12, 3)).astype(np.float32))
    free = a - earlier[0] @ (earlier[0].T @ a) - earlier[1] @ (earlier[1].T @ a)
    descend = jax.jit(lambda a: a - 0.25 * jax.grad(overlap, argnums=1)(earlier, a))
    for _ in range(30):
        a = descend(a)
    assert float(overlap(earlier, a)) < 1e-10
    np.testing.assert_allclose(a, free, atol=1e-5)  # only what overlapped is gone


def test_o_lora_trains_a_new_pair_orthogonal_to_all_before_it(tmp_path: Path) -> None:
    found = {}
    for strength in (0.0, 1e4):
        plan = Plan(SeparateLoRA(2), "sum", extension=OLoRA(strength))
        sequence, course = begun(tmp_path / str(strength), plan, steps=60)
        for _ in range(2):
            course = sequence.learn_next(course)
        found[strength] = sequence.plan.extension.findings(sequence.scene, course.bank, {})["largest_cosine"]
        (a,) = down_matrices(course.bank.tasks).values()
        assert not np.array_equal(a[0], a[1])
    assert found[1e4] < 0.2 * found[0.0]


def test_what_a_sum_adds_is_what_all_its_pairs_add(tmp_path: Path) -> None:
    """After two tasks, both pairs answer together for the first: base + both updates + the first head."""
    sequence, course = begun(tmp_path, Plan(SeparateLoRA(2), "sum", extension=OLoRA(0.5)), learning_rate=0.05)
    for _ in range(2):
        base = sequence.base_for(course.bank, course.memory, len(course.rows))
        course = sequence.learn_next(course)
    slots = [flat(read_slot(course.bank.tasks, task)) for task in range(2)]
    path = "encoder/layer_0/ffn_down"
    plain = flat(sequence.job.backbone.params)
    updates = [8.0 / 2 * slot[f"{path}/lora_a"] @ slot[f"{path}/lora_b"] for slot in slots]
    assert all(np.abs(update).max() > 1e-3 for update in updates)
    merged = flat(base["params"])[f"{path}/kernel"]
    np.testing.assert_allclose(merged, plain[f"{path}/kernel"] + updates[0], atol=1e-6)
    answering = flat(sequence.answering(course.bank, 0))
    assert np.array_equal(answering[f"{path}/lora_b"], slots[1][f"{path}/lora_b"])
    assert np.array_equal(answering["head/kernel"], slots[0]["head/kernel"])
