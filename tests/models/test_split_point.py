"""Where the frozen part of a model ends: any sublayer, or the head itself."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapted_models import base_variables
from hypothesis import given
from hypothesis import strategies as st
from method_jobs import job

from experiments.algorithms.frozen_head import on_features
from experiments.algorithms.frozen_head import run as run_frozen_head
from experiments.algorithms.job import Job
from experiments.algorithms.loop import Sequence
from experiments.algorithms.plan import Plan
from experiments.backbones.backbone import (
    HEADS,
    Backbone,
    PooledFeatures,
    cached_inputs,
    cut_at,
    linear_head,
    prefix_cache,
)
from experiments.streams.base import Split, Stream, Task
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError, TargetError
from share_jax.models.bert import BertClassifier, BertConfig
from share_jax.models.split_point import START, Cut, check_cut, parts
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.trees import flat

LAYERS = 3
CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
)
CUTS = st.builds(Cut, st.integers(0, LAYERS - 1), st.sampled_from(["attention", "ffn"])) | st.just(Cut(LAYERS))


@given(CUTS, CUTS)
def test_parts_are_every_sublayer_between_two_cuts_once_and_in_order(first: Cut, last: Cut) -> None:
    every = [(index, part) for index in range(LAYERS) for part in ("attention", "ffn")]
    wanted = [each for each in every if first <= each < last]
    got = list(parts(first, last, LAYERS))
    spelt = [(index, part) for index, only in got for part in (("attention", "ffn") if only is None else (only,))]
    assert spelt == wanted
    assert list(parts(first, None, LAYERS)) == list(parts(first, Cut(LAYERS), LAYERS))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (Cut(4), "first_layer: got 4, expected 0 to 3"),
        (Cut(-1), "first_layer: got -1"),
        (Cut(3, "ffn"), "first_sublayer: got 'ffn' of layer 3"),
        (Cut(0, "norm"), "first_sublayer: got 'norm', expected 'attention' or 'ffn'"),  # pyright: ignore
    ],
)
def test_cuts_that_are_not_there_are_refused(cut: Cut, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_cut(cut, LAYERS)
    check_cut(START, LAYERS)


def backbone() -> Backbone:
    model = BertClassifier(CONFIG, 3, 1)
    ids = jnp.ones((1, 4), jnp.int32)
    params = base_variables(model, ids, ids)["params"]
    params = {**params, "head": linear_head(3, 16)}
    return Backbone("tiny-bert", model, params, ("encoder/layer_1/ffn_down/kernel",), HEADS, 1)


def texts(seed: int, count: int) -> Split:
    """Random ids of 2 to 12 tokens; the class is whether the first one is low, middling or high."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 40, (count, 12)).astype(np.int32)
    mask = (np.arange(12) < rng.integers(2, 13, (count, 1))).astype(np.int32)
    return Split({"input_ids": ids * mask, "attention_mask": mask}, ids[:, 0] // 14)


def text_job(folder: Path) -> Job:
    tasks = tuple(Task(f"t{n}", ("low", "middling", "high"), texts(n, 60), texts(n + 9, 30)) for n in range(2))
    made = job(folder, steps=12, head_learning_rate=0.05, length_buckets=(4, 8))
    return replace(made, stream=Stream("texts", "task-incremental", tasks), backbone=backbone())


@pytest.mark.slow
def test_a_head_on_stored_features_learns_what_it_does_on_the_model(tmp_path: Path) -> None:
    """Batches of the same examples in the same order, cut to buckets or not: the same head within 1e-5."""
    made, plan = text_job(tmp_path), Plan(SeparateLoRA(4, 8.0), adapts=False)
    banks = []
    for where, each in (("model", made), ("features", on_features(made))):
        sequence = Sequence(replace(each, folder=tmp_path / where), plan)
        course = sequence.learn_next(sequence.learn_next(sequence.restored()))
        banks.append(course)
    through, stored = banks
    for index in range(2):
        apart = flat(read_slot(stored.bank.tasks, index))
        for path, leaf in flat(read_slot(through.bank.tasks, index)).items():
            np.testing.assert_allclose(apart[path], leaf, rtol=0, atol=1e-5, err_msg=path)
            assert not np.array_equal(leaf, flat(made.backbone.params)[path])
    assert stored.rows == through.rows
    outcome = run_frozen_head(replace(made, folder=tmp_path / "whole"))
    assert outcome.accuracy[1, :2].tolist() == list(through.rows[1])
    assert outcome.params["per_task"] == 0
    assert outcome.params["base"] == sum(leaf.size for leaf in jax.tree.leaves(made.backbone.params["encoder"]))


def test_features_are_computed_once_for_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = BertClassifier.features

    def counted(self, *args, **kwargs):
        calls.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(BertClassifier, "features", counted)
    made, features = backbone(), PooledFeatures(16)
    split = texts(0, 20)
    points = []
    first = features.of(made, split, lambda: points.append(1))
    assert len(points) == 2
    traced = len(calls)
    assert traced > 0
    assert features.of(made, split, lambda: points.append(1)) is first
    assert (len(points), len(calls)) == (2, traced)
    monkeypatch.undo()
    model = jax.jit(partial(made.model.apply, method="features"))({"params": made.params}, **split.inputs)
    np.testing.assert_allclose(first, model, rtol=0, atol=1e-5)
    assert features.of(made, Split({"pooled": first}, split.labels)) is first


def test_what_is_below_the_cut_cannot_be_adapted(tmp_path: Path) -> None:
    """Its attention is not run in a step, so a target there is told, not passed over."""
    cut = cut_at(replace(backbone(), targets=("encoder/layer_1/attention/query/kernel",)), "ffn")
    cache = prefix_cache(cut, 16)
    made = text_job(tmp_path)
    tasks = tuple(
        replace(task, train=cached_inputs(cache, task.train), test=cached_inputs(cache, task.test))
        for task in made.stream.tasks
    )
    made = replace(made, stream=replace(made.stream, tasks=tasks), backbone=cut)
    with pytest.raises(TargetError, match="encoder/layer_1/attention/query/kernel"):
        Sequence(made, Plan(SeparateLoRA(4, 8.0)))
