"""The BERT encoder against an independent NumPy computation straight from the checkpoint, and its strict loading."""

import json
import re
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file
from scipy.special import erf
from tokenizers import Tokenizer

from experiments.assets import minilm_folder
from experiments.backbones.backbone import cached_inputs, cut_at, minilm, prefix_cache
from experiments.streams.base import Split
from share_jax.errors import FormatError, InputError
from share_jax.models.bert import BertClassifier, BertConfig
from share_jax.models.bert_weights import load_bert
from share_jax.models.text_tokenizer import TextTokenizer
from share_jax.models.tokenizer import load_tokenizer

EATING, BREAD, BABY = "A man is eating food.", "A man is eating a piece of bread.", "The girl is carrying a baby."
PAIRS = [(EATING, BREAD), (EATING, BABY), ("what is my balance", "how much money is in my account?")]


@pytest.fixture(scope="session")
def folder() -> Path:
    return minilm_folder()


@pytest.fixture(scope="session")
def loaded(folder):
    return load_bert(folder)


def norm64(x, tensors, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12)
    return x * tensors[name + ".weight"] + tensors[name + ".bias"]


def oracle(tensors, ids):
    """Hidden states (n, d) of one unpadded text, float64, from the checkpoint's own names and layout."""

    def dense(x, name):
        return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]

    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm64(x + tensors["embeddings.token_type_embeddings.weight"][0], tensors, "embeddings.LayerNorm")
    for index in range(6):
        at = f"encoder.layer.{index}."
        query, key, value = (dense(x, f"{at}attention.self.{part}") for part in ("query", "key", "value"))
        mixed = []
        for head in range(12):
            cut = slice(32 * head, 32 * head + 32)
            scores = query[:, cut] @ key[:, cut].T / np.sqrt(32)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(weights / weights.sum(-1, keepdims=True) @ value[:, cut])
        x = x + dense(np.concatenate(mixed, axis=-1), f"{at}attention.output.dense")
        x = norm64(x, tensors, f"{at}attention.output.LayerNorm")
        up = dense(x, f"{at}intermediate.dense")
        down = dense(up * 0.5 * (1 + erf(up / np.sqrt(2))), f"{at}output.dense")
        x = norm64(x + down, tensors, f"{at}output.LayerNorm")
    return x


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@cache
def features_of(model):
    return jax.jit(partial(model.apply, method="features"))


def embed(loaded, folder, texts, length=24):
    config, params = loaded
    ids, mask = load_tokenizer(folder, length)(texts)
    return unit(
        np.asarray(features_of(BertClassifier(config, 2))({"params": {"encoder": params}}, ids, mask), np.float64)
    )


def test_known_cosines(loaded, folder):
    eating, bread, baby = embed(loaded, folder, [EATING, BREAD, BABY])
    assert eating @ bread == pytest.approx(0.7553, abs=1e-3)
    assert eating @ baby == pytest.approx(-0.105, abs=1e-3)


@pytest.mark.parametrize("pair", PAIRS)
def test_embeddings_equal_an_independent_computation(loaded, folder, pair):
    tensors = {k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()}
    ids, mask = load_tokenizer(folder, 24)(pair)
    expected = unit(np.stack([oracle(tensors, row[: m.sum()]).mean(0) for row, m in zip(ids, mask, strict=True)]))
    found = embed(loaded, folder, pair)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert found[0] @ found[1] == pytest.approx(expected[0] @ expected[1], abs=1e-4)


def test_padding_changes_nothing(loaded, folder):
    np.testing.assert_allclose(
        embed(loaded, folder, [EATING], 12), embed(loaded, folder, [EATING], 40), rtol=0, atol=1e-6
    )


def test_tokenizer_is_fixed_length_and_keeps_the_last_token(folder):
    encode = load_tokenizer(folder, 6)
    ids, mask = encode([EATING, "food"])
    assert ids.dtype == mask.dtype == np.int32
    assert ids.tolist() == [[101, 1037, 2158, 2003, 5983, 102], [101, 2833, 102, 0, 0, 0]]
    assert mask.tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert encode([])[0].shape == (0, 6)
    with pytest.raises(InputError, match="max_length: got 2"):
        load_tokenizer(folder, 2)


def test_one_text_is_not_taken_for_its_letters(folder):
    own = TextTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), stop=(0,))
    for encode in (load_tokenizer(folder, max_length=6), own.encode_batch, own.rows):
        with pytest.raises(InputError, match="texts: got one text, expected a list"):
            encode("the cat")


def test_tokenizer_names_a_missing_file(tmp_path):
    with pytest.raises(FormatError, match=r"tokenizer\.json: got .*No such file"):
        load_tokenizer(tmp_path, 8)


