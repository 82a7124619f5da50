"""Whether what a language model writes does what was asked, however it is written: its answers are run."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.algorithms.job import Job
from experiments.algorithms.samples import written
from share_jax.bank.bank import TaskBank
from share_jax.linen.adapted_model import Adapted

EXECUTED = "executed"
"""Key of a run's `extra`."""


def executed_answers(
    job: Job, adapted: Adapted, bank: TaskBank, right: Mapping[str, Mapping[str, Sequence[bool]]]
) -> dict[str, Any]:
    """By test set and task, how many of the questions that are run give the right result, and of how many.

    An answer that is known to be exactly right is not written again: the right answer itself is run.

    Args:
        job: for the stream and the base model.
        adapted: the model.
        bank: with every task.
        right: of each task and test set, which of the questions are exactly right.
    """
    asked = [
        (task.name, name, place, checked)
        for task in job.stream.tasks
        for name, checked in task.checked.items()
        for place in range(len(checked.prompts))
    ]
    answers = {key[:3]: key[3].wanted[key[2]] for key in asked}
    wrong = [key for key in asked if not _known(right, *key[:3])]
    if wrong:
        prompts, names, ends = [key[3].prompts[key[2]] for key in wrong], [key[0] for key in wrong], wrong[0][3].ends
        made = written(job, adapted, bank, names, prompts, ends)
        answers |= {key[:3]: key[3].decode(each.tokens) for key, each in zip(wrong, made, strict=True)}
        job.preemption.point()
    found: dict[str, Any] = {}
    for name, test, place, checked in asked:
        own = found.setdefault(test, {}).setdefault(name, {"right": 0, "asked": 0})
        own["asked"] += 1
        own["right"] += bool(checked.checks[place](answers[name, test, place]))
    return {EXECUTED: found} if found else {}


def _known(right: Mapping[str, Mapping[str, Sequence[bool]]], task: str, test: str, place: int) -> bool:
    """Whether a question is known to be answered exactly right."""
    own = right.get(task, {}).get(test, ())
    return place < len(own) and own[place]
