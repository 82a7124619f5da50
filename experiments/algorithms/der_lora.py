"""DER++: replay that also keeps the logits with which each example was stored, and stays near them.

loss = CE(task's batch) + alpha * |z - h(x)|^2 / classes + beta * CE(y, h(x)), the last two over examples (x, y, z)
of the buffer; where y is a number, CE is the squared error and h(x) one output. The paper draws twice, once for each
term; here one draw serves both, an estimate of the same sum. It fills the buffer along the training; here z are the
logits of the model as the example's task left it.

Source: Buzzega et al. 2020, "Dark Experience for General Continual Learning" (arXiv 2004.07211), equation 6.
Defaults: `--der-alpha` and `--der-beta`, 0.5 each, within the paper's
ranges; a buffer of 200 examples (`--buffer-size`) and `--replay-batch` as for `er_lora`.
"""

from dataclasses import dataclass

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import Plan
from experiments.algorithms.replay import Replay, ReplayNumbers
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers
from share_jax.parameterizations.separate import SeparateLoRA


@dataclass(frozen=True)
class DerNumbers(MethodNumbers):
    """What only DER++ reads."""

    der_alpha: float = 0.5
    """der_lora: weight of the distance to the stored logits."""
    der_beta: float = 0.5
    """der_lora: weight of the cross entropy of replayed examples."""

    def __post_init__(self) -> None:
        """Checks the ranges."""
        self.at_least(0, "der_alpha", "der_beta")


def run(job: Job) -> Outcome:
    """Goes on training one LoRA with replay of examples and logits."""
    config, buffer, own = job.config, job.config.of(ReplayNumbers), job.config.of(DerNumbers)
    replay = Replay(buffer.buffer_size, buffer.replay_batch or config.batch_size, own.der_beta, own.der_alpha)
    return learn(job, Plan(SeparateLoRA(config.rank, config.alpha), "adapter", "all", extension=replay))


METHODS = (
    Method("der_lora", run, (ReplayNumbers, DerNumbers), not_tokens="logits of a vocabulary, too many to store"),
)
