"""A decoder from a path: a folder of the Hugging Face hub or a GGUF file to a model, its params and its tokenizer."""

import os
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
from flax.typing import Dtype
from jax.typing import DTypeLike

from share_jax.errors import FormatError, message
from share_jax.models.decoder import Decoder
from share_jax.models.decoder_weights import load_decoder_folder
from share_jax.models.gguf_file import load_gguf, read_gguf
from share_jax.models.gguf_tokenizer import tokenizer_of_gguf
from share_jax.models.text_tokenizer import TextTokenizer, tokenizer_of_folder


class Pretrained(NamedTuple):
    """A decoder that has been loaded.

    Attributes:
        model: the Linen model.
        params: its tree.
        tokenizer: of the checkpoint, with its chat template.

    Example:
        >>> loaded = load_decoder("decoder")
        >>> type(loaded.model).__name__, sorted(loaded.params)[:2], loaded.tokenizer.vocab_size
        ('Decoder', ['embed', 'layer_0'], 53)
    """

    model: Decoder
    params: dict
    tokenizer: TextTokenizer


def load_decoder(
    path: str | os.PathLike[str],
    *,
    dtype: Dtype = jnp.float32,
    param_dtype: DTypeLike = "float32",
    first_layer: int = 0,
) -> Pretrained:
    """A decoder and its tokenizer.

        model, params, tokenizer = share_jax.models.load_decoder("SmolLM2-135M-Instruct")
        ids, mask = tokenizer.rows(["The capital of Italy is"])
        adapted = share_jax.adapt(model, {"params": params}, ids, targets=[r"layer_2.*/kernel"])

    Args:
        path: a folder with `config.json`, safetensors and `tokenizer.json`; a `.gguf` file; or a folder with one.
        dtype: compute type.
        param_dtype: of the params; in "bfloat16" they take half the memory, and most checkpoints hold no more.
        first_layer: the layer at which a given `hidden` enters; what lies below it is not to be adapted.

    Raises:
        FormatError: there is nothing, or a file cannot be read; the model is not covered; a tensor is missing,
            unexpected or wrong-shaped.

    Example:
        >>> model, params, tokenizer = load_decoder("decoder")  # a folder of the Hugging Face hub, or a GGUF file
        >>> ids, mask = tokenizer.rows(["the cat sat"])
        >>> model.config.family, ids.shape == mask.shape
        ('qwen3', True)
        >>> load_decoder("nothing")
        Traceback (most recent call last):
        share_jax.errors.FormatError: model: got no file or folder nothing, expected a checkpoint; ...
    """
    path = Path(path).expanduser()
    file = _gguf(path)
    if file is None:
        config, params = load_decoder_folder(path, param_dtype)
        return Pretrained(Decoder(config, dtype, first_layer), params, tokenizer_of_folder(path))
    opened = read_gguf(file)
    config, params = load_gguf(opened, param_dtype)
    return Pretrained(Decoder(config, dtype, first_layer), params, tokenizer_of_gguf(opened))


def load_tokenizer_of(path: str | os.PathLike[str]) -> TextTokenizer:
    """The tokenizer alone of what `load_decoder` takes; raises as that."""
    path = Path(path).expanduser()
    file = _gguf(path)
    return tokenizer_of_folder(path) if file is None else tokenizer_of_gguf(read_gguf(file))


def _gguf(path: Path) -> Path | None:
    """The GGUF file that is meant, or None for a folder of the hub."""
    fix = "download config.json, model.safetensors and tokenizer.json of the model, or its .gguf file"
    if not path.exists():
        raise FormatError(message("model", got=f"no file or folder {path}", expected="a checkpoint", fix=fix))
    if path.is_file():
        if path.suffix != ".gguf":
            raise FormatError(message("model", got=str(path), expected="a folder or a .gguf file", fix=fix))
        return path
    found = [] if (path / "config.json").exists() else sorted(path.glob("*.gguf"))
    if len(found) > 1:
        got = f"{len(found)} .gguf files in {path}"
        raise FormatError(message("model", got=got, expected="one", fix="pass the file itself"))
    return found[0] if found else None
