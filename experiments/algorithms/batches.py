"""The train batches of a job's tasks."""

from collections.abc import Mapping

import numpy as np

from experiments.algorithms.job import Job
from experiments.algorithms.objective import one_type
from experiments.data.batch_order import bucketed
from experiments.data.pipeline import Pipeline, task_pipeline
from experiments.data.sources import ArraySource


def pipeline_of(
    job: Job, inputs: Mapping[str, np.ndarray], labels: np.ndarray, *, classes: int, task: int, steps: int
) -> Pipeline:
    """Batches of arrays, with the job's seed, batch size and length buckets."""
    return task_pipeline(
        ArraySource(inputs, one_type(job.stream, labels)),
        batch_size=job.config.batch_size,
        classes=classes,
        seed=job.seed,
        task=task,
        steps=steps,
        buckets=bucketed(inputs, job.config.length_buckets),
    )


def classes_of(job: Job, index: int) -> int:
    """How many outputs of its head a task has, from the first on; the rest are masked while it is learnt."""
    return len(job.stream.tasks[index].classes)


def labels_of(job: Job, index: int) -> np.ndarray:
    """The labels of a task's training examples, as numbers of its head's outputs."""
    return job.stream.tasks[index].train.labels


def task_pipeline_of(job: Job, index: int) -> Pipeline:
    """The train batches of one task."""
    inputs, classes = job.stream.tasks[index].train.inputs, classes_of(job, index)
    return pipeline_of(job, inputs, labels_of(job, index), classes=classes, task=index, steps=job.config.steps)


def task_pipelines(job: Job) -> list[Pipeline]:
    """Those of all tasks."""
    return [task_pipeline_of(job, index) for index in range(len(job.stream.tasks))]
