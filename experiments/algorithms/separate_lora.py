"""One LoRA and one head per task, nothing shared: the upper bound of what sharing can keep.

Source: Hu et al. 2021, "LoRA" (arXiv 2106.09685). Same rank, alpha and kernels as `shared_a`.
"""

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import Plan, learn
from experiments.config.methods import Method
from share_jax.parameterizations.separate import SeparateLoRA


def run(job: Job) -> Outcome:
    """Learns the stream with a LoRA per task."""
    return learn(job, Plan(SeparateLoRA(job.config.rank, job.config.alpha)))


METHODS = (Method("separate_lora", run),)
