"""The most frequent class of each task's training labels, or their mean: what knows nothing of the inputs."""

import numpy as np

from experiments.methods.job import Job, Outcome
from experiments.metrics import measure
from experiments.streams.base import Task


def _rate(task: Task) -> float:
    labels = task.train.labels
    answer = labels.mean(keepdims=True) if task.kind == "regression" else np.bincount(labels, minlength=task.outputs)
    return measure(task.metric, np.repeat(answer[None], len(task.test), axis=0), task.test.labels)


def run(job: Job) -> Outcome:
    """Answers every test example of a task with the most frequent class, or the mean, of its training examples."""
    rates = [_rate(task) for task in job.stream.tasks]
    tasks = len(rates)
    seen = np.tri(tasks, dtype=bool)
    counts = ("shared", "per_task", "heads_per_task", "tasks", "total_tasks")
    return Outcome(
        accuracy=np.where(seen, np.array(rates)[None], np.nan),
        untrained=np.full(tasks, np.nan),
        seconds={},
        params={"base": 0, **dict.fromkeys(counts, 0), "separate_lora_total": None, "ratio_to_separate": None},
        bytes={},
        extra={},
    )
