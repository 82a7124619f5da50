"""What a job does beside the steps of its tasks: its progress, its checkpoint, whether it is to stop, and advice."""

import numpy as np

from experiments.algorithms.job import Job, peak_rate, schedule
from experiments.config.methods import rate_field
from experiments.config.numbers import flag
from experiments.data.pipeline import Pipeline
from share_jax.checkpoint.checkpoint import Checkpoint
from share_jax.checkpoint.inflight_folder import InflightStore
from share_jax.train.batches import BatchStream, Position
from share_jax.train.loop import Hooks, Unchecked, run_steps
from share_jax.train.placed_step import PlacedStep
from share_jax.train.update import StepState
from share_jax.typing import Tree


def hooks_of(job: Job, inflight: InflightStore, steps: int) -> Hooks:
    """The hooks of a task of so many updates, whose batches are checked in the input pipeline.

    What is in flight is held after the last step too: `job.preemption.released()` once the task is saved.
    """

    def advice(state: StepState, number: int) -> str:
        config, peak = job.config, peak_rate(job)
        rate = np.asarray(schedule(config, peak, steps, wait=config.head_first)(number - 1))
        named = flag(rate_field(job.name))
        return f"lower {named}, now {peak} ({rate:.3g} in this step), and start anew; the last saved state is good"

    return Hooks(
        job.progress,
        inflight,
        job.config.save_every,
        job.preemption,
        Unchecked(),
        owner=job.name,
        advice=advice,
    )


class Prefetched:
    """A pipeline's batches, prepared ahead as the job's configuration says."""

    def __init__(self, job: Job, pipeline: Pipeline) -> None:
        """Opens nothing yet."""
        self._pipeline, self._prefetch = pipeline, job.config.prefetch

    def __len__(self) -> int:
        """Batches in all."""
        return len(self._pipeline.dataset)

    def open(self, position: Position = 0) -> BatchStream:
        """The batches that follow a position."""
        return self._pipeline.open(position, prefetch=self._prefetch)


def train_task(
    job: Job, store: Checkpoint, step: PlacedStep, state: StepState, base: Tree, pipeline: Pipeline, task: str
) -> tuple[Checkpoint, StepState]:
    """Trains one task to the end of its batches, from where the checkpoint's training in flight stopped."""
    inflight, batches = InflightStore(store), Prefetched(job, pipeline)
    end = run_steps(
        step, state, base, task, batches.open, steps=len(batches), hooks=hooks_of(job, inflight, len(batches))
    )
    return inflight.store, end
