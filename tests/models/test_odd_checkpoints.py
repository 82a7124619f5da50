"""Checkpoints and arguments that are not as they should be: one clear line, or what transformers makes of them."""

import json
from pathlib import Path

import gguf
import jax
import numpy as np
import pytest
from gguf_models import byte_level, gguf_tokenizer, write_gguf
from pretrained_folders import pretrained_folder
from safetensors.numpy import load_file, save_file

import share_jax
from share_jax import language
from share_jax.bank.bank import TaskBank
from share_jax.errors import FormatError, InputError
from share_jax.models import chat_template, generate, load_decoder
from share_jax.models.decoder_config import config_of
from share_jax.models.gguf_file import gguf_config, read_gguf
from share_jax.models.gguf_tokenizer import tokenizer_of_gguf
from share_jax.models.sampling import sampling
from share_jax.models.text_tokenizer import tokenizer_of_folder
from share_jax.text.examples import Example

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pretrained_folder("decoder", tmp_path)


def changed(path: Path, **entries: object) -> None:
    """A JSON file with other entries."""
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**found, **entries}))


def adapted_of(folder: Path):
    model, params, tokenizer = load_decoder(folder)
    ids, mask = tokenizer.rows(["the cat sat"])
    adapted = share_jax.adapt(model, {"params": params}, ids, mask, targets=r"layer_1/.*/kernel")
    trees = adapted.init(jax.random.key(0), params, num_tasks=1)
    bank = TaskBank(trees["shared"], trees["tasks"], ("a",))
    return lambda prompts, **how: generate(adapted, bank, "a", prompts, params=params, **how)


# ---- tokens


@pytest.mark.parametrize("prompt", [[5, 60], [5, 10**6], [5, -1], [2**40]])
def test_an_id_that_the_model_has_no_row_for_is_refused(folder: Path, prompt: list[int]) -> None:
    rows = load_decoder(folder).model.config.vocab_size
    with pytest.raises(InputError, match=rf"tokens of prompt 1: got id .*, expected ids of 0 to {rows - 1}"):
        adapted_of(folder)([[5], [each if each < 60 else each + rows for each in prompt]], max_tokens=1)


def test_a_tokenizer_of_more_tokens_than_the_model_is_told_by_the_example(folder: Path, tmp_path: Path) -> None:
    rows = load_decoder(folder).model.config.vocab_size
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    have = {each["id"] for each in tokenizer["added_tokens"]} | set(tokenizer["model"]["vocab"].values())
    more = [f"<extra{number}>" for number in range(rows + 1 - len(have))]
    changed(folder / "added_tokens.json", **{text: len(have) + place for place, text in enumerate(more)})
    opened = language.open_language_bank(tmp_path / "bank", folder, language.LanguageSettings("", first_layer=1))
    examples = [Example("the cat", " sat"), Example(f"the {more[-1]}", " sat", source="a.jsonl line 2")]
    with pytest.raises(InputError, match=rf"tokens of a.jsonl line 2: got id {rows}"):
        language.learn(opened, "a", examples)
    assert not (tmp_path / "bank").exists()


def test_tokens_that_other_files_name_are_tokens(folder: Path) -> None:
    size = tokenizer_of_folder(folder).vocab_size
    declared = {str(size): {"content": "<tool>"}}
    changed(folder / "tokenizer_config.json", added_tokens_decoder=declared, additional_special_tokens=["<more>"])
    found = tokenizer_of_folder(folder)
    assert found.encode("<tool><more>") == [size, size + 1]
    changed(folder / "tokenizer_config.json", added_tokens_decoder={str(size + 7): {"content": "<tool>"}})
    with pytest.raises(FormatError, match=f"token '<tool>': got id {size}, expected {size + 7}"):
        tokenizer_of_folder(folder)


