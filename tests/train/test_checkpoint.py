"""Checkpoints: what is saved comes back to the bit, and nothing damaged, foreign or half-written is taken for it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from stored import DAMAGES, IDENTITY, assert_same, files_below, harm, leaves, like

from share_jax.errors import FormatError, TaskError
from share_jax.train import checkpoint as ckpt


@pytest.fixture
def filled(tmp_path: Path) -> ckpt.Checkpoint:
    """Two tasks, a shared tree, and training in flight, saved once."""
    store = ckpt.create(tmp_path / "run", IDENTITY)
    store = ckpt.save_inflight(store, leaves(9), {"task": "a", "step": 3})
    store = ckpt.save_task(store, "a", leaves(1), {"row": [0.5]}, shared=leaves(0))
    store = ckpt.save_task(store, "b", leaves(2), {"row": [0.25, None]})
    return ckpt.save_inflight(store, leaves(3), {"task": "c", "step": 7})


def test_everything_saved_comes_back_to_the_bit(filled: ckpt.Checkpoint) -> None:
    store = ckpt.open_checkpoint(filled.root, IDENTITY)
    assert store.names == ("a", "b")
    assert store.info("b") == {"row": [0.25, None]}
    assert_same(ckpt.load_shared(store, like(leaves(0))), leaves(0))
    assert_same(ckpt.load_task(store, "a", like(leaves(1))), leaves(1))
    assert_same(ckpt.load_task(store, "b", like(leaves(2))), leaves(2))
    assert_same(ckpt.load_inflight(store, like(leaves(3))), leaves(3))
    assert store.manifest.inflight is not None
    assert store.manifest.inflight["info"] == {"task": "c", "step": 7}


def test_there_is_one_folder_for_what_is_shared_one_per_task_and_one_in_flight(filled: ckpt.Checkpoint) -> None:
    folders = {kind: sorted(p.name for p in (filled.root / kind).iterdir()) for kind in ("shared", "tasks", "inflight")}
    assert {kind: len(names) for kind, names in folders.items()} == {"shared": 1, "tasks": 2, "inflight": 1}


def test_the_last_two_states_in_flight_are_kept_and_older_ones_removed(filled: ckpt.Checkpoint) -> None:
    first = filled.manifest.inflight
    store = ckpt.save_inflight(filled, leaves(4), {"task": "c", "step": 8})
    assert store.manifest.earlier == first
    store = ckpt.save_inflight(store, leaves(5), {"task": "c", "step": 9})
    steps = [record["info"]["step"] for record in (store.manifest.earlier, store.manifest.inflight) if record]
    assert steps == [8, 9]
    assert len(list((store.root / "inflight").iterdir())) == 2
    assert_same(ckpt.load_inflight(ckpt.open_checkpoint(store.root, IDENTITY), like(leaves(5))), leaves(5))


def test_a_kill_before_the_first_manifest_leaves_a_folder_that_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".manifest.json.tmp").write_text("{")
    store = ckpt.save_task(ckpt.create(tmp_path / "run", IDENTITY), "a", leaves(1), {})
    assert_same(ckpt.load_task(store, "a", like(leaves(1))), leaves(1))


def test_a_finished_task_ends_the_training_in_flight(filled: ckpt.Checkpoint) -> None:
    store = ckpt.save_task(filled, "c", leaves(4), {})
    assert store.manifest.inflight is None
    assert list((store.root / "inflight").iterdir()) == []
    with pytest.raises(FormatError, match="training in flight: got none"):
        ckpt.load_inflight(store, like(leaves(3)))


def test_a_merge_writes_new_versions_and_removes_the_old_only_after_the_commit(filled: ckpt.Checkpoint) -> None:
    before = filled.manifest
    store = ckpt.save_task(filled, "c", leaves(4), {}, shared=leaves(5), changed={"a": leaves(6), "b": leaves(7)})
    assert_same(ckpt.load_shared(store, like(leaves(5))), leaves(5))
    assert_same(ckpt.load_task(store, "a", like(leaves(6))), leaves(6))
    assert_same(ckpt.load_task(store, "b", like(leaves(7))), leaves(7))
    assert store.info("a") == {"row": [0.5]}
    assert store.names == ("a", "b", "c")
    assert before.shared is not None
    assert store.manifest.version > before.version
    assert not (store.root / before.shared["path"]).exists()


def test_a_save_that_was_cut_off_leaves_the_last_state_and_is_swept_away(filled: ckpt.Checkpoint) -> None:
    shutil.copytree(filled.root / filled.manifest.tasks["a"]["path"], filled.root / "tasks" / "0002.9")
    (filled.root / "shared" / "7.orbax-checkpoint-tmp").mkdir()
    store = ckpt.open_checkpoint(filled.root, IDENTITY)
    assert store.manifest == filled.manifest
    assert len(list((store.root / "tasks").iterdir())) == 2
    assert len(list((store.root / "shared").iterdir())) == 1
    ckpt.save_task(store, "c", leaves(4), {})


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_file_of_a_task_is_named_and_the_other_tasks_load(
    filled: ckpt.Checkpoint, tmp_path: Path, damage: str
) -> None:
    folder = filled.root / filled.manifest.tasks["a"]["path"]
    for file in files_below(folder):
        whole = harm(file, damage)
        with pytest.raises(FormatError) as caught:
            ckpt.load_task(filled, "a", like(leaves(1)))
        assert str(file.relative_to(folder)) in str(caught.value)
        assert "task 'a'" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert_same(ckpt.load_task(filled, "b", like(leaves(2))), leaves(2))
        file.write_bytes(whole)
    assert_same(ckpt.load_task(filled, "a", like(leaves(1))), leaves(1))


def test_restoring_is_strict_about_missing_unexpected_and_wrong_shaped_leaves(filled: ckpt.Checkpoint) -> None:
    want = like(leaves(1))
    more = {**want, "extra": {"kernel": jax.ShapeDtypeStruct((2,), jnp.float32)}}
    with pytest.raises(FormatError, match=r"leaf extra/kernel of task 'a': got nothing on disk"):
        ckpt.load_task(filled, "a", more)
    with pytest.raises(FormatError, match=r"leaf head/bias of task 'a'.*expected no such leaf"):
        ckpt.load_task(filled, "a", {"layer": want["layer"]})
    wrong = {**want, "layer": {"lora_b": jax.ShapeDtypeStruct((3, 5), jnp.float32)}}
    with pytest.raises(FormatError, match=r"leaf layer/lora_b of task 'a': got \(\[2, 5\], 'float32'\)"):
        ckpt.load_task(filled, "a", wrong)
    half = {**want, "layer": {"lora_b": jax.ShapeDtypeStruct((2, 5), jnp.bfloat16)}}
    with pytest.raises(FormatError, match="leaf layer/lora_b"):
        ckpt.load_task(filled, "a", half)


def test_a_checkpoint_of_another_model_or_choice_is_refused(filled: ckpt.Checkpoint) -> None:
    for other, field in (
        (replace(IDENTITY, fingerprint="1" * 64), "fingerprint"),
        (replace(IDENTITY, method={"name": "shared_a", "rank": 4}), "method"),
        (replace(IDENTITY, targets=("other/kernel",)), "targets"),
    ):
        with pytest.raises(FormatError, match=f"checkpoint's {field}"):
            ckpt.open_checkpoint(filled.root, other)


def test_manifests_that_are_newer_damaged_or_missing_are_refused_in_one_line(filled: ckpt.Checkpoint) -> None:
    path = filled.root / "manifest.json"
    whole = path.read_text()
    good = json.loads(whole)
    changed = {**good, "tasks": {**good["tasks"], "a": {**good["tasks"]["a"], "info": {"row": [0.75]}}}}
    for content, words in (
        (json.dumps({**good, "schema": 4}), "schema: got 4, expected at most 3; update share_jax"),
        (json.dumps({**good, "schema": 10}), "schema: got 10, expected at most 3; update share_jax"),
        (json.dumps({**good, "schema": 0}), "schema: got 0, expected at most 3; point to"),
        (json.dumps({**good, "schema": "2"}), "schema: got 2, expected at most 3; point to"),
        (json.dumps(changed), "got other content, expected the content that was saved"),
        (whole[: len(whole) // 2], "expected a JSON manifest"),
        ("[]", "no schema number"),
        (json.dumps({"schema": 1}), "no or wrong 'identity'"),
    ):
        path.write_text(content)
        with pytest.raises(FormatError, match=words) as caught:
            ckpt.open_checkpoint(filled.root, IDENTITY)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(FormatError, match=r"manifest\.json"):
        ckpt.open_checkpoint(filled.root, IDENTITY)


def test_nothing_is_overwritten(filled: ckpt.Checkpoint) -> None:
    with pytest.raises(TaskError, match="tasks are never overwritten"):
        ckpt.save_task(filled, "a", leaves(5), {})
    with pytest.raises(FormatError, match="a folder with content"):
        ckpt.create(filled.root, IDENTITY)
    with pytest.raises(TaskError, match="got 'z'"):
        ckpt.load_task(filled, "z", like(leaves(1)))


def test_a_note_beside_a_task_changes_no_array(filled: ckpt.Checkpoint) -> None:
    before = [file.read_bytes() for file in files_below(filled.root / "tasks")]
    store = ckpt.note(filled, "a", {"row": [1.0]})
    assert ckpt.open_checkpoint(store.root).info("a") == {"row": [1.0]}
    assert [file.read_bytes() for file in files_below(filled.root / "tasks")] == before
