"""A folder as on the Hugging Face hub of every kind of pretrained model, small."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from share_jax.models.bert import BertConfig
from share_jax.models.bert_weights import bert_layout

DATA = Path(__file__).parents[1] / "data"


def pretrained_folder(kind: str, where: Path) -> Path:
    """The folder of a "bert", "roberta", "vit" or "decoder"."""
    if kind in ("roberta", "vit"):
        return DATA / f"{kind}_tiny"
    folder = where / kind
    if kind == "decoder":
        shutil.copytree(DATA / "decoders" / "qwen3", folder)
        small_tokenizer(["<end>"], 60).save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
        return folder
    folder.mkdir()
    config = BertConfig(60, 16, 2, 2, 32, 20)
    rng = np.random.default_rng(0)
    stored = {name: leaf.stored for name, leaf in bert_layout(config).items()}
    tensors = {name: (0.2 * rng.normal(size=shape)).astype(np.float32) for name, shape in stored.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    small_tokenizer(["[PAD]", "[CLS]", "[SEP]"], 60).save(str(folder / "tokenizer.json"))
    return folder


def small_tokenizer(special: list[str], size: int) -> Tokenizer:
    """BPE over letters, of so many tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = ["the cat sat on a dog", "SELECT name FROM shops", "db.shops.find"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
