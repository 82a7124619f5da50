"""What a user can get wrong in a batch or a task, through the Learner: one clear error each, and nothing is lost."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify
from learning import two_layers

import share_jax
from share_jax.bank.bank import TaskBank
from share_jax.errors import DivergedError, InputError, ShareError, TaskError
from share_jax.train.losses import regression

X = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
Y = np.arange(8, dtype=np.int32) % 3


def fresh(transform: optax.GradientTransformation) -> tuple[share_jax.Learner, TaskBank]:
    """Three outputs and four slots."""
    return two_layers(X, transform, hidden=5, outputs=3, slots=4)


@pytest.fixture(scope="module")
def learnt() -> tuple[share_jax.Learner, TaskBank]:
    """Two tasks learnt."""
    learner, bank = fresh(optax.adam(1e-2))
    for name in ("cats", "dogs"):
        bank = learner.learn(bank, name, [batch()] * 3)
    return learner, bank


def batch(**changed: Any) -> dict[str, Any]:
    return {"inputs": X, "labels": Y, **changed}


def weights(*numbers: float) -> np.ndarray:
    """Of the first examples; 0 for the others."""
    return np.array([*numbers, *[0] * (8 - len(numbers))], np.float32)


FIRST, SECOND = "batch 1 of task 'new'", "batch 2 of task 'new'"
WIDE = np.ones((8, 7), np.float32)
BAD = {
    "no dict": ([X], f"{FIRST}: got ndarray, expected a dict"),
    "no inputs": ([{"x": X}], f"{FIRST}: got a dict of ['x']"),
    "no examples": ([batch(inputs=X[:0], labels=Y[:0])], "got shape (0, 6), expected at least one example"),
    "fewer labels": ([batch(labels=Y[:5])], f"labels of {FIRST}: got shape (5,), expected 8 examples"),
    "scalar label": ([batch(labels=np.int32(1))], f"labels of {FIRST}: got shape ()"),
    "fewer weights": ([batch(weights=np.ones(3))], f"weights of {FIRST}: got shape (3,)"),
    "wide inputs": ([batch(inputs=WIDE)], f"{FIRST}: got ScopeParamShapeError"),
    "labels of two axes": ([batch(labels=Y[:, None])], f"labels of {FIRST}: got shape (8, 1), expected shape (8,)"),
    "labels of two axes on the device": ([batch(labels=jnp.array(Y)[:, None])], "labels[:, 0] of a column"),
    "one-hot labels": ([batch(labels=jax.nn.one_hot(Y, 3))], f"labels of {FIRST}: got shape (8, 3)"),
    "whole one-hot labels": ([batch(labels=np.eye(3, dtype=int)[Y])], "labels.argmax(-1) of one-hot ones"),
    "no labels": ([{"inputs": X}], f"labels of {FIRST}: got nothing, expected one array of shape (8,)"),
    "labels of two parts": ([batch(labels={"a": Y, "b": Y})], f"labels of {FIRST}: got several arrays"),
    "listed labels": ([batch(labels=Y.tolist())], "make one array of the list, np.asarray(labels)"),
    "labels of text": (
        [batch(labels=np.array(list("abcabcab")))],
        f"labels of {FIRST}: got dtype <U1, expected numbers",
    ),
    "an array of text": ([batch(text=np.array(["a"] * 8))], f"text of {FIRST}: got dtype <U1, expected numbers"),
    "text that names a dtype": ([batch(text="float32")], f"text of {FIRST}: got str, expected numbers"),
    "a list of text": ([batch(text=["a"] * 8)], f"text/0 of {FIRST}: got str, expected numbers"),
    "weights of two axes": ([batch(weights=np.ones((8, 1)))], f"weights of {FIRST}: got shape (8, 1)"),
    "a weight below 0": ([batch(weights=weights(1, 1, -1))], f"weights of {FIRST}, example 2: got -1.0"),
    "a weight below 0 on the device": (
        [batch(weights=jnp.ones(8)), batch(weights=jnp.array(weights(1, -2)))],
        f"weights of {SECOND}, example 1: got -2.0",
    ),
    "a weight that is no number": ([batch(weights=weights(1, np.nan))], f"weights of {FIRST}, example 1: got nan"),
    "wrong number of classes": ([batch(classes=np.array([3, 3]))], f"classes of {FIRST}: got shape (2,), expected"),
    "broken classes": ([batch(classes=2.5)], f"classes of {FIRST}: got dtype float32, expected whole numbers"),
    "more classes than outputs": ([batch(classes=5)], f"classes of {FIRST}: got 5, expected 1 to 3, the outputs"),
    "more classes, a label among them": ([batch(labels=Y + 2, classes=5)], f"classes of {FIRST}: got 5"),
    "more classes, labels on the device": ([batch(labels=jnp.array(Y + 2), classes=5)], f"classes of {FIRST}: got 5"),
    "more classes on the device": (
        [batch(labels=jnp.array(Y + 2), classes=jnp.int32(5))],
        f"classes of {FIRST}: got 5, expected 1 to 3",
    ),
    "no classes": ([batch(classes=0)], f"classes of {FIRST}: got 0, expected 1 to 3"),
    "more classes for one": (
        [batch(classes=np.array([3, 3, 4, 3, 3, 3, 3, 3]))],
        f"classes of {FIRST}, example 2: got 4",
    ),
    "another size": ([batch(), batch(inputs=X[:4], labels=Y[:4])], f"inputs of {SECOND}: got ((4, 6), 'float32')"),
    "another type": ([batch(), batch(inputs=X.astype(np.float16))], "'float16'), expected ((8, 6), 'float32')"),
    "another array": ([batch(), batch(weights=np.ones(8))], f"weights of {SECOND}: got ((8,), 'float32'), expected"),
    "later width": ([batch(), batch(inputs=WIDE)], f"{SECOND}: got ScopeParamShapeError"),
    "label too high": ([batch(labels=Y + 1)], f"labels of {FIRST}, example 2: got 3, expected 0 to 2"),
    "label below 0": ([batch(labels=Y - 1)], f"labels of {FIRST}, example 0: got -1, expected 0 to 2"),
    "label past the task's": ([batch(classes=2)], f"labels of {FIRST}, example 2: got 2, expected 0 to 1"),
    "float labels": ([batch(labels=Y.astype(np.float32))], f"labels of {FIRST}: got dtype float32, expected whole"),
    "float labels on the device": ([batch(labels=jnp.array(Y) * 0.5)], f"labels of {FIRST}: got dtype float32"),
    "later label": ([batch(), batch(labels=Y + 1)], f"labels of {SECOND}, example 2: got 3"),
    "label on the device": ([batch(labels=jnp.array(Y + 1))], f"labels of {FIRST}, example 2: got 3"),
    "empty": ([], "batches of task 'new': got none, expected at least one"),
    "one example": ([batch(inputs=X[:1], labels=Y[:1])], "examples of task 'new': got one, expected at least two"),
    "one example of weight": ([batch(weights=weights(0, 1))], "examples of task 'new': got one, expected at least two"),
    "one example of weight on the device": (
        [batch(weights=jnp.array(weights(0, 0, each))) for each in (0, 1, 0)],
        "examples of task 'new': got one, expected at least two",
    ),
    "no example of weight": ([batch(weights=weights())] * 2, "examples of task 'new': got none of weight above 0"),
    "no example of weight on the device": ([batch(weights=jnp.zeros(8))] * 70, "got none of weight above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_bad_batch_is_one_clear_error(learnt: tuple[share_jax.Learner, TaskBank], case: str) -> None:
    learner, bank = learnt
    batches, words = BAD[case]
    with pytest.raises(InputError) as caught:
        learner.learn(bank, "new", batches)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    about_inputs = "of the shapes that the model was initialised with" in str(caught.value)
    assert about_inputs == ("ScopeParamShapeError" in words)


NUMBERS = np.array([0.5, -1, 2, 0, 1, 3, 1, 1], np.float32)
NAN = np.where(np.arange(8) == 5, np.nan, NUMBERS).astype(np.float32)


LOSSES = {"ours": regression, "plain": lambda out, batch: regression(out, batch)}


@pytest.fixture(scope="module", params=LOSSES)
def of_numbers(request: pytest.FixtureRequest) -> tuple[share_jax.Learner, TaskBank]:
    """One output, a number; nothing learnt."""
    model = nn.Dense(1)
    params = model.init(jax.random.key(0), X)["params"]
    adapted = share_jax.adapt(model, {"params": params}, X, targets="kernel")
    learner = share_jax.Learner(adapted, {"params": params}, optax.adam(1e-2), LOSSES[request.param])
    return learner, learner.start(adapted.init(jax.random.key(2), params, 1))


@pytest.mark.parametrize("labels", [NAN, jnp.array(NAN)], ids=["host", "device"])
def test_a_label_that_is_no_number_is_named_unless_its_weight_is_0(
    of_numbers: tuple[share_jax.Learner, TaskBank], labels: Any
) -> None:
    learner, bank = of_numbers
    with pytest.raises(InputError, match=f"labels of {SECOND}, example 5: got nan, expected a finite number"):
        learner.learn(bank, "new", [batch(labels=NUMBERS), batch(labels=labels)])
    padded = [batch(labels=labels, weights=(np.arange(8) < 5).astype(np.float32))] * 2
    whole = [{**each, "labels": NUMBERS} for each in padded]
    got, want = (learner.learn(bank, "new", batches) for batches in (padded, whole))
    jax.tree.map(np.testing.assert_array_equal, got.tasks, want.tasks)


def test_a_single_example_of_weight_in_each_of_two_batches_is_enough(
    learnt: tuple[share_jax.Learner, TaskBank],
) -> None:
    for one in (weights(0, 1), jnp.array(weights(0, 1))):
        assert learnt[0].learn(learnt[1], "new", [batch(weights=one)] * 2).names[-1] == "new"


def test_labels_may_be_any_whole_numbers_and_classes_one_for_each_example(
    learnt: tuple[share_jax.Learner, TaskBank],
) -> None:
    learner, bank = learnt
    want = None
    whole = [kind(Y.astype(dtype)) for dtype in ("uint8", "int64") for kind in (np.array, jnp.array)]
    for own in [batch(labels=labels) for labels in whole] + [batch(classes=np.full(8, 3)), batch(classes=3)]:
        bits = np.asarray(learner.predict(learner.learn(bank, "new", [own] * 2), "new", X))
        want = bits if want is None else want
        np.testing.assert_array_equal(bits, want)
    for own in (Y > 0, jnp.array(Y) > 0):
        assert learner.learn(bank, "new", [batch(labels=own)] * 2).names[-1] == "new"


def test_classes_of_padding_are_not_looked_at(learnt: tuple[share_jax.Learner, TaskBank]) -> None:
    own = batch(weights=weights(1, 1, 1), classes=np.array([3, 3, 3, 0, 9, 0, 0, 0]))
    assert learnt[0].learn(learnt[1], "new", [own] * 2).names[-1] == "new"


def test_what_the_loss_does_not_take_is_told_apart_from_what_the_model_does_not(
    learnt: tuple[share_jax.Learner, TaskBank],
) -> None:
    def loss(out: jax.Array, batch: Any) -> share_jax.LossSums:
        return share_jax.LossSums(jnp.sum(out * batch["wanted"]), jnp.float32(8), {})

    own = share_jax.Learner(learnt[0].model, learnt[0].base, optax.adam(1e-2), loss=loss)
    assert own.learn(learnt[1], "new", [{"inputs": X, "wanted": np.ones((8, 3), np.float32)}]).names[-1] == "new"
    cases = {
        f"loss of {FIRST}: got KeyError: 'wanted'": {"inputs": X},
        f"loss of {FIRST}: got TypeError: mul got incompatible shapes": {"inputs": X, "wanted": np.ones((8, 2))},
        f"{FIRST}: got ScopeParamShapeError": {"inputs": WIDE, "wanted": np.ones((8, 3))},
    }
    for words, bad in cases.items():
        with pytest.raises(InputError) as caught:
            own.learn(learnt[1], "new", [bad])
        assert str(caught.value).startswith(words)
        assert ("that the model was initialised with" in str(caught.value)) == (not words.startswith("loss"))
        assert caught.value.__cause__ is not None


def test_weights_below_0_are_for_a_loss_of_ones_own_to_judge(learnt: tuple[share_jax.Learner, TaskBank]) -> None:
    def loss(out: jax.Array, batch: Any) -> share_jax.LossSums:
        return share_jax.LossSums(jnp.sum(out[:, 0] * batch["weights"]), jnp.float32(8), {})

    own = share_jax.Learner(learnt[0].model, learnt[0].base, optax.adam(1e-2), loss=loss)
    for signs in (-np.ones(8, np.float32), -jnp.ones(8)):
        assert own.learn(learnt[1], "new", [{"inputs": X, "weights": signs}]).names[-1] == "new"


def test_an_example_without_weight_may_have_any_label(learnt: tuple[share_jax.Learner, TaskBank]) -> None:
    learner, bank = learnt
    weights, labels = np.ones(8, np.float32), Y.copy()
    weights[3], labels[3] = 0, -1
    for own in (labels, jnp.array(labels)):
        assert learner.learn(bank, "new", [batch(labels=own, weights=weights)] * 2).names[-1] == "new"


@pytest.mark.parametrize("name", ["cats", "", "dogs", 3, None])
def test_a_name_that_is_taken_or_empty_or_no_text_is_refused(
    learnt: tuple[share_jax.Learner, TaskBank], name: Any
) -> None:
    with pytest.raises(TaskError, match="new task name"):
        learnt[0].learn(learnt[1], name, [batch()] * 2)


@pytest.fixture(scope="module")
def with_rate() -> tuple[share_jax.Learner, TaskBank]:
    """A rate in the optimizer's state."""
    return fresh(optax.inject_hyperparams(optax.sgd)(learning_rate=0.125))


