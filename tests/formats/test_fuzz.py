"""Random bytes and mutated files: the readers end with a result or one line, and stay inside the folder."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import reading
from adapter_makers import CONFIG, factors, write_peft
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import read_watched
from safetensors.numpy import save

from share_jax.formats.open import open_sources
from share_jax.storage.safetensors_file import TensorFile

FUZZ = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
SMALL = factors(0, modules=("m.q_proj",), d_in=3, d_out=2, rank=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    (root / "secret.safetensors").write_bytes(save({"secret": np.zeros(1)}))
    return write_peft(root / "a", SMALL)


@pytest.fixture(scope="module")
def good(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def read_all(folder):
    """Reads a source to the end; only a ShareError of one line may come."""
    read_watched(lambda: open_sources([folder]), folder)


def put(folder, weights=None, config=None):
    for name, content in (("adapter_model.safetensors", weights), ("adapter_config.json", config)):
        if content is not None:
            Path(folder / name).write_bytes(content)


@FUZZ
@given(st.binary(max_size=400))
def test_random_bytes_as_weights(folder, data):
    put(folder, data, json.dumps(CONFIG).encode())
    read_all(folder)


@FUZZ
@given(st.data())
def test_mutated_bytes(folder, good, data):
    out = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        out[data.draw(st.integers(0, len(out) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(out)))
    put(folder, bytes(out[:cut]) if data.draw(st.booleans()) else bytes(out), json.dumps(CONFIG).encode())
    read_all(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
SHAPES = st.lists(st.integers(-2, 2**70) | st.integers(0, 5), max_size=4)
ENTRY = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "BF16", "I8", "F4", "C64", "X", "F8_E4M3"]) | JSON,
     "shape": SHAPES | JSON, "data_offsets": st.lists(st.integers(-1, 200), max_size=3) | JSON}
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "base_model.model.m.q_proj.lora_A.weight",
        "base_model.model.m.q_proj.lora_B.weight",
        "../x",
        "__metadata__",
        "a\nb",
    ]
)


@FUZZ
@given(st.dictionaries(KEYS | st.text(max_size=10), ENTRY | JSON, max_size=5), st.binary(max_size=200))
def test_mutated_headers(folder, header, data):
    text = json.dumps(header).encode()
    put(folder, len(text).to_bytes(8, "little") + text + data, json.dumps(CONFIG).encode())
    read_all(folder)


@FUZZ
@given(st.sampled_from(sorted(CONFIG)), JSON)
def test_mutated_configs(folder, good, key, value):
    put(folder, good, json.dumps({**CONFIG, key: value}).encode())
    read_all(folder)


@FUZZ
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_random_configs(folder, good, config):
    put(folder, good, config)
    read_all(folder)


@FUZZ
@given(st.sampled_from(["share_config.json", "subspace_meta.json"]), JSON, JSON)
def test_random_peer_folders(folder, name, first, second):
    peer = folder / "peer"
    shutil.rmtree(peer, ignore_errors=True)
    peer.mkdir()
    known = {"share_config.json": ("adapter_names", "x"), "subspace_meta.json": ("layer_names", "task_ids")}[name]
    (peer / name).write_text(json.dumps({known[0]: first, known[1]: second}))
    (peer / "shared_components.safetensors").write_bytes(save({"m:A": np.zeros((3, 2)), "m:B": np.zeros((3, 2))}))
    if name == "subspace_meta.json":
        (peer / "shared_components.safetensors").rename(peer / "subspace.safetensors")
    read_all(peer)


def escapes(folder):
    TensorFile(folder.parent, "secret.safetensors").close()


def unpickles(folder):
    pickle.loads(pickle.dumps(Path(".")))


def never_ends(folder):
    while True:
        pass


@pytest.mark.parametrize(("act", "line"), [(escapes, "open of"), (unpickles, "find_class"), (never_ends, "took over")])
def test_the_guard_sees_what_no_reader_may_do(folder, monkeypatch, act, line):
    monkeypatch.setattr(reading, "LIMIT", 0.05)
    with pytest.raises(AssertionError, match=line):
        read_watched(lambda: act(folder) or [], folder)
