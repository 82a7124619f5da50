"""The one loop over the steps of a task: batches are checked, losses watched, progress told, and the state saved.

    end = run_steps(step, state, base, "weather", opener(batches), hooks=Hooks(progress=progress))

`Learner`, `ShareLearner` and every experiment train through it. What may be done beside a step is a hook: nothing is
by default. What saves stands above this room, so it comes in as an object, as `share_jax.checkpoint.inflight_folder`
has it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from share_jax.errors import DivergedError, InputError, message
from share_jax.runtime.preemption import Preemption
from share_jax.train.batches import BatchStream, OpenBatches, Position
from share_jax.train.divergence import BadLoss, LossWatch, lower_rate, not_finite
from share_jax.train.placed_step import PlacedStep
from share_jax.train.update import StepState
from share_jax.typing import Array, Tree


class Progress(Protocol):
    """Is told how far a task is."""

    def skip(self, steps: int, /) -> None:
        """Steps that an earlier life of this training did."""
        ...

    def update(self, steps: int, loss: Array, /) -> None:
        """Steps that were done now; the loss may still be under way on the device."""
        ...

    def saving(self) -> None:
        """The training in flight is saved next."""
        ...


class Inflight(Protocol):
    """Keeps the training in flight, so that a killed one goes on with the same bits."""

    def load(self, task: str, state: StepState) -> tuple[StepState, Position]:
        """What was saved of this task, and the position of its batches; `state` and 0 if nothing was.

        Args:
            task: its name.
            state: the state at the task's start, for structure, shapes and placement.
        """
        ...

    def save(self, task: str, state: StepState, position: Position) -> None:
        """Saves the state, and where its batches go on."""
        ...


class Checks(Protocol):
    """Looks at the batches of one task."""

    def before(self, batch: Any, number: int, state: StepState) -> Any:
        """Refuses batch `number`, counted from 1; what is returned stands in `BadLoss.note`."""
        ...

    def explain(self, bad: BadLoss) -> None:
        """Raises if the batch is the reason for a bad loss."""
        ...

    def after(self, steps: int) -> None:
        """Refuses the batches of a task that has done so many steps in all."""
        ...


class NullProgress:
    """The `Progress` of quiet runs."""

    def skip(self, steps: int) -> None:
        """Does nothing."""

    def update(self, steps: int, loss: Array) -> None:
        """Does nothing."""

    def saving(self) -> None:
        """Does nothing."""


class Unchecked:
    """The `Checks` of batches that were checked where they were made."""

    def before(self, batch: Any, number: int, state: StepState) -> Any:
        """Lets every batch through."""

    def explain(self, bad: BadLoss) -> None:
        """Knows no reason."""

    def after(self, steps: int) -> None:
        """Lets every task through."""


@dataclass(frozen=True)
class Hooks:
    """What is done beside the steps of a task.

    Attributes:
        progress: is told of every step.
        inflight: keeps the training in flight; nothing is saved when None.
        save_every: steps between two saves of it.
        preemption: tells when to stop. What is in flight is held, to be saved at that point, until
            `Preemption.released`: the caller calls it once the task itself is saved.
        checks: looks at the batches; they were checked where they were made when None.
        owner: whose training it is, such as a method's name, for messages; nobody's when empty.
        advice: (state, step) to the fix text of a `DivergedError`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from share_jax.train.batches import opener
        >>> class Losses(NullProgress):
        ...     def update(self, steps, loss):
        ...         print(f"loss {loss:.1f}")
        >>> def update(state, base, batch):
        ...     return state._replace(step=state.step + 1), {"loss": batch.mean()}
        >>> state = StepState({}, {}, None, jnp.int32(0), jax.random.key(0))
        >>> batches = [jnp.ones(2), jnp.zeros(2)]
        >>> end = run_steps(PlacedStep(update), state, {}, "weather", opener(batches), hooks=Hooks(progress=Losses()))
        loss 1.0
        loss 0.0
    """

    progress: Progress = field(default_factory=NullProgress)
    inflight: Inflight | None = None
    save_every: int = 100
    preemption: Preemption = field(default_factory=Preemption)
    checks: Checks | None = None
    owner: str = ""
    advice: Callable[[StepState, int], str] = lower_rate


def run_steps(
    step: PlacedStep,
    state: StepState,
    base: Tree,
    task: str,
    open_batches: OpenBatches,
    *,
    steps: int | None = None,
    hooks: Hooks | None = None,
) -> StepState:
    """Trains a task until its batches end, from where its training in flight stopped if there is one.

    Args:
        step: the compiled train step.
        state: the state at the task's start; donated.
        base: the frozen variables, where the step wants them.
        task: its name.
        open_batches: gives the batches that follow a position.
        steps: how many batches there are, if that is known: nothing is saved after the last one, when the task itself
            is saved next.
        hooks: what is done beside the steps.

    Returns:
        The state at the task's end, its leaves whole on every host where the step runs on a mesh.

    Raises:
        DivergedError: if a loss, or what was trained, is not finite; what was saved last is good.
        Preempted: if the process was asked to stop; what was in flight has been saved.
        InputError: if the hooks refuse a batch.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from share_jax.train.batches import opener
        >>> def update(state, base, batch):
        ...     return state._replace(step=state.step + 1), {"loss": batch.mean()}
        >>> state = StepState({}, {}, None, jnp.int32(0), jax.random.key(0))
        >>> end = run_steps(PlacedStep(update), state, {}, "weather", opener([jnp.ones(2), jnp.zeros(2)]))
        >>> int(end.step)
        2
    """
    return _Run(step, base, task, hooks or Hooks()).train(state, open_batches, steps)


class _Run:
    """One task's training while it runs."""

    def __init__(self, step: PlacedStep, base: Tree, task: str, hooks: Hooks) -> None:
        self._step, self._base, self._task, self._hooks = step, base, task, hooks
        self._checks: Checks = hooks.checks or Unchecked()
        self._name = f"{hooks.owner}, task {task!r}" if hooks.owner else f"task {task!r}"
        self._watch = LossWatch()
        self._state: Any = None
        self._stream: BatchStream | None = None
        self._position: Position = 0
        self._number = self._saved = 0

    def train(self, state: StepState, open_batches: OpenBatches, steps: int | None) -> StepState:
        hooks, self._state = self._hooks, self._step.place(state)
        if hooks.inflight is not None and hooks.save_every < 1:
            fix = "pass 200, or no inflight"
            raise InputError(message("save_every", got=hooks.save_every, expected="at least 1", fix=fix))
        if hooks.inflight is not None:
            self._state, self._position = hooks.inflight.load(self._task, self._state)
            self._number = self._saved = int(self._state.step)
        hooks.progress.skip(self._number)
        with open_batches(self._position) as self._stream:
            if hooks.inflight is not None:
                hooks.preemption.holding(self._save)
            for batch in self._stream:
                note = self._checks.before(batch, self._number + 1, self._state)
                self._state, metrics = self._step(self._state, self._base, batch)
                self._number += 1
                hooks.progress.update(1, metrics["loss"])
                self._refuse(self._watch.add(self._number, metrics["loss"], note))
                if hooks.inflight is not None and self._number % hooks.save_every == 0 and self._number != steps:
                    self._save()
                hooks.preemption.point()
            self._position = self._stream.state()
        self._stream = None  # closed: from here on the position stands
        self._checks.after(self._number)
        self._check()
        return self._step.whole(self._state)

    def _save(self) -> str:
        """Saves the last state, once it is known to be good, and says what was saved."""
        self._check()
        if self._number > self._saved and self._hooks.inflight is not None:
            self._hooks.progress.saving()
            position = self._position if self._stream is None else self._stream.state()
            self._hooks.inflight.save(self._task, self._state, position)
            self._saved = self._number
        return f"{self._hooks.owner} saved at step {self._number} of task {self._task!r}".lstrip()

    def _check(self) -> None:
        """Refuses a bad state. A finite loss does not prove a finite update: the last gradient may have overflowed."""
        self._refuse(self._watch.drain())
        path = not_finite({"shared": self._state.shared, "slot": self._state.slot})
        if path is not None:
            what = f"{path} of {self._name} after step {self._number}"
            raise self._diverged(what, "numbers that are not finite", self._number)

    def _refuse(self, bad: BadLoss | None) -> None:
        if bad is not None:
            self._checks.explain(bad)
            raise self._diverged(f"loss of {self._name}, step {bad.step}", str(bad.loss), bad.step)

    def _diverged(self, what: str, got: str, step: int) -> DivergedError:
        fix = self._hooks.advice(self._state, step)
        return DivergedError(message(what, got=got, expected="finite numbers", fix=fix))
