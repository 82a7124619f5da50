"""Commands one after another, and two at once: what each leaves to the others."""

import json
import os

import numpy as np
import pytest
from adapter_makers import distance, factors, updates, write_peft

from share_jax.adapter_set import store
from share_jax.adapter_set.store import read_set
from share_jax.errors import BusyError, InputError
from share_jax.storage.lock import hold_itself
from share_jax.storage.untrusted import publish


def unlike(root, count):
    """Adapters that share nothing."""
    folders = [root / f"unlike-{number}" for number in range(count)]
    for number, folder in enumerate(folders):
        write_peft(folder, factors(number, noise=1.0))
    return folders


def test_a_task_added_after_one_was_removed_takes_no_configuration_of_another(run, tmp_path):
    for number, name in enumerate(("a", "b", "d")):
        write_peft(tmp_path / name, factors(number, noise=1.0), task_type=f"KIND_{name}")
    assert run("compress", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "set", "--k", "24")[0] == 0
    assert run("remove", tmp_path / "set", "a")[0] == 0
    assert run("add", tmp_path / "set", tmp_path / "d")[0] == 0
    for name in ("b", "d"):
        assert run("export", tmp_path / "set", name, "-o", tmp_path / f"{name}-out")[0] == 0
        config = json.loads((tmp_path / f"{name}-out" / "adapter_config.json").read_text())
        assert config["task_type"] == f"KIND_{name}"


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_a_layer_without_an_update_hinders_no_later_change(run, tmp_path, storage):
    for number, name in enumerate(("a", "b")):
        own = factors(number, noise=1.0)
        still = next(iter(own))
        own[still] = (own[still][0], np.zeros_like(own[still][1]))
        write_peft(tmp_path / name, own)
    assert run("compress", tmp_path / "a", "-o", tmp_path / "set", "--storage", storage)[0] == 0
    assert run("add", tmp_path / "set", tmp_path / "b")[0] == 0
    assert run("recompress", tmp_path / "set")[0] == 0


def test_add_takes_a_larger_limit_than_the_set_was_made_with(run, tmp_path):
    folders = unlike(tmp_path, 4)
    assert run("compress", *folders[:2], "-o", tmp_path / "set", "--max-error", "0.01")[0] == 0
    code, data, _ = run("add", tmp_path / "set", *folders[2:], "--max-error", "0.7")
    assert code == 0
    assert max(task["error_bound"] for task in data["per_task"].values()) > 0.05
    assert read_set(tmp_path / "set").manifest.choice["max_error"] == 0.7


def test_the_error_of_a_repeated_adapter_is_what_its_export_has(run, tmp_path):
    folders = unlike(tmp_path, 6)
    write_peft(tmp_path / "copy", factors(0, noise=1.0))
    assert run("compress", *folders[:2], "-o", tmp_path / "set", "--k", "8")[0] == 0
    code, data, _ = run("add", tmp_path / "set", tmp_path / "copy", *folders[2:])
    assert code == 0
    assert run("export", tmp_path / "set", "copy", "-o", tmp_path / "out")[0] == 0
    true = distance(updates(tmp_path / "out"), updates(tmp_path / "copy"))
    assert true > 0.1
    assert data["per_task"]["copy"]["relative_error"] == pytest.approx(true, rel=0.05)


def test_names_that_nothing_takes_are_refused(run, made):
    for words in (("similarity", made[0], "--name", "a"), ("validate", made[0], "--name", "a")):
        code, _, error = run(*words)
        assert (code, "--name: got a" in error[0]) == (2, True)


def test_a_folder_with_more_than_an_adapter_is_not_replaced(run, made, tmp_path):
    out = tmp_path / "run"
    write_peft(out, factors(0))
    (out / "README.md").write_text("a card")
    task = next(iter(made[1]["per_task"]))
    assert run("export", made[0], task, "-o", out, "--overwrite")[0] == 0
    (out / "checkpoint-100").mkdir()
    code, _, error = run("export", made[0], task, "-o", out, "--overwrite")
    assert (code, "neither a set nor an adapter" in error[0]) == (2, True)
    assert (out / "checkpoint-100").is_dir()


def test_what_came_to_be_meanwhile_is_not_replaced(tmp_path):
    def race():
        with publish(tmp_path / "out", overwrite=False) as temp:
            (temp / "new").touch()
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "other").touch()

    with pytest.raises(InputError, match="meanwhile"):
        race()
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["out", "other"]


def test_what_another_command_changes_is_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with hold_itself(tmp_path / "out"), pytest.raises(BusyError), publish(tmp_path / "out") as temp:
        (temp / "new").touch()
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["out", "old"]


@pytest.mark.parametrize("kill", [False, True])
def test_the_old_folder_comes_back_when_the_new_one_gets_no_name(tmp_path, monkeypatch, kill):
    """After an error at once; after a kill, which runs no clean-up, with the next command to the same place."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    real, failed = os.rename, []

    def rename(source, target):
        if str(target) == str(tmp_path / "out") and (kill or not failed):
            failed.append(target)
            raise OSError("no")
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", rename)
        with pytest.raises(OSError, match="no"), publish(tmp_path / "out") as temp:
            (temp / "new").touch()
    assert (tmp_path / "out").exists() != kill
    with pytest.raises(InputError, match="meanwhile"), publish(tmp_path / "out", overwrite=False) as temp:
        (temp / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]


def test_a_reader_of_a_set_that_a_writer_meets_reads_again(run, made, adapters, tmp_path, monkeypatch):
    real, met = store._opened, []

    def meet(*args):
        if not met:  # between the manifest and its files
            met.append(args)
            write_peft(tmp_path / "more", factors(9, noise=1.0))
            assert run("add", made[0], tmp_path / "more")[0] == 0
        return real(*args)

    monkeypatch.setattr(store, "_opened", meet)
    assert set(read_set(made[0]).manifest.tasks) == {*(each.name for each in adapters), "more"}


@pytest.mark.parametrize("storage", ["f32", "int8"])
def test_the_last_change_is_that_of_the_last_merge(run, tmp_path, storage):
    folders = unlike(tmp_path, 4)
    words = ("-o", tmp_path / "set", "--k", "24", "--storage", storage)
    assert run("compress", *folders[:3], *words)[0] == 0
    before = updates_of(run, tmp_path, "unlike-0", "before")
    code, data, _ = run("recompress", tmp_path / "set", "--k", "4")
    assert code == 0
    moved = distance(before, updates_of(run, tmp_path, "unlike-0", "after"))
    assert moved > 0.1
    assert data["per_task"]["unlike-0"]["last_change"] == pytest.approx(moved, rel=0.05)
    _, told, _ = run("info", tmp_path / "set")
    assert told["per_task"]["unlike-0"]["last_change"] == pytest.approx(moved, rel=0.05)


def updates_of(run, root, task, name):
    """The dense updates of a task of the set."""
    assert run("export", root / "set", task, "-o", root / name, "--dtype", "f32")[0] == 0
    return updates(root / name)
