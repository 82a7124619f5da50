"""Examples as tokens: what a decoder reads of each, and which of its tokens are learnt.

A prompt and its completion are encoded apart, so that a prompt has the same tokens when a completion is asked for. The
completion ends with the token that stops the decoder, which is learnt, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from share_jax.errors import InputError, ShareError, message
from share_jax.text.examples import Chat, Example, Message

GRID = (8, 16, 24, 32, 48, 64, 96, 128)
"""Short lengths that rows are padded to; beyond, multiples of 64. Each is compiled once."""


class Tokenizer(Protocol):
    """What a tokenizer has to do, as `share_jax.models.TextTokenizer` does it."""

    @property
    def stop(self) -> tuple[int, ...]:
        """Ids that end a completion; the first is learnt."""
        ...

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of texts, with or without what the checkpoint puts around them."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        ...

    def chat(self, messages: Any) -> str:
        """The text of a conversation, up to where the next answer begins."""
        ...


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Examples of unlike lengths.

    Attributes:
        ids: of each example all its tokens.
        starts: of each the place of its first token that is learnt, at least 1.
        nbytes: of each the length of its completion or text, as far as its tokens are learnt, in bytes of UTF-8.
        cut: how many examples were cut to `max_length`.
        sources: what messages call them; none where they are not told apart.

    Raises:
        InputError: there is no example.
    """

    ids: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    nbytes: tuple[int, ...]
    cut: int = 0
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses nothing to learn."""
        if not self.ids:
            raise InputError(message("examples", got="none", expected="at least one", fix="add lines to the file"))

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) columns that the decoder reads of each: all tokens but the last, which is only learnt."""
        return np.array([len(own) - 1 for own in self.ids])

    @property
    def learnt(self) -> np.ndarray:
        """(N,) tokens that are learnt of each."""
        return np.array([len(own) - start for own, start in zip(self.ids, self.starts, strict=True)])


def token_rows(examples: Sequence[Example | Chat], tokenizer: Tokenizer, max_length: int) -> TokenRows:
    """Examples as tokens; one that is too long loses the beginning of its prompt, then the end of what is learnt.

    Args:
        examples: prompts with completions, texts, or chats, of which the last answer is learnt.
        tokenizer: of the decoder.
        max_length: the most tokens of one example.

    Raises:
        InputError: there is no example, or one is no `Example` or `Chat`; `max_length` is below 8; a completion is
            empty, or a text has no token to learn; the tokenizer has no template for a chat, or the template refuses
            it.
    """
    if max_length < 8:
        raise InputError(message("max_length", got=max_length, expected="at least 8 tokens", fix="pass 256"))
    for number, example in enumerate(examples, start=1):
        if not isinstance(example, Example | Chat):
            got, fix = f"a {type(example).__name__}", "read_examples makes them of a JSONL file"
            raise InputError(message(f"example {number}", got=got, expected="an Example or a Chat", fix=fix))
    chats = [isinstance(example, Chat) for example in examples]
    prompts, wanted = [], []
    sources = [example.source or f"example {number}" for number, example in enumerate(examples, start=1)]
    for example, source in zip(examples, sources, strict=True):
        if isinstance(example, Chat):
            prompts.append(chat_text(tokenizer, example.messages[:-1], source))
            wanted.append(example.messages[-1].content)
        else:
            prompts.append(example.prompt)
            wanted.append(example.completion)
    plain = tokenizer.encode_batch(prompts)
    for place in (place for place, chat in enumerate(chats) if chat):
        (plain[place],) = tokenizer.encode_batch([prompts[place]], special=False)
    answers = tokenizer.encode_batch(wanted, special=False)
    ids, starts, nbytes, cut = [], [], [], 0
    for place, (before, answer) in enumerate(zip(plain, answers, strict=True)):
        if before and not wanted[place]:
            got, fix = "nothing", "give it an answer"
            raise InputError(message(f"completion of {sources[place]}", got=got, expected="a text", fix=fix))
        whole = len(answer) + 1
        answer = (*answer, tokenizer.stop[0])
        cut += len(before) + len(answer) > max_length
        answer = answer[: max_length - 1] if before else answer[:max_length]
        before = before[max(0, len(before) + len(answer) - max_length) :]
        if len(before) + len(answer) < 2:
            got, fix = "nothing", "give it a prompt or more text"
            raise InputError(message(f"tokens of {sources[place]}", got=got, expected="at least two", fix=fix))
        ids.append((*before, *answer))
        starts.append(max(1, len(before)))
        told = answer[: whole - 1] if before else answer[1 : whole - 1]  # of a text the first token is not scored
        text = wanted[place] if len(told) == whole - 1 else tokenizer.decode(told)
        nbytes.append(len((text or wanted[place]).encode()))
    return TokenRows(tuple(ids), tuple(starts), tuple(nbytes), cut, tuple(sources))


def chat_text(tokenizer: Tokenizer, turns: Sequence[Message], source: str) -> str:
    """The text of a conversation, up to where the next answer begins.

    Args:
        tokenizer: of the decoder.
        turns: the conversation.
        source: where it stands, for messages.

    Raises:
        ShareError: as `Tokenizer.chat`, with the source.
    """
    try:
        return tokenizer.chat([{"role": turn.role, "content": turn.content} for turn in turns])
    except ShareError as error:
        raise type(error)(f"{source}: {error}") from error


def on_grid(length: int) -> int:
    """The length that rows of a length are padded to.

    >>> [on_grid(each) for each in (3, 8, 33, 130)]
    [8, 8, 48, 192]
    """
    return next((each for each in GRID if each >= length), -(-length // 64) * 64)


def token_arrays(rows: TokenRows, index: np.ndarray, length: int, width: int) -> dict[str, np.ndarray]:
    """The examples at `index` as arrays, padded on the right.

    Args:
        rows: the examples.
        index: places, (n,).
        length: L, columns that the decoder reads.
        width: K, the most tokens that are learnt.

    Returns:
        "input_ids" and "attention_mask" (n, L); "columns" (n, K), the places whose next token is learnt, 0 behind the
        last; "targets" (n, K), those tokens, -1 behind the last; all int32.
    """
    shapes = {"input_ids": length, "attention_mask": length, "columns": width, "targets": width}
    out = {name: np.zeros((len(index), size), np.int32) for name, size in shapes.items()}
    out["targets"] -= 1
    for row, place in enumerate(index):
        own, start = rows.ids[place], rows.starts[place]
        learnt = len(own) - start
        out["input_ids"][row, : len(own) - 1] = own[:-1]
        out["attention_mask"][row, : len(own) - 1] = 1
        out["columns"][row, :learnt] = np.arange(start - 1, len(own) - 1)
        out["targets"][row, :learnt] = own[start:]
    return out
