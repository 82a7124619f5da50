"""Mutated files of every format that is one file, or a file and its configuration: a result or one line, in no time."""

import contextlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from adapter_makers import factors, write_lorashare, write_peft, write_vlora
from foreign_adapters import (
    diffusers_tensors,
    flux_tensors,
    kohya_tensors,
    normal,
    write_diffusers,
    write_file,
    write_mlx,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import read_watched, watched
from safetensors.numpy import save
from torch_files import write_torch

from share_jax.errors import ShareError
from share_jax.formats.kohya_names import table_of, undone
from share_jax.formats.module_lists import modules_in
from share_jax.formats.open import open_sources

FUZZ = settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
TREE = {"layers/0/q/lora/a": normal(0, 5, 4), "layers/0/q/lora/b": normal(1, 4, 7)}


def write_pickled(root):
    """A PEFT folder of the older kind, its tensors in a pickle."""
    write_peft(root, {})
    (root / "adapter_model.safetensors").unlink()
    pairs = factors(0, modules=("m.q_proj",), d_in=3, d_out=2, rank=4)
    weights = {
        f"base_model.model.{m}.lora_{s}.weight": x for m, ab in pairs.items() for s, x in zip("AB", ab, strict=True)
    }
    write_torch(root / "adapter_model.bin", weights)
    return root


def write_experts(root):
    """A PEFT folder with pairs of a parameter that holds three experts."""
    tensors = {}
    for name, (d_in, d_out) in {"m.experts.base_layer": (5, 7), "m.experts": (8, 5)}.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = normal(0, 12, d_in)
        tensors[f"base_model.model.{name}.lora_B.weight"] = normal(1, d_out, 12)
    write_peft(root, {}, extras=tensors, target_modules=[], target_parameters=["experts.up", "experts.down"])
    return root


def extras_of_kohya():
    """A convolution with a core and one without, with magnitudes, as LyCORIS writes them."""
    out = {}
    for i, (name, core) in enumerate({"in": True, "out": False}.items()):
        stem, kernel = f"lora_unet_conv_{name}", (1, 1) if core else (3, 3)
        out |= {f"{stem}.lora_down.weight": normal(0, 3, 5, *kernel), f"{stem}.lora_up.weight": normal(2, 7, 3, 1, 1),
                f"{stem}.alpha": np.full(1, 6 + i, np.float16), f"{stem}.dora_scale": normal(3, 7, 1, 1)}  # fmt: skip
        out |= {f"{stem}.lora_mid.weight": normal(1, 3, 3, 3, 3)} if core else {}
    return out


def extras_of_comfy():
    tensors = flux_tensors()
    for name in {key.rpartition(".lora_")[0] for key in tensors}:
        d_out = len(tensors[f"{name}.lora_B.weight"])
        tensors |= {f"{name}.alpha": np.asarray(2.0), f"{name}.dora_scale": normal(5, d_out, 1)}
    return tensors


MAKERS = {
    "experts": (write_experts, "adapter_model.safetensors"),
    "kohya_extras": (lambda root: write_file(root / "x.safetensors", extras_of_kohya()).parent, "x.safetensors"),
    "comfy_extras": (lambda root: write_file(root / "x.safetensors", extras_of_comfy()).parent, "x.safetensors"),
    "diffusers": (lambda root: write_diffusers(root, configs={"unet.r": 4, "unet.lora_alpha": 8}),
                  "pytorch_lora_weights.safetensors"),
    "kohya": (lambda root: write_file(root / "x.safetensors", kohya_tensors()).parent, "x.safetensors"),
    "comfy": (lambda root: write_file(root / "x.safetensors", flux_tensors()).parent, "x.safetensors"),
    "mlx": (write_mlx, "adapters.safetensors"),
    "tree": (lambda root: write_file(root / "x.safetensors", TREE).parent, "x.safetensors"),
    "peft_bin": (write_pickled, "adapter_model.bin"),
    "lorashare": (write_lorashare, "shared_components.safetensors"),
    "vlora": (lambda root: write_vlora(root, tasks=("cola", "mrpc")), "subspace.safetensors"),
}  # fmt: skip
OTHERS = (
    "model.layers.1.q_proj.lora_a",
    "x.m",
    "a\nb.lora_a",
    "x.w_lora_a",
    "x/lora/a",
    "x/lora/b",
    "base_model.model.m.experts.lora_A.weight",
    "base_model.model.m.experts.lora_B.weight",
)
NAMES = [*diffusers_tensors(), *kohya_tensors(), *flux_tensors(), *extras_of_kohya(), *extras_of_comfy(), *OTHERS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    return {name: (make(root / name), root / name / file) for name, (make, file) in MAKERS.items()}


def read_all(path):
    """Reads everything; only a ShareError of one line may come, and soon."""
    read_watched(lambda: open_sources([path]), path if path.is_dir() else path.parent)


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_mutated_is_read(folders, kind):
    assert read_watched(lambda: open_sources([folders[kind][0]]), folders[kind][0]) == ""


@pytest.mark.parametrize("kind", MAKERS)
@FUZZ
@given(data=st.data())
def test_mutated_bytes(folders, kind, data):
    folder, file = folders[kind]
    good = file.read_bytes()
    out = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        out[data.draw(st.integers(0, len(out) - 1))] = data.draw(st.integers(0, 255))
    try:
        file.write_bytes(bytes(out[: data.draw(st.integers(0, len(out)))] if data.draw(st.booleans()) else out))
        read_all(folder)
        read_all(file)
    finally:
        file.write_bytes(good)


@pytest.mark.parametrize("kind", MAKERS)
@FUZZ
@given(
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), st.lists(st.integers(0, 4), max_size=5), max_size=6)
)
def test_other_tensors_under_such_names(folders, kind, shapes):
    folder, file = folders[kind]
    good = file.read_bytes()
    try:
        file.write_bytes(save({name: np.ones(shape, np.float32) for name, shape in shapes.items()}))
        read_all(folder)
    finally:
        file.write_bytes(good)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6,
)  # fmt: skip


