"""Tasks that ask for a number, mixed with classes: learnt, scored by their own metric, and nothing forgotten."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.algorithms.job import Job, Outcome, run_method
from experiments.algorithms.loop import Sequence
from experiments.backbones.backbone import Backbone
from experiments.config.run_config import changed, preset
from experiments.data.pipeline import task_pipeline
from experiments.data.sources import ArraySource, RecordSource
from experiments.report.progress import NullProgress
from experiments.report.results import MethodResult, Results, Run, load_results, write_results
from experiments.streams.base import Split, Stream, Task, TextTask, tokenize
from experiments.streams.digits import digits_split
from experiments.streams.protocols import under
from share_jax.errors import FormatError, InputError
from share_jax.models.vit import VitClassifier, VitConfig
from share_jax.trees import flat

CONFIG = VitConfig(hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64)


def ink_stream() -> Stream:
    """The digits 3 and 8 apart, the ink of an image, 1 and 7 apart, and how much of the ink is in its upper half."""
    train, test = digits_split()

    def classes(first: int, second: int) -> Task:
        def part(split: Split) -> Split:
            own = np.isin(split.labels, (first, second))
            return Split({"images": split.inputs["images"][own]}, (split.labels[own] == second).astype(int))

        return Task(f"{first} or {second}", (str(first), str(second)), part(train), part(test), metric="matthews")

    def number(name: str, of) -> Task:
        known = of(train.inputs["images"][..., 0])

        def part(split: Split) -> Split:
            images = split.inputs["images"]
            return Split({"images": images}, ((of(images[..., 0]) - known.mean()) / known.std()).astype(np.float32))

        return Task(name, (), part(train), part(test), kind="regression")

    ink = number("ink", lambda x: x.mean(axis=(1, 2)))
    upper = number("upper", lambda x: x[:, :4].sum(axis=(1, 2)) / x.sum(axis=(1, 2)))
    return Stream("ink", "task-incremental", (classes(3, 8), ink, classes(1, 7), upper))


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    config = preset("digits5", "quick")
    model = VitClassifier(CONFIG, 2)
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    backbone = Backbone("tiny-vit", model, params, ("encoder/layer.*/kernel",), ("head/.*",), 0)
    stream = ink_stream()

    def job(name: str, steps: int) -> Job:
        own = replace(config, steps=steps, rank=8, learning_rate=1e-2, head_learning_rate=3e-2)
        own = changed(replace(own, numbers=()), phi=8, num_basis=16)  # not what the digits have
        folder: Path = tmp_path_factory.mktemp(name)
        return Job(name, own, stream, backbone, 0, folder, NullProgress())

    return job


@pytest.fixture(scope="module")
def run(job):
    def run(name: str, steps: int) -> Outcome:
        return run_method(job(name, steps))

    return run


@pytest.mark.parametrize("name", ["shared_a", pytest.param("share", marks=pytest.mark.slow)])
def test_numbers_are_learnt_and_no_bit_is_forgotten(run, name):
    found = run(name, 150)
    learnt, last = np.diagonal(found.accuracy), found.accuracy[-1]
    assert learnt[[1, 3]].min() > 0.8, learnt  # Pearson
    assert learnt[[0, 2]].min() > 0.5, learnt  # Matthews
    if name == "shared_a":
        assert found.extra["tasks_with_changed_logits"] == 0
        np.testing.assert_array_equal(last, learnt)
    else:
        np.testing.assert_allclose(last, learnt, rtol=0, atol=0.05)


@pytest.mark.slow
def test_one_adapter_trained_on_forgets_numbers(run):
    found = run("sequential_lora", 150)
    assert found.accuracy[1, 1] > 0.8
    assert found.accuracy[-1, 1] < found.accuracy[1, 1] - 0.2
    assert found.extra["tasks_with_changed_logits"] > 0


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("er_lora", "der_lora", "ewc_lora", "lwf_lora")]


@pytest.mark.parametrize("name", SLOW)
def test_baselines_that_remember_learn_numbers_and_hold_them(job, monkeypatch, name):
    """The second task's number, when it is learnt and after a task of classes: the mean alone has an error of 1."""
    module = import_module(f"experiments.algorithms.{name}")
    monkeypatch.setattr(module, "learn", Sequence)
    sequence = module.run(job(name, 150))
    course, (train, test), memories, errors = sequence.restored(), (ink().train, ink().test), [], []
    for index in range(3):
        course = sequence.learn_next(course)
        memories.append(course.memory)
        if index:
            base = sequence.base_for(course.bank, course.memory, index)
            values = sequence.predict(base, course.bank)(1, test.inputs)[:, 0]
            errors.append(np.square(values - test.labels).mean() / np.var(test.labels))
    assert errors[0] < 0.5, errors
    assert errors[1] < 1, errors
    assert np.isfinite(sequence.outcome(course).accuracy[np.tril_indices(3)]).all()
    if name in ("er_lora", "der_lora"):
        memory = memories[1]
        own = memory["head"] == 1
        assert 0 < own.sum() < len(own)
        assert np.isin(memory["labels"][own], train.labels).all()
        assert np.any(memory["labels"][own] % 1 != 0)
        assert set(memory["classes"][own]) == {0}
        assert set(memory["labels"][~own]) == {0, 1}
    if name == "ewc_lora":
        before, after = (flat(memory["fisher"]) for memory in memories[:2])
        assert all(np.any(after[path] > before[path]) for path in after)


def ink() -> Task:
    return ink_stream().tasks[1]


