"""The train batches of a job's tasks."""

from collections.abc import Mapping

import numpy as np

from experiments.input.order import bucketed
from experiments.input.pipeline import Pipeline, task_pipeline
from experiments.input.sources import ArraySource
from experiments.methods.job import Job
from experiments.methods.objective import labels_of


def pipeline_of(
    job: Job, inputs: Mapping[str, np.ndarray], labels: np.ndarray, *, classes: int, task: int, steps: int
) -> Pipeline:
    """Batches of arrays, with the job's seed, batch size and length buckets."""
    return task_pipeline(
        ArraySource(inputs, labels_of(job.stream, labels)),
        batch_size=job.config.batch_size,
        classes=classes,
        seed=job.seed,
        task=task,
        steps=steps,
        buckets=bucketed(inputs, job.config.length_buckets),
    )


def task_pipeline_of(job: Job, index: int) -> Pipeline:
    """The train batches of one task."""
    task = job.stream.tasks[index]
    split, classes = task.train, len(task.classes)
    return pipeline_of(job, split.inputs, split.labels, classes=classes, task=index, steps=job.config.steps)


def task_pipelines(job: Job) -> list[Pipeline]:
    """Those of all tasks."""
    return [task_pipeline_of(job, index) for index in range(len(job.stream.tasks))]
