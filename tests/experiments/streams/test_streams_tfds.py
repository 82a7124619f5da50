"""The streams through TFDS, on sets of the same features that are prepared here without TensorFlow, and run."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")
import tfds_makers as makers

from experiments.config.run_config import parse
from experiments.data import tfds_sets
from experiments.data.images import image_reader
from experiments.data.lazy import LazyRows, joined, lazy_rows
from experiments.run import main
from experiments.streams import tfds_images as images
from experiments.streams.glue import glue6
from experiments.streams.tfds_images import STREAMS, balanced, image_stream
from share_jax.errors import FormatError, InputError

DATA = Path(__file__).parents[2] / "data"
LARGE = (*images.STREAMS, "glue6")


@pytest.fixture(autouse=True)
def no_tensorflow() -> Iterator[None]:
    yield
    assert "tensorflow" not in sys.modules


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TFDS folder with all sets."""
    folder = tmp_path_factory.mktemp("tfds")
    makers.cifar100(folder)
    makers.imagenet_r(folder)
    makers.plain(folder, "food101", "2.0.0", 11, {"train": 2, "validation": 1})
    makers.plain(folder, "caltech101", "3.0.2", 12, {"train": 2, "test": 2})
    makers.plain(folder, "oxford_flowers102", "2.1.1", 10, {"train": 1, "validation": 1, "test": 3})
    makers.glue(folder)
    return folder


def colour(label: int) -> np.ndarray:
    return np.random.default_rng(label).integers(40, 216, 3) / 127.5 - 1


def test_cifar100_is_ten_tasks_of_ten_classes(data):
    stream = image_stream("cifar100_10", data, size=8, seed=1)
    assert [len(task.classes) for task in stream.tasks] == [10] * 10
    names = [int(name) for task in stream.tasks for name in task.classes]
    assert sorted(names) == list(range(100)) != names
    for task in stream.tasks[:2]:
        assert (len(task.train), len(task.test)) == (40, 20)
        for part in (task.train, task.test):
            rows = part.inputs["images"]
            assert isinstance(rows, LazyRows)
            assert (rows.shape, rows.dtype) == ((len(part), 8, 8, 3), np.float32)
            for image, label in zip(rows[:], part.labels, strict=True):
                seen = image.mean(axis=(0, 1))
                np.testing.assert_allclose(seen, colour(int(task.classes[label])), rtol=0, atol=0.08)
    again = image_stream("cifar100_10", data, size=8, seed=1)
    assert [task.classes for task in again.tasks] == [task.classes for task in stream.tasks]
    other = image_stream("cifar100_10", data, size=8, seed=2)
    assert [task.classes for task in other.tasks] != [task.classes for task in stream.tasks]


def test_imagenet_r_splits_the_classes_that_occur_and_holds_a_fifth_out(data):
    stream = image_stream("imagenet_r_10", data, size=8)
    assert [len(task.classes) for task in stream.tasks] == [2] * 10
    assert {name for task in stream.tasks for name in task.classes} == {f"n{3 * i:08d}" for i in range(20)}
    for task in stream.tasks:
        assert np.bincount(task.train.labels).tolist() == [4, 4]
        assert np.bincount(task.test.labels).tolist() == [1, 1]
        train, test = (part.inputs["images"].place for part in (task.train, task.test))
        assert not set(train) & set(test)


def test_the_papers_image_sets_are_one_task_each_or_ten(data):
    stream = image_stream("images3", data, size=8)
    assert [task.name for task in stream.tasks] == ["food101", "caltech101", "flowers102"]
    assert [len(task.classes) for task in stream.tasks] == [11, 12, 10]
    assert [(len(task.train), len(task.test)) for task in stream.tasks] == [(22, 11), (24, 24), (20, 30)]
    split = image_stream("caltech101_10", data, size=8)
    assert sorted(len(task.classes) for task in split.tasks) == [1] * 8 + [2, 2]
    few = image_stream("images3", data, size=8, train_per_task=11, test_per_task=10)
    assert np.bincount(few.tasks[0].train.labels).tolist() == [1] * 11
    assert [len(task.test) for task in few.tasks] == [10, 10, 10]