@pytest.mark.parametrize("at", [1, 2, 20, 40])
def test_a_loss_that_is_not_a_number_names_task_step_and_rate(
    with_rate: tuple[share_jax.Learner, TaskBank], at: int
) -> None:
    learner, bank = with_rate
    before = jax.tree.map(np.array, (bank.shared, bank.tasks))
    batches = [batch(inputs=jnp.full_like(X, np.nan)) if step == at else batch() for step in range(1, 41)]
    with pytest.raises(DivergedError) as caught:
        learner.learn(bank, "new", batches)
    assert f"loss of task 'new', step {at}: got nan" in str(caught.value)
    assert "lower the learning rate, now 0.125" in str(caught.value)
    chex.assert_trees_all_equal(before, jax.tree.map(np.array, (bank.shared, bank.tasks)))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_an_input_that_makes_the_loss_bad_is_named_and_not_the_rate(
    learnt: tuple[share_jax.Learner, TaskBank], value: float
) -> None:
    inputs = X.copy()
    inputs[5, 1] = value
    with pytest.raises(InputError, match=f"inputs of {SECOND}, example 5: got a number that is not finite"):
        learnt[0].learn(learnt[1], "new", [batch(), batch(inputs=inputs), batch()])


def test_an_optimizer_for_another_tree_is_refused_with_the_way_out(learnt: tuple[share_jax.Learner, TaskBank]) -> None:
    learner, bank = learnt
    mask = jax.tree.map(lambda leaf: leaf.ndim > 1, learner.base["params"])
    fixed = share_jax.Learner(learner.model, learner.base, optax.adamw(1e-2, mask=mask))
    with pytest.raises(InputError, match=r"optimizer: got one made for another tree.*mask=lambda tree"):
        fixed.learn(bank, "new", [batch()])