@pytest.mark.parametrize(
    ("file", "entries", "told"),
    [
        ("generation_config.json", {"eos_token_id": 2.5}, "eos_token_id 2.5"),
        ("generation_config.json", {"eos_token_id": True}, "eos_token_id True"),
        ("tokenizer_config.json", {"chat_template": [{"name": "tools", "template": "x"}]}, "one named default"),
    ],
)
def test_odd_entries_are_refused(folder: Path, file: str, entries: dict, told: str) -> None:
    changed(folder / file, **entries)
    with pytest.raises(FormatError, match=told):
        tokenizer_of_folder(folder)


def test_odd_files_are_refused_by_their_names(folder: Path) -> None:
    changed(folder / "tokenizer_config.json", eos_token={"content": 5})
    changed(folder / "generation_config.json", eos_token_id=0)
    assert tokenizer_of_folder(folder).stop == (0,)
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(FormatError, match=r"chat_template\.jinja: got .*, expected a template in UTF-8"):
        tokenizer_of_folder(folder)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").mkdir()
    with pytest.raises(FormatError, match=r"chat_template\.jinja"):
        tokenizer_of_folder(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"config\.json: got .*, expected a JSON object"):
        load_decoder(folder)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% if tools is not none %}TOOLS{% endif %}Hi", "Hi"),
        ("{% if documents is defined %}D{% endif %}{{ tools == none }}", "DTrue"),
        ("{{ {'a': 'é'} | tojson(True) }}", '{"a": "\\u00e9"}'),
        ("{{ {'a': 'é'} | tojson }}", '{"a": "é"}'),
    ],
)
def test_a_template_sees_what_transformers_gives_it(template: str, text: str) -> None:
    assert chat_template.render(template, HI) == text


def test_a_broken_template_is_not_the_messages_fault(folder: Path) -> None:
    with pytest.raises(InputError, match="take the template that the model came with"):
        chat_template.render("{% do x %}", HI)
    changed(folder / "tokenizer_config.json", chat_template={"default": "{{ messages[0].content }}", "rag": "x"})
    assert tokenizer_of_folder(folder).chat(HI) == "Hi"


# ---- weights and forms


