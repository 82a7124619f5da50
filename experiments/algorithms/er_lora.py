"""ER: one LoRA and all heads go on training, on the task's examples and on as many drawn from a buffer of earlier ones.

Source: Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning" (arXiv 1902.10486). Defaults:
a buffer of 200 examples for all tasks together (`--buffer-size`), and as many of
them in each update as the task's own batch has (`--replay-batch`); both weigh the same. The paper's own values are not
known here.
"""

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.objective import of_tokens
from experiments.algorithms.plan import Plan
from experiments.algorithms.replay import Replay, ReplayNumbers, TokenReplay
from experiments.config.methods import Method
from share_jax.parameterizations.separate import SeparateLoRA


def run(job: Job) -> Outcome:
    """Goes on training one LoRA with replay."""
    config, own = job.config, job.config.of(ReplayNumbers)
    tokens, count = of_tokens(job.stream), own.replay_batch or config.batch_size
    replay = (TokenReplay if tokens else Replay)(own.buffer_size, count)
    heads = "own" if tokens else "all"
    return learn(job, Plan(SeparateLoRA(config.rank, config.alpha), "adapter", heads, extension=replay))


METHODS = (Method("er_lora", run, (ReplayNumbers,)),)
