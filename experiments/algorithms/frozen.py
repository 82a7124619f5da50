"""A language model that learns nothing: asked plainly, and with training examples in its prompt.

No method of continual learning but what any has to beat. A completion is right where its text is: the token that ends
it is what training teaches, and a model without training writes a line break or goes on. Source of the second: Brown
et al. 2020, "Language Models are Few-Shot Learners" (arXiv 2005.14165).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.scoring import score_split
from experiments.algorithms.token_scoring import token_predictions
from experiments.config.methods import Method
from experiments.streams.base import Split, Task
from share_jax.bank.accounting import count
from share_jax.typing import Tree


def run(job: Job) -> Outcome:
    """Answers every test example without having learnt anything."""
    return _asked(job, [task.test for task in job.stream.tasks])


def run_few_shot(job: Job) -> Outcome:
    """The same with a few training examples of the task in front of each question."""
    shown = [task.few_shot for task in job.stream.tasks if task.few_shot is not None]  # `check_methods`: all have some
    config = replace(job.config, length_buckets=(), eval_batch_size=min(8, job.config.eval_batch_size))
    return _asked(replace(job, config=config), shown)


def _asked(job: Job, tests: Sequence[Split]) -> Outcome:
    answer: Any = jax.jit(partial(_scores, job.backbone.model))
    base = {"params": job.backbone.params}
    asked = [_accuracy(job, answer, base, *each) for each in zip(job.stream.tasks, tests, strict=True)]
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


def _accuracy(job: Job, answer: Any, base: Tree, task: Task, asked: Split) -> float:
    test = without_ends(asked) if task.metric == "exact_match" else asked
    values = token_predictions(job, answer, base, {}, {}, test.inputs)
    return score_split(values, test, task.metric).accuracy


def without_ends(split: Split) -> Split:
    """A split of tokens whose examples want every token but their last, the one that ends them; never none.

    >>> targets = np.array([[5, 6, 2], [7, 2, -1], [2, -1, -1]])
    >>> without_ends(Split({"targets": targets}, targets)).labels.tolist()
    [[5, 6, -1], [7, -1, -1], [2, -1, -1]]
    """
    wanted = split.labels >= 0
    count = wanted.sum(axis=1, keepdims=True)
    last = (np.arange(wanted.shape[1]) == count - 1) & (count > 1)
    targets = np.where(last, -1, split.labels)
    return replace(split, inputs={**split.inputs, "targets": targets}, labels=targets)


METHODS = (Method("frozen", run), Method("frozen_few_shot", run_few_shot))
