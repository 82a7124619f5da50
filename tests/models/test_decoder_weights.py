"""Decoders from folders and GGUF files: every tensor accounted for, and tokenizers as their files say."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from gguf_models import TEMPLATE, TEXTS, byte_level, gguf_tokenizer, raw_tensors, write_gguf
from safetensors.numpy import load_file
from tiny_decoders import TINY, tiny
from tokenizers import AddedToken, pre_tokenizers, processors

from share_jax.errors import FormatError, InputError
from share_jax.models.decoder_config import DecoderConfig, config_of
from share_jax.models.decoder_weights import load_decoder_folder
from share_jax.models.gguf_file import load_gguf, read_gguf
from share_jax.models.gguf_tokenizer import tokenizer_of_gguf
from share_jax.models.pretrained_decoder import load_decoder
from share_jax.models.text_tokenizer import tokenizer_of_folder
from share_jax.trees import flat


@pytest.mark.parametrize("family", ["llama", "llama3", "qwen3", "gemma3"])
def test_a_gguf_file_gives_the_params_and_the_form_of_the_folder(tmp_path, family):
    extra = {}
    if family == "gemma3":
        extra = {
            "ARCH__attention__sliding_window": 4, "ARCH__attention__sliding_window_pattern": 3,
            "ARCH__rope__freq_base_swa": 100.0, "ARCH__final_logit_softcapping": 5.0,
            "ARCH__attn_logit_softcapping": 3.0, "ARCH__rope__scaling__type": "linear",
            "ARCH__rope__scaling__factor": 2.0,
        }  # fmt: skip
    config, params = load_gguf(read_gguf(write_gguf(tmp_path / "model.gguf", family, **extra)))
    model, variables, _ = tiny(family)
    own = flat(variables["params"])
    assert flat(params).keys() == own.keys()
    for path, leaf in flat(params).items():
        np.testing.assert_allclose(leaf, own[path], rtol=0, atol=1e-6, err_msg=path)
    expected, divisors = model.config, config.rope_divisors
    if divisors is not None:
        np.testing.assert_allclose(divisors, expected.rope_divisors, rtol=1e-6)
    scale = (
        expected.query_scale if family == "gemma3" else config.query_scale
    )  # llama.cpp's is that of the head's width
    near = {"rope_divisors": expected.rope_divisors, "rms_norm_eps": expected.rms_norm_eps, "query_scale": scale}
    assert replace(config, **near) == expected


def test_a_tensor_that_is_missing_or_too_much_is_named(tmp_path):
    folder = Path(shutil.copytree(TINY / "llama3", tmp_path / "model"))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(FormatError, match=r"got no model\.layers\.2\.input_layernorm\.weight"):
        load_decoder_folder(folder)
    path.write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(FormatError, match=r"model\.layers\.1\.input_layernorm\.weight"):
        load_decoder_folder(folder)
    path.write_text(json.dumps({**config, "intermediate_size": 25}))
    with pytest.raises(FormatError, match=r"mlp\.gate_proj\.weight: got \(24, 16\), expected \(25, 16\)"):
        load_decoder_folder(folder)


def test_shards_and_their_index_have_to_agree(tmp_path):
    folder = Path(shutil.copytree(TINY / "qwen2", tmp_path / "model"))
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    for name, place, words in (
        ("model.norm.weight", "../model.safetensors", "expected a weight_map of tensors to files beside it"),
        ("more.weight", next(iter(index["weight_map"].values())), "got no more.weight"),
    ):
        path.write_text(json.dumps({"weight_map": {**index["weight_map"], name: place}}))
        with pytest.raises(FormatError, match=words):
            load_decoder_folder(folder)
    path.unlink()
    with pytest.raises(FormatError, match="got no weights, expected model"):
        load_decoder_folder(folder)


def test_params_can_stay_as_the_checkpoint_holds_them():
    _, params = load_decoder_folder(TINY / "qwen3", "bfloat16")
    stored = raw_tensors(TINY / "qwen3")["model.layers.0.mlp.up_proj.weight"]
    kernel = np.asarray(params["layer_0"]["mlp"]["up"]["kernel"])
    assert kernel.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(kernel.astype(np.float32), stored.T)
    assert load_file(TINY / "llama3" / "model.safetensors")["lm_head.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, "model_type: got 'gpt2', expected one of llama, mistral, qwen2, qwen3, gemma3_text"),
        ({"model_type": "qwen3_moe"}, "got 'qwen3_moe'"),
        ({"hidden_act": "relu"}, "hidden_act: got 'relu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type: got 'yarn'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2}}, "rope_type: got 'dynamic'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: got 'one'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: got 0.5"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: got 3"),
        ({"head_dim": 5}, "head_dim: got 5"),
        ({"hidden_size": "large"}, "hidden_size"),
        ({"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["chunked"] * 2}, "got chunked"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(changes, words):
    raw = json.loads((TINY / "llama" / "config.json").read_text())
    with pytest.raises((FormatError, InputError), match=words):
        config_of({**raw, **changes}, "config.json")


def test_gemmas_rope_is_said_of_each_kind_of_layer():
    raw = json.loads((TINY / "gemma3" / "config.json").read_text())
    flat = {"rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5}}
    with pytest.raises(FormatError, match=r"rope_parameters: got .* expected full_attention and sliding_attention"):
        config_of({**raw, **flat}, "config.json")


def test_configs_of_older_files_are_read_too():
    """Keys as transformers 4 wrote them, and sizes that it left out."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    raw = json.loads((TINY / "llama3" / "config.json").read_text())
    del raw["rope_parameters"]
    old = {"rope_theta": 100.0, "rope_scaling": {**scaling, "original_max_position_embeddings": 16}}
    assert config_of({**raw, **old}, "config.json") == DecoderConfig.from_json(TINY / "llama3" / "config.json")
    gemma = json.loads((TINY / "gemma3" / "config.json").read_text())
    for name in ("rope_parameters", "layer_types", "head_dim", "tie_word_embeddings"):
        del gemma[name]
    config = config_of({**gemma, "sliding_window_pattern": 2, "rope_theta": 7.0}, "config.json")
    assert (config.windows, config.head_dim, config.rope_theta) == ((4, None, 4), 256, 7.0)
    assert (config.local_rope_theta, config.rope_divisors, config.tie_word_embeddings) == (10_000.0, None, True)


