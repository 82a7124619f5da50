"""Safetensors files against the safetensors library, and every way in which one can be broken."""

import hashlib
import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from share_jax.errors import FormatError
from share_jax.storage.safetensors_file import RawTensor, TensorFile, write_tensors

ARRAYS = {
    "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f64": np.array(2.5),
    "f16": np.array([[1, 2]], np.float16),
    "bf16": np.array([1.5, -2], ml_dtypes.bfloat16),
    "i8": np.array([-1, 3, 4], np.int8),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
}


def test_reads_what_the_library_writes(tmp_path):
    save_file(ARRAYS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with TensorFile(tmp_path, "x.safetensors") as file:
        assert file.metadata == {"format": "pt"}
        assert set(file.tensors) == set(ARRAYS)
        for name, expected in ARRAYS.items():
            np.testing.assert_array_equal(file.read(name), expected)
            assert file.read(name).dtype == expected.dtype
        assert file.digest() == hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()


def test_the_library_reads_what_is_written(tmp_path):
    digest = write_tensors(tmp_path / "y.safetensors", ARRAYS, {"format": "pt"})
    assert digest == hashlib.sha256((tmp_path / "y.safetensors").read_bytes()).hexdigest()
    found = load_file(tmp_path / "y.safetensors")
    assert set(found) == set(ARRAYS)
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(found[name], expected)
    with safe_open(tmp_path / "y.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_bytes_of_a_dtype_without_numpy_pass_through(tmp_path):
    raw = RawTensor("F8_E4M3", (3,), b"\x01\x7f\xff")
    write_tensors(tmp_path / "z.safetensors", {"q": raw}, {})
    with TensorFile(tmp_path, "z.safetensors") as file:
        assert file.raw("q") == raw
        with pytest.raises(FormatError, match="F8_E4M3"):
            file.read("q")


def _file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "truncated"),
        (b"\x02\0\0", "truncated"),
        ((2**60).to_bytes(8, "little") + b"{}", "header"),
        (_file(b"[]"), "object"),
        (_file(b"{"), "JSON"),
        (_file(b"\xff\xff"), "JSON"),
        (_file(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "deep"),
        (_file(b'{"a": 1, "a": 2}'), "twice"),
        (_file(b'{"a": NaN}'), "NaN"),
        (_file({"a": 3}), "entry"),
        (_file({"a": _entry(dtype="F7")}, b"1234"), "dtype"),
        (_file({"a": _entry(shape=(-1,))}, b"1234"), "whole"),
        (_file({"a": _entry(shape=(True,))}, b"1234"), "whole"),
        (_file({"a": _entry(offsets=(0, 8))}, b"12345678"), "bytes"),
        (_file({"a": _entry(offsets=(4, 8))}, b"12345678"), "hole"),
        (_file({"a": _entry(), "b": _entry()}, b"1234"), "overlap"),
        (_file({"a": _entry()}, b"123"), "truncated"),
        (_file({"a": _entry()}, b"12345"), "left over"),
        (_file({"__metadata__": {"a": 1}}), "metadata"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, content, word):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=word) as error:
        TensorFile(tmp_path, "x.safetensors")
    assert "\n" not in str(error.value)
    assert "x.safetensors" in str(error.value)


@pytest.mark.parametrize("together", [0, 2**20])
@pytest.mark.parametrize("names", [list(ARRAYS), ["f64", "bool"], ["i8"], []])
def test_many_are_read_as_each_of_them(tmp_path, monkeypatch, together, names):
    monkeypatch.setattr("share_jax.storage.safetensors_file.TOGETHER", together)
    save_file(ARRAYS, tmp_path / "x.safetensors")
    with TensorFile(tmp_path, "x.safetensors") as file:
        found = file.read_many(names)
        assert list(found) == names
        for name in names:
            one = file.read(name)
            assert (found[name].dtype, found[name].shape) == (one.dtype, one.shape)
            np.testing.assert_array_equal(found[name], one)
            assert not found[name].flags.writeable


def test_many_small_ones_take_one_read(tmp_path, monkeypatch):
    save_file({f"t{i:02}": np.full(10, i, np.float32) for i in range(20)}, tmp_path / "x.safetensors")
    with TensorFile(tmp_path, "x.safetensors") as file:
        reads, pread = [], os.pread
        monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
        assert [float(x[0]) for x in file.read_many(list(file.tensors)).values()] == list(map(float, range(20)))
        assert len(reads) == 1
        with pytest.raises(FormatError, match="tensor b"):
            file.read_many(["t00", "b"])


def test_an_unknown_tensor_is_named(tmp_path):
    save_file({"a": np.zeros(1)}, tmp_path / "x.safetensors")
    with TensorFile(tmp_path, "x.safetensors") as file, pytest.raises(FormatError, match="tensor b"):
        file.read("b")


def test_a_file_that_shrinks_after_opening_is_an_error(tmp_path):
    save_file({"a": np.zeros(1000)}, tmp_path / "x.safetensors")
    with TensorFile(tmp_path, "x.safetensors") as file:
        with open(tmp_path / "x.safetensors", "r+b") as f:
            f.truncate(200)
        with pytest.raises(FormatError, match="end of the file"):
            file.read("a")


def test_files_of_one_header_are_each_read_for_themselves(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        save_file({"x": np.full(3, ord(name), np.float32)}, tmp_path / name / "x.safetensors")
    for name in "aba":
        with TensorFile(tmp_path / name, "x.safetensors") as file:
            np.testing.assert_array_equal(file.read("x"), np.full(3, ord(name), np.float32))
    with open(tmp_path / "b" / "x.safetensors", "ab") as file:  # the header stays, the size does not
        file.write(b"more")
    with pytest.raises(FormatError, match=r"b/x\.safetensors: .*bytes left over"):
        TensorFile(tmp_path / "b", "x.safetensors")
