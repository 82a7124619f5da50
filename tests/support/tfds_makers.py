"""TFDS sets as the large streams read them, made small, by code that TFDS does not register under their names."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


def picture(label: int, index: int, size: tuple[int, int], kind: str = "png") -> io.BytesIO:
    """A noisy image whose colour tells its label."""
    rng = np.random.default_rng([label, index])
    base = np.random.default_rng(label).integers(40, 216, 3)
    return png(np.clip(base + rng.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8), kind)


def png(pixels: np.ndarray, kind: str = "png") -> io.BytesIO:
    """An image file of (rows, columns) or (rows, columns, 3) bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    file.seek(0)
    return file


def prepare(folder: Path, name: str, version: str, features: Mapping[str, Any], splits: Mapping[str, list]) -> None:
    """Prepares a set as array_record under `folder/name/version`, without TensorFlow."""
    base, _, config = name.partition("/")

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """A set of given examples."""

        VERSION = tfds.core.Version(version)
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(dict(features)))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows):
            yield from enumerate(rows)

    Made.name = base
    tfds.disable_progress_bar()
    options = {"config": config} if config else {}
    builder = Made(data_dir=folder, file_format="array_record", **options)
    builder.download_and_prepare(file_format="array_record")


def images(labels: list[int], each: int, size=(9, 12), kind: str = "png", start: int = 0, **more: Any) -> list[dict]:
    """`each` examples of every label, with further features for all."""
    count = range(start, start + each)
    return [{"image": picture(label, i, size, kind), "label": label, **more} for i in count for label in labels]


def cifar100(folder: Path, each: int = 4) -> None:
    """The features of TFDS `cifar100` 3.0.2: 100 fine classes, 20 coarse ones, 32 x 32 PNG."""
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(num_classes=100),
        "coarse_label": tfds.features.ClassLabel(num_classes=20),
    }
    more = {"size": (32, 32), "id": "x", "coarse_label": 0}
    splits = {"train": images(list(range(100)), each, **more), "test": images(list(range(100)), 2, start=99, **more)}
    prepare(folder, "cifar100", "3.0.2", features, splits)


def imagenet_r(folder: Path) -> None:
    """The features of TFDS `imagenet_r` 0.2.0: labels of ImageNet, of which few occur, and a test split alone."""
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=[f"n{i:08d}" for i in range(1000)]),
        "file_name": tfds.features.Text(),
    }
    rows = images([3 * i for i in range(20)], 5, kind="jpeg", file_name="n/x.jpg")
    prepare(folder, "imagenet_r", "0.2.0", features, {"test": rows})


def plain(folder: Path, name: str, version: str, classes: int, splits: Mapping[str, int]) -> None:
    """The features of food101, caltech101 and oxford_flowers102 that the streams read."""
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=classes)}
    rows = {
        split: images(list(range(classes)), each, kind="jpeg", start=10 * place)
        for place, (split, each) in enumerate(splits.items())
    }
    prepare(folder, name, version, features, rows)


WORDS = ["cat", "dog", "mat", "coffee", "sat", "the best", "model", "task"]
GLUE = {
    "cola": (("sentence",), ["unacceptable", "acceptable"]),
    "mrpc": (("sentence1", "sentence2"), ["not_equivalent", "equivalent"]),
    "rte": (("sentence1", "sentence2"), ["entailment", "not_entailment"]),
    "stsb": (("sentence1", "sentence2"), None),
    "qnli": (("question", "sentence"), ["entailment", "not_entailment"]),
    "sst2": (("sentence",), ["negative", "positive"]),
}


def glue(folder: Path, count: int = 12) -> None:
    """The features of TFDS `glue` 2.0.0, six configurations; the test sets' labels are -1 there."""
    for name, (texts, classes) in GLUE.items():
        label = tfds.features.ClassLabel(names=classes) if classes else np.float32
        features = {text: tfds.features.Text() for text in texts} | {"label": label, "idx": np.int32}
        rng = np.random.default_rng(len(name))

        def rows(size: int, texts=texts, classes=classes, rng=rng) -> list[dict]:
            return [
                {text: " ".join(rng.choice(WORDS, 3)) for text in texts}
                | {"label": i % 2 if classes else np.float32(i % 11 / 2), "idx": i}
                for i in range(size)
            ]

        prepare(folder, f"glue/{name}", "2.0.0", features, {"train": rows(count), "validation": rows(8)})
