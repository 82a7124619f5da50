"""Decoders of every family against the logits of transformers that `tests/data/make_decoder_references.py` stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoders import FAMILIES, random_slots, tiny

from share_jax.linen.adapted_model import adapt
from share_jax.linen.prefix import linen_prefix
from share_jax.models.decoder_weights import decoder_names
from share_jax.ops.remat_policy import Remat
from share_jax.parameterizations.shared_a import SharedA
from share_jax.sharding.layout import layout_of
from share_jax.train.prefix_cache import PrefixCache
from share_jax.trees import flat


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family):
    model, variables, reference = tiny(family)
    logits = jax.jit(model.apply)(variables, reference["input_ids"], reference["attention_mask"])
    real = reference["attention_mask"] == 1
    assert not real.all()  # one row is padded on the left
    np.testing.assert_allclose(np.asarray(logits)[real], reference["logits"][real], rtol=0, atol=1e-4)
    assert np.abs(reference["logits"][real]).max() > 1  # the fixture's logits are no trifles


@pytest.mark.parametrize("family", ["llama"])
def test_bfloat16_stays_near_and_gives_float32_logits(family):
    model, variables, reference = tiny(family, jnp.bfloat16)
    logits = jax.jit(model.apply)(variables, reference["input_ids"], reference["attention_mask"])
    assert logits.dtype == jnp.float32
    real = reference["attention_mask"] == 1
    assert np.abs(np.asarray(logits) - reference["logits"])[real].mean() < 0.1


@pytest.mark.parametrize("sublayer", ["attention", "ffn"])
def test_prefix_and_rest_equal_the_whole_and_the_cache_keeps_the_bits(sublayer):
    whole, variables, reference = tiny("qwen2")
    split, _, _ = tiny("qwen2", jnp.float32, 1, sublayer)
    inputs = {name: reference[name] for name in ("input_ids", "attention_mask")}
    kept = PrefixCache(linen_prefix(split), variables, rows=2)
    hidden = kept.of(inputs)
    np.testing.assert_array_equal(hidden, kept.compute(inputs))
    rest = jax.jit(split.apply)(variables, hidden=hidden, attention_mask=inputs["attention_mask"])
    np.testing.assert_allclose(rest, jax.jit(whole.apply)(variables, **inputs), rtol=0, atol=1e-5)


def test_a_mask_numbers_documents_and_columns_choose_logits():
    """Two texts in one row give what each gives alone; so does a text that is padded on the right."""
    model, variables, reference = tiny("qwen2")
    ids = reference["input_ids"][:1]
    first, second = ids[:, :6], ids[:, 6:11]
    packed = jnp.concatenate([first, second, jnp.zeros((1, 3), jnp.int32)], axis=1)
    mask = jnp.asarray([[1] * 6 + [2] * 5 + [0] * 3])
    run = jax.jit(model.apply)
    logits = run(variables, packed, mask)
    for part, start in ((first, 0), (second, 6)):
        alone = run(variables, part)
        np.testing.assert_allclose(logits[:, start : start + part.shape[1]], alone, rtol=0, atol=1e-5)
    columns = jnp.asarray([[9, 2]])
    chosen = run(variables, packed, mask, columns=columns)
    np.testing.assert_allclose(chosen, logits[:, [9, 2]], rtol=0, atol=1e-6)
    states, features = jax.jit(
        lambda: [model.apply(variables, packed, mask, method=name) for name in ("hidden_states", "features")]
    )()
    np.testing.assert_allclose(
        model.apply(variables, states[0, 2:4], method="project"), logits[0, 2:4], rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(features, states[:, :11].mean(axis=1), rtol=0, atol=1e-5)


def test_every_kernel_can_be_adapted_for_one_task_and_for_a_batch_of_different_ones():
    """The embedding that is the output layer too among them, and kernels with biases."""
    model, variables, reference = tiny("llama")
    ids, mask = reference["input_ids"], reference["attention_mask"]
    targets = [r"layer_\d+/(attention|mlp)/\w+/kernel", "embed/embedding"]
    adapted = adapt(model, variables, ids, targets=targets, method=SharedA(2, 4.0))
    assert len(adapted.targets) == 2 * 7 + 1
    made = random_slots(adapted, variables["params"])
    run = jax.jit(lambda trees, task: adapted.apply({**variables, **trees}, ids, mask, task_id=task))
    mixed = run(made, jnp.asarray([1, 0]))
    alone = [run(made, jnp.int32(task)) for task in (0, 1)]
    np.testing.assert_allclose(mixed[0], alone[1][0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(mixed[1], alone[0][1], rtol=0, atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    plain = jax.jit(model.apply)({"params": adapted.effective_params({**variables, **made}, 1)}, ids, mask)
    real = mask == 1
    np.testing.assert_allclose(np.asarray(plain)[real], np.asarray(alone[1])[real], rtol=0, atol=1e-4)


def test_blocks_can_be_computed_again_and_kernels_be_split_over_a_mesh():
    model, variables, reference = tiny("qwen3")
    ids = reference["input_ids"]
    adapted = adapt(model, variables, ids, targets=[r"layer_1/.*/(query|down)/kernel"], method=SharedA(2, 4.0))
    made = random_slots(adapted, variables["params"])
    slot = adapted.slot(made["tasks"], 1)

    def gradient(remat):
        forward = adapted.forward(remat)
        return jax.jit(
            jax.grad(lambda own: (forward(variables, made["shared"], own, {"input_ids": ids}, None) ** 2).mean())
        )(slot)

    plain, again = gradient(None), gradient(Remat(blocks=(r"layer_\d+",)))
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    mesh = jax.make_mesh((1, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
    layout = layout_of(mesh, variables["params"], adapted)
    places = {path: place.spec for path, place in flat(layout.base(variables)["params"]).items()}
    assert tuple(places["layer_0/attention/query/kernel"])[:2] == ("fsdp", "tensor")
    assert tuple(places["layer_0/mlp/down/kernel"]) == ("fsdp", "tensor")


def test_the_table_of_names_is_one_to_one():
    for family in FAMILIES:
        model, variables, _ = tiny(family)
        places = [leaf.place for leaf in decoder_names(model.config).values()]
        assert sorted(places) == sorted(flat(variables["params"]))
