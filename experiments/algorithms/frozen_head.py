"""The frozen base model with a linear head per task: what any adapter has to beat.

No method of continual learning but a reference point, the linear probe: Kumar et al. 2022 (LP-FT), after whom is the
run's `--head-first`, compare fine-tuning with it. The rate is `--head-learning-rate` in
`experiments/config/run_config.py`.
"""

from dataclasses import replace

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import Plan, learn
from experiments.backbones.backbone import POOLED
from experiments.config.methods import Method
from experiments.streams.base import Split
from share_jax.parameterizations.separate import SeparateLoRA


def run(job: Job) -> Outcome:
    """Trains nothing but one linear head per task, with the same batches and updates as the adapters get."""
    return learn(on_features(job), Plan(SeparateLoRA(job.config.rank, job.config.alpha), adapts=False))


def on_features(job: Job) -> Job:
    """The job with each example's pooled vector as its input, since below the head nothing is trained.

    A text's mask stays: the order of the batches depends on the lengths.
    """

    def split(whole: Split) -> Split:
        mask = {name: array for name, array in whole.inputs.items() if name == "attention_mask"}
        return Split({**mask, POOLED: job.features.of(job.backbone, whole, job.preemption.point)}, whole.labels)

    tasks = tuple(replace(task, train=split(task.train), test=split(task.test)) for task in job.stream.tasks)
    return replace(job, stream=replace(job.stream, tasks=tasks))


METHODS = (Method("frozen_head", run, not_tokens="a model without a head for each task"),)
