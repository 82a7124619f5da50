"""Writes `decoders`: a tiny random model of every family, with the logits that transformers computes with it.

Run in an environment of its own with torch and transformers (experiments/bench/peers.txt has their versions):

    python tests/data/make_decoder_references.py

Each folder is as on the Hugging Face hub, with `reference.npz` beside the weights: `input_ids`, an `attention_mask`
(one row is padded on the left), and `logits`. Weights are large enough that every part shows in the logits.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).parent / "decoders"
SIZES = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES = {
    "llama": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama3": ("llama", {"tie_word_embeddings": False, "head_dim": 8, "rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": 5, "head_dim": 8}),
    "qwen2": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 8, "tie_word_embeddings": True}),
    "gemma3": (
        "gemma3_text",
        {
            "num_hidden_layers": 3, "head_dim": 8, "num_key_value_heads": 1, "query_pre_attn_scalar": 12,
            "sliding_window": 4, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        },
    ),
}  # fmt: skip
SHARDED = "qwen2"
LENGTH = 14


def spread(model: torch.nn.Module) -> None:
    """Random weights, rounded to bfloat16, in which no part of the model hides."""
    generator = torch.Generator().manual_seed(0)
    for name, leaf in model.named_parameters():
        size = 0.4 if leaf.ndim > 1 else 0.2
        one = 1.0 if "norm" in name and "gemma" not in type(model).__name__.lower() else 0.0
        leaf.data = (one + size * torch.randn(leaf.shape, generator=generator)).bfloat16().float()


def write(name: str, kind: str, fields: dict) -> None:
    """One family's folder."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    config = AutoConfig.for_model(kind, **{**SIZES, **fields})
    config._attn_implementation = "eager"  # the only one that has soft caps
    model = AutoModelForCausalLM.from_config(config).float().eval()
    spread(model)
    rng = np.random.default_rng(0)
    ids = rng.integers(3, SIZES["vocab_size"], (2, LENGTH))
    mask = np.ones_like(ids)
    mask[1, :3], ids[1, :3] = 0, 0
    places = torch.from_numpy(np.maximum(mask.cumsum(axis=1) - 1, 0))
    cap = getattr(config, "attn_logit_softcapping", None)
    extra = {} if cap is None else {"softcap": cap}  # its eager attention takes one, but Gemma 3's layers pass none on
    with torch.no_grad():
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "position_ids": places}
        logits = model(**given, **extra).logits.numpy()
    stored = model if name == "llama3" else model.bfloat16()
    stored.save_pretrained(folder, max_shard_size="8KB" if name == SHARDED else "5GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)
    arrays = {"input_ids": ids.astype(np.int32), "attention_mask": mask.astype(np.int32), "logits": logits}
    np.savez_compressed(folder / "reference.npz", **arrays)


if __name__ == "__main__":
    for name, (kind, fields) in FAMILIES.items():
        write(name, kind, fields)
