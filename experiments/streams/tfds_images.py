"""Streams of images through TFDS: one data set whose classes are split into ten tasks, or several data sets.

| stream | TFDS sets | tasks |
|---|---|---|
| `cifar100_10` | cifar100 | 10 x 10 classes |
| `imagenet_r_10` | imagenet_r | 10 x 20 classes |
| `food101_10`, `caltech101_10`, `flowers102_10` | food101, caltech101, oxford_flowers102 | 10 x 10 or 11 classes |
| `images3` | the last three | one each |

The classes are shuffled by `seed` before they are split. ImageNet-R has no train split: 4 in 5 images of each class are
for training, as in DualPrompt (Wang et al. 2022), which has 24,000 and 6,000; its own lists are another draw, and so
are those of other papers. Its labels are those of ImageNet, of which 200 occur. Flowers trains on train + validation.
How the method's paper orders its image data sets is not known; both forms are here. `experiments/streams/tfds.md` has
the commands and the published figures.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from experiments.data.images import image_reader
from experiments.data.lazy import LazyRows, lazy_rows
from experiments.data.tfds_sets import prepared_set, records
from experiments.streams.base import Split, Stream, Task
from experiments.streams.sample import balanced
from share_jax.errors import InputError, message

_TEST_SHARE = 0.2
_SPLIT_SEED = 0


@dataclass(frozen=True)
class ImageSet:
    """A TFDS data set and its splits; without a `test`, a fifth of each class of `train` is held out."""

    dataset: str
    train: str = "train"
    test: str | None = "test"


SETS: Mapping[str, ImageSet] = MappingProxyType({
    "cifar100": ImageSet("cifar100"),
    "imagenet_r": ImageSet("imagenet_r", "test", None),
    "food101": ImageSet("food101", test="validation"),
    "caltech101": ImageSet("caltech101"),
    "flowers102": ImageSet("oxford_flowers102", train="train+validation"),
})  # fmt: skip

STREAMS: Mapping[str, tuple[tuple[str, ...], int]] = MappingProxyType({
    **{f"{name}_10": ((name,), 10) for name in SETS},
    "images3": (("food101", "caltech101", "flowers102"), 1),
})  # fmt: skip
"""Stream -> its data sets, and the tasks that each is split into."""


def image_stream(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    size: int = 224,
    seed: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> Stream:
    """A stream of `STREAMS`, task-incremental; images are read when a batch asks for them.

    Args:
        name: of the stream.
        data_dir: TFDS folder with the prepared sets; None is TFDS's own default, which downloads.
        size: pixels a side of the images, float32 (size, size, 3) in [-1, 1].
        seed: of the order of the classes and of the subsets.
        train_per_task: most training images of a task, shared equally among its classes; None is all.
        test_per_task: the same for the test.

    Raises:
        InputError: a set is not there, with the command that prepares it; or it has fewer classes than tasks.
        FormatError: a set needs TensorFlow to be read.
    """
    sets, pieces = STREAMS[name]
    tasks: list[Task] = []
    for place, key in enumerate(sets):
        names, train, test = _read(SETS[key], data_dir, size)
        present = np.unique(train[1])
        if len(present) < pieces:
            what, expected = f"classes of {key}", f"at least {pieces}, one for each task"
            raise InputError(message(what, got=len(present), expected=expected, fix="prepare the whole data set"))
        order = np.random.default_rng([seed, place]).permutation(present)
        for group in np.array_split(order, pieces):
            title = key if pieces == 1 else f"{key} {len(tasks) + 1}"
            rng = np.random.default_rng([seed, place, len(tasks)])
            sides = _part(train, group, train_per_task, rng), _part(test, group, test_per_task, rng)
            tasks.append(Task(title, tuple(names[label] for label in group), *sides))
    return Stream(name, "task-incremental", tuple(tasks))


_Side = tuple[LazyRows, np.ndarray]
"""Images, and their labels in the whole data set."""


def _read(which: ImageSet, data_dir: str | os.PathLike[str] | None, size: int) -> tuple[list[str], _Side, _Side]:
    builder = prepared_set(which.dataset, data_dir)
    names: list[str] = builder.info.features["label"].names
    read = image_reader(size)

    def side(split: str) -> _Side:
        source = records(builder, split, encoded=("image",))
        return lazy_rows(source, read), np.array([int(record["label"]) for record in source])

    train = side(which.train)
    if which.test is not None:
        return names, train, side(which.test)
    rows, labels = train
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        chosen = np.random.default_rng([_SPLIT_SEED, label]).permutation(places)
        test[chosen[: round(_TEST_SHARE * len(places))]] = True
    own, held = np.flatnonzero(~test), np.flatnonzero(test)
    return names, (rows.part(own), labels[own]), (rows.part(held), labels[held])


def _part(side: _Side, group: np.ndarray, limit: int | None, rng: np.random.Generator) -> Split:
    """The images of a group of classes, at most `limit`, with labels by their place in the group."""
    rows, labels = side
    chosen = np.flatnonzero(np.isin(labels, group))
    if limit is not None:
        chosen = chosen[balanced(labels[chosen], limit, rng)]
    local = np.argmax(labels[chosen, None] == group[None, :], axis=1)
    images: Any = rows.part(chosen)
    return Split({"images": images}, local)
