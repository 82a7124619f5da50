"""What a language model is asked beside its tasks' own scores once all are learnt: other test sets, and no task id.

Without an id a router chooses the slot that answers a question, among all tasks, by the mean of what the frozen layers
make of the prompt's tokens; where no layer is frozen, by the mean of the last hidden states. Nothing of the answer is
seen.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.algorithms.job import Job
from experiments.algorithms.scoring import score_split
from experiments.streams.base import Split, Task
from share_jax.bank.router import Rule, add_task, empty_router, route, routing_rule
from share_jax.models.generation import prompt_features

Predict = Callable[[int, Mapping[str, np.ndarray]], np.ndarray]
"""As of `evaluation`."""

FURTHER, EXACT, EXACT_ROUTED, ROUTED = "further", "exact_match", "exact_match_with_router", "acc_with_router"
"""Keys of a run's `extra`."""

CHOSEN_AMONG = "option_accuracy"


def further_tests(
    tasks: Sequence[Task], predict: Predict, values: Sequence[np.ndarray]
) -> tuple[dict[str, Any], dict[str, dict[str, list[bool]]]]:
    """How the tasks' other test sets are answered, and of options the exact match.

    Args:
        tasks: all of them.
        predict: how their slots answer.
        values: what each answers to its own test.

    Returns:
        (`further`: by set and task its metric; `exact_match` by task, where answers are chosen among options,
        of each set of a task whose answers are run, which of those questions are exactly right)
    """
    found: dict[str, Any] = {}
    right: dict[str, dict[str, list[bool]]] = {}
    for j, task in enumerate(tasks):
        sets = [(task.test, values[j]), *((split, predict(j, split.inputs)) for split in task.further.values())]
        for name, (split, answers) in zip(task.further, sets[1:], strict=True):
            found.setdefault(FURTHER, {}).setdefault(name, {})[task.name] = score_split(
                answers, split, task.metric
            ).accuracy
        if task.metric == CHOSEN_AMONG:
            found.setdefault(EXACT, {})[task.name] = float(np.mean(exact_questions(values[j], task.test)))
        for name, (split, answers) in zip((task.test_name, *task.further), sets, strict=True):
            if name in task.checked:
                count = len(task.checked[name].prompts)
                right.setdefault(task.name, {})[name] = exact_questions(answers, split)[:count].tolist()
    return found, right


def routed_tests(job: Job, predict: Predict, values: Sequence[np.ndarray]) -> dict[str, Any]:
    """How the tests are answered without a task id; nothing where some text has no prompt to choose by.

    Args:
        job: for the tasks and the frozen model.
        predict: how the slots answer.
        values: what each answers to its own test.
    """
    tasks = job.stream.tasks
    if len(tasks) < 2 or not all(
        (split.inputs["columns"][:, 0] > 0).all() for t in tasks for split in (t.train, t.test)
    ):
        return {}
    rule = _rule(job)
    chosen = [
        np.repeat(np.asarray(route(rule, _features(job, task.test, task.test.options))), task.test.options)
        for task in tasks
    ]
    answers = _answered(tasks, predict, values, chosen)
    scores = [score_split(each, task.test, task.metric).accuracy for each, task in zip(answers, tasks, strict=True)]
    own = [score_split(each, task.test, task.metric).accuracy for each, task in zip(values, tasks, strict=True)]
    hits = [float(np.mean(ids == j)) for j, ids in enumerate(chosen)]
    found = {
        "router_accuracy": float(np.mean(hits)),
        "router_accuracy_per_task": hits,
        ROUTED: float(np.mean(scores)),
        "acc_with_task_id": float(np.mean(own)),
    }
    exact = [
        float(np.mean(exact_questions(each, task.test)))
        for each, task in zip(answers, tasks, strict=True)
        if task.metric == CHOSEN_AMONG
    ]
    return found | ({EXACT_ROUTED: float(np.mean(exact))} if exact else {})


def _answered(
    tasks: Sequence[Task], predict: Predict, values: Sequence[np.ndarray], chosen: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Each test row's answer by the slot that was chosen for it; own answers are at hand."""
    answers = [np.array(each) for each in values]
    for slot in range(len(tasks)):
        astray = [(j, np.flatnonzero(ids == slot)) for j, ids in enumerate(chosen) if j != slot]
        astray = [(j, rows) for j, rows in astray if len(rows)]
        if not astray:
            continue
        names = tasks[0].test.inputs
        inputs = {n: np.concatenate([tasks[j].test.inputs[n][rows] for j, rows in astray]) for n in names}
        told = iter(np.split(predict(slot, inputs), np.cumsum([len(rows) for _, rows in astray])[:-1]))
        for j, rows in astray:
            answers[j][rows] = next(told)
    return answers


def _rule(job: Job) -> Rule:
    """The router of all tasks' training prompts."""
    router = None
    for task in job.stream.tasks:
        features = _features(job, task.train)
        router = add_task(empty_router(features.shape[1]) if router is None else router, task.name, features)
    if router is None:
        raise ValueError("a stream has tasks")
    return routing_rule(router)


def _features(job: Job, split: Split, options: int = 1) -> np.ndarray:
    """(questions, d) what the frozen model makes of each prompt."""
    inputs = {name: array[::options] for name, array in split.inputs.items()}
    places = np.arange(inputs["attention_mask"].shape[1])
    mask = np.where(places <= inputs["columns"][:, :1], inputs["attention_mask"], 0)
    if "hidden" in inputs:
        return np.einsum("nld,nl->nd", inputs["hidden"], (mask / mask.sum(axis=1, keepdims=True)).astype(np.float32))
    prompts = [ids[:count].tolist() for ids, count in zip(inputs["input_ids"], mask.sum(axis=1), strict=True)]
    model: Any = job.backbone.model
    return prompt_features(model, job.backbone.params, prompts, batch_size=job.config.eval_batch_size)


def exact_questions(values: np.ndarray, split: Split) -> np.ndarray:
    """(questions,) whether greedy decoding writes the right answer to the end."""
    values, labels = values[:: split.options], split.labels[:: split.options]
    return np.all((values[..., 1] > 0) | (labels < 0), axis=1)
