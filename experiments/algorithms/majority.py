"""The most frequent class of the training labels, or their mean: what knows nothing of the inputs."""

import numpy as np

from experiments.algorithms.job import Job, Outcome
from experiments.config.methods import Method
from experiments.streams.base import Stream, Task
from experiments.streams.protocols import TASK, offsets, outputs
from experiments.task_metrics import measure


def run(job: Job) -> Outcome:
    """Answers every test example with the most frequent class, or the mean, of the training examples.

    They are those of its task if the id is given, else of all tasks so far.
    """
    tasks = len(job.stream.tasks)
    counts = ("shared", "per_task", "heads_per_task", "tasks", "total_tasks")
    return Outcome(
        accuracy=accuracies(job.stream),
        untrained=np.full(tasks, np.nan),
        seconds={},
        params={"base": 0, **dict.fromkeys(counts, 0), "separate_lora_total": None, "ratio_to_separate": None},
        bytes={},
        extra={},
    )


def accuracies(stream: Stream) -> np.ndarray:
    """(T, T) of each task's metric, row i after task i; nan for tasks that are not learnt by then."""
    if stream.protocol == TASK:
        rates = [_rate(task) for task in stream.tasks]
        return np.where(np.tri(len(rates), dtype=bool), rates, np.nan)
    starts, width = offsets(stream), outputs(stream)[-1]
    train = [
        np.bincount(t.train.labels + start, minlength=width) for t, start in zip(stream.tasks, starts, strict=True)
    ]
    matrix = np.full((len(starts), len(starts)), np.nan)
    for i in range(len(starts)):
        answer = np.sum(train[: i + 1], axis=0).argmax()
        for j in range(i + 1):
            matrix[i, j] = np.mean(stream.tasks[j].test.labels + starts[j] == answer)
    return matrix


def _rate(task: Task) -> float:
    labels = task.train.labels
    answer = labels.mean(keepdims=True) if task.kind == "regression" else np.bincount(labels, minlength=task.outputs)
    return measure(task.metric, np.repeat(answer[None], len(task.test), axis=0), task.test.labels)


METHODS = (Method("majority", run, not_tokens="tasks without classes"),)
