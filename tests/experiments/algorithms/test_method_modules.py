"""Houlsby adapters, L2P and full fine-tuning: what is added to the model, and what of it trains."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from method_jobs import TASKS, begun, inputs, job
from tiny_run import CONFIG

from experiments.algorithms.houlsby_adapters import LEAVES, NORMS, Houlsby, bottleneck, layers
from experiments.algorithms.l2p import KEYS, L2P, POOL, chosen, cosines, prepended
from experiments.algorithms.plan import Plan
from experiments.algorithms.used_params import patterns, reached
from share_jax.bank.slots import read_slot
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.trees import flat, nested

UNUSED = SeparateLoRA(2)


def test_bottlenecks_are_the_identity_at_first_and_stand_behind_both_sublayers(tmp_path: Path) -> None:
    own = patterns(tuple(path for path in reached(job(tmp_path)) if NORMS.fullmatch(path)))
    plan = Plan(UNUSED, adapts=False, owned=own, extension=Houlsby(5))
    sequence, course = begun(tmp_path, plan)
    scene, slot = sequence.scene, read_slot(sequence.fresh.tasks, 0)
    base = {"params": sequence.job.backbone.params}
    plain = sequence.adapted.model.apply(base, **inputs(4))
    forward = plan.extension.forward(scene)
    np.testing.assert_array_equal(forward(base, {}, slot, inputs(4), None), plain)
    places = ["encoder/layer_0/attention/out", "encoder/layer_0/ffn_down"]
    assert list(layers(sequence.job)) == places
    for place in places:
        moved = nested(flat(slot) | {f"{place}/adapter_up_bias": jnp.arange(CONFIG.hidden_size, dtype=jnp.float32)})
        assert np.abs(forward(base, {}, moved, inputs(4), None) - plain).max() > 1e-3
    d = CONFIG.hidden_size
    counts = sequence.params(sequence.fresh)
    norms = 2 * d * (2 * CONFIG.num_layers + 1)
    assert counts["per_task"] == 2 * CONFIG.num_layers * (2 * d * 5 + d + 5) + norms
    assert counts["total_tasks"] == TASKS * counts["per_task"]
    assert counts["separate_lora_total"] == TASKS * 4 * (d + CONFIG.intermediate_size)  # rank 4 of the run
    course = sequence.learn_next(sequence.learn_next(course))
    begin, first = (flat(read_slot(bank.tasks, 0)) for bank in (sequence.fresh, course.bank))
    assert all(not np.array_equal(begin[path], first[path]) for path in begin)
    now = sequence.answers.row(sequence.predict(sequence.base, course.bank), 0, None)
    assert now.digests[0] == course.digests[0][0]


def test_a_bottleneck_is_a_residual_perceptron() -> None:
    rng = np.random.default_rng(0)
    shapes = {"adapter_down": (6, 3), "adapter_down_bias": (3,), "adapter_up": (3, 6), "adapter_up_bias": (6,)}
    leaves = {name: rng.normal(size=shapes[name]).astype(np.float32) for name in LEAVES}
    h = rng.normal(size=(2, 4, 6)).astype(np.float32)
    inner = h @ leaves["adapter_down"] + leaves["adapter_down_bias"]
    gelu = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
    expected = h + gelu @ leaves["adapter_up"] + leaves["adapter_up_bias"]
    np.testing.assert_allclose(bottleneck(leaves, jnp.asarray(h)), expected, atol=1e-5)


def test_prompts_are_chosen_by_cosine_and_only_those_are_pulled() -> None:
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(4, 6)).astype(np.float32), 7 * rng.normal(size=(5, 6)).astype(np.float32)
    pool = rng.normal(size=(5, 2, 6)).astype(np.float32)
    by_hand = (query @ keys.T) / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(keys, axis=1)
    np.testing.assert_allclose(cosines(query, keys), by_hand, atol=1e-6)
    tokens, apart = chosen(pool, cosines(query, keys), 2)
    best = np.argsort(-by_hand, axis=1)[:, :2]
    np.testing.assert_array_equal(tokens, pool[best].reshape(4, 4, 6))
    np.testing.assert_allclose(apart, (1 - np.take_along_axis(by_hand, best, axis=1)).sum(1), atol=1e-5)

    def pull(keys: jax.Array) -> jax.Array:
        return chosen(pool, cosines(query[:1], keys), 2)[1].sum()

    slope = np.asarray(jax.grad(pull)(jnp.asarray(keys)))
    assert np.all(slope[[i for i in range(5) if i not in best[0]]] == 0)
    nearer = cosines(query[:1], keys - 0.1 * slope)
    assert np.all(np.asarray(nearer)[0, best[0]] > by_hand[0, best[0]])


def test_prompts_count_in_the_mask_and_come_first() -> None:
    hidden, tokens = np.ones((2, 3, 4), np.float32), np.zeros((2, 5, 4), np.float32)
    longer = prepended({"hidden": hidden, "attention_mask": np.array([[1, 1, 0], [1, 0, 0]], np.int32)}, tokens)
    assert longer["hidden"].shape == (2, 8, 4)
    assert np.all(longer["hidden"][:, :5] == 0)
    assert np.asarray(longer["attention_mask"]).tolist() == [[1] * 5 + [1, 1, 0], [1] * 5 + [1, 0, 0]]


def test_prompts_that_no_input_chooses_do_not_move(tmp_path: Path) -> None:
    extension = L2P(pool=6, length=2, top=1, pull=0.5)
    sequence, course = begun(tmp_path, Plan(UNUSED, "adapter", adapts=False, extension=extension), learning_rate=0.03)
    begin = flat(read_slot(sequence.fresh.tasks, 0))
    assert begin[POOL].shape == (6, 2, CONFIG.hidden_size)
    course = sequence.learn_next(course)
    end = flat(read_slot(course.bank.tasks, 0))
    moved = [not np.array_equal(begin[POOL][prompt], end[POOL][prompt]) for prompt in range(6)]
    assert any(moved)
    assert not all(moved)
    for path in (POOL, KEYS):
        assert [not np.array_equal(begin[path][prompt], end[path][prompt]) for prompt in range(6)] == moved
    params, task = sequence.job.backbone.params, sequence.job.stream.tasks[0]
    features = sequence.adapted.model.apply({"params": params}, **task.train.inputs, method="features")
    used = set(np.asarray(cosines(features, begin[KEYS])).argmax(axis=1).tolist())
    assert used <= {prompt for prompt in range(6) if moved[prompt]}
    assert sequence.params(course.bank)["total_tasks"] == begin[POOL].size + begin[KEYS].size  # one pool for all


def test_full_fine_tuning_moves_every_weight_and_goes_on_where_it_was(tmp_path: Path) -> None:
    own = patterns(reached(job(tmp_path)))
    sequence, course = begun(tmp_path, Plan(UNUSED, "adapter", adapts=False, owned=own), learning_rate=1e-3)
    base = flat(sequence.job.backbone.params)
    begin = flat(sequence.start(course.bank, 0, False, course.memory).slot)
    assert set(begin) == set(base)
    assert all(np.array_equal(begin[path], base[path]) for path in base)
    course = sequence.learn_next(course)
    end = flat(read_slot(course.bank.tasks, 0))
    softmax_ignores = "attention/key/bias"  # the same number added to every score of a query
    assert {p for p in base if np.array_equal(end[p], base[p])} <= {p for p in base if p.endswith(softmax_ignores)}
    second = flat(sequence.start(course.bank, 1, False, course.memory).slot)
    assert all(np.array_equal(second[path], end[path]) for path in end if path not in sequence.scene.heads)
    assert all(np.array_equal(second[path], base[path]) for path in sequence.scene.heads)
    counts = sequence.params(course.bank)
    assert counts["total_tasks"] == sum(leaf.size for path, leaf in base.items() if path not in sequence.scene.heads)
    assert counts["base"] == counts["total_tasks"]


@pytest.mark.parametrize("first_layer", [0, 1])
def test_only_parameters_that_the_inputs_reach_train(tmp_path: Path, first_layer: int) -> None:
    """With the layers below cached, nothing of them is owned."""
    import dataclasses

    from experiments.backbones.backbone import cached_inputs, prefix_cache
    from share_jax.models.vit import VitClassifier

    whole = job(tmp_path)
    if first_layer:
        model = VitClassifier(CONFIG, 2, first_layer)
        backbone = dataclasses.replace(whole.backbone, model=model, first_layer=first_layer)
        task, cache = whole.stream.tasks[0], prefix_cache(backbone)
        cached = dataclasses.replace(task, train=cached_inputs(cache, task.train), test=cached_inputs(cache, task.test))
        stream = dataclasses.replace(whole.stream, tasks=(cached,))
        whole = dataclasses.replace(whole, backbone=backbone, stream=stream)
    paths = reached(whole)
    assert ("encoder/layer_0/ffn_down/kernel" in paths) == (first_layer == 0)
    assert ("encoder/patch/kernel" in paths) == (first_layer == 0)
    assert "encoder/norm/scale" in paths