@pytest.mark.parametrize(("pre", "split"), [("gpt-2", None), ("smollm", pre_tokenizers.Digits(individual_digits=True))])
def test_a_tokenizer_in_a_gguf_file_gives_the_ids_of_the_one_that_was_written(tmp_path, pre, split):
    tokenizer = byte_level(split)
    path = write_gguf(tmp_path / "model.gguf", "llama3", gguf_tokenizer(tokenizer, pre))
    _, _, found = load_decoder(path)
    for text in (*TEXTS, "<|im_start|>user\nHi<|im_end|>"):
        ids = found.encode(text)
        assert ids == tokenizer.encode(text).ids
        assert found.decode(ids, special=True) == text
    assert found.encode("Hi<|im_end|>")[-1] == 1
    assert (found.stop, found.pad, found.special["bos_token"]) == ((1,), 1, "<|im_start|>")
    assert found.chat([{"role": "user", "content": "Hi"}]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ids, mask = found.rows(["Hi", [5, 6, 7, 8, 9]])
    assert (ids.shape, mask.sum(axis=1).tolist()) == ((2, 5), [len(found.encode("Hi")), 5])


def test_a_file_may_ask_for_a_first_token_and_an_unknown_split_is_refused(tmp_path):
    tokenizer = byte_level()
    path = write_gguf(tmp_path / "one.gguf", "llama3", gguf_tokenizer(tokenizer, "llama-bpe"))
    found = tokenizer_of_gguf(read_gguf(path))
    assert found.encode("Why")[0] == 0
    assert found.encode("Why", special=False) == found.encode("Why")[1:]
    path = write_gguf(tmp_path / "two.gguf", "llama3", gguf_tokenizer(tokenizer, "qwen2", add_bos_token=True))
    assert tokenizer_of_gguf(read_gguf(path)).encode("Why")[0] == 0
    path = write_gguf(tmp_path / "three.gguf", "llama3", gguf_tokenizer(tokenizer, "falcon"))
    with pytest.raises(FormatError, match=r"tokenizer\.ggml\.pre: got 'falcon', expected one of gpt-2, smollm"):
        tokenizer_of_gguf(read_gguf(path))


def test_a_sentence_piece_tokenizer_is_rebuilt_from_scores(tmp_path):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["\u2581", "t", "h", "e", "c", "a", "th", "\u2581t", "the", "\u2581the", "\u2581c", "at", "\u2581cat"]
    tokens = [*pieces, *words]

    def write(writer):
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([float(-index) for index in range(len(tokens))])
        writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(words)])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)

    found = tokenizer_of_gguf(read_gguf(write_gguf(tmp_path / "model.gguf", "llama3", write)))
    ids = found.encode("the cat é")
    assert [tokens[index] for index in ids] == ["<s>", "\u2581the", "\u2581cat", "\u2581", "<0xC3>", "<0xA9>"]
    assert found.decode(ids) == "the cat é"


