"""A user's JSONL: what is read, and the one line that names what cannot be."""

import json
from pathlib import Path

import pytest

from share_jax.errors import FormatError, InputError
from share_jax.text.examples import Chat, Example, Message, read_examples
from share_jax.text.json_lines import SHOWN, read_json_lines

GOOD = '{"prompt": "a", "completion": "b"}'


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "own.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(folder: Path, content: str | bytes) -> str:
    with pytest.raises(FormatError) as caught:
        read_examples(written(folder, content))
    return str(caught.value).replace(str(folder) + "/", "")


def test_three_kinds_of_line_are_read_in_their_order(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": "Hi."}]
    lines = [{"prompt": "", "completion": " é\u2028 "}, {"text": "All of it.\n", "id": 7}, {"messages": turns}]
    path = written(tmp_path, "\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    chat = Chat((Message("user", ""), Message("assistant", "Hi.")))
    assert read_examples(path) == (Example("", " é\u2028 "), Example("", "All of it.\n"), chat)


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_taken(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbf\r\n" + GOOD.encode() + b"\r\n \t\r\n\n" + GOOD.encode())
    assert read_examples(path) == (Example("a", "b"),) * 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{'prompt': 1}", "JSON ends at column 2"),
        ('{"prompt": "a", "completion": "b"', "JSON ends at column"),
        (GOOD + GOOD, "Extra data"),
        ("[", "'[' alone, as of JSON over several lines"),
        ("[1]", "got a list, expected an object"),
        ("null", "got null, expected an object"),
        ("3", "got int, expected an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"text": ' + "1" * 5000 + "}", "integer string conversion"),
        ('{"prompt": "a", "prompt": "b", "completion": "c"}', "got 'prompt' twice"),
        ('{"promt": "a", "completion": "b"}', "no 'prompt', expected 'prompt' and 'completion'; add 'prompt'"),
        ('{"prompt": "a"}', "no 'completion'"),
        ('{"question": "a"}', "an object with 'question'"),
        ("{}", "an object with nothing"),
        ('{"text": "a", "completion": "b"}', "'completion' and 'text', expected one of"),
        ('{"prompt": "a", "completion": 3}', "'completion': 3, expected a text; put the completion into \"quotes\""),
        ('{"prompt": null, "completion": "b"}', "'prompt': null"),
        ('{"prompt": "a", "completion": ["b"]}', "'completion': a list"),
        ('{"prompt": "a", "completion": " \\n"}', "an empty 'completion', expected a text to learn"),
        ('{"text": ""}', "an empty 'text'"),
        ('{"text": "\\ud83d"}', "half a surrogate pair in 'text'"),
        ('{"messages": []}', "'messages': an empty list"),
        ('{"messages": "Hi"}', "'messages': str"),
        ('{"messages": [{"role": "assistant"}]}', "message 1: {'role': 'assistant'}"),
        ('{"messages": [{"role": "bot", "content": "Hi"}]}', "message 1: role 'bot'"),
        ('{"messages": [{"role": ["user"], "content": "Hi"}]}', "message 1: role \"['user']\""),
        ('{"messages": [{"role": "user", "content": "Hi"}]}', "a chat that ends with the user"),
        ('{"messages": [{"role": "assistant", "content": " "}]}', "message 1: an empty 'content'"),
        ('{"messages": [{"role": "user", "content": [{"type": "text"}]}]}', "message 1: 'content': a list"),
    ],
)
def test_a_bad_line_is_named_in_one_line(tmp_path: Path, line: str, said: str) -> None:
    error = refused(tmp_path, f"{GOOD}\n\n{line}\n{GOOD}\n")
    assert error.startswith("own.jsonl line 3: got ")
    assert said in error
    assert "\n" not in error
    assert "expected" in error
    assert "; " in error
    assert len(error) < 250


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    assert "line 2: got byte 0xe9 at 11, expected UTF-8" in refused(
        tmp_path, f"{GOOD}\n".encode() + b'{"text": "\xe9"}'
    )
    assert "line 1: got a file in UTF-16" in refused(tmp_path, GOOD.encode("utf-16"))


def test_many_bad_lines_are_counted_and_the_first_ten_are_listed(tmp_path: Path) -> None:
    first, *listed, last = refused(tmp_path, f"{GOOD}\n" + '{"text": 1}\n' * 30).split("\n")
    assert first == "own.jsonl: got 30 bad lines of 31, expected none; fix what is listed"
    assert len(listed) == SHOWN
    assert listed[0].startswith("  own.jsonl line 2: ")
    assert last == "  and 20 more"


@pytest.mark.parametrize("content", ["", "\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_lines_is_refused(tmp_path: Path, content: str | bytes) -> None:
    assert "got no lines" in refused(tmp_path, content)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got a folder, expected a JSONL file; pass one of the files in it"):
        read_examples(tmp_path)
    for path in (tmp_path / "none.jsonl", tmp_path / "a\0b", tmp_path / ("long" * 200)):
        with pytest.raises(InputError, match="expected a JSONL file; correct the path"):
            read_examples(path)


def test_a_line_without_an_end_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("share_jax.text.json_lines.LONGEST", 100)
    assert "own.jsonl line 2: got more than" in refused(tmp_path, f"{GOOD}\n{'x' * 101}\n{GOOD}\n")


def test_an_error_of_the_one_who_reads_objects_is_passed_on(tmp_path: Path) -> None:
    def failing(record: dict) -> int:
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        read_json_lines(written(tmp_path, GOOD), failing)
