"""What llama.cpp is given of a decoder with drawn weights: the model and one LoRA, as GGUF files in float32.

In files of llamas the two rows of a rotated pair of query and key lie beside each other, as llama.cpp's
`convert_hf_to_gguf.py` puts them. The files have no vocabulary: token ids go in, and logits come out.
"""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.subjects import ALPHA, RANK, Subject
from share_jax.models.decoder_config import DecoderConfig
from share_jax.models.gguf_file import gguf_names
from share_jax.trees import flat

ARCH = "llama"


def llama_files(subject: Subject, folder: Path) -> dict[str, str]:
    """Writes both files; their paths.

    Args:
        subject: a decoder of the family "llama".
        folder: for the files.
    """
    model: Any = subject.model
    folder.mkdir(parents=True, exist_ok=True)
    config, leaves = model.config, flat(subject.params)
    tensors = {name: leaf.to_stored(np.asarray(leaves[leaf.place])) for name, leaf in gguf_names(config).items()}
    weights, lora = folder / "model.gguf", folder / "lora.gguf"
    _write_model(weights, config, tensors)
    _write_lora(lora, tensors)
    return {"weights": str(weights), "lora": str(lora)}


def pairs_together(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key kernel with the two of a rotated pair beside each other.

    >>> pairs_together(np.arange(8), 2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _write_model(path: Path, config: DecoderConfig, tensors: dict[str, np.ndarray]) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, ARCH)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in tensors.items():
        count = heads.get(name.split(".")[-2])
        writer.add_tensor(name, np.ascontiguousarray(tensor if count is None else pairs_together(tensor, count)))
    _finish(writer)


def _write_lora(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """A drawn LoRA on all kernels of all layers; none of it is zero."""
    import gguf

    writer = gguf.GGUFWriter(path, ARCH)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    rng = np.random.default_rng(3)
    for name, tensor in tensors.items():
        if name.startswith("blk.") and tensor.ndim == 2:
            rows, columns = tensor.shape
            for part, shape in (("lora_a", (RANK, columns)), ("lora_b", (rows, RANK))):
                writer.add_tensor(f"{name}.{part}", np.float32(0.02) * rng.standard_normal(shape, np.float32))
    _finish(writer)


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
