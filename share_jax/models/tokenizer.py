"""Texts, or pairs of texts, to fixed-length token ids."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.errors import FormatError, InputError, message
from share_jax.models.text_tokenizer import check_texts

Encode = Callable[[Sequence[Any]], tuple[np.ndarray, np.ndarray]]
"""Texts, str each or pairs of two -> (input_ids, attention_mask), both (N, L)."""

_PADS = ("[PAD]", "<pad>")


def load_tokenizer(folder: str | os.PathLike[str], max_length: int) -> Encode:
    """A function from texts, or pairs of texts, to `(input_ids, attention_mask)`, int32 (N, max_length).

    Texts are cut to `max_length` tokens (the closing [SEP] or </s> kept; of a pair the longer text is cut first) and
    padded on the right with [PAD] or <pad>; the same texts give the same ids, however they are batched.

    Args:
        folder: holds `tokenizer.json`, or RoBERTa's `vocab.json` and `merges.txt`.
        max_length: tokens per text, [CLS] and [SEP] included; at least 3.

    Raises:
        FormatError: no readable `tokenizer.json` (or the other two), or one without a padding token.
        InputError: `max_length` is below 3.

    Example:
        >>> encode = load_tokenizer("bert", max_length=6)
        >>> ids, mask = encode(["the cat", "a dog sat"])
        >>> ids.shape, mask.dtype
        ((2, 6), dtype('int32'))
    """
    if max_length < 3:
        raise InputError(message("max_length", got=max_length, expected="at least 3", fix="pass max_length=64"))
    path, tokenizer = _read(Path(folder))
    pad = next((token for token in _PADS if tokenizer.token_to_id(token) is not None), None)
    if pad is None:
        fix = "take a BERT or RoBERTa tokenizer"
        raise FormatError(message(str(path), got=f"no {' or '.join(_PADS)} token", expected="one", fix=fix))
    tokenizer.enable_truncation(max_length=max_length)
    tokenizer.enable_padding(length=max_length, pad_id=tokenizer.token_to_id(pad), pad_token=pad)

    def encode(texts: Sequence[str] | Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
        check_texts(texts)
        encodings = tokenizer.encode_batch_fast(list(texts))
        shape = (len(encodings), max_length)
        ids = np.array([encoding.ids for encoding in encodings], np.int32).reshape(shape)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int32).reshape(shape)
        return ids, mask

    return encode


def _read(folder: Path) -> tuple[Path, Any]:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        if not path.exists() and (folder / "vocab.json").exists():
            path = folder / "vocab.json"
            return path, _byte_level(path, folder / "merges.txt")
        return path, Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception for a file it cannot read
        fix = "pass the folder of the pretrained encoder"
        raise FormatError(message(str(path), got=error, expected="a tokenizer file", fix=fix)) from error


def _byte_level(vocabulary: Path, merges: Path) -> Any:
    """RoBERTa's byte-level BPE from its two files: <s> a </s>, and <s> a </s></s> b </s> for a pair."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    last, first = ((token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>"))
    tokenizer.post_processor = processors.RobertaProcessing(last, first, add_prefix_space=False)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return tokenizer
