"""The three protocols: what a model may know, what it is asked, and that the matrix is what was answered."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from method_jobs import job
from tiny_run import tiny_vit

from experiments.algorithms import inflora, l2p, lwf_lora, sd_lora
from experiments.algorithms.evaluation import OneHead, Routed, arranged
from experiments.algorithms.job import Job
from experiments.algorithms.joint import run as run_joint
from experiments.algorithms.loop import Sequence, StreamState, learn
from experiments.algorithms.majority import accuracies
from experiments.algorithms.plan import Plan
from experiments.algorithms.replay import Replay
from experiments.algorithms.share import run as run_share
from experiments.config.numbers import ConfigError
from experiments.config.run_config import command_line, parse, preset
from experiments.streams.base import Split, Stream, Task
from experiments.streams.digits import digits5
from experiments.streams.protocols import offsets, one_head, outputs, under
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.errors import InputError
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.parameterizations.shared_a import SharedA

TASKS = 3
SLOTS = Plan(SharedA(4, 8.0))
ONE = Plan(SeparateLoRA(4, 8.0), carry="adapter")


def _few(split: Split, count: int) -> Split:
    return Split({name: array[:count] for name, array in split.inputs.items()}, split.labels[:count])


@cache
def digits() -> Stream:
    tasks = digits5().tasks[:TASKS]
    few = tuple(Task(t.name, t.classes, _few(t.train, 120), _few(t.test, 40)) for t in tasks)
    return Stream("some-digits", "task-incremental", few)


def job_under(folder: Path, protocol: str, stream: Stream | None = None, steps: int = 60) -> Job:
    """A job on three pairs of digits, enough updates to learn them."""
    made = job(folder, steps=steps, learning_rate=5e-3, head_learning_rate=1e-2, eval_batch_size=40, batch_size=16)
    return replace(made, stream=under(stream or digits(), protocol), backbone=tiny_vit(0, 2, jnp.float32, 0))  # pyright: ignore


def learnt(made: Job, plan: Plan) -> tuple[Sequence, StreamState]:
    sequence = Sequence(made, plan)
    course = sequence.restored()
    while len(course.rows) < TASKS:
        course = sequence.learn_next(course)
    return sequence, course


@pytest.fixture(scope="module", params=["domain", "class"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def routed(protocol: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sequence, StreamState]:
    return learnt(job_under(tmp_path_factory.mktemp("routed"), protocol), SLOTS)


@pytest.fixture(scope="module")
def sequential(protocol: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sequence, StreamState]:
    return learnt(job_under(tmp_path_factory.mktemp("one"), protocol), ONE)


def test_a_stream_under_each_protocol() -> None:
    stream = digits()
    assert under(stream, None) is stream
    classes = under(stream, "class")
    assert (offsets(classes), outputs(classes)) == ((0, 2, 4), (2, 4, 6))
    domains = under(stream, "domain")
    assert (offsets(domains), outputs(domains)) == ((0, 0, 0), (2, 2, 2))
    assert {task.classes for task in domains.tasks} == {("output 0", "output 1")}
    assert under(domains, "task").protocol == "task-incremental"
    wide = one_head(classes)
    assert [len(task.classes) for task in wide.tasks] == [2, 4, 6]
    for own, task, offset in zip(wide.tasks, stream.tasks, (0, 2, 4), strict=True):
        np.testing.assert_array_equal(own.train.labels, task.train.labels + offset)
        np.testing.assert_array_equal(own.test.labels, task.test.labels + offset)
        assert own.train.inputs["images"] is task.train.inputs["images"]
    assert [len(task.classes) for task in one_head(domains).tasks] == [2, 2, 2]


def test_streams_that_a_protocol_does_not_fit_are_refused() -> None:
    first, second, _ = digits().tasks
    with pytest.raises(InputError, match="each class in one task"):
        under(Stream("same", "domain-incremental", (first, replace(second, classes=first.classes))), "class")
    wider = replace(second, classes=(*second.classes, "third"))
    with pytest.raises(InputError, match=r"classes of the tasks of 'unlike': got \[2, 3\]"):
        under(Stream("unlike", "task-incremental", (first, wider)), "domain")


def test_a_plan_keeps_its_slots_or_gets_one_head(tmp_path: Path) -> None:
    made = job_under(tmp_path, "class")
    assert isinstance(arranged(made, SLOTS)[2], Routed)
    for plan in (ONE, replace(ONE, heads="all"), replace(ONE, carry="sum")):
        one, new, answers = arranged(made, plan)
        assert isinstance(answers, OneHead)
        assert new.heads == "one"
        assert one.backbone.params["head"]["kernel"].shape[1] == 6
    by_id = job_under(tmp_path, "task")
    assert arranged(by_id, ONE)[:2] == (by_id, ONE)


def test_slots_with_a_router_beat_one_head(routed, sequential) -> None:
    last, other = (np.mean(course.rows[-1]) for _, course in (routed, sequential))
    assert last > other + 0.1
    assert last > 0.6
    sequence, course = routed
    told = sequence.outcome(course).extra
    assert told["router_accuracy"] > 0.8
    assert told["acc_with_task_id"] >= last - 0.02
    assert told["acc_without_router"] < last
    assert told["tasks_with_changed_logits"] == 0
    assert len(told["router_accuracy_per_task"]) == TASKS
    assert told["router_accuracy_by_tasks_seen"][0] == 1
    assert "router_accuracy" not in sequential[0].outcome(sequential[1]).extra


def test_the_matrix_is_what_each_slot_or_the_one_head_answers(protocol: str, routed, sequential) -> None:
    """By hand, example by example, from the slots as they are at the end."""
    stream = under(digits(), protocol)
    starts = offsets(stream)
    sequence, course = routed
    by_slot = [
        [np.asarray(sequence.predict(sequence.base, course.bank)(k, task.test.inputs)) for k in range(TASKS)]
        for task in stream.tasks
    ]
    rows = np.full((TASKS, TASKS), np.nan)
    for i in range(TASKS):
        router = routed_up_to(sequence, i)
        for j in range(i + 1 if protocol == "class" else min(i + 2, TASKS)):
            chosen = np.concatenate(sequence.answers.chosen(router, i, [j]))  # pyright: ignore
            right = [
                starts[slot] + by_slot[j][slot][n, :2].argmax() == starts[j] + stream.tasks[j].test.labels[n]
                for n, slot in enumerate(chosen)
            ]
            rows[i, j] = np.mean(right)
    got = np.array(course.rows, np.float64)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rows))
    np.testing.assert_allclose(got[~np.isnan(got)], rows[~np.isnan(rows)], atol=1e-6)

    one, end = sequential
    for j, task in enumerate(stream.tasks):
        values = one.predict(one.base, end.bank)(j, task.test.inputs)
        assert values.shape[1] == outputs(stream)[-1]
        assert end.rows[-1][j] == np.mean(values.argmax(axis=1) == starts[j] + task.test.labels)
    undefined = [[value is None for value in row] for row in end.rows]
    lower = [[j > i + (protocol == "domain") for j in range(TASKS)] for i in range(TASKS)]
    assert undefined == lower
    assert [value is None for value in end.untrained] == [protocol == "class"] * TASKS


def routed_up_to(sequence: Sequence, index: int):
    router = None
    for task in range(index + 1):
        router = sequence.answers.learnt(router, task)
    return router


def test_which_task_a_test_example_is_filed_under_changes_no_answer(protocol: str, routed) -> None:
    """The same examples dealt out to the tasks in another way are answered alike: no id is read."""
    sequence, course = routed
    made = sequence.job
    sizes = [len(task.test) for task in made.stream.tasks]
    order = np.random.default_rng(0).permutation(sum(sizes))
    images = np.concatenate([task.test.inputs["images"] for task in made.stream.tasks])
    dealt = np.split(order, np.cumsum(sizes)[:-1])
    tasks = tuple(
        replace(task, test=Split({"images": images[places]}, np.zeros(len(places), np.int32)))
        for task, places in zip(made.stream.tasks, dealt, strict=True)
    )
    answers = []
    for stream in (made.stream, Stream(made.stream.name, made.stream.protocol, tasks)):
        own = Routed(replace(made, stream=stream))
        predict = sequence.predict(sequence.base, course.bank)
        chosen = own.chosen(course.router, TASKS - 1, range(TASKS))
        logits = [predict(j, task.test.inputs)[:, :2] for j, task in enumerate(stream.tasks)]
        answers.append(np.concatenate(own.answers(predict, chosen, logits)))
    np.testing.assert_array_equal(answers[1], answers[0][order])


@pytest.mark.parametrize("protocol", ["class"], indirect=True)  # no step of this differs between the two
def test_the_router_is_saved_with_the_tasks_and_a_resumed_run_goes_on_with_its_bits(
    protocol: str, routed, tmp_path: Path
) -> None:
    sequence, course = routed
    made = replace(sequence.job, folder=tmp_path / "store")
    first = Sequence(made, SLOTS)
    half = first.learn_next(first.restored())
    assert ckpt.load_router(half.store).names == half.store.names
    second = Sequence(made, SLOTS)
    again = second.restored()
    while len(again.rows) < TASKS:
        again = second.learn_next(again)
    assert (again.rows, again.found, again.digests) == (course.rows, course.found, course.digests)
    np.testing.assert_array_equal(again.router.scatter, course.router.scatter)
    whole = second.outcome(again)
    assert whole.extra == sequence.outcome(course).extra
    lost = Sequence(replace(made, config=replace(made.config, resume=True, repair=True)), SLOTS)
    file = max((made.folder / "router").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    file.write_bytes(file.read_bytes()[:-1])
    fixed = lost.restored()
    assert fixed.rows == course.rows
    np.testing.assert_array_equal(fixed.router.scatter, course.router.scatter)


@pytest.mark.slow
def test_share_and_joint_run_without_an_id(tmp_path: Path) -> None:
    found = run_share(job_under(tmp_path / "share", "domain", steps=20))
    assert found.extra["router_accuracy"] > 0.8
    joint = run_joint(job_under(tmp_path / "joint", "class", steps=40))
    assert np.isnan(joint.accuracy[:-1]).all()
    assert joint.accuracy[-1].mean() > 0.4
    assert (joint.params["head_sets"], joint.params["heads_per_task"]) == (TASKS, 2 * 16 + 2)


@pytest.mark.parametrize("protocol", ["class"], indirect=True)
def test_a_loss_over_own_outputs_leaves_those_of_earlier_tasks(protocol: str, sequential, tmp_path: Path) -> None:
    """Every column of the head is as its task left it; over all outputs so far they are pushed on."""
    _, own = learnt(job_under(tmp_path / "own", protocol), replace(ONE, own_outputs=True))
    for course, stay in ((own, True), (sequential[1], False)):
        kernel = np.asarray(course.bank.tasks["head"]["kernel"])
        for task in range(TASKS - 1):
            earlier = slice(0, 2 * (task + 1))
            assert np.array_equal(kernel[task + 1][:, earlier], kernel[task][:, earlier]) == stay
    assert np.mean(own.rows[-1]) > np.mean(sequential[1].rows[-1])


@pytest.mark.parametrize("method", [inflora, l2p, lwf_lora, sd_lora], ids=lambda module: module.__name__[20:])
def test_methods_whose_code_trains_own_outputs_do(method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(method, "learn", lambda job, plan: plans.append(plan))
    method.run(job_under(tmp_path, "class"))
    assert plans[0].own_outputs


@pytest.mark.parametrize("protocol", ["class"], indirect=True)
def test_replay_with_one_head_holds_earlier_outputs_against_later_ones(
    protocol: str, sequential, tmp_path: Path
) -> None:
    plan = Plan(SeparateLoRA(4, 8.0), "adapter", "all", extension=Replay(60, 16))
    replayed = learn(job_under(tmp_path / "replay", protocol), plan)
    assert replayed.accuracy[-1].mean() > np.mean(sequential[1].rows[-1]) + 0.05
    assert np.isnan(replayed.untrained).all()


def test_the_majority_class_knows_the_task_by_its_id_alone() -> None:
    def task(name: str, train: list[int], test: list[int]) -> Task:
        sides = (Split({"x": np.zeros((len(labels), 1))}, np.array(labels)) for labels in (train, test))
        return Task(name, (f"{name}0", f"{name}1"), *sides)

    stream = Stream("m", "task-incremental", (task("a", [0, 0, 1], [0, 0, 0, 1]), task("b", [1] * 4, [0, 1])))
    nan = np.nan
    np.testing.assert_array_equal(accuracies(stream), [[0.75, nan], [0.75, 0.5]])
    np.testing.assert_array_equal(accuracies(under(stream, "domain")), [[0.75, nan], [0.25, 0.5]])
    np.testing.assert_array_equal(accuracies(under(stream, "class")), [[0.75, nan], [0, 0.5]])


def test_the_protocol_is_a_flag_of_its_own_defaults() -> None:
    config = parse(["--experiment", "digits5", "--protocol", "class"])
    assert config.protocol == "class"
    assert "sequential_lora_heads" not in config.methods
    assert config.workdir == Path("runs/digits5-class")
    assert "--protocol class" in command_line(config)
    assert "--methods" not in command_line(config)
    assert preset("rotated_mnist10", "quick").workdir == Path("runs/rotated_mnist10-quick")
    assert "sequential_lora_heads" not in preset("rotated_mnist10", "quick").methods
    assert "sequential_lora_heads" in preset("rotated_mnist10", "quick", "task").methods
    with pytest.raises(ConfigError, match="--methods: got sequential_lora_heads, expected methods that need no task"):
        replace(config, methods=("sequential_lora_heads",))


@pytest.mark.slow
def test_a_whole_run_says_its_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments import run as run_module
    from experiments.config import digits5
    from experiments.report.results import load_results

    monkeypatch.setattr(digits5, "digits_vit", tiny_vit)
    flags = ["--experiment", "digits5", "--preset", "quick", "--steps", "3", "--quiet", "--protocol", "class"]
    methods = ["--methods", "shared_a,sequential_lora,majority", "--workdir", str(tmp_path / "run")]
    assert run_module.main([*flags, *methods]) == 0
    content = load_results(tmp_path / "run" / "results.json")
    assert content["protocol"] == "class-incremental"
    assert content["methods"]["shared_a"]["mean"]["fwt"] is None
    assert "class-incremental" in (tmp_path / "run" / "report.md").read_text()
    same = [flag for flag in flags if flag not in ("--protocol", "class")]
    assert run_module.main([*same, *methods, "--resume"]) == 2
