"""What every learner is: a frozen model, how its slots are trained, and one call that learns a task."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

import jax
import optax

from share_jax.bank.bank import TaskBank
from share_jax.errors import InputError, message
from share_jax.ops.remat_policy import Remat
from share_jax.runtime.preemption import Preemption
from share_jax.sharding.layout import Layout
from share_jax.train.loop import Hooks, Inflight, NullProgress, Progress
from share_jax.train.losses import classification
from share_jax.train.model_call import ModelCall, Output
from share_jax.train.update import Loss
from share_jax.typing import PRNGKey, Tree

Bank = TypeVar("Bank", bound=TaskBank)


@dataclass(frozen=True)
class TaskLearner(ABC, Generic[Bank]):
    """The fields and the call that `Learner` and `ShareLearner` have in common; see `Learner` for what they mean."""

    model: Any
    base: Tree
    transform: optax.GradientTransformation
    loss: Loss = classification
    head_transform: optax.GradientTransformation | None = None
    layout: Layout | None = field(default=None, kw_only=True)
    accumulate: int = field(default=1, kw_only=True)
    remat: Remat | None = field(default=None, kw_only=True)
    train_kwargs: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    predict_kwargs: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    rngs: Sequence[str] = field(default=("dropout",), kw_only=True)
    output: Output | None = field(default=None, kw_only=True)
    unbatched: Sequence[str] = field(default=(), kw_only=True)
    twin: Any = field(default=None, kw_only=True)

    @property
    def options(self) -> Any:
        """What every learner of the same model has, by name."""
        return {
            each.name: getattr(self, each.name) for each in fields(TaskLearner) if each.name not in ("model", "base")
        }

    @property
    def training(self) -> Any:
        """How slots are trained, as `make_phase` takes it."""
        names = ("transform", "loss", "head_transform", "layout", "accumulate", "remat")
        return {name: getattr(self, name) for name in names} | {"call": self.call}

    @property
    def call(self) -> ModelCall:
        """What the model is called with beside a batch's inputs.

        Raises:
            InputError: if one text stands for a sequence of them, or a batch with inputs that have no batch axis is to
                be split.
        """
        for name in ("rngs", "unbatched"):
            if isinstance(getattr(self, name), str):
                got = repr(getattr(self, name))
                raise InputError(message(name, got=got, expected="a sequence of names", fix=f"pass [{got}]"))
        if self.unbatched and (self.layout is not None or self.accumulate > 1):
            got = "a layout" if self.layout is not None else f"accumulate={self.accumulate}"
            fix = "leave it out, or give every input a batch axis"
            expected = "batches that are not split, as some inputs have no batch axis"
            raise InputError(message("unbatched", got=got, expected=expected, fix=fix))
        named = dict(self.train_kwargs), dict(self.predict_kwargs)
        return ModelCall(*named, tuple(self.rngs), self.output, tuple(self.unbatched))

    def learn(
        self,
        bank: Bank,
        name: str,
        batches: Iterable[Any],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        inflight: Inflight | None = None,
        save_every: int = 100,
        preemption: Preemption | None = None,
    ) -> Bank:
        """Learns one more task; a `ShareLearner` then merges it.

        Every other task's slot of a `Learner` keeps its bits. What old tasks lose by a merge is bounded:
        `ShareBank.report`.

        Args:
            bank: what has been learnt.
            name: the new task's name.
            batches: its batches, {"inputs": ..., "labels": ..., ...}, all of one size. Each length of texts among them
                is compiled once, in a `Learner`'s first task for the later ones too. An iterable, or an object whose
                `open(position)` goes on from a position at once (`share_jax.train.batches.opener`).
            seed: of the dropout, and of fresh leaves where a phase draws them, with the task's number.
            progress: is told of every step.
            inflight: keeps the training in flight, as `share_jax.InflightFolder` does on disk: called again with the
                same arguments after a kill, `learn` goes on from the last save and ends with the same bits. Batches of
                a plain iterable that were seen before are passed over.
            save_every: steps between two saves of it.
            preemption: tells when to stop, with what is in flight saved. Call its `released` once the bank is saved.

        Returns:
            The bank with the task.

        Raises:
            TaskError: if the name is taken, empty or no text.
            InputError: if there are no batches, or fewer than two examples of weight above 0 in all; if a batch is not
                one, is not like the first, does not fit the model or the loss, or has a label that is no class, more
                classes than outputs or a weight below 0; if the stack is full and the model cannot grow it; if a merge
                would need more columns than the model has.
            LimitError: if `max_error` of a `ShareLearner` would be passed and may not be, or no k is enough; the bank
                is as it was.
            DivergedError: if a loss, or what was trained, is not finite; the bank is as it was.
            Preempted: if the process was asked to stop.
        """
        hooks = Hooks(progress or NullProgress(), inflight, save_every, preemption or Preemption())
        return self._learnt(bank, name, batches, jax.random.key(seed), hooks)

    @abstractmethod
    def _learnt(self, bank: Bank, name: str, batches: Any, key: PRNGKey, hooks: Hooks) -> Bank:
        """The bank with one more task.

        Args:
            bank: what has been learnt.
            name: the new task's name.
            batches: its batches.
            key: the task's number is folded in.
            hooks: what is done beside the steps; without checks.
        """
