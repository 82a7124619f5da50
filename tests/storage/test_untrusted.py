"""Task names, and files that would lead out of a folder."""

import os

import pytest

from share_jax.errors import BusyError, FormatError, TaskError
from share_jax.storage import untrusted
from share_jax.storage.atomic_write import partial_of, replace_bytes
from share_jax.storage.lock import hold_itself
from share_jax.storage.safetensors_file import TensorFile


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a..b", "a\\b", "a\nb", "a\0b", "\x1b[0m", "x" * 151, "\udc80"])
def test_unsafe_task_names_are_refused(name):
    with pytest.raises(TaskError) as error:
        untrusted.check_task_name(name)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["cola", "a.b", "Ωμέγα", "with space", "-x"])
def test_plain_task_names_pass(name):
    assert untrusted.check_task_name(name) == name


def test_the_name_is_the_last_component(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    assert untrusted.task_name_of(".") == "one"
    assert untrusted.task_name_of(f"{tmp_path}/one/") == "one"


@pytest.mark.parametrize("name", ["../secret", "link", "deep/../../secret", "/etc/hostname", "pipe", "folder", "a\0b"])
def test_nothing_outside_the_folder_or_irregular_is_opened(tmp_path, name):
    (tmp_path / "secret").write_text("{}")
    inside = tmp_path / "inside"
    (inside / "folder").mkdir(parents=True)
    (inside / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(inside / "pipe")
    with pytest.raises(FormatError) as error:
        untrusted.open_inside(inside, name)
    assert "\n" not in str(error.value)


def test_a_link_within_the_folder_is_followed(tmp_path):
    (tmp_path / "real.json").write_text('{"a": 1}')
    (tmp_path / "link.json").symlink_to("real.json")
    assert untrusted.read_json(tmp_path, "link.json") == {"a": 1}


def _cache(root, name="models--acme--tiny"):
    cache = root / name
    snapshot = cache / "snapshots" / "abc"
    (cache / "blobs").mkdir(parents=True)
    (snapshot / "sub").mkdir(parents=True)
    (cache / "blobs" / "12").write_text('{"a": 1}')
    return cache, snapshot


def test_the_links_of_a_cache_are_followed_to_its_blobs(tmp_path):
    _, snapshot = _cache(tmp_path)
    (snapshot / "c.json").symlink_to("../../blobs/12")
    (snapshot / "sub" / "c.json").symlink_to("../../../blobs/12")
    (tmp_path / "short").symlink_to(snapshot)
    for folder in (snapshot, snapshot / "sub", tmp_path / "short"):
        assert untrusted.read_json(folder, "c.json") == {"a": 1}
    assert untrusted.read_json(snapshot, "sub/c.json") == {"a": 1}


def test_the_links_of_a_cache_lead_nowhere_else(tmp_path):
    cache, snapshot = _cache(tmp_path)
    other, _ = _cache(tmp_path, "models--acme--other")
    (tmp_path / "secret").write_text("{}")
    (cache / "blobs" / "out").symlink_to(tmp_path / "secret")
    (cache / "refs").write_text("{}")
    places = ("../../blobs/out", "../../refs", other / "blobs" / "12", "../../blobs", "../../blobs/../refs")
    for i, place in enumerate(places):
        (snapshot / f"{i}.json").symlink_to(place)
        with pytest.raises(FormatError, match=r"leaves the folder|not a regular file"):
            untrusted.read_json(snapshot, f"{i}.json")
    apart = tmp_path / "apart"
    apart.mkdir()
    (apart / "c.json").symlink_to(cache / "blobs" / "12")
    with pytest.raises(FormatError, match="leaves the folder"):
        untrusted.read_json(apart, "c.json")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"version https://git-lfs.github.com/spec/v1\r\noid sha256:0\r\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s5--0.safetensors\n", "git annex get"),
        (b"\n<!DOCTYPE html>\n<html><head></head></html>", "a web page"),
        (b"Entry not found", "a server's refusal"),
        (b"../../blobs/0123456789abcdef", "the text of a link"),
    ],
)
def test_what_lies_in_a_files_place_is_named(tmp_path, text, word):
    (tmp_path / "a").write_bytes(text)
    with pytest.raises(FormatError, match=word):
        untrusted.read_json(tmp_path, "a")
    with pytest.raises(FormatError, match=word):
        TensorFile(tmp_path, "a")


def test_publish_leaves_nothing_after_an_error_and_all_after_success(tmp_path):
    out = tmp_path / "out"

    def fail():
        with untrusted.publish(out) as temp:
            (temp / "x").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with untrusted.publish(out) as temp:
        (temp / "x").write_text("1")
    with untrusted.publish(out) as temp:
        (temp / "y").write_text("2")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in out.iterdir()] == ["y"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_bytes(b"x", tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    replace_bytes(b"x", tmp_path / "file")
    replace_bytes(b"y", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"y"
    assert len(list(tmp_path.iterdir())) == 2


def test_publish_removes_leftovers_but_not_what_is_in_use(tmp_path):
    dead, alive = (tmp_path / f".out{untrusted.TEMP_MARK}{name}" for name in ("dead", "alive"))
    dead.mkdir()
    alive.mkdir()
    with hold_itself(alive), untrusted.publish(tmp_path / "out"):
        pass
    assert not dead.exists()
    assert alive.exists()


def test_a_lock_is_held_by_one(tmp_path):
    with hold_itself(tmp_path), pytest.raises(BusyError, match="another process"), hold_itself(tmp_path):
        pass


def test_a_link_where_new_content_is_to_stand_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("my only copy")
    partial_of(tmp_path / "file").symlink_to(victim)
    replace_bytes(b"x", tmp_path / "file")
    assert victim.read_text() == "my only copy"
    assert not (tmp_path / "file").is_symlink()


def test_what_was_begun_is_removed_when_it_is_stopped(tmp_path, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        replace_bytes(b"x", tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
