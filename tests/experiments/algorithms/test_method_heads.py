"""Heads of more than one layer where a method needs several at once, and prompts before a token that heads see."""

from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from method_jobs import begun, inputs, job

from experiments.algorithms.heads import every_head, features, head_module, one_head
from experiments.algorithms.job import Job
from experiments.algorithms.l2p import KEYS, L2P, POOL, chosen, cosines, prepended
from experiments.algorithms.loop import Sequence
from experiments.algorithms.plan import Extension, MethodContext, Plan
from experiments.algorithms.replay import Replay
from experiments.backbones.backbone import with_outputs
from experiments.backbones.pretrained import roberta, vit
from experiments.streams.base import Split, Stream, Task
from share_jax.bank.slots import read_slot
from share_jax.errors import InputError
from share_jax.models.roberta import RobertaHead
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.trees import flat, nested

DATA = Path(__file__).parents[2] / "data"
EXAMPLES, LENGTH = 24, 12


@cache
def texts() -> Stream:
    """Two classes, a number and three classes of drawn tokens, some texts shorter than others."""
    rng = np.random.default_rng(0)

    def split(classes: int) -> Split:
        mask = (np.arange(LENGTH) < rng.integers(4, LENGTH + 1, EXAMPLES)[:, None]).astype(np.int32)
        ids = np.where(mask == 1, rng.integers(3, 310, mask.shape), 1).astype(np.int32)
        labels = rng.integers(classes, size=EXAMPLES) if classes else ids[:, 0].astype(np.float32) / 310
        return Split({"input_ids": ids, "attention_mask": mask}, labels)

    kinds = {0: "regression"}
    tasks = [
        Task(f"{count}", tuple("abc"[:count]), split(count), split(count), kinds.get(count, "classification"))
        for count in (2, 0, 3)
    ]
    return Stream("texts", "task-incremental", tuple(tasks))


@cache
def images() -> Stream:
    """Two tasks of noise in colour."""
    rng = np.random.default_rng(0)

    def split() -> Split:
        drawn = rng.normal(size=(EXAMPLES, 8, 8, 3)).astype(np.float32)
        return Split({"images": drawn}, rng.integers(2, size=EXAMPLES))

    return Stream("noise", "task-incremental", tuple(Task(name, ("a", "b"), split(), split()) for name in "xy"))


def on_texts(folder: Path) -> Job:
    """A job on a tiny RoBERTa."""
    return replace(job(folder), stream=texts(), backbone=roberta(DATA / "roberta_tiny", 3))


def on_images(folder: Path, first_layer: int = 0) -> Job:
    """A job on a tiny ViT with a class token."""
    return replace(job(folder), stream=images(), backbone=vit(DATA / "vit_tiny", 2, first_layer))


def many(extension: Extension) -> Plan:
    return Plan(SeparateLoRA(2), "adapter", "all", extension=extension)


def with_unlike_heads(scene: MethodContext, slot: Any) -> dict[str, Any]:
    rng, leaves = np.random.default_rng(1), flat(slot)
    drawn = {path: jnp.asarray(rng.normal(size=leaves[path].shape).astype(np.float32)) for path in scene.heads}
    return nested(leaves | drawn)


@pytest.mark.slow
def test_every_head_of_two_layers_answers_as_it_does_alone(tmp_path: Path) -> None:
    sequence = Sequence(on_texts(tmp_path), many(Replay(6, 4, alpha=0.5)))
    scene, base = sequence.scene, {"params": sequence.job.backbone.params}
    slot, given = with_unlike_heads(scene, read_slot(sequence.fresh.tasks, 0)), texts().tasks[0].test.inputs
    assert isinstance(head_module(scene), RobertaHead)
    logits = jax.jit(every_head(scene))(base, {}, slot, given, None)
    assert logits.shape == (EXAMPLES, 3, 3)
    for which in range(3):
        alone = scene.forward(base, {}, one_head(scene, slot, which), given, None)
        np.testing.assert_allclose(logits[:, which], alone, atol=1e-4)
    assert np.abs(logits[:, 0] - logits[:, 1]).max() > 0.1
    seen = scene.job.backbone.model.apply(base, **given, method="features")
    np.testing.assert_allclose(features(scene)(base, {}, slot, given, None), seen, atol=1e-5)


def test_linear_heads_are_one_product(tmp_path: Path) -> None:
    sequence, _ = begun(tmp_path, many(Replay(6, 4)))
    scene, base = sequence.scene, {"params": sequence.job.backbone.params}
    slot = with_unlike_heads(scene, read_slot(sequence.fresh.tasks, 0))
    pooled, leaves = features(scene)(base, {}, slot, inputs(), None), flat(slot)
    expected = jnp.einsum("bd,hdc->bhc", pooled, leaves["head/kernel"]) + leaves["head/bias"][None]
    np.testing.assert_array_equal(every_head(scene)(base, {}, slot, inputs(), None), expected)


