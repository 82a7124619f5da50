"""Full fine-tuning, one task after another: every weight that the inputs reach goes on training, and so forgets.

What lies below the run's `first_layer` is computed once and cached for every method, so it is frozen here too. There is
a head per task, unless the protocol has one for all. Default: a rate of 1e-4 (`--full-learning-rate` in
`experiments/config/baselines.py`), lower than that of adapters as is usual (Devlin et al. 2019, arXiv 1810.04805,
fine-tune at 2e-5 to 5e-5 over epochs); some streams have their own (`CHOSEN` there).
"""

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import Plan
from experiments.algorithms.used_params import patterns, reached
from share_jax.parameterizations.separate import SeparateLoRA


def run(job: Job) -> Outcome:
    """Goes on training the whole model."""
    unused = SeparateLoRA(job.config.rank, job.config.alpha)
    return learn(job, Plan(unused, "adapter", adapts=False, owned=patterns(reached(job))))
