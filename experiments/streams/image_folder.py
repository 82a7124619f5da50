"""Images of a user's own: a folder for each task, and in it one for each class.

    FOLDER/birds/heron/a.png          a task `birds` with a class `heron`; .png, .jpg or .jpeg of any size
    FOLDER/birds/train/heron/a.png    the same where a task has images of its own to be tested on,
    FOLDER/birds/test/heron/b.png     and these; without them a fifth of each class is held out by the seed
    FOLDER/stream.json                {"tasks": ["birds", "boats"]}; by name without it

Images are cut to a square in their middle. Hidden files are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.data.images import image_reader
from experiments.data.lazy import lazy_rows
from experiments.streams.base import Split, Stream, Task
from experiments.streams.protocols import TASK
from experiments.streams.user_folder import check_test, drawn_sides, ordered, refuse, sides, user_folder
from share_jax.errors import InputError, message

SUFFIXES = (".png", ".jpg", ".jpeg")
_EXPECTED = "a folder per task, with a folder of images per class"


@dataclass(frozen=True)
class ImageFiles:
    """Records of image files, read when they are asked for."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int, /) -> dict[str, bytes]:
        """One file's bytes."""
        return {"image": self.paths[index].read_bytes()}


def image_folder(
    name: str,
    folder: Path | None,
    *,
    size: int,
    in_memory: bool,
    seed: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> Stream:
    """A task for each folder, task-incremental.

    Args:
        name: of the stream.
        folder: see the module.
        size: pixels a side of the images, float32 (size, size, 3) in [-1, 1].
        in_memory: whether images are kept decoded; otherwise they are read when a batch asks for them.
        seed: of the held-out images and of the subsets.
        train_per_task: most training images of a task, shared equally among its classes; None is all.
        test_per_task: the same for the test.

    Raises:
        InputError: no folder, no tasks, a task without classes or with nothing to be tested on.
        FormatError: bad files, up to ten of them listed with what is wrong and the remedy; or `stream.json` is wrong.
    """
    root = user_folder(folder, _EXPECTED)
    tasks = ordered([path.name for path in _folders(root)], root)
    if not tasks:
        fix = "put FOLDER/TASK/CLASS/IMAGE.png there"
        raise InputError(message(f"--data-folder {root}", got="no folders", expected=_EXPECTED, fix=fix))
    bad: list[str] = []
    found = {task: _classes(root, task, bad) for task in tasks}
    refuse(root, bad, "file")
    limits, made = (train_per_task, test_per_task), []

    def split(paths: Sequence[Path], labels: np.ndarray, places: np.ndarray) -> Split:
        rows: Any = lazy_rows(ImageFiles(tuple(paths[place] for place in places)), image_reader(size))
        return Split({"images": rows[:] if in_memory else rows}, labels[places])

    for number, task in enumerate(tasks):
        train, test = found[task]
        classes, key = sorted(train), [seed, number]
        paths, labels = _listed(train, classes)
        tested, tested_labels = (paths, labels) if test is None else _listed(test, classes)
        if test is None:
            own, held = sides(labels, len(classes), key, limits)
        else:
            own, held = drawn_sides(labels, tested_labels, len(classes), key, limits)
        check_test(root / task, len(held), f"add {task}/train and {task}/test, or give each class three images")
        made.append(Task(task, tuple(classes), split(paths, labels, own), split(tested, tested_labels, held)))
    return Stream(name, TASK, tuple(made))


_ByClass = dict[str, list[Path]]
"""Images by class."""


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes(root: Path, task: str, bad: list[str]) -> tuple[_ByClass, _ByClass | None]:
    """The images of both sides of a task; what is wrong with others goes to `bad`."""
    place = root / task
    apart = (place / "train").is_dir() and bool(_folders(place / "train"))
    train = _images(place / "train" if apart else place, root, bad)
    if not train:
        fix = f"put {task}/CLASS/IMAGE.png there"
        raise InputError(message(f"classes of {place}", got="none", expected="a folder per class", fix=fix))
    if not apart or not (place / "test").is_dir():
        return train, None
    test = _images(place / "test", root, bad)
    for name in sorted(test.keys() - train.keys()):
        what, fix = f"{task}/test/{name}", f"add {task}/train/{name}, or delete it"
        bad.append(message(what, got="a class without training images", expected=f"one of {sorted(train)}", fix=fix))
    return train, test


def _images(place: Path, root: Path, bad: list[str]) -> _ByClass:
    found: _ByClass = {}
    for folder in _folders(place):
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        found[folder.name] = files
        if not files:
            fix = "add images, or delete the folder"
            bad.append(message(str(folder.relative_to(root)), got="no files", expected="images", fix=fix))
        for path in files:
            if (problem := _problem(path)) is not None:
                got, fix = problem
                what = str(path.relative_to(root))
                bad.append(message(what, got=got, expected="a readable .png or .jpg", fix=fix))
    return found


def _problem(path: Path) -> tuple[object, str] | None:
    """What is wrong with a file, and how to fix it."""
    if path.suffix.lower() not in SUFFIXES:
        return path.suffix or "no suffix", "convert it, or move it away"
    try:
        with Image.open(path) as image:
            image.draft("RGB", (32, 32))  # a JPEG is read whole, and decoded small
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return error, "save it again, or delete it"
    return None


def _listed(by_class: _ByClass, classes: Sequence[str]) -> tuple[list[Path], np.ndarray]:
    paths = [path for name in classes for path in by_class.get(name, [])]
    counts = [len(by_class.get(name, [])) for name in classes]
    return paths, np.repeat(np.arange(len(classes), dtype=np.int32), counts)