def test_images_are_read_when_they_are_asked_for_and_joined_unread():
    read: list[int] = []

    class Watched(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    first = lazy_rows(Watched({"x": i} for i in range(6)), lambda row: np.full(2, row["x"], np.float32))
    second = lazy_rows(Watched({"x": 10 + i} for i in range(3)), lambda row: np.full(2, row["x"], np.float32))
    read.clear()
    both = joined([first.part(np.array([4, 1])), second])
    assert (len(both), both.shape, read) == (5, (5, 2), [])
    np.testing.assert_array_equal(both[np.array([3, 0, 0])][:, 0], [11, 4, 4])
    assert read == [1, 4, 4]
    np.testing.assert_array_equal(both[1:3][:, 0], [1, 10])
    np.testing.assert_array_equal(joined([np.zeros((1, 2)), np.ones((1, 2))]), [[0, 0], [1, 1]])


def test_an_image_is_cut_to_its_middle_square_and_normalised():
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6, 0] = 255
    pixels[:, :2, 1] = 200
    image = image_reader(4)({"image": pixels})
    assert (image.shape, image.dtype) == ((4, 4, 3), np.float32)
    np.testing.assert_array_equal(image, np.broadcast_to(np.array([1, -1, -1], np.float32), (4, 4, 3)))
    grey = image_reader(2)({"image": np.full((2, 2, 1), 51, np.uint8)})
    np.testing.assert_allclose(grey, np.full((2, 2, 3), -0.6), rtol=0, atol=1e-6)
    wide = image_reader(5)({"image": makers.picture(1, 0, (9, 31)).read()})
    assert wide.shape == (5, 5, 3)
    with pytest.raises(FormatError, match=r"feature 'image': got .*, expected an image"):
        image_reader(4)({"image": b"no image"})


def test_a_limit_is_shared_equally_among_the_classes():
    labels = np.array([0] * 10 + [1] * 3 + [2])
    for limit in (3, 7, 14, 99):
        places = balanced(labels, limit, np.random.default_rng(0))
        assert len(set(places.tolist())) == len(places) == min(limit, 14)
        counts = np.bincount(labels[places], minlength=3)
        assert counts[2] == 1
        assert abs(counts[0] - counts[1]) <= 1 or counts[1] == 3


def test_glue_is_six_tasks_with_their_own_metrics(data):
    tasks = glue6(data)
    assert [task.name for task in tasks] == ["cola", "mrpc", "rte", "stsb", "qnli", "sst2"]
    assert [task.metric for task in tasks] == ["matthews", "accuracy", "accuracy", "pearson", "accuracy", "accuracy"]
    assert [len(task.classes) for task in tasks] == [2, 2, 2, 0, 2, 2]
    for task in tasks:
        assert (len(task.train_texts), len(task.test_texts)) == (12, 8)
        pair = len(makers.GLUE[task.name][0]) == 2
        assert all(isinstance(text, tuple) == pair for text in task.train_texts)
    assert sorted(tasks[3].train_labels.tolist()) == sorted(i % 11 / 2 for i in range(12))
    few = glue6(data, train_per_task=4, test_per_task=2)
    assert [len(task.train_texts) for task in few] == [4] * 6
    assert np.bincount(few[0].train_labels).tolist() == [2, 2]


def test_a_set_that_is_not_there_names_the_command(data, tmp_path):
    for make, name in (
        (lambda: image_stream("cifar100_10", tmp_path), "cifar100"),
        (lambda: glue6(tmp_path), "glue/cola"),
    ):
        with pytest.raises(InputError, match=f"tfds build {name} --file_format=array_record --data_dir=") as caught:
            make()
        assert "\n" not in str(caught.value)
    makers.plain(tmp_path, "oxford_flowers102", "2.1.1", 4, {"train": 1, "validation": 1, "test": 1})
    with pytest.raises(InputError, match="classes of flowers102: got 4, expected at least 10"):
        image_stream("flowers102_10", tmp_path, size=8)


@pytest.mark.parametrize("name", [name for name in STREAMS if name not in ("images3", "imagenet_r_10")])
def test_tfds_own_sets_have_the_splits_and_features_that_are_read(name, monkeypatch):
    # mock_data encodes an example again if its image is wanted as bytes, which needs TensorFlow: arrays are read here
    monkeypatch.setattr(images, "records", lambda builder, split, encoded: tfds_sets.records(builder, split))
    with makers.tfds.testing.mock_data(num_examples=300):
        stream = image_stream(name, size=4)
        assert sum(len(task.classes) for task in stream.tasks) > 90
        assert sum(len(task.train) for task in stream.tasks) == 300
        assert stream.tasks[0].train.inputs["images"][:2].shape == (2, 4, 4, 3)


def test_tfds_own_imagenet_r_has_the_split_and_features_that_are_read():
    with makers.tfds.testing.mock_data(num_examples=3):
        builder = tfds_sets.prepared_set("imagenet_r", None)
        rows = tfds_sets.records(builder, images.SETS["imagenet_r"].train)
        assert {"image", "label"} <= set(rows[0])
        assert len(builder.info.features["label"].names) == 1000