def test_a_head_in_no_one_module_is_refused(tmp_path: Path) -> None:
    scene = begun(tmp_path, many(Replay(6, 4)))[0].scene
    for heads, message in {
        ("left/kernel", "right/kernel"): "modules of the head, for tested: got left, right, expected one; give the",
        ("absent/kernel",): "head, for tested: got absent, which is not called, expected a module that is; give the",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            every_head(replace(scene, heads=heads))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["er_lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("der_lora", "ewc_lora", "lwf_lora", "l2p"))],
)
def test_methods_learn_with_heads_of_two_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = import_module(f"experiments.algorithms.{name}")
    monkeypatch.setattr(module, "learn", Sequence)
    sequence = module.run(on_texts(tmp_path))
    course = sequence.restored()
    for index in range(3):
        course = sequence.learn_next(course)
        if name == "der_lora":  # what is stored is what the task's own head answers
            train, memory = texts().tasks[index].train, course.memory
            slot, places = sequence.answering(course.bank, index), slice(index * EXAMPLES, (index + 1) * EXAMPLES)
            base = {"params": sequence.job.backbone.params}
            answers = sequence.scene.forward(base, {}, slot, train.inputs, None)
            np.testing.assert_allclose(memory["logits"][places], answers, atol=1e-5)
            np.testing.assert_array_equal(memory["labels"][places], train.labels.astype(np.float32))
    found = sequence.outcome(course).accuracy
    assert np.isfinite(found[np.tril_indices(3)]).all()


def prompted(made: Job) -> tuple[dict[str, Any], Any]:
    """A slot, and the logits of the first task's test examples behind three prompts of two tokens."""
    extension = L2P(pool=6, length=2, top=3, pull=0.5)
    sequence = Sequence(made, Plan(SeparateLoRA(2), "adapter", adapts=False, extension=extension))
    slot, base = read_slot(sequence.fresh.tasks, 0), {"params": made.backbone.params}
    given = dict(made.stream.tasks[0].test.inputs)
    logits = jax.jit(partial(extension.answer(sequence.scene), base, {}))(slot, given, None)
    return slot, logits


def behind_prompts(made: Job, slot: Any) -> jax.Array:
    """The last states of the prompts that each input chooses, and of its own tokens behind them."""
    bound, given = made.backbone.model.bind({"params": made.backbone.params}), made.stream.tasks[0].test.inputs
    mask = {name: array for name, array in given.items() if name == "attention_mask"}
    leaves = flat(slot)
    tokens, _ = chosen(leaves[POOL], cosines(bound.features(**given), leaves[KEYS]), 3)
    longer = prepended({"hidden": bound.prefix(**given), **mask}, tokens)
    return bound.encoder.run(*longer.values(), bound.cut)


@pytest.mark.slow
@pytest.mark.parametrize("make", [on_images, partial(on_images, first_layer=1), on_texts])
def test_heads_that_see_one_token_see_the_mean_of_the_prompts_instead(tmp_path: Path, make: Any) -> None:
    made = make(tmp_path)
    slot, logits = prompted(made)
    states = behind_prompts(made, slot)
    head = made.backbone.model.bind({"params": made.backbone.params}).head
    np.testing.assert_allclose(logits, head(states[:, :6].mean(axis=1)), atol=1e-5)
    for token in (0, 6):  # the first prompt, and the token that the head sees without prompts
        assert np.abs(logits - head(states[:, token])).max() > 1e-3


def test_heads_that_see_the_mean_over_tokens_see_the_prompts_among_them(tmp_path: Path) -> None:
    made = job(tmp_path)
    slot, logits = prompted(made)
    states = behind_prompts(made, slot)
    head = made.backbone.model.bind({"params": made.backbone.params}).head
    np.testing.assert_allclose(logits, head(states.mean(axis=1)), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "first"), [(job, False), (on_images, True), (on_texts, True)], ids=["patches", "class token", "text"]
)
def test_models_say_whether_their_head_sees_one_token(tmp_path: Path, make: Any, first: bool) -> None:
    made = make(tmp_path)
    bound, given = made.backbone.model.bind({"params": made.backbone.params}), made.stream.tasks[0].test.inputs
    mask = [array for name, array in given.items() if name == "attention_mask"]
    states = bound.encoder.run(bound.prefix(**given), *mask, bound.cut)
    assert made.backbone.model.sees_first == first
    expected = states[:, 0] if first else states.mean(axis=1)
    np.testing.assert_allclose(bound.features(**given), expected, atol=1e-6)


@pytest.mark.parametrize("make", [on_texts, on_images])
def test_one_head_for_all_tasks_is_the_models_own_kind(tmp_path: Path, make: Any) -> None:
    made = make(tmp_path)
    wider = with_outputs(made.backbone, 7)
    inputs = made.stream.tasks[0].test.inputs
    assert wider.model.apply({"params": wider.params}, **inputs).shape == (EXAMPLES, 7)
    assert wider.params["encoder"] is made.backbone.params["encoder"]
