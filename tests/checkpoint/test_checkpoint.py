"""Checkpoints: what is saved comes back to the bit, and nothing damaged, foreign or half-written is taken for it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored import DAMAGES, IDENTITY, assert_same, files_below, harm, leaves, like

from share_jax.checkpoint import checkpoint as ckpt
from share_jax.errors import FormatError, InputError, SaveError, TaskError


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
    assert store.manifest.states[:-1] == (first,)
    store = ckpt.save_inflight(store, leaves(5), {"task": "c", "step": 9})
    steps = [record["info"]["step"] for record in store.manifest.states]
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
        (json.dumps({**good, "schema": 5}), "schema: got 5, expected at most 4; update share_jax"),
        (json.dumps({**good, "schema": 10}), "schema: got 10, expected at most 4; update share_jax"),
        (json.dumps({**good, "schema": 0}), "schema: got 0, expected at most 4; point to"),
        (json.dumps({**good, "schema": "2"}), "schema: got 2, expected at most 4; point to"),
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


def stacked(tree: dict) -> dict:
    return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tree)


GOOD = leaves(5)
UNLIKE = {
    "a whole stack": (stacked(GOOD), r"leaf head/bias of task 'c': got \(\[2, 3\], 'float32'\), expected \(\[3\]"),
    "a leaf less": ({"layer": GOOD["layer"]}, "leaf head/bias of task 'c': got nothing"),
    "a leaf more": ({**GOOD, "more": jnp.ones(2)}, "leaf more of task 'c'.*no such leaf, as task 'a' has"),
    "another dtype": (jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), GOOD), "leaf head/bias.*bfloat16"),
    "no array": ({**GOOD, "head": {"bias": "none"}}, "leaf head/bias of task 'c': got str, expected an array"),
    "no leaves": ({}, "slot of task 'c': got an empty one"),
    "nothing": (None, "slot of task 'c': got NoneType"),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_a_slot_that_could_not_be_loaded_is_refused_before_anything_is_written(
    filled: ckpt.Checkpoint, case: str
) -> None:
    slot, words = UNLIKE[case]
    before = {file: file.read_bytes() for file in files_below(filled.root)}
    with pytest.raises(InputError, match=words) as caught:
        ckpt.save_task(filled, "c", slot, {})
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in files_below(filled.root)} == before
    store = ckpt.save_task(filled, "c", GOOD, {})
    assert_same(ckpt.load_task(store, "c", like(GOOD)), GOOD)


def test_a_merge_may_rewrite_all_slots_in_another_shape_but_not_some_of_them(filled: ckpt.Checkpoint) -> None:
    with pytest.raises(InputError, match=r"leaf head/bias of task 'a'.*as task 'b' has"):
        ckpt.save_task(filled, "c", leaves(4), {}, changed={"a": stacked(leaves(6))})
    with pytest.raises(InputError, match=r"leaf head/bias of task 'a'.*as task 'c' has"):
        ckpt.save_task(filled, "c", leaves(4), {}, changed={"a": stacked(leaves(6)), "b": leaves(7)})
    wide = {name: stacked(leaves(seed)) for name, seed in (("a", 6), ("b", 7))}
    store = ckpt.save_task(filled, "c", stacked(leaves(4)), {}, changed=wide)
    assert_same(ckpt.load_task(store, "a", like(wide["a"])), wide["a"])


def test_a_whole_stack_is_refused_for_the_first_task_by_what_is_shared_beside_it(tmp_path: Path) -> None:
    store = ckpt.create(tmp_path / "run", IDENTITY)
    shared = {"layer": {"lora_a": jnp.ones((4, 2))}}
    with pytest.raises(InputError, match=r"leaf layer/lora_b of task 'a': got shape \[2, 2, 5\], expected 2 axes"):
        ckpt.save_task(store, "a", stacked(leaves(1)), {}, shared=shared)
    assert ckpt.save_task(store, "a", leaves(1), {}, shared=shared).names == ("a",)


@pytest.mark.parametrize("name", [3, None, "", ("a",)])
def test_a_task_without_a_name_is_refused(filled: ckpt.Checkpoint, name: object) -> None:
    with pytest.raises(TaskError, match=f"task to save: got {type(name).__name__} .*expected a str"):
        ckpt.save_task(filled, name, leaves(4), {})  # pyright: ignore[reportArgumentType]
    assert ckpt.open_checkpoint(filled.root).names == ("a", "b")


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"row": [0.5], "acc": np.float32(0.5)}, r"'acc': Object of type float32.*\.tolist\(\)"),
        ({"row": np.ones(2)}, "'row': Object of type ndarray"),
        ({("a", 1): 0.5}, r"\('a', 1\): keys must be str"),
        (None, "got NoneType, expected a dict"),
    ],
)
def test_a_note_that_is_no_json_is_named_and_does_not_blame_the_disk(
    filled: ckpt.Checkpoint, info: object, words: str
) -> None:
    before = {file: file.read_bytes() for file in files_below(filled.root)}
    saves = {
        "task 'c'": lambda: ckpt.save_task(filled, "c", leaves(4), info),  # pyright: ignore[reportArgumentType]
        "task 'a'": lambda: ckpt.note(filled, "a", info),  # pyright: ignore[reportArgumentType]
        "the training in flight": lambda: ckpt.save_inflight(filled, leaves(4), info),  # pyright: ignore[reportArgumentType]
    }
    for what, save in saves.items():
        with pytest.raises(InputError, match=f"info of {what}: .*{words}") as caught:
            save()
        assert "space" not in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in files_below(filled.root)} == before


def test_only_what_the_disk_did_is_answered_with_room(filled: ckpt.Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files_below(filled.root)
    with pytest.raises(SaveError, match="saving the training in flight: got TypeError") as caught:
        ckpt.save_inflight(filled, None, {})  # pyright: ignore[reportArgumentType]
    assert "space" not in str(caught.value)
    assert f"kept in {filled.root}" in str(caught.value)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ckpt.arrays, "flush_tree", full)
    with pytest.raises(SaveError, match=r"got No space left on device.*free or add space"):
        ckpt.save_task(filled, "c", leaves(4), {})
    monkeypatch.undo()

    def broken(*_: object, **__: object) -> None:
        raise ValueError("cannot write this tree")

    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointHandler.save", broken)
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointHandler.async_save", broken)
    with pytest.raises(SaveError, match=r"got cannot write this tree.*free or add space"):
        ckpt.save_task(filled, "c", leaves(4), {})
    assert files_below(filled.root) == before


def test_a_folder_may_be_a_path_as_text_and_a_rank_a_number_of_numpys(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    identity = replace(IDENTITY, method={"name": "shared_a", "rank": np.int64(2)})
    store = ckpt.save_task(ckpt.create(root, identity), "a", leaves(1), {}, shared=leaves(0))
    for wanted in (None, identity, IDENTITY):
        assert_same(ckpt.load_task(ckpt.open_checkpoint(root, wanted), "a", like(leaves(1))), leaves(1))
    assert store.root == tmp_path / "run"


def test_a_note_beside_a_task_changes_no_array(filled: ckpt.Checkpoint) -> None:
    before = [file.read_bytes() for file in files_below(filled.root / "tasks")]
    store = ckpt.note(filled, "a", {"row": [1.0]})
    assert ckpt.open_checkpoint(store.root).info("a") == {"row": [1.0]}
    assert [file.read_bytes() for file in files_below(filled.root / "tasks")] == before