def test_an_update_that_overflows_in_the_last_step_is_not_kept(learnt: tuple[share_jax.Learner, TaskBank]) -> None:
    """Its loss is finite: only what it leaves behind is not."""
    learner, bank = learnt
    wild = share_jax.Learner(learner.model, learner.base, optax.sgd(np.float32(3e38)))
    with pytest.raises(DivergedError, match="of task 'new' after step 1: got numbers that are not finite"):
        wild.learn(bank, "new", [batch(inputs=X * 1e3)])


def test_mixed_tasks_are_answered_as_each_alone(learnt: tuple[share_jax.Learner, TaskBank]) -> None:
    learner, bank = learnt
    names = ["cats", "dogs"] * 4
    mixed = np.asarray(learner.predict(bank, names, X))
    for task in ("cats", "dogs"):
        alone = np.asarray(learner.predict(bank, task, X))
        chosen = np.array(names) == task
        np.testing.assert_allclose(mixed[chosen], alone[chosen], rtol=1e-5, atol=1e-6)
    assert np.abs(mixed - np.asarray(learner.predict(bank, "cats", X)))[1::2].max() > 1e-3
    np.testing.assert_array_equal(mixed, np.asarray(learner.predict(bank, np.array([0, 1] * 4), X)))


def test_one_id_stands_for_the_whole_batch(learnt: tuple[share_jax.Learner, TaskBank]) -> None:
    learner, bank = learnt
    want = np.asarray(learner.predict(bank, "dogs", X))
    for one in (1, np.int64(1), jnp.int32(1), np.array(1)):
        np.testing.assert_array_equal(np.asarray(learner.predict(bank, one, X)), want)


