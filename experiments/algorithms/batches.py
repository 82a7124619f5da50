"""The train batches of a job's tasks."""

from collections.abc import Mapping

import numpy as np

from experiments.algorithms.job import Job
from experiments.algorithms.objective import one_type
from experiments.data.batch_order import bucketed, token_counts
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
        buckets=bucketed(inputs, job.config.length_buckets, learnt=learnt_widths(job)),
    )


def learnt_widths(job: Job) -> tuple[int, ...] | None:
    """Of each length of texts the most tokens that a task learns of one so long; None where no tokens are learnt.

    They are of all tasks, so that what is compiled for a length serves every one.
    """
    tasks = job.stream.tasks
    if tasks[0].kind != "tokens" or not job.config.length_buckets:
        return None
    masks = [split.inputs["attention_mask"] for task in tasks for split in (task.train, task.test)]
    tokens = np.concatenate([token_counts(mask) for mask in masks])
    wanted = np.concatenate([(split.labels >= 0).sum(axis=1) for task in tasks for split in (task.train, task.test)])
    longest = masks[0].shape[1]
    lengths = (*(n for n in job.config.length_buckets if n < longest), longest)
    widest = tasks[0].train.labels.shape[1]
    most = (int(wanted[tokens <= length].max(initial=1)) for length in lengths)
    return tuple(min(widest, -(-each // 8) * 8) for each in most)


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
