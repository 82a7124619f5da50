"""RoBERTa against the outputs of transformers that `tests/data/make_references.py` stored, and strict loading."""

import json
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from experiments.backbones.pretrained import roberta
from share_jax.errors import FormatError, InputError
from share_jax.linen.adapted_model import adapt
from share_jax.models.bert import BertConfig
from share_jax.models.roberta import RobertaClassifier, load_roberta
from share_jax.models.tokenizer import load_tokenizer

TINY = Path(__file__).parents[1] / "data" / "roberta_tiny"


@pytest.fixture(scope="module")
def reference():
    with np.load(TINY / "reference.npz") as stored:
        return dict(stored)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "roberta"))


def test_hidden_states_are_those_of_transformers(reference):
    backbone = roberta(TINY)
    inputs = {name: reference[f"single_{name}"] for name in ("input_ids", "attention_mask")}
    assert sorted(set(inputs["attention_mask"].sum(axis=1))) != [24]  # some texts are padded

    @jax.jit
    def run(params, **inputs):
        bound = backbone.model.bind({"params": params})
        return bound.encoder(**inputs), bound(**inputs), bound.head(bound.encoder(**inputs)[:, 0])

    hidden, logits, expected = run(backbone.params, **inputs)
    real = inputs["attention_mask"] == 1
    np.testing.assert_allclose(np.asarray(hidden)[real], reference["hidden"][real], rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-6)


def test_prefix_and_rest_equal_the_whole(reference):
    inputs = {name: reference[f"single_{name}"] for name in ("input_ids", "attention_mask")}
    whole, split = roberta(TINY), roberta(TINY, first_layer=1)
    hidden = jax.jit(partial(split.model.apply, method="prefix"))({"params": split.params}, **inputs)
    rest = jax.jit(split.model.apply)({"params": split.params}, hidden=hidden, attention_mask=inputs["attention_mask"])
    np.testing.assert_allclose(rest, jax.jit(whole.model.apply)({"params": whole.params}, **inputs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["vocab", "json"])
def test_token_ids_are_those_of_transformers(folder, reference, form):
    if form == "json":
        from share_jax.models import tokenizer

        path = folder / "vocab.json"
        tokenizer._byte_level(path, folder / "merges.txt").save(str(folder / "tokenizer.json"))
        path.unlink()
    encode = load_tokenizer(folder, reference["single_input_ids"].shape[1])
    for kind, texts in (("single", reference["sentences"].tolist()), ("pair", map(tuple, reference["pairs"].tolist()))):
        ids, mask = encode(list(texts))
        np.testing.assert_array_equal(ids, reference[f"{kind}_input_ids"])
        np.testing.assert_array_equal(mask, reference[f"{kind}_attention_mask"])


def test_names_without_the_models_prefix_load_too(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({k.removeprefix("roberta."): v for k, v in tensors.items() if k.startswith("roberta.")}, path)
    plain, whole = (flatten_dict(load_roberta(each)[1]) for each in (folder, TINY))
    assert plain.keys() == whole.keys()
    for name, leaf in plain.items():
        np.testing.assert_array_equal(leaf, whole[name])


def test_targets_and_heads_match_the_model(reference):
    backbone = roberta(TINY, 3, first_layer=1)
    inputs = {name: reference[f"single_{name}"][:1] for name in ("input_ids", "attention_mask")}
    adapted = adapt(
        backbone.model, {"params": backbone.params}, targets=backbone.targets, heads=backbone.heads, **inputs
    )
    assert [target.path for target in adapted.targets] == [
        f"encoder/layer_1/attention/{part}/kernel" for part in ("query", "value")
    ]
    assert len(adapted.heads) == 4


def rewrite(change):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def reconfigure(**fields):
    def damage(folder):
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | fields))

    return damage


DENSE = "roberta.encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rewrite(lambda t: t.pop(DENSE)), r"got no encoder\.layer\.1\.output\.dense\.weight, expected every tensor"),
        (rewrite(lambda t: t.update(extra=np.zeros(2, np.float32))), "got extra, expected only a RoBERTa encoder"),
        (rewrite(lambda t: t.update({DENSE: np.zeros((24, 16), np.float32)})), r"got \(24, 16\), expected \(16, 24\)"),
        (
            rewrite(lambda t: t.update({DENSE.removeprefix("roberta."): np.zeros((16, 24), np.float32)})),
            "got names both with and without 'roberta.'",
        ),
        (reconfigure(model_type="bert"), "config.json: got model_type 'bert'"),
        (reconfigure(pad_token_id=None), "pad_token_id None"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: got .*No such file"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json: got list"),
        (lambda folder: shutil.rmtree(folder), "--weights: got no file or folder .*roberta-base from the"),
    ],
)
def test_loading_is_strict(folder, damage, message):
    damage(folder)
    with pytest.raises(FormatError, match=message) as caught:
        load_roberta(folder)
    assert "\n" not in str(caught.value)


def test_refuses(reference):
    with pytest.raises(FormatError, match="--weights: got none, expected the pretrained roberta-base"):
        roberta(None)
    with pytest.raises(InputError, match="first_layer: got 3, expected 0 to 2"):
        roberta(TINY, first_layer=3)
    backbone, long = roberta(TINY), np.full((1, 25), 5, np.int32)
    with pytest.raises(InputError, match="tokens per text: got 25, expected at most 24"):
        backbone.model.apply({"params": backbone.params}, long, np.ones_like(long))


def test_roberta_base_has_the_published_size():
    config = BertConfig(50265, 768, 12, 12, 3072, 514, type_vocab_size=1, layer_norm_eps=1e-5, padding_index=1)
    ids = jax.ShapeDtypeStruct((1, 8), np.int32)
    shapes = jax.eval_shape(RobertaClassifier(config, 2).init, jax.random.key(0), ids, ids)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]["encoder"])) == 124_055_040
