"""The numbers of the published baselines that no other method has; `Config` carries them as flags of their own.

Those without a value in a paper were chosen on training examples that were held out of training, stream by stream
(`CHOSEN`); `experiments/CHOICES.md` has what was tried.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

RATES = {
    "full_finetune": "full_learning_rate",
    "houlsby_adapters": "adapter_learning_rate",
    "houlsby_adapters_sequential": "adapter_learning_rate",
    "l2p": "prompt_learning_rate",
}
"""The field of `Baselines` with the peak rate of a method that does not have the run's."""


@dataclass(frozen=True)
class Baselines:
    """What only some methods read."""

    full_learning_rate: float = 1e-4
    """full_finetune: peak rate of the whole model; the heads have theirs."""
    adapter_size: int = 16
    """houlsby_adapters: width of each bottleneck."""
    adapter_learning_rate: float = 2e-3
    """houlsby_adapters: peak rate of adapters and layer norms."""
    ewc_strength: float = 1000.0
    """ewc_lora: weight of the penalty, lambda."""
    ewc_examples: int = 256
    """ewc_lora: training examples per task from which the Fisher information is estimated; all if there are fewer."""
    lwf_strength: float = 1.0
    """lwf_lora: weight of the distillation, lambda_o."""
    lwf_temperature: float = 2.0
    """lwf_lora: temperature of both distributions."""
    buffer_size: int = 200
    """er_lora, der_lora: examples that the replay buffer holds for all tasks together."""
    replay_batch: int | None = None
    """er_lora, der_lora: examples from the buffer in each update, on top of the task's own; as many if None."""
    der_alpha: float = 0.5
    """der_lora: weight of the distance to the stored logits."""
    der_beta: float = 0.5
    """der_lora: weight of the cross entropy of replayed examples."""
    olora_strength: float = 10.0
    """o_lora: weight of the orthogonality penalty, lambda_1."""
    inflora_energy: float = 0.95
    """inflora: share of a task's input energy that the kept space has to hold; rises to 1 over the stream."""
    prompt_pool: int = 10
    """l2p: prompts in the pool."""
    prompt_length: int = 5
    """l2p: tokens per prompt."""
    prompt_top: int = 5
    """l2p: prompts that are put before each input."""
    prompt_pull: float = 0.5
    """l2p: weight of the term that pulls chosen keys towards the query."""
    prompt_learning_rate: float = 0.01
    """l2p: peak rate of prompts and keys."""

    def problem(self) -> tuple[str, object, str] | None:
        """The first field out of range: its flag, its value, and what it should be; None if all are good."""
        for name in ("adapter_size", "ewc_examples", "buffer_size", "prompt_pool", "prompt_length", "prompt_top"):
            if (value := getattr(self, name)) < 1:
                return flag(name), value, "at least 1"
        if self.replay_batch is not None and self.replay_batch < 1:
            return flag("replay_batch"), self.replay_batch, "at least 1"
        if self.prompt_top > self.prompt_pool:
            return flag("prompt_top"), self.prompt_top, f"at most {self.prompt_pool}, the prompts in the pool"
        for name in ("ewc_strength", "lwf_strength", "der_alpha", "der_beta", "olora_strength", "prompt_pull"):
            if not getattr(self, name) >= 0:
                return flag(name), getattr(self, name), "at least 0"
        for name in ("lwf_temperature", "full_learning_rate", "adapter_learning_rate", "prompt_learning_rate"):
            if not getattr(self, name) > 0:
                return flag(name), getattr(self, name), "above 0"
        if not 0 < self.inflora_energy <= 1:
            return flag("inflora_energy"), self.inflora_energy, "above 0 and at most 1"
        return None


_MNIST = Baselines(
    full_learning_rate=1e-5, ewc_strength=1e5, lwf_strength=3.0, olora_strength=1e3, prompt_learning_rate=3e-4
)
CHOSEN: Mapping[str, Baselines] = MappingProxyType(
    {
        "split_mnist5": _MNIST,
        "split_mnist5-class": replace(_MNIST, full_learning_rate=3e-4, olora_strength=100.0),
        "split_fashion5": _MNIST,  # nothing was tried on it
        "digits5": replace(_MNIST, ewc_strength=1e4),
        "clinc150-class": Baselines(
            full_learning_rate=3e-5, ewc_strength=1e5, lwf_strength=10.0, olora_strength=1e3, prompt_learning_rate=0.01
        ),
        "rotated_mnist10": Baselines(ewc_strength=1.0, lwf_strength=10.0, prompt_learning_rate=0.03),
    }
)
"""By stream, or by stream and protocol, what its presets have instead of the defaults: the bold numbers of
`experiments/CHOICES.md`.

A rate or strength at the end of what was tried leaves the adapter nearly as it was after the first task, where a method
forgets little by learning little."""


def flag(name: str) -> str:
    """The flag of a field.

    >>> flag("buffer_size")
    '--buffer-size'
    """
    return "--" + name.replace("_", "-")
