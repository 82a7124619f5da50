"""The steps in flight: two are kept, a kill between Orbax's save and ours loses one step at most."""

import shutil
from pathlib import Path

from stored import IDENTITY, assert_same, files_below, fill, harm, leaves, like

from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint import inflight_steps, repair


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "inflight").iterdir())


def test_a_kill_after_orbax_saved_and_before_the_manifest_names_it_goes_on_from_the_step_before(tmp_path: Path) -> None:
    """Orbax has removed step 0 by then, which the manifest still names."""
    store = fill(tmp_path / "run")
    assert steps(store.root) == ["0", "1"]
    inflight_steps.write(store.root, leaves(7))
    assert steps(store.root) == ["1", "2"]
    again = ckpt.open_checkpoint(store.root, IDENTITY)
    assert steps(store.root) == ["1"]
    assert repair.find_damage(again) == ()
    assert [state["info"]["step"] for state in again.manifest.states] == [7]
    assert ckpt.open_checkpoint(store.root).manifest == again.manifest
    assert_same(ckpt.load_inflight(again, like(leaves(3))), leaves(3))
    after = ckpt.save_inflight(again, leaves(8), {"task": "c", "step": 8})
    assert [state["info"]["step"] for state in after.manifest.states] == [7, 8]
    harm(files_below(store.root / after.manifest.states[-1]["path"])[0], "flip")
    back = repair.repaired(after, repair.find_damage(after))
    assert_same(ckpt.load_inflight(back, like(leaves(3))), leaves(3))


def test_a_step_that_was_cut_off_is_swept_away(tmp_path: Path) -> None:
    store = fill(tmp_path / "run")
    (store.root / "inflight" / "2.orbax-checkpoint-tmp" / "default").mkdir(parents=True)
    after = ckpt.save_inflight(ckpt.open_checkpoint(store.root, IDENTITY), leaves(5), {"step": 8})
    assert steps(store.root) == ["1", "2"]
    assert_same(ckpt.load_inflight(after, like(leaves(5))), leaves(5))


def test_the_last_step_is_missed_when_its_folder_is_gone(tmp_path: Path) -> None:
    store = fill(tmp_path / "run")
    shutil.rmtree(store.root / "inflight" / "1")
    again = ckpt.open_checkpoint(store.root, IDENTITY)
    assert [damage.what for damage in repair.find_damage(again)] == ["the training in flight"]
    back = repair.repaired(again, repair.find_damage(again))
    assert_same(ckpt.load_inflight(back, like(leaves(4))), leaves(4))
    after = ckpt.save_inflight(back, leaves(5), {"step": 8})
    assert_same(ckpt.load_inflight(after, like(leaves(5))), leaves(5))
