"""Bad input: one line on stderr, exit status 2, and the set as it was."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from adapter_makers import MODULES, factors, write_adapters, write_peft
from safetensors.numpy import load_file, save_file

from share_jax.cli.main import main


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture
def made(tmp_path, capsys):
    folders = write_adapters(tmp_path / "in", 2)
    assert main(["compress", *map(str, folders), "-o", str(tmp_path / "set"), "--k", "4"]) == 0
    capsys.readouterr()
    return tmp_path / "set"


def fails(capsys, *argv):
    """The one line that the command leaves on stderr with exit status 2."""
    code = main([str(a) for a in argv])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "internal error" not in err
    return err


def _truncate(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _nan(folder):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = np.nan
    save_file(tensors, path)


def _config(**changes):
    def change(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def _other_shape(folder):
    shutil.rmtree(folder)
    write_peft(folder, factors(7, d_in=23))


BROKEN = {
    "truncated": (_truncate, "truncated"),
    "nan": (_nan, "NaN"),
    "rank": (_config(r=5), "5 as the config says"),
    "base": (_config(base_model_name_or_path="acme/other"), "acme/other"),
    "no base": (_config(base_model_name_or_path=None), "--base-model"),
    "dora": (_config(use_dora=True), "use_dora"),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json"),
    "empty": (_empty, "empty folder"),
    "missing": (shutil.rmtree, "nothing there"),
    "shape": (_other_shape, "23"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("command", ["add", "compress"])
def test_a_broken_adapter(made, tmp_path, capsys, case, command):
    change, word = BROKEN[case]
    change(write_peft(tmp_path / "new", factors(7)))
    before = digests(made)
    if command == "add":
        assert word in fails(capsys, "add", made, tmp_path / "new")
    else:
        assert word in fails(capsys, "compress", tmp_path / "in" / "t0", tmp_path / "new", "-o", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    assert digests(made) == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("name", ["a..b", "bad\nname"])
def test_unsafe_names(made, tmp_path, capsys, name):
    write_peft(tmp_path / name, factors(7))
    before = digests(made)
    assert "task name" in fails(capsys, "add", made, tmp_path / name)
    assert digests(made) == before


@pytest.mark.parametrize(
    "argv",
    [
        ("export", "set", "t0", "-o", "set"),
        ("export", "set", "t0", "-o", "set/t0"),
        ("export", "set", "t0", "-o", "."),
        ("merge", "set", "t0", "t1", "-o", "set"),
        ("compress", "in/t0", "in/t1", "-o", "in/t1"),
        ("compress", "in/t0", "in/t1", "-o", "in"),
    ],
)
def test_what_is_read_is_not_overwritten(made, tmp_path, capsys, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    before = [digests(folder) for folder in (made, tmp_path / "in" / "t0", tmp_path / "in" / "t1")]
    assert "which is read" in fails(capsys, *argv, "--overwrite")
    assert [digests(folder) for folder in (made, tmp_path / "in" / "t0", tmp_path / "in" / "t1")] == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "set"]


def test_a_folder_of_other_things_is_not_overwritten(made, tmp_path, capsys):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("kept")
    for argv in (("export", made, "t0"), ("merge", made, "t0", "t1"), ("compress", tmp_path / "in" / "t0")):
        assert "neither a set nor an adapter" in fails(capsys, *argv, "-o", tmp_path / "home", "--overwrite")
    assert (tmp_path / "home" / "letter.txt").read_text() == "kept"


@pytest.mark.parametrize(("place", "word"), [("", "a folder"), ("none/map.svg", "no parent folder")])
def test_where_a_heatmap_cannot_be_is_said_before_anything_is_read(made, tmp_path, capsys, place, word):
    for path in made.iterdir():
        path.unlink()
    (tmp_path / "maps").mkdir()
    before = sorted(tmp_path.rglob("*"))
    said = fails(capsys, "similarity", made, "--heatmap", tmp_path / "maps" / place)
    assert word in said
    assert "tmp-" not in said.replace(str(tmp_path), "")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["add", "compress"])
@pytest.mark.parametrize("limit", ["0", "1", "2", "7", "nan", "-0.5"])
def test_an_error_limit_lies_between_zero_and_one(made, tmp_path, capsys, command, limit):
    new = write_peft(tmp_path / "new", factors(7))
    before = digests(made)
    argv = (command, made, new) if command == "add" else (command, new, "-o", tmp_path / "out")
    assert "above 0, below 1" in fails(capsys, *argv, "--max-error", limit)
    assert digests(made) == before


@pytest.mark.parametrize("rate", ["1", "-0.1", "nan"])
def test_a_share_that_dare_cannot_drop(made, tmp_path, capsys, rate):
    argv = ("merge", made, "t0", "t1", "-o", tmp_path / "out", "--method", "dare", "--drop-rate", rate)
    assert "0 or more, below 1" in fails(capsys, *argv)


def test_a_task_that_exists_or_comes_twice(made, tmp_path, capsys):
    before = digests(made)
    assert "exists" in fails(capsys, "add", made, tmp_path / "in" / "t0")
    write_peft(tmp_path / "t9", factors(9))
    assert "t9" in fails(capsys, "add", made, tmp_path / "t9", tmp_path / "in" / ".." / "t9")
    assert digests(made) == before


@pytest.mark.parametrize(
    "argv",
    [
        ("export", "SET", "nope", "-o", "OUT"),
        ("export", "SET", "../t0", "-o", "OUT"),
        ("remove", "SET", "nope"),
        ("remove", "SET", "t0", "nope"),
        ("remove", "SET", "t0", "t1"),
        ("recompress", "SET", "--k", "0"),
        ("recompress", "SET", "--k", "2", "--max-error", "0.1"),
        ("recompress", "SET", "--max-error", "1e-12"),
        ("recompress", "IN"),
        ("diff", "SET", "t0", "nope"),
        ("merge", "SET", "t0", "nope", "-o", "OUT"),
        ("merge", "SET", "t0", "-o", "OUT"),
        ("merge", "SET", "t0", "t1", "-o", "OUT", "--weights", "1"),
        ("export", "IN", "t0", "-o", "OUT"),
        ("info", "IN"),
        ("info", "NONE"),
        ("add", "IN", "NEW"),
        ("add", "SET", "SET"),
        ("compress", "NEW", "-o", "SET"),
        ("compress", "NEW", "-o", "NONE/deeper/out"),
        ("compress", "NEW", "-o", "OUT", "--max-error", "1e-12"),
        ("compress", "NEW", "-o", "OUT", "--explained-variance", "1.5"),
        ("compress", "NEW", "-o", "OUT", "--k", "0"),
        ("compress", "NEW", "-o", "OUT", "--k", "2", "--max-error", "0.1"),
        ("compress", "NEW"),
        ("compress", "NEW", "-o", "OUT", "--storage", "int4"),
        ("similarity", "NONE"),
        ("frobnicate",),
        (),
    ],
)
def test_bad_usage(made, tmp_path, capsys, argv):
    write_peft(tmp_path / "new", factors(7))
    before = digests(made)
    places = {"SET": made, "OUT": tmp_path / "out", "IN": tmp_path / "in", "NEW": tmp_path / "new"}
    places["NONE"] = tmp_path / "none"
    fails(capsys, *(str(places.get(a, a)).replace("NONE", str(tmp_path / "none")) for a in argv))
    assert digests(made) == before
    assert not (tmp_path / "out").exists()


def test_near_names_are_offered(made, tmp_path, capsys):
    assert "did you mean t1?" in fails(capsys, "export", made, "t11", "-o", tmp_path / "out")


def _flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _kind(folder, kind):
    return next(p for p in folder.iterdir() if p.name.startswith(kind))


def _edit(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE = {
    "flipped basis": (lambda f: _flip(_kind(f, "basis"), -1), "basis-"),
    "flipped coefficients": (lambda f: _flip(_kind(f, "coeff"), -1), "coefficients-"),
    "truncated": (lambda f: _kind(f, "basis").write_bytes(_kind(f, "basis").read_bytes()[:-1]), "basis-"),
    "missing": (lambda f: _kind(f, "coeff").unlink(), "coefficients-"),
    "flipped manifest": (lambda f: _flip(f / "manifest.json", 400), "manifest.json"),
    "edited manifest": (lambda f: _edit(f, base_model="other"), "checksum"),
    "newer schema": (lambda f: _edit(f, schema=3), "update share_jax"),
    "other format": (lambda f: _edit(f, format="x"), "format"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_set(made, tmp_path, capsys, case):
    change, word = DAMAGE[case]
    change(made)
    before = digests(made)
    write_peft(tmp_path / "new", factors(7))
    assert word in fails(capsys, "info", made)
    assert word in fails(capsys, "add", made, tmp_path / "new")
    assert digests(made) == before
    assert main(["validate", str(made), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["valid"]
    assert any(word in failure for failure in found["failed"])


def _resign(folder, change_tensors=None, change_manifest=None):
    """Rewrites a set with right checksums but other contents, as a wrong writer would."""
    from share_jax.storage.manifest_file import digest

    path = folder / "manifest.json"
    body = json.loads(path.read_text())
    body.pop("sha256")
    if change_tensors:
        old = _kind(folder, "basis")
        tensors = load_file(old)
        change_tensors(tensors)
        save_file(tensors, old)
        data = old.read_bytes()
        body["files"][old.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if change_manifest:
        change_manifest(body)
    body["sha256"] = digest(body)
    path.write_text(json.dumps(body))


NAME = f"{MODULES[0]}.basis_a"
WRONG = {
    "missing tensor": ({"change_tensors": lambda t: t.pop(NAME)}, NAME),
    "unexpected tensor": ({"change_tensors": lambda t: t.update(stray=np.zeros(1, np.float32))}, "stray"),
    "wrong shape": ({"change_tensors": lambda t: t.update({NAME: t[NAME][:-1].copy()})}, NAME),
    "wrong dtype": ({"change_tensors": lambda t: t.update({NAME: t[NAME].astype(np.float16)})}, NAME),
    "nan": ({"change_tensors": lambda t: t[NAME].fill(np.nan)}, NAME),
    "a path as a file": ({"change_manifest": lambda b: b.update(basis="../x")}, "files"),
    "an unsafe task": ({"change_manifest": lambda b: b["tasks"].update({"../x": b["tasks"]["t0"]})}, "task name"),
    "an unknown field": ({"change_manifest": lambda b: b.update(more=1)}, "contents"),
    "no tasks": ({"change_manifest": lambda b: b.pop("tasks")}, "contents"),
    "a layer of text": ({"change_manifest": lambda b: b["layers"].update(x="y")}, "contents"),
}


@pytest.mark.parametrize("case", WRONG)
def test_contents_that_contradict_the_manifest(made, capsys, case):
    changes, word = WRONG[case]
    _resign(made, **changes)
    assert word in fails(capsys, "info", made)


def test_leftovers_are_ignored_and_cleaned_by_the_next_writer(made, tmp_path, capsys):
    for name in (".share-jax-tmp-1-basis", "basis-0123456789abcdef.safetensors"):
        (made / name).write_bytes(b"half")
    assert main(["validate", str(made)]) == 0
    assert "left by a killed command" in capsys.readouterr().out
    write_peft(tmp_path / "new", factors(7))
    assert main(["add", str(made), str(tmp_path / "new")]) == 0
    assert len(list(made.iterdir())) == 3


def test_a_stray_tensor_file_fails_validation(made, capsys):
    (made / "adapter_model.safetensors").write_bytes(b"")
    assert main(["validate", str(made)]) == 1
    assert "adapter_model.safetensors" in capsys.readouterr().out


def test_a_full_disk_leaves_the_set_whole(made, tmp_path, capsys, monkeypatch):
    from share_jax.adapter_set import store

    write_peft(tmp_path / "new", factors(7))
    before = digests(made)
    monkeypatch.setattr(store, "replace_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert "No space left" in fails(capsys, "add", made, tmp_path / "new")
    assert digests(made) == before


def test_two_writers_do_not_meet(made, tmp_path, capsys):
    from share_jax.storage.lock import hold_itself

    write_peft(tmp_path / "new", factors(7))
    with hold_itself(made):
        assert "another process" in fails(capsys, "add", made, tmp_path / "new")
