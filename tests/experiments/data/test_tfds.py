"""TFDS without TensorFlow: sets that are prepared here, read by name, from their folder, and refused in one line."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments.data import tfds_sets
from experiments.data.batch_order import Buckets, token_counts
from experiments.data.pipeline import task_pipeline
from experiments.data.sources import ArraySource, RecordSource, in_memory, text_inputs
from experiments.streams.records import stream_from_records, stream_from_tfds
from share_jax.errors import FormatError, InputError

tfds = pytest.importorskip("tensorflow_datasets")
from tfds_makers import png  # noqa: E402

CLASSES = ["dot", "bar", "ring", "star"]
WORDS = ["one", "two three", "four five six", "seven eight nine ten eleven"]


def pixels(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (6, 5, 3)).astype(np.uint8)


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """A set with an image, a text and a class, its examples in an order of TFDS's own."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 5, 3)),
            "text": tfds.features.Text(),
            "number": np.int64,
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(24), "test": self._generate_examples(8)}

    def _generate_examples(self, count):
        for index in range(count):
            text = WORDS[index % 3 if index < 20 else 3]
            yield index, {"image": png(pixels(index)), "text": text, "number": index, "label": index % 4}


class RawPictures(TinyPictures):
    """The same with images as arrays, which TFDS encodes by TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")

    def _generate_examples(self, count):
        for key, example in super()._generate_examples(count):
            yield key, {**example, "image": pixels(key)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS folder with the set prepared as array_record."""
    folder = tmp_path_factory.mktemp("tfds")
    tfds_sets.tfds_builder("tiny_pictures", folder)
    return folder


@pytest.fixture(scope="module")
def version(data: Path) -> Path:
    return data / "tiny_pictures" / "1.0.0"


@pytest.fixture(autouse=True)
def no_tensorflow() -> Iterator[None]:
    yield
    assert "tensorflow" not in sys.modules


def images(example) -> dict[str, np.ndarray]:
    return {"images": example["image"].astype(np.float32) / 255, "number": example["number"]}


def test_a_stream_of_images_by_name_and_from_the_folder(data: Path, version: Path):
    options = {"convert": images, "groups": [[1, 3], [2, 0]]}
    for stream in (
        stream_from_tfds("s", "tiny_pictures", data_dir=data, **options),
        stream_from_tfds("s", version, **options),
        stream_from_tfds("s", str(version), **options),
    ):
        assert [task.name for task in stream.tasks] == ["bar+star", "ring+dot"]
        for task, group in zip(stream.tasks, options["groups"], strict=True):
            for split, count in ((task.train, 24), (task.test, 8)):
                numbers = split.inputs["number"]
                assert sorted(numbers.tolist()) == [i for i in range(count) if i % 4 in group]
                np.testing.assert_array_equal(np.array(group)[split.labels], numbers % 4)
                for image, number in zip(split.inputs["images"], numbers, strict=True):
                    np.testing.assert_array_equal(image, pixels(int(number)).astype(np.float32) / 255)


def test_a_part_of_a_split_is_a_stream(version: Path):
    stream = stream_from_tfds("s", version, convert=images, groups=[range(4)], train_split="train[:50%]")
    assert len(stream.tasks[0].train) == 12


def words(texts):
    counts = [len(text.split()) + 2 for text in texts]
    mask = (np.arange(8) < np.array(counts)[:, None]).astype(np.int32)
    return mask * 5, mask


def test_batches_are_read_from_the_records_when_they_are_asked_for(version: Path):
    found = tfds_sets.records(tfds_sets.tfds_builder(version), "train")
    options = {"batch_size": 5, "classes": 4, "seed": 1, "task": 0, "steps": 10}
    lazy = task_pipeline(RecordSource(found, images), **options)
    whole = in_memory(RecordSource(found, images))
    eager = task_pipeline(ArraySource(whole.inputs, whole.labels), **options)
    with lazy.open(prefetch=3) as stream:
        head = [next(stream) for _ in range(4)]
        state = stream.state()
    with lazy.open(state, prefetch=3) as stream:
        batches = [*head, *stream]
    for step, batch in enumerate(batches):
        for name in ("images", "number"):
            np.testing.assert_array_equal(batch["inputs"][name], eager.dataset[step]["inputs"][name], strict=True)
        np.testing.assert_array_equal(batch["labels"], eager.dataset[step]["labels"])
    assert len(batches) == 10