@pytest.mark.parametrize(("first_layer", "sublayer"), [(0, "attention"), (0, "ffn"), (4, "ffn"), (6, "attention")])
def test_prefix_and_rest_equal_the_whole(folder, first_layer, sublayer):
    backbone = cut_at(minilm(num_classes=3, first_layer=first_layer), sublayer)
    ids, mask = load_tokenizer(folder, 16)([EATING, BREAD, BABY])
    variables = {"params": backbone.params}
    whole = jax.jit(backbone.model.apply)(variables, ids, mask)
    split = Split({"input_ids": ids, "attention_mask": mask}, np.zeros(3, np.int32))
    cached = cached_inputs(prefix_cache(backbone, 2), split)
    assert set(cached.inputs) == {"hidden", "attention_mask"}
    assert cached.inputs["hidden"].shape == (3, 16, 384)
    assert cached.inputs["hidden"].dtype == np.float32
    rest = jax.jit(lambda variables, inputs: backbone.model.apply(variables, **inputs))
    np.testing.assert_allclose(rest(variables, dict(cached.inputs)), whole, rtol=0, atol=1e-6)


def test_paths_and_shapes(loaded):
    config, params = loaded
    flat = {"/".join(path): leaf.shape for path, leaf in flatten_dict({"encoder": params}).items()}
    assert flat["encoder/layer_3/attention/query/kernel"] == (384, 12, 32)
    assert flat["encoder/layer_3/attention/out/kernel"] == (12, 32, 384)
    assert flat["encoder/layer_3/ffn_up/kernel"] == (384, 1536)
    assert flat["encoder/layer_3/ffn_down/kernel"] == (1536, 384)
    ids = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    fresh = jax.eval_shape(BertClassifier(config, 2).init, jax.random.key(0), ids, ids)["params"]
    fresh = {"/".join(path): leaf.shape for path, leaf in flatten_dict(fresh).items()}
    assert fresh == flat | {"head/kernel": (384, 2), "head/bias": (2,)}


def test_default_targets_and_heads(folder):
    backbone = minilm(num_classes=3, first_layer=4)
    paths = ["/".join(path) for path in flatten_dict(backbone.params)]

    def matched(patterns):
        return {path for path in paths if any(re.fullmatch(pattern, path) for pattern in patterns)}

    assert matched(backbone.targets) == {f"encoder/layer_{i}/ffn_down/kernel" for i in (4, 5)}
    assert matched(backbone.heads) == {"head/kernel", "head/bias"}


def test_bfloat16_stays_near_and_keeps_float32_parameters_and_logits(folder):
    ids, mask = load_tokenizer(folder, 16)([EATING, BREAD])
    full, half = minilm(num_classes=3), minilm(num_classes=3, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {jnp.dtype("float32")}
    logits = jax.jit(half.model.apply)({"params": half.params}, ids, mask)
    assert logits.dtype == jnp.float32
    expected = jax.jit(full.model.apply)({"params": full.params}, ids, mask)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=0.05)
    assert not np.array_equal(logits, expected)


def test_normalised_features_have_one_length(loaded, folder):
    config, params = loaded
    ids, mask = load_tokenizer(folder, 16)([EATING, BABY])
    variables = {"params": {"encoder": params}}
    models = (BertClassifier(config, 2, normalize=each) for each in (False, True))
    plain, scaled = (features_of(model)(variables, ids, mask) for model in models)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), np.sqrt(384), rtol=1e-5)
    np.testing.assert_allclose(unit(np.asarray(plain)), unit(np.asarray(scaled)), rtol=0, atol=1e-6)


TINY = {
    "vocab_size": 11, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 12, "max_position_embeddings": 6,
}  # fmt: skip


def tiny_checkpoint(folder: Path, change=None) -> Path:
    """A small checkpoint in BERT's names, written by hand; `change` edits the tensors before they are saved."""
    rng, tensors = np.random.default_rng(0), {}
    shapes = {"embeddings.word_embeddings": (11, 8), "embeddings.position_embeddings": (6, 8)}
    shapes |= {"embeddings.token_type_embeddings": (2, 8)}
    pairs = {"embeddings.LayerNorm": (8,)}
    for index in range(2):
        at = f"encoder.layer.{index}."
        pairs |= {f"{at}attention.self.{part}": (8, 8) for part in ("query", "key", "value")}
        pairs |= {f"{at}attention.output.dense": (8, 8), f"{at}attention.output.LayerNorm": (8,)}
        pairs |= {f"{at}intermediate.dense": (12, 8), f"{at}output.dense": (8, 12), f"{at}output.LayerNorm": (8,)}
    for name, shape in (shapes | pairs).items():
        tensors[name + ".weight"] = rng.normal(size=shape).astype(np.float32)
    for name, shape in pairs.items():
        tensors[name + ".bias"] = rng.normal(size=shape[:1]).astype(np.float32)
    if change:
        change(tensors)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TINY | {"architectures": ["BertModel"]}))
    return folder


