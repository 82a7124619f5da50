"""Examples that a language model learns from, and the JSONL files in which people keep them.

Each line is one of these objects; other members of it are not read:

    {"prompt": "Translate: cheese", "completion": "fromage"}      the completion is learnt, after the prompt
    {"text": "Any text."}                                         all of the text is learnt
    {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]}
                                                                  a chat, to be set by the model's own template;
                                                                  its last answer alone is learnt
"""

import os
from dataclasses import dataclass, field, replace
from typing import Any

from share_jax.storage.untrusted import shown
from share_jax.text.json_lines import Problem, read_json_lines

ROLES = ("system", "user", "assistant", "tool")
"""Who speaks in a chat."""

FORMS = (("prompt", "completion"), ("text",), ("messages",))
"""The members of the three kinds of line."""

_FORMS = '{"prompt", "completion"}, {"text"} or {"messages"}'


@dataclass(frozen=True)
class Example:
    """A prompt, whose tokens are given, and the completion, whose tokens are learnt.

    Attributes:
        prompt: "" where all of a text is learnt.
        completion: follows the prompt as it is: no blank is put between them. Both are encoded apart, so a tokenizer
            that puts a blank before any text, as some of SentencePiece do, puts one there, too.
        source: the file and line that it is from, for messages.

    Example:
        >>> example = Example("Translate: cheese =", " fromage")
        >>> example.prompt + example.completion
        'Translate: cheese = fromage'
    """

    prompt: str
    completion: str
    source: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Message:
    """One turn of a chat; `role` is one of `ROLES`.

    Example:
        >>> Message("user", "Hello").role
        'user'
    """

    role: str
    content: str


@dataclass(frozen=True)
class Chat:
    """A chat that ends with an answer of the assistant, which is what is learnt.

    Attributes:
        messages: its turns.
        source: the file and line that it is from, for messages.

    Example:
        >>> chat = Chat((Message("user", "Hello"), Message("assistant", "Hi.")))
        >>> chat.messages[-1].content  # what is learnt
        'Hi.'
    """

    messages: tuple[Message, ...]
    source: str = field(default="", compare=False, repr=False)


def read_examples(path: str | os.PathLike[str]) -> tuple[Example | Chat, ...]:
    r"""The examples of a JSONL file, in its order; the kinds of line may be mixed.

    Raises:
        InputError: there is no such file, or it cannot be read.
        FormatError: a line is wrong; the error names the file, the line, and how to fix it.

    Example:
        >>> from pathlib import Path
        >>> size = Path("train.jsonl").write_text('{"prompt": "2 + 2 =", "completion": " 4"}\n{"text": "Any text."}\n')
        >>> for example in read_examples("train.jsonl"):
        ...     print(example)
        Example(prompt='2 + 2 =', completion=' 4')
        Example(prompt='', completion='Any text.')
    """
    return tuple(
        replace(example, source=f"{os.fspath(path)} line {number}")
        for number, example in read_json_lines(path, as_example)
    )


def as_example(record: dict[str, Any]) -> Example | Chat | Problem:
    """The example that one object stands for, or what is wrong with it.

    >>> as_example({"prompt": "2 + 2 =", "completion": " 4"})
    Example(prompt='2 + 2 =', completion=' 4')
    """
    forms = [form for form in FORMS if any(name in record for name in form)]
    if not forms:
        names = ", ".join(repr(shown(name, 40)) for name in list(record)[:5]) or "nothing"
        return Problem(f"an object with {names}", _FORMS, "rename its members")
    if len(forms) > 1:
        got = " and ".join(repr(name) for form in forms for name in form if name in record)
        return Problem(got, f"one of {_FORMS}", "make two lines of it, or delete one")
    if missing := [name for name in forms[0] if name not in record]:
        return Problem(f"no {missing[0]!r}", " and ".join(map(repr, forms[0])), f"add {missing[0]!r}")
    if "messages" in record:
        return _chat(record["messages"])
    prompt = record.get("prompt", "")
    completion: Any = record.get("completion", record.get("text"))
    if "prompt" in record and (problem := _text(prompt, "prompt", may_be_empty=True)) is not None:
        return problem
    if (problem := _text(completion, forms[0][-1])) is not None:
        return problem
    return Example(prompt, completion)


def as_prompt(record: dict[str, Any]) -> str | tuple[Message, ...] | Problem:
    """What a completion is asked for: the prompt, or the turns of a chat up to the answer; or what is wrong with it.

    >>> as_prompt({"prompt": "2 + 2 ="})
    '2 + 2 ='
    >>> as_prompt({"messages": [{"role": "user", "content": "Hello"}]})
    (Message(role='user', content='Hello'),)
    """
    if ("prompt" in record) == ("messages" in record):
        got = "both prompt and messages" if "prompt" in record else "neither prompt nor messages"
        return Problem(got, "one of them", 'write {"prompt": "...", "task": "..."}')
    if "prompt" in record:
        prompt = record["prompt"]
        if prompt == "":
            return Problem("an empty 'prompt'", "a text to go on from", "fill it in, or delete the line")
        return _text(prompt, "prompt", may_be_empty=True) or prompt
    turns = _turns(record["messages"])
    if not isinstance(turns, Problem) and turns[-1].role == "assistant":
        expected, fix = "a turn that is to be answered", "delete the answer, or add a turn behind it"
        return Problem("a chat that ends with the assistant", expected, fix)
    return turns


def has_half_letter(text: str) -> bool:
    r"""Whether half of a surrogate pair stands in a text, which JSON can write as an escape and UTF-8 cannot hold.

    >>> has_half_letter("a \ud83d"), has_half_letter("plain")
    (True, False)
    """
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _text(value: Any, name: str, may_be_empty: bool = False) -> Problem | None:
    """What is wrong with a text."""
    if not isinstance(value, str):
        got = {type(None): "null", list: "a list", dict: "an object"}.get(type(value), f"{shown(value, 40)}")
        return Problem(f"{name!r}: {got}", "a text", f'put the {name} into "quotes"')
    if not may_be_empty and not value.strip():
        return Problem(f"an empty {name!r}", "a text to learn", "fill it in, or delete the line")
    if has_half_letter(value):
        return Problem(f"half a surrogate pair in {name!r}", "whole characters", "write the character itself, as UTF-8")
    return None


def _chat(turns: Any) -> Chat | Problem:
    messages = _turns(turns)
    if isinstance(messages, Problem):
        return messages
    if messages[-1].role != "assistant":
        expected, fix = "an answer of the assistant, which is learnt", "add it, or delete the turns behind it"
        return Problem(f"a chat that ends with the {messages[-1].role}", expected, fix)
    return Chat(messages)


def _turns(turns: Any) -> tuple[Message, ...] | Problem:
    if not isinstance(turns, list) or not turns:
        got = "an empty list" if turns == [] else type(turns).__name__
        return Problem(f"'messages': {got}", "a list of messages", 'write [{"role": "user", "content": "..."}, ...]')
    messages = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or not {"role", "content"} <= set(turn):
            return Problem(f"message {number}: {shown(turn, 60)}", '{"role", "content"}', "give it both")
        if turn["role"] not in ROLES:
            return Problem(f"message {number}: role {shown(turn['role'], 40)!r}", ", ".join(ROLES), "choose one")
        if (problem := _text(turn["content"], "content", turn["role"] != "assistant")) is not None:
            return problem._replace(got=f"message {number}: {problem.got}")
        messages.append(Message(turn["role"], turn["content"]))
    return tuple(messages)
