"""Damage is found and named with its task, whatever file it hits; the last good state is offered, and is good."""

import shutil
from pathlib import Path

import pytest
from stored import DAMAGES, IDENTITY, assert_same, files_below, fill, harm, leaves, like

from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint import repair
from share_jax.errors import FormatError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "run"
    fill(root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def part(root: Path, file: Path) -> tuple[str, str]:
    """What a file belongs to, and how far the last good state without it has come."""
    folder = str(file.parent.relative_to(root))
    parts = {
        "tasks/0000": ("task 'a'", "the start"),
        "tasks/0001": ("task 'b'", "after task 'a'"),
        "shared": ("the shared tree", "the start"),
        "inflight/0": ("the earlier training in flight", "step 7 of task 'c'"),
        "inflight/1": ("the training in flight", "step 6 of task 'c'"),
    }
    return next(value for start, value in parts.items() if folder.startswith(start))


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_file_damaged_in_turn_is_named_with_its_task_and_the_others_load(root: Path, kind: str) -> None:
    tasks = {"a": leaves(1), "b": leaves(2)}
    arrays = [file for file in files_below(root) if file.parent != root]
    assert len(arrays) > 30
    for file in arrays:
        whole = harm(file, kind)
        store = ckpt.open_checkpoint(root, IDENTITY)
        what, good = part(root, file)
        found = repair.find_damage(store)
        assert [each.what for each in found] == [what]
        with pytest.raises(FormatError) as caught:
            repair.check(store, "--repair")
        told = str(caught.value)
        assert "\n" not in told
        assert f"file {file.relative_to(root)} of {what}" in told
        assert f"--repair to go on from the last good state, {good}" in told
        for name, want in tasks.items():
            if what == f"task {name!r}":
                assert f"'{name}'" not in told.partition("still load: ")[2].partition(";")[0]
            else:
                assert f"'{name}'" in told.partition("still load: ")[2].partition(";")[0]
                assert_same(ckpt.load_task(store, name, like(want)), want)
        file.write_bytes(whole)
    assert repair.find_damage(ckpt.open_checkpoint(root, IDENTITY)) == ()


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_manifest_is_named_and_its_copy_restores_it_to_the_byte(root: Path, kind: str) -> None:
    file = root / "manifest.json"
    whole = harm(file, kind)
    for open_it in (lambda: ckpt.open_checkpoint(root, IDENTITY), lambda: repair.check_manifest(root, "--repair")):
        with pytest.raises(FormatError, match=r"manifest\.json") as caught:
            open_it()
        assert "\n" not in str(caught.value)
    assert "its copy manifest.copy.json is whole: use --repair" in str(caught.value)
    assert repair.restore_manifest(root)
    assert file.read_bytes() == whole
    assert not repair.restore_manifest(root)
    assert_same(ckpt.load_task(ckpt.open_checkpoint(root, IDENTITY), "b", like(leaves(2))), leaves(2))


def test_no_byte_of_the_manifest_can_change_unnoticed(root: Path) -> None:
    """Byte after byte; what is left of the file is refused, or says to the letter what it said."""
    file = root / "manifest.json"
    whole, before = file.read_bytes(), ckpt.open_checkpoint(root).manifest
    refused = 0
    places = range(0, len(whole), 7)
    for place in places:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert ckpt.open_checkpoint(root).manifest == before
        except FormatError:
            refused += 1
    assert refused > 0.9 * len(places)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_copy_is_named_or_written_again(root: Path, kind: str) -> None:
    harm(root / "manifest.copy.json", kind)
    store = ckpt.open_checkpoint(root, IDENTITY)
    if kind == "delete":
        assert repair.find_damage(store) == ()
    else:
        with pytest.raises(FormatError, match=r"manifest\.copy\.json of the manifest"):
            repair.check(store)
        store = repair.repaired(store, repair.find_damage(store))
    assert repair.find_damage(store) == ()
    assert (root / "manifest.copy.json").read_bytes() == (root / "manifest.json").read_bytes()


def test_repair_gives_up_what_is_damaged_and_no_more(root: Path) -> None:
    def repaired(*parts: str) -> ckpt.Checkpoint:
        broken = Path(shutil.copytree(root, root.parent / "-".join(parts).replace("/", "_")))
        for each in parts:
            harm(next(file for file in files_below(broken / each)), "flip")
        store = ckpt.open_checkpoint(broken, IDENTITY)
        after = repair.repaired(store, repair.find_damage(store))
        assert repair.find_damage(ckpt.open_checkpoint(broken, IDENTITY)) == ()
        assert ckpt.open_checkpoint(broken, IDENTITY).manifest == after.manifest
        return after

    last = repaired("inflight/1")
    assert last.names == ("a", "b")
    assert_same(ckpt.load_inflight(last, like(leaves(4))), leaves(4))
    none = repaired("inflight/0", "inflight/1")
    assert none.names == ("a", "b")
    assert none.manifest.inflight is None
    kept = repaired("inflight/0")
    assert_same(ckpt.load_inflight(kept, like(leaves(3))), leaves(3))
    one = repaired("tasks/0001.2")
    assert one.names == ("a",)
    assert one.manifest.inflight is None
    assert_same(ckpt.load_shared(one, like(leaves(0))), leaves(0))
    again = ckpt.save_task(one, "b", leaves(2), {})
    assert_same(ckpt.load_task(again, "b", like(leaves(2))), leaves(2))
    for parts in (("shared/1",), ("tasks/0000.1",)):
        empty = repaired(*parts)
        assert empty.names == ()
        assert empty.manifest.shared is None
        ckpt.save_task(empty, "a", leaves(1), {}, shared=leaves(0))


def test_repair_goes_back_to_no_state_that_a_merge_has_rewritten(tmp_path: Path) -> None:
    """Task 'c' rewrote the shared tree and task 'a': without 'c' neither is as it was when 'c' was learnt."""
    store = fill(tmp_path / "run")
    store = ckpt.save_task(store, "c", leaves(5), {}, shared=leaves(6), changed={"a": leaves(7)})
    harm(files_below(store.root / "tasks" / "0002.3")[0], "delete")
    found = repair.find_damage(store)
    assert [each.task for each in found] == ["c"]
    with pytest.raises(FormatError, match=r"still load: 'a', 'b'; .* last good state, the start"):
        repair.check(store)
    assert repair.repaired(store, found).names == ()
