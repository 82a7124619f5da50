"""The most frequent class of the training labels: what knows nothing of the inputs, and no task but by its id."""

import numpy as np

from experiments.methods.job import Job, Outcome
from experiments.streams.base import Stream
from experiments.streams.protocols import TASK, offsets, outputs


def run(job: Job) -> Outcome:
    """Answers every test example with the most frequent class: of its task if the id is given, else of all so far."""
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
    """(T, T) fractions, row i after task i; nan for tasks that are not learnt by then."""
    starts, width = offsets(stream), outputs(stream)[-1]
    train = [
        np.bincount(t.train.labels + start, minlength=width) for t, start in zip(stream.tasks, starts, strict=True)
    ]
    matrix = np.full((len(starts), len(starts)), np.nan)
    for i in range(len(starts)):
        known = np.sum(train[: i + 1], axis=0)
        for j in range(i + 1):
            answer = (train[j] if stream.protocol == TASK else known).argmax()
            matrix[i, j] = np.mean(stream.tasks[j].test.labels + starts[j] == answer)
    return matrix
