"""ViT weights against the outputs of transformers that `tests/data/make_references.py` stored, in both layouts."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from experiments.backbones.pretrained import vit
from share_jax.errors import FormatError, InputError
from share_jax.linen.adapted_model import adapt
from share_jax.models.vit import VitClassifier, VitConfig
from share_jax.models.vit_weights import load_vit

TINY = Path(__file__).parents[1] / "data" / "vit_tiny"
HEADS = 2


@pytest.fixture(scope="module")
def reference():
    with np.load(TINY / "reference.npz") as stored:
        return dict(stored)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "vit"))


def google_arrays() -> dict[str, np.ndarray]:
    """The tiny weights as Google's checkpoints have them, turned by hand: (in, out) kernels, heads apart, HWIO."""
    stored = {name.removeprefix("vit."): array for name, array in load_file(TINY / "model.safetensors").items()}
    width = stored["layernorm.weight"].size
    head = width // HEADS
    out = {
        "cls": stored["embeddings.cls_token"],
        "Transformer/posembed_input/pos_embedding": stored["embeddings.position_embeddings"],
        "embedding/kernel": stored["embeddings.patch_embeddings.projection.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": stored["embeddings.patch_embeddings.projection.bias"],
        "Transformer/encoder_norm/scale": stored["layernorm.weight"],
        "Transformer/encoder_norm/bias": stored["layernorm.bias"],
        "head/kernel": np.zeros((width, 5), np.float32),
        "head/bias": np.zeros(5, np.float32),
    }
    for i in range(2):
        old, new = f"encoder.layer.{i}", f"Transformer/encoderblock_{i}"
        for name, norm in (("layernorm_before", "LayerNorm_0"), ("layernorm_after", "LayerNorm_2")):
            out[f"{new}/{norm}/scale"] = stored[f"{old}.{name}.weight"]
            out[f"{new}/{norm}/bias"] = stored[f"{old}.{name}.bias"]
        mixer = f"{new}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            kernel = stored[f"{old}.attention.attention.{part}.weight"].T
            out[f"{mixer}/{part}/kernel"] = kernel.reshape(width, HEADS, head)
            out[f"{mixer}/{part}/bias"] = stored[f"{old}.attention.attention.{part}.bias"].reshape(HEADS, head)
        out[f"{mixer}/out/kernel"] = stored[f"{old}.attention.output.dense.weight"].T.reshape(HEADS, head, width)
        out[f"{mixer}/out/bias"] = stored[f"{old}.attention.output.dense.bias"]
        for place, name in enumerate(("intermediate", "output")):
            out[f"{new}/MlpBlock_3/Dense_{place}/kernel"] = stored[f"{old}.{name}.dense.weight"].T
            out[f"{new}/MlpBlock_3/Dense_{place}/bias"] = stored[f"{old}.{name}.dense.bias"]
    return out


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "ViT-tiny.npz"
    np.savez(path, **google_arrays())
    return path


def last_states(config: VitConfig, encoder: dict, images: np.ndarray) -> np.ndarray:
    model = VitClassifier(config, 2)

    @jax.jit
    def run(encoder, images):
        bound = model.bind({"params": {"encoder": encoder}})
        return bound.encoder.run(bound.encoder.embed(images)), bound.features(images)

    hidden, pooled = run(encoder, images)
    np.testing.assert_array_equal(hidden[:, 0], pooled)
    return np.asarray(hidden)


def test_last_states_are_those_of_transformers(reference):
    config, encoder = load_vit(TINY)
    assert (config.image_size, config.class_token, config.exact_gelu) == (8, True, True)
    found = last_states(config, encoder, reference["images"])
    np.testing.assert_allclose(found, reference["hidden"], rtol=0, atol=1e-5)


def test_places_are_interpolated_as_by_transformers(reference):
    config, encoder = load_vit(TINY, image_size=12)
    assert encoder["position"].shape == (10, 16)
    found = last_states(config, encoder, reference["larger"])
    np.testing.assert_allclose(found, reference["larger_hidden"], rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="image_size: got 13, expected a multiple of patch_size=4"):
        load_vit(TINY, image_size=13)


def test_both_layouts_give_the_same_params(npz, reference):
    config, encoder = load_vit(npz)
    other, expected = load_vit(TINY / "model.safetensors")
    ours, theirs = flatten_dict(encoder), flatten_dict(expected)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name])
    assert config == VitConfig(8, 4, 16, 2, 2, 24, class_token=True, layer_norm_eps=1e-6, exact_gelu=False)
    np.testing.assert_allclose(last_states(other, encoder, reference["images"]), reference["hidden"], rtol=0, atol=1e-5)


