"""Writes the reference checkpoints of this folder: tiny random models, with what torch and transformers answer.

Run in an environment with torch and transformers, which the tests do not need:

    python tests/data/make_references.py

`vit_tiny` and `roberta_tiny` are folders as on the Hugging Face hub, with `reference.npz` beside the weights: inputs
and the last hidden states of the model. `roberta_tiny` has a byte-level tokenizer learnt from a few sentences.
"""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM, ViTConfig, ViTForImageClassification

HERE = Path(__file__).parent
SENTENCES = [
    "The cat sat on the mat.",
    "A café in Zürich sells the best coffee!",
    "the cat  and the dog sat",
    "Two tasks, one model: nothing is forgotten.",
]
PAIRS = [("The cat sat.", "The dog sat."), ("the best coffee in the café", "A cat?")]
LENGTH = 24


def spread(model: torch.nn.Module) -> None:
    """Random weights large enough that every part of the model shows in its output."""
    generator = torch.Generator().manual_seed(0)
    for name, leaf in model.named_parameters():
        size = 0.3 if leaf.ndim > 1 else 0.1
        one = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        leaf.data = one + size * torch.randn(leaf.shape, generator=generator)


def save(model: torch.nn.Module, folder: Path, **arrays: np.ndarray) -> None:
    """The folder of a model, with its reference beside it."""
    model.save_pretrained(folder)
    np.savez_compressed(folder / "reference.npz", **arrays)


def vit() -> None:
    """Two layers, 8 pixels a side, patches of 4; also asked at 12 pixels, by interpolated places."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, layer_norm_eps=1e-12))
    spread(model)
    model.eval()
    rng = np.random.default_rng(0)
    images, larger = (rng.normal(size=(3, side, side, 3)).astype(np.float32) for side in (8, 12))
    with torch.no_grad():
        hidden, large = (
            model.vit(torch.from_numpy(each).permute(0, 3, 1, 2), interpolate_pos_encoding=True).last_hidden_state
            for each in (images, larger)
        )
    arrays = {"images": images, "hidden": hidden.numpy(), "larger": larger, "larger_hidden": large.numpy()}
    save(model, HERE / "vit_tiny", **arrays)


def roberta() -> None:
    """Two layers over a vocabulary of 310, and the ids of its tokenizer for sentences and pairs."""
    folder = HERE / "roberta_tiny"
    folder.mkdir(exist_ok=True)
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(SENTENCES, vocab_size=310, min_frequency=1, special_tokens=special)
    bpe.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    options = {"padding": "max_length", "truncation": True, "max_length": LENGTH, "return_tensors": "np"}
    single = tokenizer(SENTENCES, **options)
    pair = tokenizer([a for a, _ in PAIRS], [b for _, b in PAIRS], **options)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = RobertaForMaskedLM(
        RobertaConfig(
            **sizes, vocab_size=310, type_vocab_size=1, max_position_embeddings=LENGTH + 2, layer_norm_eps=1e-5
        )
    )
    spread(model)
    model.eval()
    with torch.no_grad():
        hidden = model.roberta(
            input_ids=torch.from_numpy(single["input_ids"]), attention_mask=torch.from_numpy(single["attention_mask"])
        ).last_hidden_state
    save(
        model,
        folder,
        sentences=np.array(SENTENCES),
        pairs=np.array(PAIRS),
        hidden=hidden.numpy(),
        **{f"single_{name}": single[name] for name in ("input_ids", "attention_mask")},
        **{f"pair_{name}": pair[name] for name in ("input_ids", "attention_mask")},
    )


if __name__ == "__main__":
    vit()
    roberta()
