"""Share, form 1: A is learnt with the first task and frozen; each task has its own B and head.

Source: the shared-A form of "Shared LoRA Subspaces for almost Strict Continual Learning", Kaushik et al. 2026
(arXiv 2602.06043). Defaults: rank 4, alpha 8.
"""

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import Plan, learn
from experiments.config.methods import Method
from share_jax.parameterizations.shared_a import SharedA


def run(job: Job) -> Outcome:
    """Learns the stream with one shared A and one B per task."""
    return learn(job, Plan(SharedA(job.config.rank, job.config.alpha)))


METHODS = (Method("shared_a", run),)