def test_a_small_checkpoint_loads_in_its_own_layout(tmp_path):
    kept = {}
    config, params = load_bert(tiny_checkpoint(tmp_path, kept.update))
    assert config == BertConfig(**TINY)
    query = load_file(tmp_path / "model.safetensors")["encoder.layer.1.attention.self.query.weight"]
    # row h*head_dim + e of the stored matrix is output (h, e)
    np.testing.assert_array_equal(params["layer_1"]["attention"]["query"]["kernel"][:, 1, 2], query[6])


def rename(old, new):
    return lambda tensors: tensors.update({new: tensors.pop(old)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.layer.1.output.dense.bias"), r"got no encoder\.layer\.1\.output\.dense\.bias"),
        (lambda t: t.update({"cls.bias": np.zeros(2, np.float32)}), r"got cls\.bias, expected only"),
        (
            lambda t: t.update({"embeddings.LayerNorm.bias": np.zeros(9, np.float32)}),
            r"LayerNorm\.bias: got \(9,\), expected \(8,\)",
        ),
        (
            lambda t: t.update({"encoder.layer.0.output.dense.weight": np.zeros((12, 8), np.float32)}),
            r"got \(12, 8\), expected \(8, 12\)",
        ),
        (
            lambda t: t.update({"embeddings.LayerNorm.bias": np.zeros(8, np.int32)}),
            "got int32, expected floats",
        ),
        (rename("embeddings.LayerNorm.bias", "embeddings.LayerNorm.b"), r"got no embeddings\.LayerNorm\.bias"),
    ],
)
def test_loading_is_strict(tmp_path, change, message):
    with pytest.raises(FormatError, match=message) as caught:
        load_bert(tiny_checkpoint(tmp_path, change))
    assert "\n" not in str(caught.value)


def test_unused_tensors_are_allowed(tmp_path):
    def add(tensors):
        tensors["pooler.dense.weight"] = np.zeros((8, 8), np.float32)
        tensors["embeddings.position_ids"] = np.arange(6, dtype=np.int64)[None]

    load_bert(tiny_checkpoint(tmp_path, add))


def test_the_names_of_a_whole_model_and_of_its_first_release_are_those_of_the_encoder(tmp_path):
    def as_first(tensors):
        for name in list(tensors):
            today = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[f"bert.{today}"] = tensors.pop(name)
        tensors["cls.predictions.bias"] = tensors["classifier.bias"] = np.zeros(2, np.float32)

    for name in ("plain", "first"):
        (tmp_path / name).mkdir()
    plain = load_bert(tiny_checkpoint(tmp_path / "plain"))
    first = load_bert(tiny_checkpoint(tmp_path / "first", as_first))
    assert plain[0] == first[0]
    jax.tree.map(np.testing.assert_array_equal, plain[1], first[1])


@pytest.mark.parametrize("damage", ["cut", "gone", "config", "config-size"])
def test_damaged_files_are_one_line(tmp_path, damage):
    tiny_checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == "gone":
        path.unlink()
    elif damage == "config":
        (tmp_path / "config.json").write_text("[1,")
    else:
        (tmp_path / "config.json").write_text(json.dumps({k: TINY[k] for k in TINY if k != "hidden_size"}))
    with pytest.raises(FormatError) as caught:
        load_bert(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_size", 9), ("vocab_size", 0), ("hidden_act", "relu"), ("num_hidden_layers", "two"),
     ("position_embedding_type", "relative_key")],
)  # fmt: skip
def test_config_refuses(field, value):
    with pytest.raises(InputError, match=field):
        BertConfig(**(TINY | {field: value}))


def test_model_refuses_unclear_inputs(tmp_path):
    config, params = load_bert(tiny_checkpoint(tmp_path))
    variables = {"params": {"encoder": params}}
    ids = jnp.zeros((1, 4), jnp.int32)
    model = BertClassifier(config, 2)
    for inputs in ({"input_ids": ids}, {"attention_mask": ids}, {"hidden": jnp.zeros((1, 4, 8))}):
        with pytest.raises(InputError, match="model inputs"):
            model.apply(variables, **inputs, method="features")
    long = jnp.zeros((1, 7), jnp.int32)
    with pytest.raises(InputError, match="tokens per text: got 7, expected at most 6"):
        model.apply(variables, long, long, method="features")
    with pytest.raises(InputError, match="first_layer: got 3, expected 0 to 2"):
        BertClassifier(config, 2, first_layer=3).apply(variables, ids, ids, method="features")
