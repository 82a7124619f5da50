"""How a task of a language model is learnt: plain numbers, for which no JAX is loaded."""

from dataclasses import dataclass

from share_jax.errors import InputError, message
from share_jax.number_checks import positive_number, whole_number
from share_jax.train.batches import steps_per_epoch
from share_jax.train.start_from import StartFrom, check_start

LEAST_STEPS = 60
"""Updates that a task has at least when the number of epochs is not given."""


@dataclass(frozen=True)
class Training:
    """How a task is learnt: many small updates.

    The default preset of the experiment `queries10` has such batches, too; otherwise it takes 200 updates of each task
    at a rate of 7e-3, from a copy of the last task, which suits tasks as alike as its own.

    Attributes:
        epochs: how often each example is seen; two, or as many as give 60 updates, when None.
        batch_size: examples in an update.
        learning_rate: peak of AdamW's rate, after a tenth of warm-up, with cosine decay.
        start_from: "zero", or "last" for a copy of the bank's last task, which helps where tasks are alike.
        seed: of the order of the examples and of what is drawn.
        save_every: updates between two saves of the training in flight.

    Raises:
        InputError: a number is out of range.
    """

    epochs: int | None = None
    batch_size: int = 4
    learning_rate: float = 6e-3
    start_from: StartFrom = "zero"
    seed: int = 0
    save_every: int = 20

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_start(self.start_from)
        for name, least in {"epochs": 1, "batch_size": 1, "save_every": 1, "seed": 0}.items():
            if name != "epochs" or self.epochs is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.seed >= 2**63:
            raise InputError(message("seed", got=self.seed, expected="0 to 2^63 - 1", fix="pass 0"))
        object.__setattr__(self, "learning_rate", positive_number("learning_rate", self.learning_rate))

    def epochs_of(self, examples: int) -> int:
        """How often each of so many examples is seen.

        >>> Training().epochs_of(480), Training().epochs_of(32), Training(epochs=1).epochs_of(32)
        (2, 8, 1)
        """
        per_epoch = steps_per_epoch(examples, self.batch_size)
        return max(2, -(-LEAST_STEPS // per_epoch)) if self.epochs is None else self.epochs

    def steps_of(self, examples: int) -> int:
        """Updates for so many examples.

        >>> Training().steps_of(480)
        240
        """
        return self.epochs_of(examples) * steps_per_epoch(examples, self.batch_size)
