"""The saturation study on a tiny encoder: its tail is the whole model's, and its rows and page say what happened."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.backbones.backbone import Backbone
from experiments.studies.saturation import run
from experiments.studies.saturation.page import findings, write_page
from experiments.studies.saturation.tasks import MOST_CLASSES, Budget, SmallTask, Study, Tail, features, tail_of
from experiments.studies.saturation.varied import CHOICES, STARTS
from share_jax.models.bert import BertClassifier, BertConfig

CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=12,
)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    model = BertClassifier(CONFIG, MOST_CLASSES)
    ids = jnp.ones((1, 6), jnp.int32)
    params = model.init(jax.random.key(0), input_ids=ids, attention_mask=ids)["params"]
    return Backbone("tiny", model, params, (), (), 0)


def texts(seed: int, count: int, word: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids (count, 6) with one word in all of them, of different lengths."""
    random = np.random.default_rng(seed)
    ids = random.integers(1, 60, (count, 6)).astype(np.int32)
    ids[:, 1] = word
    mask = (np.arange(6) < random.integers(3, 7, (count, 1))).astype(np.int32)
    return ids, mask


@pytest.mark.parametrize("count", [5, 8])
def test_the_tail_answers_as_the_whole_model_does(backbone: Backbone, count: int) -> None:
    """Batches of four: whole ones, and a last one that is padded."""
    ids, mask = texts(0, count, 3)
    tail, params = tail_of(backbone)
    assert isinstance(tail, Tail)
    whole = {**backbone.params, "head": params["head"]}
    expected = backbone.model.apply({"params": whole}, input_ids=ids, attention_mask=mask)
    found = tail.apply({"params": params}, **features(backbone, ids, mask, batch_size=4))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def tasks(backbone: Backbone) -> list[SmallTask]:
    """Six tasks of two or three words that have to be told apart."""
    made = []
    for index in range(6):
        size = 2 + index % 2
        sides = []
        for part in (0, 1):
            parts = [texts(10 * index + part, 20, 5 + 3 * index + c) for c in range(size)]
            ids, mask = (np.concatenate(side) for side in zip(*parts, strict=True))
            sides.append((features(backbone, ids, mask), np.repeat(np.arange(size), 20).astype(np.int32)))
        made.append(SmallTask(f"task {index}", sides[0], sides[1], size))
    return made


@pytest.fixture(scope="module")
def content(backbone: Backbone, tasks: list[SmallTask]) -> dict[str, Any]:
    study = Study(backbone, Budget(rank=2, steps=30, learning_rate=0.05), tasks[0].train[0])
    kept: list[int] = []
    rows = run.run(tasks, study, (2, 6), 0, lambda text: None, lambda rows: kept.append(len(rows)), ("own", "one"))
    assert kept == list(range(2, 25, 2))
    return {"budget": {"rank": 2, "steps": 30}, "seed": 0, "versions": {"device_kind": "cpu"}, "rows": rows}


@pytest.mark.slow
def test_rows_are_exact_with_room_enough_and_lose_within_the_bound_without(content: dict[str, Any]) -> None:
    rows = content["rows"]
    assert len(rows) == len(STARTS) * len(CHOICES) * 2
    for row in rows:
        assert row["bound_held"]
        assert row["error_mean"] <= row["error_max"] <= row["bound_max"]
        assert row["own_accuracy"] > row["without_accuracy"] + 0.1
        wide = row["choice"] in ("k = 16", "k = 32", "k = 64")  # six tasks of rank 2 have at most 12 columns
        if wide:
            assert row["error_max"] < 1e-5
            assert row["accuracy"] == row["own_accuracy"]
        if row["choice"] == "error at most 0.1":
            assert row["bound_max"] <= 0.1
        if row["choice"] == "k = 8" and row["tasks"] == 6:
            assert row["k"] == [8, 8]
            assert row["error_mean"] > 0.01
            assert row["bytes"] == 4 * (8 * (32 + 16) + 6 * 2 * 8 * 2)
            assert row["separate_bytes"] == 4 * 6 * 2 * (32 + 16)


@pytest.mark.slow
def test_the_page_has_every_row_and_its_plots(content: dict[str, Any], tmp_path: Path) -> None:
    write_page(content, tmp_path / "SATURATION.md")
    text = (tmp_path / "SATURATION.md").read_text()
    assert len(re.findall(r"^\| (k =|99 %|error)", text, re.MULTILINE)) == len(content["rows"])
    assert f"in {len(content['rows'])} of {len(content['rows'])} states" in text
    images = re.findall(r"!\[[^\]]{30,}\]\(([^)]+)\)", text)
    assert len(images) == 4
    for image in images:
        root = ElementTree.fromstring((tmp_path / image).read_text())
        assert len(list(root.iter())) > 20
    assert "nan" not in text.lower()


def row(choice: str, tasks: int, **own: Any) -> dict[str, Any]:
    known = {"start": "own", "choice": choice, "tasks": tasks, "k": [8, 8], "error_mean": 0.5, "bound_held": True}
    known |= {"bound_mean": 0.7, "at_once": 0.4}
    return {**known, "accuracy": 0.5, "own_accuracy": 0.9, "bytes": 10, "separate_bytes": 100, **own}


def test_findings_tell_growth_and_the_smallest_state_that_is_good_enough() -> None:
    name = "99 % explained variance"
    rows = [
        row("k = 8", 10),
        row("k = 8", 160, bound_held=False, bound_mean=1.1, error_mean=0.6, at_once=0.5),
        row("k = 64", 160, accuracy=0.895, bytes=40),
        row(name, 10, k=[10, 20]),
        row(name, 160, k=[160, 80], accuracy=0.9, bytes=90),
    ]
    held, once, fixed, growing, smallest = findings(rows)
    assert "in 4 of 5 states. In 1 of them" in held
    assert "at most 1.250 times" in once
    assert "k = 8 from 0.50 at 10 tasks to 0.60 at 160 (0.100 of it since 10), accuracy 50.0 of 90.0 %" in fixed
    assert "as the 1.00th and 0.50th power" in growing
    assert "is k = 64: 40.0 % of" in smallest
    assert "no choice keeps" in findings(rows[:2])[-1]