def test_tfds_own_glue_has_the_configurations_and_features_that_are_read():
    with makers.tfds.testing.mock_data(num_examples=6):
        tasks = glue6()
    assert [task.classes for task in tasks] == [tuple(classes or ()) for _, classes in makers.GLUE.values()]
    assert [len(task.train_texts) for task in tasks] == [6] * 6
    assert tasks[3].train_labels.dtype == np.float32


def ran(folder: Path, *words: str) -> dict:
    assert main([*words, "--preset", "quick", "--quiet", "--workdir", str(folder)]) == 0
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_cifar100_runs_end_to_end_on_a_vision_transformer(data, tmp_path, capsys):
    words = ["--experiment", "cifar100_10", "--data-folder", str(data), "--weights", str(DATA / "vit_tiny")]
    options = ["--image-size", "8", "--methods", "shared_a,joint", "--steps", "3", "--rank", "2"]
    content = ran(tmp_path / "run", *words, *options)
    assert len(content["tasks"]) == 10
    assert content["metrics"] == ["accuracy"] * 10
    found = content["methods"]["shared_a"]["runs"][0]
    assert found["extra"]["tasks_with_changed_logits"] == 0
    assert found["forgetting"] <= 0
    assert "--weights vit_tiny" in content["command"]
    assert str(DATA) not in content["command"]
    assert "--image-size 8" in content["command"]


@pytest.mark.slow
def test_cifar100_runs_without_task_ids(data, tmp_path, capsys):
    words = ["--experiment", "cifar100_10", "--protocol", "class", "--data-folder", str(data)]
    options = ["--weights", str(DATA / "vit_tiny"), "--image-size", "8", "--steps", "2", "--rank", "2"]
    content = ran(tmp_path / "run", *words, *options, "--methods", "shared_a,sequential_lora")
    assert content["protocol"] == "class-incremental"
    for name, routed in (("shared_a", True), ("sequential_lora", False)):
        assert ("acc_without_router" in content["methods"][name]["runs"][0]["extra"]) == routed


def test_the_page_has_a_command_and_figures_or_none_for_every_stream():
    """Commands parse, and ask for the protocol of the figures beside which their results are to stand."""
    page = Path(images.__file__).with_name("tfds.md").read_text(encoding="utf-8")
    commands = re.findall("^    python -m experiments.run (.*)$", page, re.MULTILINE)
    configs = {config.experiment: config for config in (parse(command.split()) for command in commands)}
    assert len(commands) == len(configs)
    assert set(configs) == set(LARGE)
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| `\w+`", line)]
    told = {name: [row[-1] for row in rows if f"`{name}`" in row[0]] for name in LARGE}
    assert all(told.values())
    by_class = {name for name, protocols in told.items() if "class-incremental" in protocols}
    assert by_class == {name for name, config in configs.items() if config.protocol == "class"}
    assert [row[3] for row in rows if "`flowers102_10`" in row[0]] == ["none known"]
    assert not any("CIFAR" in row[3] for row in rows if "`images3`" in row[0])


@pytest.mark.slow
def test_glue_runs_end_to_end_on_roberta(data, tmp_path, capsys):
    words = ["--experiment", "glue6", "--data-folder", str(data), "--weights", str(DATA / "roberta_tiny")]
    options = ["--max-length", "16", "--methods", "shared_a", "--steps", "4", "--rank", "2"]
    content = ran(tmp_path / "run", *words, *options)
    assert content["tasks"] == ["cola", "mrpc", "rte", "stsb", "qnli", "sst2"]
    assert content["metrics"] == ["matthews", "accuracy", "accuracy", "pearson", "accuracy", "accuracy"]
    assert content["methods"]["shared_a"]["runs"][0]["extra"]["tasks_with_changed_logits"] == 0
    report = (tmp_path / "run" / "report.md").read_text()
    assert "matthews for cola, pearson for stsb; accuracy for the others" in report


def test_what_is_missing_is_one_line(data, tmp_path, capsys):
    shutil.copytree(DATA / "roberta_tiny", tmp_path / "wrong")
    for number, (words, message) in enumerate((
        (["cifar100_10"], "error: --weights: got none, expected the pretrained google/vit-base-patch16-224-in21k"),
        (["glue6", "--weights", str(tmp_path / "no")], "error: --weights: got no file or folder"),
        (["glue6", "--weights", str(DATA / "roberta_tiny"), "--data-folder", str(tmp_path)], "tfds build glue/cola"),
        (["cifar100_10", "--weights", str(tmp_path / "wrong"), "--data-folder", str(data)], "got no image_size"),
        (["glue6", "--weights", str(DATA / "vit_tiny"), "--data-folder", str(data)], "tokenizer.json: got"),
    )):  # fmt: skip
        base = ["--preset", "quick", "--quiet", "--workdir", str(tmp_path / f"run-{number}"), "--experiment"]
        assert main([*base, *words]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1
