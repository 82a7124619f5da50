"""Real processes over loopback, one device each: the losses of one process, and checkpoints that change topology."""

import signal
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from parallel_job import BATCH, RAGGED, STEPS, ParallelJob, digest_of, random_batch, saved_tree, tree_of
from process_group import environment, free_port, printed_by

from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint.manifest import Identity
from share_jax.errors import InputError, ShareError
from share_jax.runtime import processes as group
from share_jax.sharding.layout import layout_of
from share_jax.sharding.mesh import make_mesh
from share_jax.sharding.mesh_shape import MeshShape
from share_jax.sharding.placement import feed
from share_jax.train.step import make_train_step

TIMEOUT = 150
IDENTITY = Identity("toy", "0" * 64, {"name": "shared_a"}, ("layer/kernel",), ("head/bias",))
FOUR = pytest.param(4, marks=pytest.mark.slow)


def together(count: int, what: str, folder: Path) -> list[dict]:
    """What each process of `multiprocess.py` printed."""
    script, port = Path(__file__).parents[1] / "support" / "multiprocess.py", free_port()
    env = environment()
    for name in ("XLA_FLAGS", "JAX_PLATFORMS"):
        env.pop(name, None)

    def words(index: int) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, str(script), str(port), str(count), str(index), what, str(folder)], env

    found = printed_by(count, words, folder.parent / what, TIMEOUT)
    assert [(one["processes"], one["index"]) for one in found] == [(count, index) for index in range(count)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, FOUR])
def test_processes_that_each_feed_their_own_shard_have_the_losses_of_one(tmp_path: Path, count: int) -> None:
    """To 1e-5 over some steps of AdamW; the padding of the ragged batch lies on the last process alone."""
    found = together(count, "train", tmp_path / "run")
    job = ParallelJob("shared_a", transform=optax.adamw(1e-2))
    step, state = make_train_step(*job.parts, train_shared=True), job.init_state()
    want = []
    for number in range(STEPS):
        state, metrics = step(state, job.base, random_batch(RAGGED, seed=number))
        want.append(float(metrics["loss"]))
    for one in found:
        np.testing.assert_allclose(one["losses"], want, rtol=1e-5)
        assert one["rows"] == [BATCH // count] * STEPS
    assert len({one["largest"] for one in found}) == 1


def here(shape: MeshShape | None):
    """The layout of this process's mesh; None for one device."""
    if shape is None:
        return None
    job = ParallelJob("shared_a")
    return layout_of(make_mesh(shape), job.base["params"], job.adapted)


def save_here(folder: Path, layout) -> None:
    tree = saved_tree() if layout is None else tree_of(layout)
    store = ckpt.create(folder, IDENTITY)
    store = ckpt.save_task(store, "a", tree, {}, shared=tree)
    ckpt.save_inflight(store, tree, {"task": "b", "step": 5})


def restore_here(folder: Path, layout) -> None:
    like = saved_tree() if layout is None else tree_of(layout, zeros=True)
    store = ckpt.open_checkpoint(folder, IDENTITY)
    for tree in (ckpt.load_inflight(store, like), ckpt.load_task(store, "a", like), ckpt.load_shared(store, like)):
        assert digest_of(tree) == digest_of(saved_tree())
        if layout is not None:
            assert tree["layer_0"]["up"]["lora_a"].sharding == layout.named("fsdp", None)


EIGHT = MeshShape(2, 2, 2)


@pytest.mark.parametrize(("there", "back"), [(EIGHT, None), (None, EIGHT), (MeshShape(8), MeshShape(1, 4, 2))], ids=str)
def test_a_checkpoint_of_eight_devices_is_restored_on_one_and_back_to_the_bit(tmp_path: Path, there, back) -> None:
    save_here(tmp_path / "run", here(there))
    restore_here(tmp_path / "run", here(back))


@pytest.mark.parametrize("count", [2, FOUR])
def test_a_checkpoint_of_eight_devices_is_restored_on_processes_to_the_bit(tmp_path: Path, count: int) -> None:
    save_here(tmp_path / "run", here(EIGHT))
    for one in together(count, "restore", tmp_path / "run"):
        assert set(one["digests"]) == {one["want"]} == {digest_of(saved_tree())}


@pytest.mark.parametrize("count", [2, FOUR])
def test_a_checkpoint_of_processes_is_restored_on_eight_devices_and_on_one_to_the_bit(
    tmp_path: Path, count: int
) -> None:
    found = together(count, "save", tmp_path / "run")
    assert {one["digest"] for one in found} == {digest_of(saved_tree())}
    restore_here(tmp_path / "run", here(EIGHT))
    restore_here(tmp_path / "run", None)
    assert [path.name for path in (tmp_path / "run" / "inflight").iterdir()] == ["0"]


@pytest.mark.slow
def test_a_handler_installed_after_joining_hears_sigterm(tmp_path: Path) -> None:
    assert all(one["heard"] == [signal.SIGTERM] for one in together(2, "sigterm", tmp_path / "run"))


def test_one_process_is_its_own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    assert group.primary()
    assert group.agreed(True)
    assert not group.agreed(False)
    assert group.on_primary("x", lambda: 3) == 3
    with pytest.raises(ShareError, match="mine"):
        group.on_primary("x", fails)
    for name in (group.COORDINATOR, group.COUNT, group.INDEX):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", refuses)
    with pytest.raises(InputError, match="--distributed: got coordinator_address should be defined"):
        group.initialize()


def fails() -> None:
    raise ShareError("mine")


def refuses() -> None:
    raise ValueError("coordinator_address should be defined.\nmore")


def test_a_wrong_number_of_local_examples_is_refused() -> None:
    layout = here(MeshShape(8))
    with pytest.raises(InputError, match="examples of this process: got 8, expected 16 of 16"):
        feed(layout, random_batch(size=8), 16)
