"""DER++: replay that also keeps the logits with which each example was stored, and stays near them.

loss = CE(task's batch) + alpha * |z - h(x)|^2 / classes + beta * CE(y, h(x)), the last two over examples (x, y, z)
of the buffer; where y is a number, CE is the squared error and h(x) one output. The paper draws twice, once for each
term; here one draw serves both, an estimate of the same sum. It fills the buffer along the training; here z are the
logits of the model as the example's task left it.

Source: Buzzega et al. 2020, "Dark Experience for General Continual Learning" (arXiv 2004.07211), equation 6.
Defaults stand in `experiments/config/baselines.py`: `--der-alpha` and `--der-beta`, 0.5 each, within the paper's
ranges; a buffer of 200 examples (`--buffer-size`) and `--replay-batch` as for `er_lora`.
"""

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import Plan
from experiments.algorithms.replay import Replay
from share_jax.parameterizations.separate import SeparateLoRA


def run(job: Job) -> Outcome:
    """Goes on training one LoRA with replay of examples and logits."""
    config, own = job.config, job.config.baselines
    replay = Replay(own.buffer_size, own.replay_batch or config.batch_size, own.der_beta, own.der_alpha)
    return learn(job, Plan(SeparateLoRA(config.rank, config.alpha), "adapter", "all", extension=replay))
