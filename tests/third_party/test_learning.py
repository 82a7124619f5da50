"""Models of transformers in a `Learner` without a wrapper: two tasks, the first one's bits, and batches of both."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

import share_jax

transformers = pytest.importorskip("transformers", reason="make test-models installs it")
if not hasattr(transformers, "FlaxGPT2LMHeadModel"):
    pytest.skip("this transformers has no Flax models", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROWS = 4
IDS = np.random.default_rng(0).integers(4, 30, (ROWS, 6))
PLACES = np.broadcast_to(np.arange(6), IDS.shape)
IMAGES = np.random.default_rng(1).standard_normal((ROWS, 16, 16, 3)).astype(np.float32)
TEXT = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "position_ids": PLACES}
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
DECODER = {**SIZES, "vocab_size": 32, "max_position_embeddings": 16, "num_key_value_heads": 1}


def last(out: Any) -> Any:
    """Logits of the last place."""
    return out.logits[:, -1]


def clip() -> Any:
    text = {**SIZES, "vocab_size": 32, "max_position_embeddings": 16, "eos_token_id": 31}
    vision = {**SIZES, "image_size": 16, "patch_size": 8}
    return transformers.FlaxCLIPModel(transformers.CLIPConfig(text, vision, projection_dim=8), seed=0)


def whisper() -> Any:
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_source_positions": 8, "num_mel_bins": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    tokens = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = transformers.WhisperConfig(**sizes, **heads, **tokens, max_target_positions=16)
    return transformers.FlaxWhisperForConditionalGeneration(config, input_shape=(1, 8, 16), seed=0)


def decoder(name: str) -> Callable[[], Any]:
    return lambda: getattr(transformers, f"Flax{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**DECODER, head_dim=8), input_shape=(1, 6), seed=0
    )


def resnet() -> Any:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return transformers.FlaxResNetForImageClassification(config, input_shape=(1, 16, 16, 3), seed=0)


def bert() -> Any:
    config = transformers.BertConfig(**SIZES, vocab_size=32, max_position_embeddings=16, num_labels=3)
    return transformers.FlaxBertForSequenceClassification(config, input_shape=(1, 6), seed=0)


def vit() -> Any:
    config = transformers.ViTConfig(**SIZES, image_size=16, patch_size=8, num_labels=3)
    return transformers.FlaxViTForImageClassification(config, seed=0)


WHISPER = {
    "input_features": np.random.default_rng(2).standard_normal((ROWS, 8, 16)).astype(np.float32),
    "decoder_input_ids": IDS,
    "decoder_attention_mask": np.ones_like(IDS),
    "decoder_position_ids": PLACES,
}
DROPPED = {"deterministic": True}

MODELS = {
    "bert": (bert, {**TEXT, "token_type_ids": np.zeros_like(IDS)}, {**DROPPED, "head_mask": None}, "logits"),
    "llama": (decoder("Llama"), TEXT, DROPPED, last),
    "mistral": (decoder("Mistral"), TEXT, DROPPED, last),
    "gemma": (decoder("Gemma"), TEXT, DROPPED, last),
    "vit": (vit, {"pixel_values": IMAGES}, DROPPED, "logits"),
    "resnet": (resnet, {"pixel_values": IMAGES}, DROPPED, "logits"),
    "clip": (clip, {**TEXT, "pixel_values": IMAGES}, DROPPED, "image_embeds"),
    "whisper": (whisper, WHISPER, DROPPED, last),
}


@pytest.fixture(autouse=True)
def _ranks_may_differ() -> Any:
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", MODELS)
def test_two_tasks_are_learnt_without_a_wrapper(name: str) -> None:
    make, inputs, flags, output = MODELS[name]
    whole = make()
    base = dict(whole.params) if "batch_stats" in whole.params else {"params": whole.params}
    adapted = share_jax.adapt(whole.module, base, **inputs, **flags, targets=".*kernel")
    train = {"deterministic": False} if name != "resnet" else {}
    learner = share_jax.Learner(adapted, base, optax.adam(3e-3), output=output, train_kwargs=train)
    bank = learner.start(adapted.init(jax.random.key(0), base["params"], 2))
    variables = {**base, "shared": bank.shared, "tasks": bank.tasks}
    started = jax.tree.leaves(adapted.apply(variables, **inputs, task_id=0))[0]
    np.testing.assert_allclose(
        started, jax.tree.leaves(whole.module.apply(base, **inputs, **flags))[0], rtol=2e-4, atol=1e-5
    )
    bank = learner.learn(bank, "one", [{"inputs": inputs, "labels": np.arange(ROWS) % 2}] * 4)
    first = np.asarray(learner.predict(bank, "one", inputs))
    bank = learner.learn(bank, "two", [{"inputs": inputs, "labels": 1 - np.arange(ROWS) % 2}] * 4)
    np.testing.assert_array_equal(learner.predict(bank, "one", inputs), first)
    single = [first, np.asarray(learner.predict(bank, "two", inputs))]
    assert not np.allclose(single[0], single[1])
    mixed = learner.predict(bank, np.arange(ROWS) % 2, inputs)
    np.testing.assert_allclose(mixed, [single[row % 2][row] for row in range(ROWS)], rtol=2e-4, atol=1e-5)