def test_without_a_class_token_heads_see_the_mean_patch(tmp_path):
    arrays = google_arrays()
    del arrays["cls"]
    place = "Transformer/posembed_input/pos_embedding"
    arrays[place] = arrays[place][:, 1:]
    np.savez(tmp_path / "gap.npz", **arrays)
    backbone = vit(tmp_path / "gap.npz", image_size=16)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    bound = backbone.model.bind({"params": backbone.params})
    hidden = bound.encoder.run(bound.encoder.embed(images))
    assert hidden.shape == (2, 16, 16)
    np.testing.assert_allclose(bound.features(images), hidden.mean(axis=1), rtol=0, atol=1e-6)


def test_prefix_and_rest_equal_the_whole(npz, reference):
    whole, split = vit(npz, 3), vit(npz, 3, first_layer=1)
    hidden = split.model.apply({"params": split.params}, reference["images"], method="prefix")
    rest = split.model.apply({"params": split.params}, hidden=hidden)
    expected = whole.model.apply({"params": whole.params}, reference["images"])
    np.testing.assert_allclose(rest, expected, rtol=0, atol=1e-5)


def test_targets_and_heads_match_the_model():
    backbone = vit(TINY, 3, first_layer=1)
    images = np.zeros((1, 8, 8, 3), np.float32)
    options = {"targets": backbone.targets, "heads": backbone.heads, "images": images}
    adapted = adapt(backbone.model, {"params": backbone.params}, **options)
    assert [target.path for target in adapted.targets] == [
        f"encoder/layer_1/attention/{part}/kernel" for part in ("query", "value")
    ]
    assert backbone.name == "vit-2x16/4"


QUERY = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1/query/kernel"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop(QUERY), f"got no {QUERY}, expected every tensor of a ViT encoder"),
        (lambda a: a.update(extra=np.zeros(2)), "got extra, expected only a ViT encoder"),
        (lambda a: a.update({QUERY: a[QUERY].transpose(1, 2, 0)}), r"got \(2, 8, 16\), expected \(16, 2, 8\)"),
        (lambda a: a.update({QUERY: a[QUERY].astype(np.int32)}), "got int32, expected floats"),
        (lambda a: a.pop("embedding/kernel"), "got no embedding/kernel, expected embedding/kernel with 4 axes"),
        (lambda a: a.update({"embedding/kernel": np.zeros((4, 4, 3, 15), np.float32)}), "multiple of num_heads=2"),
        (lambda a: a.update(cls=np.array([None, {}], object)), "expected an npz file of arrays"),
    ],
)
def test_npz_is_strict_and_holds_no_objects(tmp_path, change, message):
    arrays = google_arrays()
    change(arrays)
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(FormatError, match=message) as caught:
        load_vit(tmp_path / "x.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_damaged_npz_is_one_line(npz, damage):
    content = npz.read_bytes()
    npz.write_bytes(content[:-200] if damage == "cut" else b"no archive")
    with pytest.raises(FormatError, match="expected an npz file of arrays") as caught:
        load_vit(npz)
    assert "\n" not in str(caught.value)


def test_safetensors_are_strict(folder):
    path, config = folder / "model.safetensors", folder / "config.json"
    tensors, raw = load_file(path), json.loads(config.read_text())
    name = "vit.encoder.layer.1.layernorm_after.bias"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path)
    with pytest.raises(FormatError, match=r"got no encoder\.layer\.1\.layernorm_after\.bias, expected every"):
        load_vit(folder)
    save_file(tensors | {"extra": np.zeros(1, np.float32)}, path)
    with pytest.raises(FormatError, match="got extra, expected only a ViT encoder"):
        load_vit(folder)
    save_file(tensors, path)
    for fields, message in (
        ({"hidden_act": "relu"}, "hidden_act: got 'relu'"),
        ({"qkv_bias": False}, "qkv_bias of the ViT: got False"),
        ({"num_channels": 1}, r"projection\.weight: got \(16, 3, 4, 4\), expected \(16, 1, 4, 4\)"),
    ):
        config.write_text(json.dumps(raw | fields))
        with pytest.raises(FormatError, match=message):
            load_vit(folder)
    config.write_text(json.dumps({key: value for key, value in raw.items() if key != "patch_size"}))
    with pytest.raises(FormatError, match="got no patch_size, expected a ViT config"):
        load_vit(folder)


def test_weights_that_are_not_there_say_where_they_come_from(tmp_path):
    for weights, message in ((None, "got none"), (tmp_path / "no.npz", "got no file or folder")):
        with pytest.raises(FormatError, match=f"--weights: {message}.*google/vit-base-patch16-224-in21k") as caught:
            load_vit(weights)
        assert "\n" not in str(caught.value)


def test_vit_b_16_has_the_published_size():
    config = VitConfig(224, 16, 768, 12, 12, 3072, class_token=True)
    model = VitClassifier(config, 10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]["encoder"])) == 85_798_656
