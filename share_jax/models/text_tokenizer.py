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
        """Token ids of many texts, one list each.

        Raises:
            InputError: these are one text.
        """
        check_texts(texts)
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
        check_texts(texts)
        ids = iter(self.encode_batch([text for text in texts if isinstance(text, str)], special=special))
        lists = [next(ids) if isinstance(text, str) else list(text) for text in texts]
        return padded(lists, max(map(len, lists), default=0), self.pad)


def check_texts(texts: Any) -> None:
    """Refuses one text where a list is wanted: each of its letters would be a text.

    Raises:
        InputError: it is one.
    """
    if isinstance(texts, str):
        raise InputError(message("texts", got="one text", expected="a list", fix="pass [text]"))


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


def text_label(labels: Sequence[str] | None, place: int) -> str:
    """What messages call the text at a place.

    >>> text_label(None, 0), text_label(["prompts.jsonl line 3"], 0)
    ('prompt 0', 'prompts.jsonl line 3')
    """
    return f"prompt {place}" if labels is None else labels[place]


def check_vocabulary(lists: Sequence[Sequence[int]], size: int, labels: Sequence[str] | None = None) -> None:
    """Refuses token ids that a decoder has no row for: it would compute with no number at all.

    Args:
        lists: of each text its ids.
        size: rows of the embedding.
        labels: what messages call the texts; "prompt 0" and so on when None.

    Raises:
        InputError: naming a text and the id.
    """
    for place, own in enumerate(lists):
        if outside := [each for each in own if not 0 <= each < size]:
            expected, fix = f"ids of 0 to {size - 1}, as the model has", "take the tokenizer that the model came with"
            raise InputError(
                message(f"tokens of {text_label(labels, place)}", got=f"id {outside[0]}", expected=expected, fix=fix)
            )


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
    said = {**_optional(folder / "special_tokens_map.json"), **config}
    special = {name: text for name, value in said.items() if name.endswith("_token") and (text := _text_of(value))}
    _add_missing(tokenizer, {**_declared(folder, config), **dict.fromkeys(_further(said, special))}, folder)
    ends = {**_optional(folder / "config.json"), **_optional(folder / "generation_config.json")}.get("eos_token_id")
    stop = list(ends) if isinstance(ends, list) else [] if ends is None else [ends]
    own = tokenizer.token_to_id(special["eos_token"]) if "eos_token" in special else None
    stop = [*stop, *([] if own is None else [own])]
    if not stop or not all(isinstance(each, int) and not isinstance(each, bool) for each in stop):
        got = "no token that ends a text" if not stop else f"eos_token_id {ends!r}"
        fix = "add eos_token_id to generation_config.json"
        raise FormatError(message(str(folder), got=got, expected="the id of one, or a list", fix=fix))
    pad = tokenizer.token_to_id(special["pad_token"]) if "pad_token" in special else None
    stop = tuple(dict.fromkeys(int(each) for each in stop))
    return TextTokenizer(tokenizer, stop, stop[0] if pad is None else pad, special, _template(folder, config))


def _text_of(value: Any) -> str | None:
    """The text of a token, which stands alone or with its properties."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _declared(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of tokens by their texts that other files than `tokenizer.json` name, in the order of the ids."""
    found = {text: int(own) for text, own in _optional(folder / "added_tokens.json").items() if isinstance(own, int)}
    listed = config.get("added_tokens_decoder")
    for own, value in (listed if isinstance(listed, dict) else {}).items():
        if (text := _text_of(value)) and str(own).isdigit():
            found[text] = int(own)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _further(said: Mapping[str, Any], special: Mapping[str, str]) -> list[str]:
    """Texts of all special tokens."""
    more = said.get("additional_special_tokens")
    texts = [_text_of(value) for value in more] if isinstance(more, list) else []
    return [*special.values(), *(text for text in texts if text)]


def _add_missing(tokenizer: Any, tokens: Mapping[str, int | None], folder: Path) -> None:
    """Adds the tokens that `tokenizer.json` does not have, behind all others.

    Raises:
        FormatError: one that has an id would get another.
    """
    from tokenizers import AddedToken

    for text, own in tokens.items():
        if tokenizer.token_to_id(text) is None:
            tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True)])
        if own is not None and (got := tokenizer.token_to_id(text)) != own:
            what, fix = f"{folder} token {text!r}", "pass a folder with the checkpoint's tokenizer.json"
            raise FormatError(message(what, got=f"id {got}", expected=f"{own}, as the folder says", fix=fix))


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or in `tokenizer_config.json`, where several have names.

    Raises:
        FormatError: the file cannot be read, or none of several is the default.
    """
    own = folder / "chat_template.jinja"
    if own.exists():
        try:
            return own.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            fix = "pass a folder with the checkpoint's own file, or without it"
            raise FormatError(message(str(own), got=error, expected="a template in UTF-8", fix=fix)) from error
    found = config.get("chat_template", _optional(folder / "chat_template.json").get("chat_template"))
    if isinstance(found, list):
        found = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
    if isinstance(found, dict):
        if found and "default" not in found:
            got, fix = f"templates {', '.join(map(str, found))}", "name one of them default"
            raise FormatError(message(f"{folder} chat_template", got=got, expected="one named default", fix=fix))
        found = found.get("default")
    return found if isinstance(found, str) else None


def _optional(path: Path) -> dict[str, Any]:
    return read_config(path, "a checkpoint's") if path.exists() else {}
