"""The vision transformer: patches, splitting, and pretraining that helps and sees no labels."""

import jax
import numpy as np
import pytest
from adapted_models import base_variables
from flax.traverse_util import flatten_dict

from experiments.backbones import backbone as backbone_module
from experiments.backbones.backbone import Backbone, cached_inputs, digits_vit, prefix_cache
from experiments.streams.base import Split
from experiments.streams.digits import digits_split
from share_jax.errors import InputError
from share_jax.models.vit import VitClassifier, VitConfig, pretrain_vit

SMALL = VitConfig(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24)


def images(count=3, channels=1):
    return np.random.default_rng(0).random((count, 8, 8, channels), np.float32)


def fresh(model):
    return base_variables(model, images(1))["params"]


def test_patches_are_tiles_in_reading_order():
    model = VitClassifier(SMALL, 2)
    params = fresh(model)
    x = images(2)
    embedded = model.apply({"params": params}, x, method="prefix")
    patch, place = params["encoder"]["patch"], params["encoder"]["position"]
    tile = x[1, 2:4, 6:8].reshape(-1)  # row 1, column 3: patch 7
    expected = tile @ np.asarray(patch["kernel"]) + patch["bias"] + place[7]
    np.testing.assert_allclose(embedded[1, 7], expected, rtol=0, atol=1e-6)


def test_logits_are_the_head_on_the_mean_patch():
    model = VitClassifier(SMALL, 5)
    params = fresh(model)

    @jax.jit
    def everything(params, images):
        bound = model.bind({"params": params})
        return bound.features(images), bound.encoder.run(bound.encoder.embed(images)), bound(images)

    pooled, hidden, logits = everything(params, images())
    np.testing.assert_allclose(pooled, hidden.mean(axis=1), rtol=0, atol=1e-6)
    expected = np.asarray(pooled) @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("first_layer", "sublayer"), [(0, "attention"), (0, "ffn"), (1, "ffn"), (2, "attention")])
def test_prefix_and_rest_equal_the_whole(first_layer, sublayer):
    model = VitClassifier(SMALL, 3, first_layer, first_sublayer=sublayer)
    backbone = Backbone("small", model, fresh(model), (), (), first_layer)
    split = Split({"images": images(5)}, np.zeros(5, np.int32))
    cache = prefix_cache(backbone, rows=2)
    cached = cached_inputs(cache, split)
    assert set(cached.inputs) == {"hidden"}
    assert cached.inputs["hidden"].shape == (5, 16, 16)
    run = jax.jit(model.apply)
    whole = run({"params": backbone.params}, split.inputs["images"])
    rest = run({"params": backbone.params}, hidden=cached.inputs["hidden"])
    np.testing.assert_allclose(rest, whole, rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="inputs to cache"):
        cached_inputs(cache, cached)


def test_caching_compiles_once_for_all_splits():
    traces = []

    class Counted(VitClassifier):
        def prefix(self, images):
            traces.append(images.shape)
            return super().prefix(images)

    model = Counted(SMALL, 3, 1)
    backbone = Backbone("small", model, fresh(model), (), (), 1)
    traces.clear()
    cache = prefix_cache(backbone, 3)
    for count in (5, 2, 7):
        cached_inputs(cache, Split({"images": images(count)}, np.zeros(count, np.int32)))
    assert traces == [(3, 8, 8, 1)]


def test_paths_are_those_of_the_text_encoder():
    flat = {"/".join(path): leaf.shape for path, leaf in flatten_dict(fresh(VitClassifier(SMALL, 3))).items()}
    assert flat["encoder/layer_1/attention/query/kernel"] == (16, 2, 8)
    assert flat["encoder/layer_1/attention/out/kernel"] == (2, 8, 16)
    assert flat["encoder/layer_1/ffn_up/kernel"] == (16, 24)
    assert flat["encoder/layer_1/ffn_down/kernel"] == (24, 16)
    assert flat["head/kernel"] == (16, 3)


def test_refuses():
    model = VitClassifier(SMALL, 2)
    variables = {"params": fresh(model)}
    with pytest.raises(InputError, match=r"got \[\], expected images, hidden or pooled"):
        model.apply(variables)
    with pytest.raises(InputError, match=r"got \['images', 'hidden'\]"):
        model.apply(variables, images(), images())
    with pytest.raises(InputError, match=r"shape of images: got \(3, 8, 6, 1\)"):
        model.apply(variables, images()[:, :, :6])
    with pytest.raises(InputError, match="image_size: got 9, expected a multiple of patch_size=2"):
        VitConfig(image_size=9)
    with pytest.raises(InputError, match="num_layers: got 0"):
        VitConfig(num_layers=0)
    with pytest.raises(InputError, match="images to pretrain on"):
        pretrain_vit(images(0), SMALL)


def test_pretraining_is_the_same_for_the_same_seed():
    config = VitConfig(hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8)
    first, again = (
        pretrain_vit(images(20), config, seed=3, steps=3, batch_size=8)["layer_0"]["ffn_down"]["kernel"]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)


@pytest.mark.slow
def test_pretraining_redraws_better_than_the_mean_image():
    train, _ = digits_split()
    config = VitConfig(hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64)
    errors = []
    pretrain_vit(train.inputs["images"], config, steps=200, notify=lambda step, error: errors.append(error))
    pixels = train.inputs["images"].reshape(-1, 64)
    assert len(errors) == 200
    assert np.mean(errors[-50:]) < pixels.var(axis=0).mean() < errors[0]


def test_digits_vit_says_what_to_adapt(monkeypatch):
    monkeypatch.setattr(backbone_module, "pretrain_vit", lambda images, config, seed, steps: {})
    backbone = digits_vit(num_classes=3, first_layer=2)
    assert backbone.targets == tuple(f"encoder/layer_{i}/ffn_down/kernel" for i in (2, 3))
    assert backbone.params["head"]["kernel"].shape == (64, 3)
    with pytest.raises(InputError, match="first_layer: got 5, expected 0 to 4"):
        digits_vit(first_layer=5)
