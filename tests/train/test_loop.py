"""The loop over steps under a Learner: hooks are called, and a killed training goes on to the bit."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learning import SAVE_EVERY, STEPS, X, batches, learner, right, started

import share_jax
from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.inflight_folder import InflightFolder
from share_jax.errors import DivergedError, FormatError, InputError
from share_jax.linen.remat import Remat
from share_jax.runtime.preemption import Preempted, Preemption
from share_jax.sharding.layout import layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape
from share_jax.train.batches import CountedBatches, opener


def assert_same_bits(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, (a.shared, a.tasks), (b.shared, b.tasks))


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def broken_off(made: list, after: int) -> Any:
    yield from made[:after]
    raise Killed


class Told:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.skipped, self.losses, self.saves = [], [], 0

    def skip(self, steps: int) -> None:
        self.skipped.append(steps)

    def update(self, steps: int, loss: jax.Array) -> None:
        self.losses.append(float(loss))

    def saving(self) -> None:
        self.saves += 1


@pytest.fixture(scope="module")
def made() -> share_jax.Learner:
    return learner()


@pytest.fixture(scope="module")
def whole(made: share_jax.Learner) -> Any:
    return made.learn(made.learn(started(made), "a", batches(0, 12)), "b", batches(1, 9))


def test_a_training_that_was_broken_off_goes_on_with_the_same_bits(made, whole, tmp_path: Path) -> None:
    bank, told = started(made), Told()
    for name, own, after in (("a", batches(0, 12), 7), ("b", batches(1, 9), 5)):
        inflight = InflightFolder(tmp_path, made, bank)
        with pytest.raises(Killed):
            made.learn(bank, name, broken_off(own, after), inflight=inflight, save_every=3)
        bank = made.learn(bank, name, own, inflight=inflight, save_every=3, progress=told)
        share_jax.save_bank(tmp_path, made, bank)
        assert ckpt.open_checkpoint(tmp_path).manifest.inflight is None
    assert told.skipped == [6, 3]
    assert len(told.losses) == 12 - 6 + 9 - 3
    assert told.saves == 1 + 1  # not after the last step, when the task itself is saved next
    assert_same_bits(bank, whole)


def test_a_process_that_is_killed_goes_on_with_the_same_bits(made, tmp_path: Path) -> None:
    """Kill -9 while steps are done and saved; this process goes on."""
    support = Path(__file__).parents[1] / "support"
    path = os.pathsep.join([str(support.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(support / "learning.py"), str(tmp_path / "bank")]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
        began, step = time.monotonic(), 0
        while step < 3 * SAVE_EVERY:
            assert process.poll() is None
            assert time.monotonic() - began < 300
            time.sleep(0.02)
            try:
                record = ckpt.open_checkpoint(tmp_path / "bank").manifest.inflight
            except FormatError:
                continue  # not yet written
            step = record["info"]["step"] if record else 0
        process.send_signal(signal.SIGKILL)
    bank, told = started(made), Told()
    inflight = InflightFolder(tmp_path / "bank", made, bank)
    resumed = made.learn(bank, "a", batches(), inflight=inflight, progress=told)
    assert 3 * SAVE_EVERY <= told.skipped[0] < STEPS
    assert_same_bits(resumed, made.learn(bank, "a", batches()))


def test_batches_with_a_position_of_their_own_are_opened_there(made, whole, tmp_path: Path) -> None:
    opened: list[int] = []

    class Own:
        def __init__(self, batches: list) -> None:
            self.batches = batches

        def open(self, position: int) -> CountedBatches:
            opened.append(position)
            return CountedBatches(self.batches, position)

    bank = started(made)
    inflight = InflightFolder(tmp_path, made, bank)
    with pytest.raises(Killed):
        made.learn(bank, "a", broken_off(batches(0, 12), 9), inflight=inflight, save_every=4)
    bank = made.learn(bank, "a", Own(batches(0, 12)), inflight=inflight, save_every=4)
    assert opened == [8]
    jax.tree.map(np.testing.assert_array_equal, bank.shared, whole.shared)


def test_an_optimizer_with_a_key_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """And one that follows the loss."""
    transform = optax.chain(
        optax.add_noise(0.1, 0.5, key=jax.random.key(3)), optax.sgd(0.1), optax.contrib.reduce_on_plateau()
    )
    made = replace(learner(), transform=transform)
    bank, own = started(made), batches(0, 6)
    inflight = InflightFolder(tmp_path, made, bank)
    with pytest.raises(Killed):
        made.learn(bank, "a", broken_off(own, 5), inflight=inflight, save_every=2)
    assert_same_bits(made.learn(bank, "a", own, inflight=inflight, save_every=2), made.learn(bank, "a", own))
    with pytest.raises(InputError, match="save_every: got 0, expected at least 1"):
        made.learn(bank, "a", own, inflight=inflight, save_every=0)


def test_fewer_batches_than_were_taken_are_refused() -> None:
    with opener([1, 2, 3])(2) as stream:
        assert list(stream) == [3]
        assert stream.state() == 3
    with pytest.raises(InputError, match="batches to go on with: got 1, expected at least the 3"):
        opener([1])(3)


def test_a_stop_saves_the_step_in_hand_and_nothing_is_done_twice(made, whole, tmp_path: Path) -> None:
    bank, told = started(made), Told()
    inflight = InflightFolder(tmp_path, made, bank)

    def asking() -> Any:
        for number, batch in enumerate(batches(0, 12)):
            if number == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    said: list[str] = []
    with pytest.raises(Preempted), Preemption(said.append, grace=1e6, patience=1e6) as preemption:
        made.learn(bank, "a", asking(), inflight=inflight, preemption=preemption, progress=told)
    assert said == ["saved at step 6 of task 'a'"]
    bank = made.learn(bank, "a", batches(0, 12), inflight=inflight, progress=told)
    assert len(told.losses) == 12
    jax.tree.map(np.testing.assert_array_equal, bank.shared, whole.shared)


def test_a_bad_state_is_not_saved(made, tmp_path: Path) -> None:
    bank = started(made)
    bad = [*batches(0, 3), {"inputs": jnp.full_like(X, np.nan), "labels": batches(0, 1)[0]["labels"]}]
    inflight = InflightFolder(tmp_path, made, bank)
    with pytest.raises(DivergedError, match="loss of task 'a', step 4: got nan"):
        made.learn(bank, "a", [*bad, *batches(0, 3)], inflight=inflight, save_every=2)
    record = ckpt.open_checkpoint(tmp_path).manifest.inflight
    assert record is not None
    assert record["info"]["step"] == 2


@pytest.mark.parametrize(
    ("shape", "options"),
    [(MeshShape(8, 1, 1), {}), (MeshShape(2, 2, 2), {"accumulate": 2, "remat": Remat("nothing")})],
)
def test_a_mesh_of_eight_devices_learns_and_answers_as_one_device(made, whole, shape, options) -> None:
    layout = layout_of(make_mesh(shape), made.base["params"], made.model)
    on_mesh = learner(layout=layout, **options)
    bank = on_mesh.learn(on_mesh.learn(started(on_mesh), "a", batches(0, 12)), "b", batches(1, 9))
    for own, other in zip(jax.tree.leaves(bank.tasks), jax.tree.leaves(whole.tasks), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)
    for tasks in ("a", np.arange(5) % 2):
        few = X[:5]  # which eight does not divide
        np.testing.assert_allclose(on_mesh.predict(bank, tasks, few), made.predict(bank, tasks, few), atol=1e-5)


def test_microbatches_and_remat_change_an_update_by_rounding_alone(made, whole) -> None:
    other = learner(accumulate=2, remat=Remat("nothing"))
    bank = other.learn(started(other), "a", batches(0, 12))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), bank.shared, whole.shared)
    assert right(other, bank, "a", 0) == right(made, whole, "a", 0)