def test_files_that_are_no_checkpoints_are_refused_in_one_line(tmp_path):
    for name, words in (("none", "no file or folder"), ("model.bin", "expected a folder or a .gguf file")):
        if name == "model.bin":
            (tmp_path / name).write_bytes(b"x")
        with pytest.raises(FormatError, match=words):
            load_decoder(tmp_path / name)
    whole = write_gguf(tmp_path / "few.gguf", "llama").read_bytes()
    for cut, words in ((0, "a GGUF file"), (6, "a GGUF file"), (300, "a GGUF file"), (-9000, "a type that gguf reads")):
        (tmp_path / "broken.gguf").write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=f"expected {words}"):
            load_gguf(read_gguf(tmp_path / "broken.gguf"))
    for name, value in (("ARCH__block_count", "many"), ("ARCH__attention__head_count_kv", 3)):
        wrong = write_gguf(tmp_path / "wrong.gguf", "qwen3", **{name: value})
        with pytest.raises(FormatError, match=r"wrong\.gguf"):
            load_gguf(read_gguf(wrong))
    few = write_gguf(tmp_path / "few.gguf", "llama3", changes=lambda out: without(out, "blk.0.ffn_up.weight"))
    with pytest.raises(FormatError, match=r"got no blk\.0\.ffn_up\.weight"):
        load_gguf(read_gguf(few))
    many = write_gguf(
        tmp_path / "many.gguf", "llama", changes=lambda out: {**out, "blk.0.x": out["output_norm.weight"]}
    )
    with pytest.raises(FormatError, match=r"got blk\.0\.x, expected only a llama"):
        load_gguf(read_gguf(many))


def without(tensors, name):
    return {other: tensor for other, tensor in tensors.items() if other != name}


def folder_with(tmp_path, **files):
    folder = Path(shutil.copytree(TINY / "qwen3", tmp_path / "model"))
    tokenizer = byte_level()
    first = [("<|im_start|>", 0)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=first)
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, value in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def test_a_folder_says_what_its_special_tokens_and_its_template_are(tmp_path):
    folder = folder_with(
        tmp_path,
        tokenizer_config__json={
            "eos_token": {"content": "<|im_end|>"}, "bos_token": "<|im_start|>", "pad_token": None,
            "chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}],
        },
        generation_config__json={"eos_token_id": [330, 2]},
    )  # fmt: skip
    found = tokenizer_of_folder(folder)
    assert (found.stop, found.pad) == ((330, 2, 1), 330)
    assert found.encode("Why") == [0, *found.encode("Why", special=False)]
    assert found.chat([{"role": "user", "content": "Hi"}], continues=False) == "<|im_start|>user\nHi<|im_end|>\n"
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] | tojson }}")
    assert tokenizer_of_folder(folder).chat([{"role": "user", "content": "é"}]) == '<|im_start|>"é"'


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for %}", "chat template: got"),
        ("{{ messages.append(1) }}", "chat template: got"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "chat template: got"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_one_line(tmp_path, template, words):
    config = {"eos_token": "<|im_end|>", "chat_template": template}
    found = tokenizer_of_folder(folder_with(tmp_path, tokenizer_config__json=config))
    with pytest.raises(InputError, match=words):
        found.chat([{"role": "user", "content": "Hi"}])
    with pytest.raises(InputError, match="chat: got a checkpoint without a template"):
        replace(found, template=None).chat([])
