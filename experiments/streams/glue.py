"""glue6: six tasks of GLUE in the order of the method's paper, through TFDS; one of them asks for a number.

CoLA, MRPC, RTE, STS-B, QNLI, SST-2. Labels of the test sets are not public, so the validation sets are the test, as in
the published tables. CoLA is scored by Matthews' correlation, STS-B by Pearson's, the others by accuracy, as there
(GLUE itself adds F1 for MRPC and Spearman's correlation for STS-B: `experiments.task_metrics` has both).

Sources: Wang et al. 2019, "GLUE" (arXiv 1804.07461); the order from Kaushik et al. 2026 (arXiv 2602.06043).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.data.tfds_sets import prepared_set, records
from experiments.streams.base import Texts, TextTask
from experiments.streams.sample import balanced
from share_jax.errors import FormatError, message


@dataclass(frozen=True)
class GlueTask:
    """A configuration of TFDS `glue`: its text features, and how it is scored."""

    config: str
    texts: tuple[str, ...]
    metric: str = "accuracy"
    kind: str = "classification"


TASKS = (
    GlueTask("cola", ("sentence",), "matthews"),
    GlueTask("mrpc", ("sentence1", "sentence2")),
    GlueTask("rte", ("sentence1", "sentence2")),
    GlueTask("stsb", ("sentence1", "sentence2"), "pearson", "regression"),
    GlueTask("qnli", ("question", "sentence")),
    GlueTask("sst2", ("sentence",)),
)
"""In the order in which they are learnt."""


def glue6(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    train_per_task: int | None = None,
    test_per_task: int | None = None,
) -> tuple[TextTask, ...]:
    """The six tasks; sentences, or pairs of them.

    Args:
        data_dir: TFDS folder with `glue/cola` and the others, prepared; None is TFDS's own default, which downloads.
        seed: of the subsets.
        train_per_task: most training examples of a task, shared equally among its classes; None is all.
        test_per_task: the same for the test.

    Raises:
        InputError: a set is not there, with the command that prepares it.
        FormatError: a set is not GLUE's, or needs TensorFlow to be read.
    """
    limits = (("train", train_per_task), ("validation", test_per_task))
    return tuple(_task(task, data_dir, [seed, place], limits) for place, task in enumerate(TASKS))


def _task(
    task: GlueTask,
    data_dir: str | os.PathLike[str] | None,
    key: Sequence[int],
    limits: Sequence[tuple[str, int | None]],
) -> TextTask:
    builder = prepared_set(f"glue/{task.config}", data_dir)
    what, features = f"features of TFDS glue/{task.config}", builder.info.features
    if missing := [name for name in (*task.texts, "label") if name not in features]:
        fix = "take GLUE as TFDS prepares it"
        raise FormatError(message(what, got=sorted(features), expected=f"also {', '.join(missing)}", fix=fix))
    classes = () if task.kind == "regression" else tuple(features["label"].names)
    sides = [_side(records(builder, split), task, limit, [*key, len(split)]) for split, limit in limits]
    (train, train_labels), (test, test_labels) = sides
    return TextTask(task.config, classes, train, train_labels, test, test_labels, task.kind, task.metric)


def _side(source: Any, task: GlueTask, limit: int | None, key: Sequence[int]) -> tuple[Texts, np.ndarray]:
    rows = list(source)
    labels = np.array([row["label"] for row in rows], np.float32 if task.kind == "regression" else np.int32)
    if limit is not None:
        alike = np.zeros(len(rows), int) if task.kind == "regression" else labels
        places = balanced(alike, limit, np.random.default_rng(key))
        rows, labels = [rows[place] for place in places], labels[places]
    texts: Any = tuple(tuple(_text(row[name]) for name in task.texts) for row in rows)
    return (tuple(text for (text,) in texts) if len(task.texts) == 1 else texts), labels


def _text(stored: str | bytes) -> str:
    return stored.decode("utf-8") if isinstance(stored, bytes) else stored
