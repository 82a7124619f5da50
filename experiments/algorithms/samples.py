"""What a language model writes after the last task: one question of every task, all of them in one mixed batch."""

from collections.abc import Sequence
from typing import Any

from experiments.algorithms.job import Job
from share_jax.bank.bank import TaskBank
from share_jax.linen.adapted_model import Adapted
from share_jax.models.generation import Completion, generate

Tokens = Sequence[int]

LONGEST = 96
"""Tokens that an answer has at most."""


def written(
    job: Job, adapted: Adapted, bank: TaskBank, names: Sequence[str], prompts: Sequence[Tokens], ends: Tokens
) -> list[Completion]:
    """What the tasks' slots write behind prompts, greedily; of a prompt that is too long its end is read.

    Args:
        job: for the base model.
        adapted: the model.
        bank: with every task.
        names: the task of each prompt.
        prompts: token ids.
        ends: ids that end an answer.
    """
    places = adapted.model.config.max_position_embeddings
    most = min(LONGEST, places // 2)
    read = [prompt[-(places - most) :] for prompt in prompts]
    return generate(adapted, bank, names, read, params=job.backbone.params, stop=ends, max_tokens=most)


def written_samples(job: Job, adapted: Adapted, bank: TaskBank) -> dict[str, Any]:
    """Each task's sample with what its slot writes, greedily; nothing where the stream has no samples.

    Args:
        job: for the stream and the base model.
        adapted: the model.
        bank: with every task.

    Returns:
        `samples`: of each task `task`, `prompt`, `written` and `wanted`, as JSON.
    """
    samples = [(task.name, task.sample) for task in job.stream.tasks if task.sample is not None]
    if not samples:
        return {}
    names = [name for name, _ in samples]
    prompts = [sample.tokens for _, sample in samples]
    found = written(job, adapted, bank, names, prompts, samples[0][1].ends)
    told = [
        {"task": name, "prompt": sample.prompt, "written": sample.decode(each.tokens), "wanted": sample.wanted}
        for (name, sample), each in zip(samples, found, strict=True)
    ]
    return {"samples": told}
