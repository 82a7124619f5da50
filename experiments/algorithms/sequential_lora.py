"""One LoRA that goes on training from task to task: what forgets.

Two honest forms: one head for all tasks, which each task overwrites together with the adapter, and a head per task,
which keeps the heads and forgets through the adapter alone.
Source: Hu et al. 2021, "LoRA" (arXiv 2106.09685), trained on one task after another. Same rank, alpha and kernels.
"""

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import Plan, learn
from experiments.config.methods import Method
from share_jax.parameterizations.separate import SeparateLoRA


def run(job: Job) -> Outcome:
    """One adapter and one head for all tasks."""
    return learn(job, Plan(SeparateLoRA(job.config.rank, job.config.alpha), carry="adapter", heads="one"))


def run_heads(job: Job) -> Outcome:
    """One adapter for all tasks, a head per task."""
    return learn(job, Plan(SeparateLoRA(job.config.rank, job.config.alpha), carry="adapter"))


METHODS = (
    Method("sequential_lora", run),
    Method("sequential_lora_heads", run_heads, not_tokens="a model without heads, where it is sequential_lora"),
)
