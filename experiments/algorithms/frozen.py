"""A language model that learns nothing: asked plainly, and with training examples in its prompt.

No method of continual learning but what any has to beat. Source of the second: Brown et al. 2020, "Language Models are
Few-Shot Learners" (arXiv 2005.14165).
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.objective import of_tokens
from experiments.algorithms.scoring import score_split
from experiments.algorithms.token_scoring import token_predictions
from experiments.config.methods import Method
from experiments.streams.base import Task
from share_jax.bank.accounting import count
from share_jax.errors import InputError, message
from share_jax.typing import Tree


def run(job: Job) -> Outcome:
    """Answers every test example without having learnt anything."""
    return _asked(job)


def run_few_shot(job: Job) -> Outcome:
    """The same with a few training examples of the task in front of each question."""
    tasks = [task for task in job.stream.tasks if task.few_shot is not None]
    if len(tasks) < len(job.stream.tasks):
        fix = "leave it out of --methods"
        raise InputError(message(f"stream of {job.name}", got="no prompts with examples", expected="some", fix=fix))
    shown = tuple(replace(task, train=task.few_shot, test=task.few_shot, further={}) for task in tasks)
    config = replace(job.config, length_buckets=(), eval_batch_size=min(8, job.config.eval_batch_size))
    return _asked(replace(job, stream=replace(job.stream, tasks=shown), config=config))


def _asked(job: Job) -> Outcome:
    if not of_tokens(job.stream):
        fix = "leave it out of --methods"
        raise InputError(message(f"stream of {job.name}", got="classes", expected="one of tokens", fix=fix))
    answer: Any = jax.jit(partial(_scores, job.backbone.model))
    base = {"params": job.backbone.params}
    asked = [_accuracy(job, answer, base, task) for task in job.stream.tasks]
    counts = ("shared", "per_task", "heads_per_task", "tasks", "total_tasks")
    size = count(job.backbone.params)
    return Outcome(
        accuracy=np.where(np.tri(len(asked), dtype=bool), asked, np.nan),
        untrained=np.array(asked),
        seconds={},
        params={"base": size, **dict.fromkeys(counts, 0), "separate_lora_total": None, "ratio_to_separate": None},
        bytes={},
        extra={},
    )


def _scores(model: Any, base: Tree, shared: Tree, slot: Tree, inputs: dict[str, Any]) -> Any:
    return model.apply(base, **inputs)


def _accuracy(job: Job, answer: Any, base: Tree, task: Task) -> float:
    values = token_predictions(job, answer, base, {}, {}, task.test.inputs)
    return score_split(values, task.test, task.metric).accuracy


METHODS = (Method("frozen", run), Method("frozen_few_shot", run_few_shot))
