"""Texts to tokens of a decoder and back, and conversations to texts: all from the checkpoint's own files.

Source of the files' meaning: `tokenization_utils_base.py` of transformers; `tokenizers` does the work.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from share_jax.errors import FormatError, InputError, message
from share_jax.models.chat_template import Message, render
from share_jax.models.weights import read_config


@dataclass(frozen=True, eq=False)
class TextTokenizer:
    """A decoder's tokenizer.

    Attributes:
        tokenizer: the `tokenizers.Tokenizer`; special tokens are those that the checkpoint says.
        stop: ids that end a completion.
        pad: id that fills rows up; it is never looked at.
        special: texts of special tokens by their names in a template, such as "bos_token".
        template: the chat template, or None.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> words = Tokenizer(models.WordLevel({"<end>": 0, "good": 1, "day": 2}, unk_token="<end>"))
        >>> words.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = TextTokenizer(words, stop=(0,))
        >>> tokenizer.encode("good day"), tokenizer.decode([2, 2])
        ([1, 2], 'day day')
        >>> tokenizer.rows(["good day", "day"])[0].tolist()
        [[1, 2], [2, 0]]
    """

    tokenizer: Any
    stop: tuple[int, ...]
    pad: int = 0
    special: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None

    @property
    def vocab_size(self) -> int:
        """Tokens, special ones among them."""
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            text: the text; special tokens that stand in it are taken as such.
            special: whether what the checkpoint puts around texts, such as a first <s>, is added. A conversation's
                text has it already.
        """
        return self.encode_batch([text], special=special)[0]

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of many texts, one list each."""
        return [each.ids for each in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of tokens, with or without special ones."""
        return self.tokenizer.decode([int(each) for each in ids], skip_special_tokens=not special)

    def chat(self, messages: Sequence[Message], *, continues: bool = True, **names: Any) -> str:
        """The text of a conversation, by the checkpoint's template; to be encoded with `special=False`.

        Args:
            messages: of the conversation, in order.
            continues: whether the text ends where the model's next message begins.
            **names: what else the template sees, such as `tools`.

        Raises:
            InputError: the checkpoint has no template, or it refuses the messages.
        """
        if self.template is None:
            fix = "take an instruction-tuned checkpoint, or write the prompt as a text"
            raise InputError(message("chat", got="a checkpoint without a template", expected="one", fix=fix))
        return render(self.template, messages, continues=continues, **{**self.special, **names})

    def rows(self, texts: Sequence[str | Sequence[int]], *, special: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """`(input_ids, attention_mask)` of texts, or of token ids, int32 (N, longest), padded on the right."""
        ids = iter(self.encode_batch([text for text in texts if isinstance(text, str)], special=special))
        lists = [next(ids) if isinstance(text, str) else list(text) for text in texts]
        return padded(lists, max(map(len, lists), default=0), self.pad)


def padded(
    lists: Sequence[Sequence[int]], length: int, pad: int, *, left: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Lists of ids as one array with its mask, int32 (N, length).

    >>> padded([[5], [6, 7]], 3, 0, left=True)[0].tolist()
    [[0, 0, 5], [0, 6, 7]]
    """
    ids = np.full((len(lists), length), pad, np.int32)
    mask = np.zeros((len(lists), length), np.int32)
    for row, own in enumerate(lists):
        where = slice(length - len(own), length) if left else slice(0, len(own))
        ids[row, where], mask[row, where] = own, 1
    return ids, mask


def tokenizer_of_folder(folder: Path) -> TextTokenizer:
    """The tokenizer of a Hugging Face folder: `tokenizer.json`, and what the other files say of special tokens.

    Raises:
        FormatError: a file cannot be read, or no token ends a text.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception for a file it cannot read
        fix = "pass a folder with the checkpoint's tokenizer.json"
        raise FormatError(message(str(path), got=error, expected="a tokenizer file", fix=fix)) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    config = _optional(folder / "tokenizer_config.json")
    special = {
        name: value if isinstance(value, str) else value["content"]
        for name, value in {**_optional(folder / "special_tokens_map.json"), **config}.items()
        if name.endswith("_token") and (isinstance(value, str) or (isinstance(value, dict) and "content" in value))
    }
    ends = {**_optional(folder / "config.json"), **_optional(folder / "generation_config.json")}.get("eos_token_id")
    stop = [ends] if isinstance(ends, int) else list(ends or [])
    own = tokenizer.token_to_id(special["eos_token"]) if "eos_token" in special else None
    stop = [*stop, *([] if own is None else [own])]
    if not stop or not all(isinstance(each, int) for each in stop):
        fix = "add eos_token_id to generation_config.json"
        raise FormatError(message(str(folder), got="no token that ends a text", expected="one", fix=fix))
    pad = tokenizer.token_to_id(special["pad_token"]) if "pad_token" in special else None
    stop = tuple(dict.fromkeys(int(each) for each in stop))
    return TextTokenizer(tokenizer, stop, stop[0] if pad is None else pad, special, _template(folder, config))


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or in `tokenizer_config.json`, where several have names."""
    own = folder / "chat_template.jinja"
    if own.exists():
        return own.read_text(encoding="utf-8")
    found = config.get("chat_template", _optional(folder / "chat_template.json").get("chat_template"))
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _optional(path: Path) -> dict[str, Any]:
    return read_config(path, "a checkpoint's") if path.exists() else {}
