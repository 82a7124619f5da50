"""The loop over one task's steps, with the training in flight checkpointed."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.algorithms.job import Job, peak_rate, schedule
from experiments.config.methods import rate_field
from experiments.config.numbers import flag
from experiments.data.pipeline import Pipeline
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.checkpoint import Checkpoint
from share_jax.errors import DivergedError, FormatError, message
from share_jax.train.divergence import BadLoss, LossWatch, not_finite
from share_jax.train.step import StepState


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


def resumed(store: Checkpoint, state: StepState, label: str) -> tuple[StepState, Mapping[str, Any] | int]:
    """The state in flight and that of its input, if the checkpoint holds one of this task; else `state` and 0.

    Raises:
        FormatError: the input's position is not that of the training.
    """
    record = store.manifest.inflight
    if record is None or record["info"]["task"] != label:
        return state, 0
    state = from_tree(ckpt.load_inflight(store, as_tree(state)), state)
    done = int(state.step)
    position = record["info"].get("input", done)  # checkpoints from before the input had a state: a batch per step
    if isinstance(position, Mapping) and position.get("next_index") != done:
        got, fix = position.get("next_index"), "start the task anew"
        raise FormatError(message(f"batches taken in task {label!r}", got=got, expected=f"{done}, its steps", fix=fix))
    return state, position


def run_steps(
    job: Job,
    store: Checkpoint,
    step: Any,
    state: StepState,
    base: Any,
    pipeline: Pipeline,
    steps: int,
    label: str,
) -> tuple[Checkpoint, StepState]:
    """Trains until `steps` updates are done, from where the checkpoint's training in flight stopped.

    Asked to stop, it saves where it is. It goes on holding the last state after its end, to be saved if the run is
    stopped before the task is: `job.preemption.released()` when it is.

    Args:
        job: for its progress, how often to save, and whether to stop.
        store: the open checkpoint.
        step: a compiled train step.
        state: the state at the task's start.
        base: the frozen variables.
        pipeline: the task's batches; their position is saved with the training in flight.
        steps: updates in the task.
        label: the task's name.

    Raises:
        DivergedError: if a loss is not finite; the last checkpoint is kept.
        Preempted: if the process was asked to stop.
    """
    state, position = resumed(store, step.state(state), label)
    number = saved = int(state.step)
    job.progress.skip(number)
    watch = LossWatch()

    def save() -> str:
        nonlocal store, saved
        _refuse(watch.drain(), job, steps, label)
        _refuse_state(state, job, steps, label, number)
        if number > saved:
            job.progress.saving()
            info = {"task": label, "step": number, "input": position if done else stream.state()}
            store = ckpt.save_inflight(store, as_tree(state), info)
            saved = number
        return f"{job.name} saved at step {number} of task {label!r}"

    done = False
    with pipeline.open(position, prefetch=job.config.prefetch) as stream:
        job.preemption.holding(save)
        for batch in stream:
            state, metrics = step(state, base, batch)
            number += 1
            job.progress.update(1, metrics["loss"])
            _refuse(watch.add(number, metrics["loss"]), job, steps, label)
            if number % job.config.save_every == 0 and number < steps:
                save()
            job.preemption.point()
        position, done = stream.state(), True
    _refuse(watch.drain(), job, steps, label)
    _refuse_state(state, job, steps, label, number)
    return store, step.end(state)


def _refuse(found: BadLoss | None, job: Job, steps: int, label: str) -> None:
    if found is not None:
        what = f"loss of {job.name}, task {label!r}, step {found.step}"
        raise _diverged(what, str(found.loss), job, steps, found.step)


def _refuse_state(state: StepState, job: Job, steps: int, label: str, number: int) -> None:
    """A finite loss does not prove a finite update: its gradient may have overflowed in the step that was saved."""
    path = not_finite({"slot": state.slot, "shared": state.shared})
    if path is not None:
        what = f"{path} of {job.name}, task {label!r}, after step {number}"
        raise _diverged(what, "numbers that are not finite", job, steps, number)


def _diverged(what: str, got: str, job: Job, steps: int, number: int) -> DivergedError:
    config, peak = job.config, peak_rate(job)
    rate = np.asarray(schedule(config, peak, steps, wait=config.head_first)(number - 1))
    fix = (
        f"lower {flag(rate_field(job.name))}, now {peak} ({rate:.3g} in this step), and start anew; "
        "the last saved state is good"
    )
    return DivergedError(message(what, got=got, expected="finite numbers", fix=fix))
