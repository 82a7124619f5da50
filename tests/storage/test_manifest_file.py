"""Manifests: what is written comes back, and whatever else the bytes say is refused in one line."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from share_jax.errors import FormatError
from share_jax.storage.manifest_file import ManifestKind, as_json, content_of, digest

CONTENT = {"tasks": {"a": [0.5, None]}, "name": "é"}
PLAIN = ManifestKind(2, "restore it")
NAMED = ManifestKind(3, "restore it", format="a kind", older={2: lambda body: {"of": body["schema"]}})


@pytest.mark.parametrize("kind", [PLAIN, NAMED])
def test_what_is_written_comes_back_from_every_copy(tmp_path: Path, kind: ManifestKind) -> None:
    paths = tmp_path / "m.json", tmp_path / "m.copy.json"
    kind.write(CONTENT, *paths)
    assert [kind.read(path) for path in paths] == [CONTENT, CONTENT]
    assert len({path.read_bytes() for path in paths}) == 1
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", [PLAIN, NAMED])
def test_no_bit_can_change_unnoticed(kind: ManifestKind) -> None:
    whole = kind.encode(CONTENT)
    for place in range(len(whole)):
        for bit in range(8):
            changed = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            with suppress(FormatError):
                assert kind.decode(changed, "m") in (CONTENT, {"of": 2})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "m: got .*, expected a JSON manifest; restore it"),
        (b'{"schema": 2, "schema": 2}', "a key that is there twice"),
        (b'{"schema": 2, "x": NaN}', "the number NaN"),
        (b"[" * 100_000, "expected a JSON manifest"),
        (b"[]", "m: got no schema number, expected schema 2"),
        (b'{"schema": 3}', "m: schema: got 3, expected at most 2; update share_jax"),
        (b'{"schema": 1}', "m: schema: got 1, expected at most 2; restore it"),
        (b'{"schema": true}', "m: schema: got True"),
        (b'{"schema": 2, "x": 1}', "m: got other content, expected the content that was saved"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        PLAIN.decode(data, "m")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_another_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"m\.json: got no file, expected a manifest"):
        PLAIN.read(tmp_path / "m.json")
    with pytest.raises(FormatError, match="m format: got None, expected 'a kind'"):
        NAMED.decode(PLAIN.encode(CONTENT), "m")


def test_an_older_schema_is_read_by_its_own_rule() -> None:
    assert NAMED.decode(json.dumps({"format": "a kind", "schema": 2}).encode(), "m") == {"of": 2}
    unnumbered = ManifestKind(1, "restore it", older={0: lambda body: content_of(body) if "run" in body else None})
    assert unnumbered.decode(b'{"run": "x", "sha256": "y"}', "m") == {"run": "x"}
    with pytest.raises(FormatError, match="other content"):
        unnumbered.decode(b"{}", "m")


def test_what_json_lacks_is_written_only_where_it_is_read() -> None:
    loose = ManifestKind(1, "restore it", nan=True)
    assert np.isnan(loose.decode(loose.encode({"x": float("nan")}), "m")["x"])
    with pytest.raises(FormatError, match="the number NaN"):
        PLAIN.decode(PLAIN.encode({"x": float("nan")}), "m")


def test_values_are_those_that_json_gives_back() -> None:
    assert as_json({"a": (np.int64(1), np.float32(0.5))}) == {"a": [1, 0.5]}
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(TypeError, match="set cannot be stored as JSON"):
        as_json({"a": {1}})
