"""Full fine-tuning, one task after another: every weight that the inputs reach goes on training, and so forgets.

What lies below the run's `first_layer` is computed once and cached for every method, so it is frozen here too. There is
a head per task, unless the protocol has one for all. Default: a rate of 1e-4 (`--full-learning-rate`),
lower than that of adapters as is usual (Devlin et al. 2019, arXiv 1810.04805, fine-tune at 2e-5 to 5e-5 over epochs);
some streams have their own (`TUNED`).
"""

from dataclasses import dataclass

from experiments.algorithms.job import Job, Outcome
from experiments.algorithms.loop import learn
from experiments.algorithms.plan import Plan
from experiments.algorithms.used_params import patterns, reached
from experiments.config.methods import Method
from experiments.config.numbers import MethodNumbers
from share_jax.parameterizations.separate import SeparateLoRA


@dataclass(frozen=True)
class FullNumbers(MethodNumbers):
    """What only full fine-tuning reads."""

    full_learning_rate: float = 1e-4
    """full_finetune: peak rate of the whole model; the heads have theirs."""

    def __post_init__(self) -> None:
        """Checks the range."""
        self.above_zero("full_learning_rate")


def run(job: Job) -> Outcome:
    """Goes on training the whole model."""
    unused = SeparateLoRA(job.config.rank, job.config.alpha)
    return learn(job, Plan(unused, "adapter", adapts=False, owned=patterns(reached(job))))


TUNED = {
    "split_mnist5": {"full_learning_rate": 1e-5},
    "split_mnist5-class": {"full_learning_rate": 3e-4},
    "split_fashion5": {"full_learning_rate": 1e-5},  # nothing was tried on it
    "digits5": {"full_learning_rate": 1e-5},
    "clinc150-class": {"full_learning_rate": 3e-5},
}
_WHY = "a language model, of which each task would keep a whole copy"
METHODS = (Method("full_finetune", run, (FullNumbers,), "full_learning_rate", TUNED, _WHY),)