@FUZZ
@given(st.sampled_from(["fine_tune_type", "num_layers", "lora_parameters", "model", "x"]), JSON)
def test_other_configurations_of_mlx(folders, key, value):
    folder, _ = folders["mlx"]
    file = folder / "adapter_config.json"
    good = file.read_text()
    try:
        file.write_text(json.dumps({**json.loads(good), key: value}))
        read_all(folder)
    finally:
        file.write_text(good)


LISTS = {"list.txt": b"blocks.0.q\n", "index.json": b'{"weight_map": {"blocks.0.q.weight": "1"}}',
         "model.safetensors": save({"blocks.0.q.weight": np.ones((2, 2))})}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
@FUZZ
@given(data=st.data())
def test_mutated_lists_of_modules(tmp_path, name, data):
    out = bytearray(LISTS[name])
    for _ in range(data.draw(st.integers(0, 4))):
        out[data.draw(st.integers(0, len(out) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(bytes(out[: data.draw(st.integers(0, len(out)))]) + data.draw(st.binary(max_size=9)))
    with watched(tmp_path), contextlib.suppress(ShareError):
        table_of(modules_in(path))


@FUZZ
@given(st.text("ablocksproj_01_", max_size=40) | st.just("_".join(["proj", "in"] * 4000)) | st.just("1_" * 4000))
def test_names_are_undone_in_no_time(rest):
    begin = time.process_time()
    for prefix in ("lora_unet_", "lora_unet_down_blocks_", "lora_te_encoder_"):
        with contextlib.suppress(ShareError):
            undone(prefix + rest, "file x")
    assert time.process_time() - begin < 5


def test_a_file_of_no_format_is_said_to_be_one(tmp_path):
    path = write_file(tmp_path / "x.safetensors", {"weights": np.ones(2, np.float32)})
    for place in (path, tmp_path):
        with pytest.raises(ShareError, match="tensors such as weights"):
            open_sources([place])
    Path(tmp_path / "y.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(ShareError, match="several files of tensors"):
        open_sources([tmp_path])
    (tmp_path / "z.txt").write_text("x")
    with pytest.raises(ShareError, match="got another file"):
        open_sources([tmp_path / "z.txt"])
    np.savez(tmp_path / "z.npz", **TREE)
    with pytest.raises(ShareError, match=r"got another file, .* in Python: share_jax.formats.save_lora_tree"):
        open_sources([tmp_path / "z.npz"])
