"""GGUF files of the tiny decoders, with their tokenizers, as llama.cpp's conversion writes them."""

import json

import gguf
import numpy as np
from tiny_decoders import TINY, tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from share_jax.models.decoder_weights import decoder_names
from share_jax.models.gguf_file import gguf_names
from share_jax.storage.safetensors_file import TensorFile

TEXTS = [
    "SELECT name FROM shops WHERE city = 'Bern';",
    "It's 1234 items,  don't  ask!\n\nWhy not?",
    "naïve café 東京 🙂",
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level(split=None):
    """A small byte-level BPE with two special tokens, and its merges."""
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = level if split is None else pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def raw_tensors(folder):
    """All tensors of a folder, float32, by name."""
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        with TensorFile(path.parent, path.name) as file:
            out |= {name: file.read(name).astype(np.float32) for name in file.tensors}
    return out


def as_llama_cpp_does(tensor, heads):
    """Rows of a query or key kernel as llama.cpp's conversion puts them."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def write_gguf(path, family, tokenizer=None, changes=None, **meta):
    """A family's fixture as llama.cpp's conversion writes it."""
    config = tiny(family)[0].config
    arch = {"llama3": "llama", "mistral": "llama"}.get(family, family)
    writer = gguf.GGUFWriter(path, arch)
    numbers = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size, "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
    }  # fmt: skip
    numbers = {name: n for name, n in numbers.items() if f"ARCH__{name.replace('.', '__')}" not in meta}
    for name, number in numbers.items():
        writer.add_uint32(f"{arch}.{name}", number)
    writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32(f"{arch}.rope.freq_base", config.rope_theta)
    for name, value in meta.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(name.replace("__", ".").replace("ARCH", arch), value)
    if tokenizer is not None:
        tokenizer(writer)
    tensors = raw_tensors(TINY / family)
    names = {leaf.place: name for name, leaf in gguf_names(config).items()}
    out = {names[leaf.place]: tensors[name] for name, leaf in decoder_names(config).items()}
    for name, tensor in out.items():
        part = name.split(".")[-2]
        if arch == "llama" and part in ("attn_q", "attn_k"):
            heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
            out[name] = as_llama_cpp_does(tensor, heads)
        if arch == "gemma3" and part.endswith("norm"):
            out[name] = tensor + 1
    if config.rope_divisors is not None and arch == "llama":
        out["rope_freqs.weight"] = np.asarray(config.rope_divisors, np.float32)
    for name, tensor in (changes(out) if changes else out).items():
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_tokenizer(tokenizer, pre, **flags):
    """Writes a byte-level tokenizer's parts."""
    state = json.loads(tokenizer.to_str())["model"]
    tokens = [token for token, _ in sorted(state["vocab"].items(), key=lambda item: item[1])]

    def write(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
        writer.add_token_merges([" ".join(merge) for merge in state["merges"]])
        writer.add_eos_token_id(1)
        writer.add_bos_token_id(0)
        writer.add_chat_template(TEMPLATE)
        for name, value in flags.items():
            writer.add_bool(f"tokenizer.ggml.{name}", value)

    return write
