"""Texts to fixed-length token ids."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.input.sources import Encode
from share_jax.errors import FormatError, InputError, line


def load_tokenizer(folder: str | os.PathLike[str], max_length: int) -> Encode:
    """A function from texts to `(input_ids, attention_mask)`, int32 (N, max_length).

    Texts are cut to `max_length` tokens (the closing [SEP] kept) and padded on the right with [PAD]; the same
    texts give the same ids, however they are batched.

    Args:
        folder: holds `tokenizer.json`.
        max_length: tokens per text, [CLS] and [SEP] included; at least 3.

    Raises:
        FormatError: no readable `tokenizer.json`, or one without a [PAD] token.
        InputError: `max_length` is below 3.
    """
    from tokenizers import Tokenizer

    if max_length < 3:
        raise InputError(line("max_length", got=max_length, expected="at least 3", mend="pass max_length=64"))
    path = Path(folder) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception for a file it cannot read
        mend = "pass the folder of the pretrained encoder"
        raise FormatError(line(str(path), got=error, expected="a tokenizer file", mend=mend)) from error
    pad_id = tokenizer.token_to_id("[PAD]")
    if pad_id is None:
        mend = "take a BERT tokenizer"
        raise FormatError(line(str(path), got="no [PAD] token", expected="one", mend=mend))
    tokenizer.enable_truncation(max_length=max_length)
    tokenizer.enable_padding(length=max_length, pad_id=pad_id, pad_token="[PAD]")

    def encode(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encodings = tokenizer.encode_batch_fast(list(texts))
        shape = (len(encodings), max_length)
        ids = np.array([encoding.ids for encoding in encodings], np.int32).reshape(shape)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int32).reshape(shape)
        return ids, mask

    return encode
