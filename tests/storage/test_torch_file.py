"""Files of `torch.save`: tensors as PyTorch has them, and nothing executed, whatever the pickle asks for."""

import pickle
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import watched
from torch_files import pickle_of, write_torch

from share_jax.errors import FormatError
from share_jax.storage.torch_file import TorchFile

REAL = Path(__file__).parents[1] / "data" / "torch_tiny"


def read_all(folder, name="x.bin"):
    with TorchFile(folder, name) as file:
        return {key: file.read(key) for key in file.tensors}


def line_of(folder):
    """The error of reading the file, or nothing; any other exception is a fault."""
    try:
        with watched(folder):
            read_all(folder)
    except FormatError as e:
        return str(e)
    return ""


def test_every_tensor_of_a_file_that_pytorch_wrote():
    values = np.load(REAL / "values.npz")
    with TorchFile(REAL, "tensors.bin") as file:
        assert set(file.tensors) == set(values.files)
        for name in values.files:
            read = file.read(name)
            assert (read.shape, file.info(name).shape) == (values[name].shape, values[name].shape)
            np.testing.assert_array_equal(np.asarray(read, np.float64), values[name])
            assert file.raw(name).data == read.tobytes()
        assert (file.info("bfloat16").dtype, file.info("whole").dtype) == ("BF16", "I64")
        with pytest.raises(FormatError, match="tensor other: got nothing"):
            file.read("other")


def test_the_writer_of_the_tests_writes_such_files(tmp_path):
    tensors = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones((2, 2), np.float16)}
    write_torch(tmp_path / "x.bin", tensors)
    read = read_all(tmp_path)
    assert all(np.array_equal(read[name], value) for name, value in tensors.items())


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    "pickled",
    [
        pickle.dumps({"a": Evil()}, 2),
        pickle.dumps({"a": Evil()}, 4),
        b"\x80\x02}(X\x01\x00\x00\x00acos\nsystem\n(X\x02\x00\x00\x00lstRu.",
        b"\x80\x02}(X\x01\x00\x00\x00aios\nsystem\n\x29u.",
        b"\x80\x02]q\x00.",
        b"\x80\x02}(X\x01\x00\x00\x00aK\x01u.",
        b"\x80\x02}(K\x01K\x01u.",
        b"",
        b"\x80\x02}",
        pickle.dumps([[]] * 3, 0),
    ],
)
def test_another_pickle_is_refused_and_not_executed(tmp_path, pickled, capsys):
    write_torch(tmp_path / "x.bin", {"a": np.ones(2, np.float32)}, pickled)
    with pytest.raises(FormatError) as refused:
        read_all(tmp_path)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


def test_shared_containers_do_not_grow(tmp_path):
    doubling = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
    write_torch(tmp_path / "x.bin", {}, b"\x80\x02K\x01q\x00" + doubling + b".")
    begin = time.perf_counter()
    with pytest.raises(FormatError):
        read_all(tmp_path)
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize(
    ("shape", "strides", "offset"), [((9,), (1,), 0), ((2,), (9,), 0), ((1,), (1,), 7), ((2**40,), (0,), 0)]
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, shape, strides, offset):
    array = np.lib.stride_tricks.as_strided(np.ones(6, np.float32), (1,), (4,))
    steps = pickle_of({"a": np.ones(6, np.float32)})
    number = lambda n: b"\x8a\x06" + n.to_bytes(6, "little")  # noqa: E731
    old = b"J\x00\x00\x00\x00(J\x06\x00\x00\x00t(J\x01\x00\x00\x00t"
    assert old in steps
    new = number(offset) + b"(" + number(shape[0]) + b"t(" + number(strides[0]) + b"t"
    write_torch(tmp_path / "x.bin", {"a": np.ones(6, np.float32)}, steps.replace(old, new))
    assert array.size == 1
    with pytest.raises(FormatError, match="a tensor within its storage"):
        read_all(tmp_path)


def test_compressed_old_and_other_archives_are_named(tmp_path):
    write_torch(tmp_path / "x.bin", {"a": np.ones(900, np.float32)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="which is compressed"):
        read_all(tmp_path)
    (tmp_path / "x.bin").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    with pytest.raises(FormatError, match=r"before PyTorch 1\.6"):
        read_all(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.bin", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(FormatError, match=r"0 files data.pkl"):
        read_all(tmp_path)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutated_files_end_with_tensors_or_one_line(tmp_path, data):
    good = bytearray((REAL / "tensors.bin").read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good))) if data.draw(st.booleans()) else len(good)
    (tmp_path / "x.bin").write_bytes(bytes(good[:cut]))
    assert "\n" not in line_of(tmp_path)


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner), max_leaves=9,
).map(pickle.dumps))  # fmt: skip
def test_random_pickles_end_with_one_line(tmp_path, pickled):
    write_torch(tmp_path / "x.bin", {"a": np.ones(2, np.float32)}, pickled)
    assert "\n" not in line_of(tmp_path)
