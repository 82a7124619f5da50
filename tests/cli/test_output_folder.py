"""Where a command may write: not over what it reads, nor over what is neither a set nor an adapter."""

import os

import pytest
from adapter_makers import factors, write_lorashare, write_peft, write_vlora
from foreign_adapters import write_mlx

from share_jax.cli.output_folder import check_file_output, check_output
from share_jax.errors import InputError

BASIS = "basis-0123456789abcdef.safetensors"


def write_set(folder):
    """What tells a set from another folder, its contents damaged."""
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    (folder / BASIS).touch()
    return folder


WRITERS = {
    "set": write_set,
    "adapter": lambda folder: write_peft(folder, factors(0)),
    "lorashare": write_lorashare,
    "vlora": write_vlora,
    "MLX-LM": write_mlx,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_set_or_an_adapter_that_is_there_needs_the_flag(tmp_path, kind):
    out = WRITERS[kind](tmp_path / "out")
    with pytest.raises(InputError, match="--overwrite"):
        check_output(out, overwrite=False)
    assert check_output(out, overwrite=True) == out


@pytest.mark.parametrize("kind", WRITERS)
def test_what_lies_in_a_set_or_an_adapter_is_not_deleted_with_it(tmp_path, kind):
    out = WRITERS[kind](tmp_path / "out")
    (out / "originals").mkdir()
    (out / "originals" / "thesis.pdf").touch()
    with pytest.raises(InputError, match="neither a set nor an adapter"):
        check_output(out, overwrite=True)


@pytest.mark.parametrize("names", [("notes.txt",), ("manifest.json",), (BASIS,), ("adapter_model.bin",)])
def test_another_folder_is_not_overwritten(tmp_path, names):
    out = tmp_path / "out"
    out.mkdir()
    assert check_output(out, overwrite=False) == out
    for name in names:
        (out / name).write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="neither a set nor an adapter") as error:
            check_output(out, overwrite)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="file"):
        check_output(out / names[0], overwrite=True)


@pytest.mark.parametrize("place", ["read", "read/", "read/new", ".", "link", "link/new", "other/../read"])
def test_an_output_is_apart_from_what_is_read(tmp_path, place):
    write_peft(tmp_path / "read", factors(0))
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("read")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="which is read") as error:
            check_output(f"{tmp_path}/{place}", overwrite, [tmp_path / "other", tmp_path / "read"])
        assert "\n" not in str(error.value)


def test_an_input_that_is_a_link_to_the_output_counts(tmp_path):
    out = write_peft(tmp_path / "out", factors(0))
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(InputError, match="which is read"):
        check_output(out, True, [tmp_path / "link"])


def test_neighbours_and_names_that_begin_alike_are_apart(tmp_path):
    read = write_peft(tmp_path / "read", factors(0))
    assert check_output(tmp_path / "reader", False, [read]) == tmp_path / "reader"
    assert check_output(tmp_path / "rea", True, [read]) == tmp_path / "rea"


@pytest.mark.parametrize("out", ["read.txt", "other/../read.txt", "link", "hard", "folder/new", "inner/new", "out"])
def test_a_file_is_apart_from_what_is_read(tmp_path, out):
    (tmp_path / "read.txt").write_text("read")
    for name in ("folder", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("read.txt")
    (tmp_path / "hard").hardlink_to(tmp_path / "read.txt")
    (tmp_path / "inner").symlink_to("folder")
    (tmp_path / "folder" / "list").touch()
    (tmp_path / "out").symlink_to("folder/list")
    with pytest.raises(InputError, match="which is read"):
        check_file_output(f"{tmp_path}/{out}", [tmp_path / "read.txt", tmp_path / "folder"])
    assert check_file_output(tmp_path / "reader", [tmp_path / "read.txt", tmp_path / "none"]) == tmp_path / "reader"


def test_a_file_goes_into_a_folder_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "old.svg").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert check_file_output(tmp_path / "old.svg") == tmp_path / "old.svg"
    monkeypatch.chdir(tmp_path)
    assert check_file_output("new.svg") == tmp_path / "new.svg"
    for name, words in (("none/x.svg", "no parent folder"), ("folder", "a folder"), ("pipe", "no file")):
        with pytest.raises(InputError, match=words):
            check_file_output(tmp_path / name)
    assert check_file_output("old.svg", overwrite=False) == tmp_path / "old.svg"  # nothing is in it
    (tmp_path / "old.svg").write_text("drawn")
    assert check_file_output("old.svg") == tmp_path / "old.svg"
    with pytest.raises(InputError, match="--overwrite"):
        check_file_output("old.svg", overwrite=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="right to write"):
        check_file_output("new.svg")