@pytest.mark.parametrize(
    ("task", "kind", "words"),
    [
        (2, TaskError, "task_id: got 2, expected 0 to 1"),
        (-1, TaskError, "task_id: got -1, expected 0 to 1"),
        (jnp.int32(7), TaskError, "task_id: got 7, expected 0 to 1"),
        (None, InputError, "tasks: got NoneType, expected a learnt task's name or id"),
        (1.0, InputError, "tasks: got float"),
        (True, InputError, "task_id: got dtype bool"),
        ("cat", TaskError, "near matches: cats"),
    ],
)
def test_what_is_no_learnt_task_is_one_line(
    learnt: tuple[share_jax.Learner, TaskBank], task: Any, kind: type[ShareError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        learnt[0].predict(learnt[1], task, X)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["cats", 1, ["cats", "dogs"] * 4], ids=str)
@pytest.mark.parametrize("inputs", [WIDE, jnp.array(WIDE), X.tolist(), None], ids=lambda x: type(x).__name__)
def test_inputs_that_the_model_does_not_take_are_one_line_in_predict_as_in_learn(
    learnt: tuple[share_jax.Learner, TaskBank], task: Any, inputs: Any
) -> None:
    with pytest.raises(InputError, match=r"^inputs: got .*shapes that the model was initialised with$") as caught:
        learnt[0].predict(learnt[1], task, inputs)
    assert len(str(caught.value)) < 500
    assert caught.value.__cause__ is not None


def test_a_model_without_task_id_is_told_what_is_missing() -> None:
    plain = nn.Dense(3)
    learner = share_jax.Learner(plain, plain.init(jax.random.key(0), X), optax.sgd(0.1))
    with pytest.raises(InputError, match=r"'task_id'.*pass what share_jax\.adapt returned"):
        learner.learn(learner.start({"tasks": {"a": jnp.zeros((2, 3))}}), "new", [batch()])


@pytest.mark.parametrize(
    ("tasks", "kind", "words"),
    [
        (["cats"] * 7 + ["cows"], TaskError, "task name: got 'cows'"),
        ([0] * 7 + [2], TaskError, "task_id: got 2, expected 0 to 1"),
        ([0] * 7 + [-1], TaskError, "task_id: got -1, expected 0 to 1"),
        ([0] * 7 + [4], TaskError, "task_id: got 4, expected 0 to 1"),
        ([0.0] * 8, InputError, "task_id: got dtype float64"),
        (["cats"] * 7, InputError, "tasks: got 7, expected 8, one per example"),
        ([], InputError, "tasks: got none"),
    ],
)
def test_a_task_that_is_not_learnt_is_refused_before_anything_compiled_sees_it(
    learnt: tuple[share_jax.Learner, TaskBank], tasks: list, kind: type[ShareError], words: str
) -> None:
    """Slots 2 and 3 are in the stack and fresh: in jit they would answer as the base model."""
    learner, bank = learnt
    assert bank.capacity == 4
    with pytest.raises(kind) as caught:
        learner.predict(bank, tasks, X)
    assert words in str(caught.value)
    with pytest.raises(kind) if len(tasks) != 7 else pytest.raises(InputError):
        learner.predict(bank, np.array(tasks), X)


def test_an_id_out_of_range_in_jit_is_nan_and_never_another_tasks_answer(
    learnt: tuple[share_jax.Learner, TaskBank],
) -> None:
    learner, bank = learnt
    variables = {**learner.base, "shared": bank.shared, "tasks": bank.tasks}

    @jax.jit
    def answer(task_id: jax.Array) -> jax.Array:
        return learner.model.apply(variables, X, task_id=task_id)

    first = np.asarray(learner.predict(bank, "cats", X))
    checked = [jax.jit(checkify.checkify(answer, errors=e)) for e in (checkify.index_checks, checkify.nan_checks)]
    for task in (4, 5, 2**31 - 1, -1, -4):
        assert np.isnan(np.asarray(answer(jnp.int32(task)))).all()
        each = np.asarray(answer(jnp.array([0, task] * 4, jnp.int32)))
        assert np.isnan(each[1::2]).all()
        np.testing.assert_allclose(each[::2], first[::2], rtol=1e-5, atol=1e-6)
        for check in checked:
            assert check(jnp.int32(task))[0].get() is not None
    for check in checked:
        assert check(jnp.int32(1))[0].get() is None
