"""The frozen base model with a linear head per task: what any adapter has to beat."""

from experiments.methods.job import Job, Outcome
from experiments.methods.sequence import Plan, learn
from share_jax.core.separate import SeparateLoRA


def run(job: Job) -> Outcome:
    """Trains nothing but one linear head per task, with the same batches and updates as the adapters get."""
    return learn(job, Plan(SeparateLoRA(job.config.rank, job.config.alpha), adapts=False))