def test_an_output_layer_that_is_not_the_embedding_is_used(folder: Path) -> None:
    """As transformers does, whatever the config says of tying."""
    tensors = load_file(folder / "model.safetensors")
    changed(folder / "config.json", tie_word_embeddings=True)
    embedding = tensors["model.embed_tokens.weight"]
    for own, apart in ((embedding, False), (embedding + 1, True)):
        save_file({**tensors, "lm_head.weight": own}, folder / "model.safetensors")
        model, params, _ = load_decoder(folder)
        assert model.config.tie_word_embeddings is not apart
        if apart:
            kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.shape == embedding.T.shape]
            assert any(np.array_equal(leaf, (embedding + 1).T) for leaf in kernels)
    save_file({**tensors, "lm_head.weight": np.ones((3, 3), np.float32)}, folder / "model.safetensors")
    with pytest.raises(FormatError, match=r"lm_head\.weight"):
        load_decoder(folder)


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"rope_theta": 0}, "rope_theta: got 0"),
        ({"rope_theta": float("nan")}, "rope_theta: got nan"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings: got 'false', expected true or false"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "rope_divisors: got 0.0"),
        ({"rope_scaling": {"rope_type": "linear"}}, "got no 'factor'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2, "low_freq_factor": 1, "high_freq_factor": 1,
                           "original_max_position_embeddings": 8}}, "high above low"),
        ({"use_sliding_window": True, "sliding_window": True, "max_window_layers": 0}, "sliding_window: got True"),
        ({"use_sliding_window": True, "layer_types": "full_attention"}, "layer_types: got 'full_attention'"),
        ({"use_sliding_window": True, "layer_types": ["full_attention"] * 9}, "layer_types: got 9 entries"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_right_are_refused(folder: Path, entries: dict, told: str) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw = {name: value for name, value in raw.items() if name not in ("rope_parameters", "layer_types")}
    with pytest.raises(FormatError) as error:
        config_of({**raw, **entries}, "config.json")
    assert told in str(error.value)


# ---- GGUF


def test_rotary_settings_of_a_gguf_file_are_read(tmp_path: Path) -> None:
    def config(**meta: object):
        path = tmp_path / "model.gguf"
        path.unlink(missing_ok=True)
        return gguf_config(read_gguf(write_gguf(path, "llama", **meta)))

    plain = config()
    half = plain.head_dim // 2
    assert plain.rope_divisors is None
    assert config(ARCH__rope__dimension_count=plain.head_dim) == plain
    assert config(ARCH__rope__scaling__factor=4.0).rope_divisors == (4.0,) * half  # linear unless it says otherwise
    assert config(ARCH__rope__scale_linear=4.0).rope_divisors == (4.0,) * half
    assert config(ARCH__rope__scaling__factor=4.0, ARCH__rope__scaling__type="none").rope_divisors is None
    with pytest.raises(FormatError, match="dimension_count: got 2"):
        config(ARCH__rope__dimension_count=2)
    with pytest.raises(FormatError, match=r"no llama\.rope\.scaling\.factor"):
        config(ARCH__rope__scaling__type="linear")


def test_rows_that_the_heads_do_not_divide_are_refused_by_their_shape(tmp_path: Path) -> None:
    def longer(tensors: dict) -> dict:
        name = "blk.0.attn_q.weight"
        return {**tensors, name: np.concatenate([tensors[name], tensors[name][:1]])}

    path = write_gguf(tmp_path / "model.gguf", "llama", gguf_tokenizer(byte_level(), "gpt-2"), changes=longer)
    with pytest.raises(FormatError, match=r"blk\.0\.attn_q\.weight"):
        load_decoder(path)


@pytest.mark.parametrize("name", ["eos", "padding"])
def test_a_token_past_the_vocabulary_is_refused(tmp_path: Path, name: str) -> None:
    written = gguf_tokenizer(byte_level(), "gpt-2")

    def write(writer: gguf.GGUFWriter) -> None:
        written(writer)
        writer.kv_data[0].pop(f"tokenizer.ggml.{name}_token_id", None)
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", 99_999)

    path = write_gguf(tmp_path / "model.gguf", "llama", write)
    with pytest.raises(FormatError, match=rf"tokenizer\.ggml\.{name}_token_id: got 99999, expected a token"):
        tokenizer_of_gguf(read_gguf(path))


# ---- arguments of generate


@pytest.mark.parametrize(
    ("prompts", "how", "told"),
    [
        ([5, 6], {}, "prompt 0: got 5, expected a text, or a list of token ids"),
        ([None], {}, "prompt 0: got None"),
        ([["a", "b"]], {}, "prompt 0"),
        ([[1.7]], {}, "prompt 0"),
        ([[5]], {"stop": 5}, "stop: got 5"),
        ([[5]], {"stop": ["a"]}, "stop"),
        ([[5]], {"batch_size": 2.5}, "batch_size: got 2.5, expected a whole number"),
        ([[5]], {"max_tokens": 2.5}, "max_tokens: got 2.5"),
        ([[5]], {"temperature": "1"}, "temperature: got '1'"),
        ([[5]], {"temperature": float("inf")}, "temperature: got inf"),
        ([[5]], {"temperature": 1.0, "top_k": 1.5}, "top_k: got 1.5"),
    ],
)
def test_arguments_that_are_not_what_they_should_be(folder: Path, prompts: list, how: dict, told: str) -> None:
    with pytest.raises(InputError) as error:
        adapted_of(folder)(prompts, **{"max_tokens": 1, "key": jax.random.key(0), **how})
    assert told in str(error.value)


def test_numbers_past_what_is_computed_with_mean_their_limits() -> None:
    assert sampling(1e-45, None, None) is None
    how = sampling(1.0, 10**12, None)
    assert how is not None
    assert int(how.top_k) == 2**31 - 1
