"""The loop over one task's steps, with the training in flight checkpointed."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax

from experiments.methods.job import Job
from share_jax.errors import ShareError, line
from share_jax.train import checkpoint as ckpt
from share_jax.train.checkpoint import Checkpoint
from share_jax.train.step import StepState


class DivergedError(ShareError, ArithmeticError):
    """The loss is no longer a number; nothing of this task was kept past its last checkpoint."""


def as_tree(state: StepState) -> dict[str, Any]:
    """The state as a nested dict of plain arrays, for a checkpoint."""
    leaves = jax.tree.leaves(state.opt_state)
    tree = {
        "slot": state.slot,
        "opt": {f"{index:04d}": leaf for index, leaf in enumerate(leaves)},
        "step": state.step,
        "key": jax.random.key_data(state.key),
    }
    return {**tree, "shared": state.shared} if state.shared else tree


def from_tree(tree: dict[str, Any], like: StepState) -> StepState:
    """The inverse of `as_tree`, for a state of the same structure as `like`."""
    opt_state = jax.tree.unflatten(jax.tree.structure(like.opt_state), [tree["opt"][k] for k in sorted(tree["opt"])])
    key = jax.random.wrap_key_data(tree["key"])
    return StepState(tree.get("shared", {}), tree["slot"], opt_state, tree["step"], key)


def resumed(store: Checkpoint, state: StepState, label: str) -> StepState:
    """The state in flight if the checkpoint holds one of this task, else `state`."""
    record = store.manifest.inflight
    if record is None or record["info"]["task"] != label:
        return state
    return from_tree(ckpt.load_inflight(store, as_tree(state)), state)


def run_steps(
    job: Job,
    store: Checkpoint,
    step: Any,
    state: StepState,
    base: Any,
    batches: Callable[[int], Iterator[Any]],
    steps: int,
    label: str,
) -> tuple[Checkpoint, StepState]:
    """Trains until `steps` updates are done, from where the checkpoint's training in flight stopped.

    Args:
        job: for its progress and how often to save.
        store: the open checkpoint.
        step: a compiled train step.
        state: the state at the task's start.
        base: the frozen variables.
        batches: the task's batches from a given step on.
        steps: updates in the task.
        label: the task's name.

    Raises:
        DivergedError: if the loss is not a number; the last checkpoint is kept.
    """
    state = resumed(store, state, label)
    done = int(state.step)
    job.progress.skip(done)
    for number, batch in enumerate(batches(done), start=done + 1):
        state, metrics = step(state, base, batch)
        job.progress.update(1, metrics["loss"])
        if number % job.config.save_every == 0 or number == steps:
            _check(float(metrics["loss"]), job, label, number)
            if number < steps:
                store = ckpt.save_inflight(store, as_tree(state), {"task": label, "step": number})
    return store, state


def _check(loss: float, job: Job, label: str, number: int) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            line(
                f"loss of {job.name}, task {label!r}, at or before step {number}",
                got=loss,
                expected="a finite number",
                mend=f"lower --learning-rate, now {job.config.learning_rate}; --resume starts from the last checkpoint",
            )
        )