def test_texts_of_records_are_encoded_and_cut_to_buckets(version: Path):
    found = tfds_sets.records(tfds_sets.tfds_builder(version), "train")
    source = in_memory(RecordSource(found, text_inputs(words)))
    mask = source.inputs["attention_mask"]
    assert sorted(mask.sum(1).tolist()) == sorted(len(WORDS[i % 3 if i < 20 else 3].split()) + 2 for i in range(24))
    buckets = Buckets(token_counts(mask), (4, 8), ("input_ids", "attention_mask"))
    pipeline = task_pipeline(source, batch_size=4, classes=4, seed=0, task=0, steps=6, buckets=buckets)
    widths = [pipeline.dataset[step]["inputs"]["input_ids"].shape[1] for step in range(6)]
    assert sorted(widths) == [4, 4, 4, 8, 8, 8]
    stream = stream_from_tfds("s", version, convert=text_inputs(words), groups=[[0, 1], [2, 3]])
    assert stream.tasks[0].train.inputs["input_ids"].shape == (12, 8)


def test_any_records_are_a_stream():
    rows = [{"x": np.full(2, i, np.float32), "kind": i % 2} for i in range(6)]
    stream = stream_from_records(
        "s", train=rows, test=rows[:2], convert=lambda row: {"x": row["x"]}, groups=[[1], [0]], label="kind"
    )
    assert [task.train.inputs["x"][:, 0].tolist() for task in stream.tasks] == [[1, 3, 5], [0, 2, 4]]


def refused(kind: type[Exception], message: str, make) -> str:
    with pytest.raises(kind, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def tfrecord(version: Path, tmp_path: Path) -> Path:
    """The metadata of a set that was prepared as tfrecord, as TFDS finds it; its files are never read."""
    folder = tmp_path / "tiny_pictures" / "1.0.0"
    shutil.copytree(version, folder)
    info = folder / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    for path in folder.glob("*array_record*"):
        path.rename(folder / path.name.replace("array_record", "tfrecord"))
    return folder


def test_a_set_prepared_as_tfrecord_is_refused_with_the_extra_and_the_command(tfrecord: Path):
    for make in (
        lambda: tfds_sets.tfds_builder(tfrecord),
        lambda: tfds_sets.tfds_builder("tiny_pictures", tfrecord.parent.parent),
    ):
        message = refused(FormatError, "got tfrecord, expected array_record", make)
        assert 'pip install "share_jax[tensorflow]"' in message
        assert f"tfds convert_format --dataset_version_dir={tfrecord} --out_file_format=array_record" in message


def test_a_set_that_only_tensorflow_can_prepare_names_the_extra(tmp_path: Path):
    message = refused(InputError, "without TensorFlow", lambda: tfds_sets.tfds_builder("raw_pictures", tmp_path))
    assert 'pip install "share_jax[tensorflow]"' in message


def test_the_extra_exists():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert "\ntensorflow = [" in text


def test_what_cannot_be_is_one_line(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stream(**options):
        return lambda: stream_from_tfds("s", version, **{"convert": images, "groups": [[0]], **options})

    refused(InputError, "split of .*: got 'val', expected one of .'test', 'train'.", stream(train_split="val"))
    refused(InputError, "label of .*: got 'target', expected one of .'image', 'label'", stream(label="target"))
    refused(InputError, "feature of example 0: got 'pixels'", stream(convert=lambda row: {"x": row["pixels"]}))
    refused(InputError, "input 'x': got .*an array of numbers", stream(convert=lambda row: {"x": row["text"]}))
    refused(InputError, "label of example 0: got uint8 of shape .6, 5, 3.", stream(label="image"))
    refused(InputError, "split of .*: got 'test.:0.', expected .* a part with examples", stream(test_split="test[:0]"))
    refused(FormatError, "expected a prepared data set", lambda: tfds_sets.tfds_builder(tmp_path))
    refused(InputError, "got no such data set", lambda: tfds_sets.tfds_builder("no_such_shapes", tmp_path))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    refused(InputError, "pip install tensorflow-datasets", lambda: tfds_sets.tfds_builder("mnist"))