def test_joint_training_mixes_both_kinds_in_one_batch(run):
    last = run("joint", 100).accuracy[-1]
    assert last[[1, 3]].min() > 0.8, last
    assert last[[0, 2]].min() > 0.5, last


def test_the_mean_tells_nothing(run):
    np.testing.assert_array_equal(run("majority", 1).accuracy[-1], np.zeros(4))


def split(labels, dtype=np.float32) -> Split:
    return Split({"x": np.zeros((len(labels), 2), np.float32)}, np.array(labels, dtype))


def test_a_task_has_a_kind_and_a_metric():
    task = Task("t", (), split([0.5, -2.0]), split([1.0]), kind="regression")
    assert (task.metric, task.outputs, task.train.labels.dtype) == ("pearson", 1, np.float32)
    assert Task("t", ("a", "b"), split([0, 1], int), split([1], int)).metric == "accuracy"


@pytest.mark.parametrize(
    ("classes", "labels", "options", "message"),
    [
        ((), [0.5, 1.5], {}, "classes of task 't': got none"),
        (("a",), [0.5, 1.5], {"kind": "regression"}, "kind of task 't': got 'regression' with classes"),
        (("a",), [0.0, 0.0], {}, "train labels of task 't': got float32, expected whole numbers for classification"),
        (("a", "b"), [0, 1], {"metric": "pearson"}, "metric of task 't': got 'pearson', expected one of accuracy, mat"),
        ((), [0, 1], {"kind": "regression"}, "train labels of task 't': got int32, expected float32 for regression"),
        ((), [0.5, 1.5], {"kind": "ranking"}, "kind of task 't': got 'ranking'"),
    ],
)
def test_a_task_refuses_what_does_not_fit(classes, labels, options, message):
    dtype = np.float32 if isinstance(labels[0], float) else int
    with pytest.raises(InputError, match=message) as caught:
        Task("t", classes, split(labels, dtype), split(labels, dtype), **options)
    assert "\n" not in str(caught.value)


def test_numbers_have_no_place_where_there_is_no_task_id():
    task = Task("t", (), split([0.5, 1.0]), split([1.0]), kind="regression")
    for protocol in ("class-incremental", "domain-incremental"):
        with pytest.raises(InputError, match=f"got a regression task under {protocol}"):
            Stream("s", protocol, (task,))
    with pytest.raises(InputError, match="vector of whole numbers"):
        split([np.nan, 1.0])


def test_pairs_of_texts_with_a_number_become_a_task():
    texts = (("a b", "c"), ("d", "e f"))

    def encode(pairs):
        ids = np.array([[len(a), len(b)] for a, b in pairs], np.int32)
        return ids, np.ones_like(ids)

    numbers = np.array([0.25, 5.0], np.float32)
    (task,) = tokenize([TextTask("t", (), texts, numbers, texts, numbers, "regression", "spearman")], encode, 3)
    assert (task.kind, task.metric) == ("regression", "spearman")
    np.testing.assert_array_equal(task.train.inputs["input_ids"], [[3, 1, 0], [1, 3, 0]])
    np.testing.assert_array_equal(task.train.labels, numbers)


def test_batches_carry_numbers_and_no_classes():
    records = [{"x": np.zeros(2, np.float32), "label": np.float32(i / 2)} for i in range(5)]
    options = {"batch_size": 4, "classes": 0, "seed": 0, "task": 0, "steps": 2}
    lazy = task_pipeline(RecordSource(records, lambda row: {"x": row["x"]}), **options)
    arrays = task_pipeline(ArraySource({"x": np.zeros((5, 2))}, np.arange(5, dtype=np.float32) / 2), **options)
    for step in range(2):
        batch = lazy.dataset[step]
        assert (batch["labels"].dtype, int(batch["classes"])) == (np.float32, 0)
        np.testing.assert_array_equal(batch["labels"], arrays.dataset[step]["labels"])


def test_results_say_which_metric_each_task_has(tmp_path):
    params = dict.fromkeys(
        ("base", "shared", "per_task", "heads_per_task", "total_tasks", "separate_lora_total", "ratio_to_separate"), 0
    )
    runs = (Run(0, [[0.5, -0.25], [0.5, 0.9]], [0.5, -0.5], {}),)

    def results(*metrics: str) -> Results:
        methods = (MethodResult("a", runs, params, {}),)
        return Results("e", "quick", "task-incremental", ("one", "two"), methods, "run", metrics)

    path = tmp_path / "results.json"
    write_results(results("accuracy", "pearson"), path)
    assert load_results(path)["metrics"] == ["accuracy", "pearson"]
    with pytest.raises(InputError, match=r"accuracy: got -0\.25, expected fractions"):
        write_results(results("accuracy", "f1"), path)
    path.write_text(path.read_text().replace('"pearson"', '"f1"'))
    with pytest.raises(FormatError, match=r"methods\.a\.runs\[0\], task 2: got -0\.25"):
        load_results(path)
    with pytest.raises(InputError, match="metrics: got 1, expected 2, one for each task"):
        write_results(results("accuracy"), path)


@pytest.mark.parametrize("protocol", ["domain", "class"])
def test_a_number_has_no_place_in_a_protocol_without_ids(protocol) -> None:
    task = Task("t", (), split([0.5, -2.0]), split([1.0]), kind="regression")
    with pytest.raises(InputError, match="expected task-incremental, as task 't' asks for a number"):
        under(Stream("s", "task-incremental", (task,)), protocol)
