"""The input's state in the checkpoint of the training in flight, and the steps that its lengths compile to."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring

from experiments.algorithms.hooks import train_task
from experiments.algorithms.job import Job
from experiments.data.batch_order import bucketed
from experiments.data.pipeline import Batch, Pipeline, task_pipeline
from experiments.data.shapes import samples_of
from experiments.data.sources import ArraySource
from experiments.report.progress import NullProgress
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.inflight_folder import as_tree
from share_jax.checkpoint.manifest import Identity
from share_jax.errors import FormatError, InputError
from share_jax.runtime.preemption import Preemption
from share_jax.train.placed_step import PlacedStep
from share_jax.train.step import StepState

IDENTITY = Identity("toy", "0" * 64, {"name": "shared_a", "rank": 2}, ("layer/kernel",), ("head/bias",))
STEPS, SAVE_EVERY = 21, 4


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def pipeline(lengths: tuple[int, ...] = (8, 16), count: int = 61) -> Pipeline:
    """61 texts, 8 batches an epoch; the steps at which the runs below stop are within one."""
    tokens = np.random.default_rng(3).integers(2, 25, count)
    mask = (np.arange(24) < tokens[:, None]).astype(np.int32)
    inputs = {"attention_mask": mask, "values": mask * np.random.default_rng(1).standard_normal((count, 24))}
    inputs["values"] = inputs["values"].astype(np.float32)
    source = ArraySource(inputs, np.zeros(count, np.int32))
    options = {"batch_size": 8, "classes": 1, "seed": 2, "task": 0, "steps": STEPS}
    return task_pipeline(source, **options, buckets=bucketed(inputs, lengths))


@jax.jit
def step(state: StepState, base: Any, batch: Batch) -> tuple[StepState, dict[str, jax.Array]]:
    """A state that remembers every batch, and their order."""
    mean = jnp.sum(batch["inputs"]["values"]) + jnp.sum(batch["weights"])
    slot = {"w": state.slot["w"] * jnp.float32(0.9) + mean}
    return state._replace(slot=slot, step=state.step + 1), {"loss": mean}


def start() -> StepState:
    return StepState({}, {"w": jnp.float32(0)}, (), jnp.int32(0), jax.random.key(0))


def train(folder: Path, run: Callable, made: Pipeline, prefetch: int) -> tuple[ckpt.Checkpoint, StepState]:
    store = ckpt.open_checkpoint(folder, IDENTITY) if folder.exists() else ckpt.create(folder, IDENTITY)
    config = SimpleNamespace(prefetch=prefetch, save_every=SAVE_EVERY, learning_rate=0.1)
    job = cast("Job", SimpleNamespace(config=config, progress=NullProgress(), name="toy", preemption=Preemption()))
    return train_task(job, store, PlacedStep(run), start(), {}, made, "a")


def stopping(after: int) -> Callable:
    calls = 0

    def run(state: StepState, base: Any, batch: Batch) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return step(state, base, batch)

    return run


@pytest.mark.parametrize(("prefetch", "after"), [(0, 6), (3, 3), (3, 11), (3, 18)])
def test_a_killed_run_resumes_with_the_next_batch_to_the_bit(tmp_path: Path, prefetch: int, after: int) -> None:
    _, whole = train(tmp_path / "whole", step, pipeline(), 0)
    with pytest.raises(Killed):
        train(tmp_path / "broken", stopping(after), pipeline(), prefetch)
    inflight = ckpt.open_checkpoint(tmp_path / "broken").manifest.inflight
    saved = after // SAVE_EVERY * SAVE_EVERY
    if saved:
        assert inflight["info"]["input"]["next_index"] == inflight["info"]["step"] == saved
        assert inflight["info"]["input"]["lengths"] == [8, 16, 24]
    else:
        assert inflight is None
    taken: list[int] = []

    def watched(state: StepState, base: Any, batch: Batch) -> Any:
        taken.append(int(state.step))
        return step(state, base, batch)

    _, resumed = train(tmp_path / "broken", watched, pipeline(), prefetch)
    assert taken == list(range(saved, STEPS))
    np.testing.assert_array_equal(np.asarray(resumed.slot["w"]), np.asarray(whole.slot["w"]))


def change_info(folder: Path, change: Callable[[dict], None]) -> None:
    store = ckpt.open_checkpoint(folder, IDENTITY)
    assert store.manifest.inflight is not None
    info = {**store.manifest.inflight["info"]}
    change(info)
    ckpt.save_inflight(store, ckpt.load_inflight(store, as_tree(start())), info)


def test_a_state_of_other_batches_or_of_another_step_is_refused_and_an_old_one_without_taken(tmp_path: Path) -> None:
    _, whole = train(tmp_path / "whole", step, pipeline(), 0)
    with pytest.raises(Killed):
        train(tmp_path / "run", stopping(6), pipeline(), 2)
    with pytest.raises(InputError, match="examples in the input's state: got 61, expected 60"):
        train(tmp_path / "run", step, pipeline(count=60), 2)
    with pytest.raises(InputError, match=r"lengths in the input's state: got .8, 16, 24., expected .12, 24."):
        train(tmp_path / "run", step, pipeline((12,)), 2)
    change_info(tmp_path / "run", lambda info: info.update(input={**info["input"], "next_index": 5}))
    with pytest.raises(FormatError, match="batches taken in task 'a': got 5, expected 4, its steps"):
        train(tmp_path / "run", step, pipeline(), 2)
    change_info(tmp_path / "run", lambda info: info.pop("input"))
    _, resumed = train(tmp_path / "run", step, pipeline(), 2)
    np.testing.assert_array_equal(np.asarray(resumed.slot["w"]), np.asarray(whole.slot["w"]))


def test_each_length_compiles_once_and_before_the_first_step() -> None:
    events: list[str] = []
    monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: events.append(event) if "backend_compile" in event else None
    )
    made = pipeline()
    samples = samples_of([made, pipeline((8, 16), 40)])
    assert sorted(batch["inputs"]["values"].shape for batch in samples) == [(8, 8), (8, 16), (8, 24)]
    fresh = jax.jit(lambda state, base, batch: step(state, base, batch))
    state, before = start(), len(events)
    run = PlacedStep(fresh).compile(state, {}, samples)
    assert len(events) == before + 3
    with made.open() as stream:
        for batch in stream:
            state, _ = run(state, {}, batch)
    assert len(events) == before + 3
    assert int(state.step) == STEPS
