"""LoRA files of llama.cpp and flat trees of JAX's libraries: names, scales and the order of rows."""

import json

import gguf
import numpy as np
import pytest
from foreign_adapters import normal, write_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import read_watched

from share_jax.cli.main import main
from share_jax.errors import FormatError, InputError
from share_jax.formats import save_lora_tree
from share_jax.formats.gguf_lora import open_gguf
from share_jax.formats.jax_trees import open_jax_tree
from share_jax.formats.open import open_sources

FUZZ = settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def write_gguf(path, arch="qwen2", alpha=16.0, kind="adapter", names=("attn_q", "ffn_down"), dtype=np.float32):
    """A file as llama.cpp's converter writes it, for one layer; returns its tensors as NumPy has them."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(kind)
    writer.add_string("adapter.type", "lora")
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    tensors = {}
    for i, name in enumerate(names):
        tensors[f"blk.3.{name}.weight.lora_a"] = normal(i, 4, 6, dtype=dtype)
        tensors[f"blk.3.{name}.weight.lora_b"] = normal(i + 9, 8, 4, dtype=dtype)
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_gguf_file_by_hugging_faces_names(tmp_path, dtype):
    tensors = write_gguf(tmp_path / "style.gguf", dtype=dtype)
    for place in (tmp_path, tmp_path / "style.gguf"):
        (source,) = open_sources([place])
        adapter = source.adapter()
        assert (source.name, set(adapter)) == (
            "style", {"model.layers.3.self_attn.q_proj", "model.layers.3.mlp.down_proj"}
        )  # fmt: skip
        pair = adapter["model.layers.3.mlp.down_proj"]
        np.testing.assert_array_equal(pair.lora_a, tensors["blk.3.ffn_down.weight.lora_a"].T)
        np.testing.assert_array_equal(pair.lora_b, tensors["blk.3.ffn_down.weight.lora_b"].T)
        assert (pair.scale, set(source.parts)) == (4.0, set(tensors))


def test_rows_of_a_llama_come_back_in_order(tmp_path):
    tensors = write_gguf(tmp_path / "x.gguf", arch="llama")
    with pytest.raises(InputError, match="--heads QUERIES,KEYS"):
        open_gguf(tmp_path)
    with pytest.raises(InputError, match="a divisor of 8 / 2"):
        open_gguf(tmp_path, (3, 3))
    adapter = open_gguf(tmp_path, (2, 1))[0].adapter()
    stored = tensors["blk.3.attn_q.weight.lora_b"]
    found = adapter["model.layers.3.self_attn.q_proj"].lora_b.T
    permuted = found.reshape(2, 2, 2, 4).swapaxes(1, 2).reshape(8, 4)  # as the converter permutes a base model's rows
    np.testing.assert_array_equal(permuted, stored)
    np.testing.assert_array_equal(
        adapter["model.layers.3.mlp.down_proj"].lora_b.T, tensors["blk.3.ffn_down.weight.lora_b"]
    )


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_without_an_alpha_llama_cpp_scales_by_1(tmp_path, alpha):
    write_gguf(tmp_path / "x.gguf", alpha=alpha)
    (source,) = open_gguf(tmp_path)
    assert {layer.scale for layer in source.layers.values()} == {1.0}


@pytest.mark.parametrize("arch", ["granite", "smollm3"])
def test_rows_of_what_is_converted_as_a_llama_are_turned_too(tmp_path, arch):
    write_gguf(tmp_path / "x.gguf", arch=arch)
    with pytest.raises(InputError, match="--heads QUERIES,KEYS"):
        open_gguf(tmp_path)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"kind": "model"}, "a GGUF file of type model"),
        ({"alpha": float("inf")}, r"adapter\.lora\.alpha: got inf"),
        ({"arch": "bert"}, r"general\.architecture: got bert, expected one whose names are known: llama"),
        ({"names": ("attn_q", "attn_norm")}, "a name without a translation"),
    ],
)
def test_another_gguf_file_is_refused(tmp_path, options, line):
    write_gguf(tmp_path / "x.gguf", **options)
    with pytest.raises(FormatError, match=line):
        open_gguf(tmp_path)


@FUZZ
@given(st.data())
def test_mutated_gguf_files_end_with_a_result_or_one_line(tmp_path, data):
    path = tmp_path / "x.gguf"
    if not path.exists() or not (tmp_path / "good").exists():
        write_gguf(path)
        (tmp_path / "good").write_bytes(path.read_bytes())
    out = bytearray((tmp_path / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        out[data.draw(st.integers(0, len(out) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(out[: data.draw(st.integers(0, len(out)))]) if data.draw(st.booleans()) else bytes(out))
    read_watched(lambda: open_gguf(path), path)


@pytest.mark.parametrize(
    ("a", "b", "module"),
    [
        ("layers/0/attn/q/lora/a", "layers/0/attn/q/lora/b", "layers.0.attn.q"),
        ("blocks.1.out.lora_a", "blocks.1.out.lora_b", "blocks.1.out"),
        ("blocks.1.out.lora_a.value", "blocks.1.out.lora_b.value", "blocks.1.out"),
    ],
)
def test_trees_without_alpha_have_scale_1(tmp_path, a, b, module):
    tensors = {a: normal(0, 5, 4), b: normal(1, 4, 7)}
    (source,) = open_sources([write_file(tmp_path / "x.safetensors", tensors)])
    pair = source.adapter()[module]
    np.testing.assert_array_equal(pair.lora_a, tensors[a])
    np.testing.assert_array_equal(pair.lora_b, tensors[b])
    assert pair.scale == 1


def test_a_tree_of_qwix_needs_its_alpha(tmp_path):
    tensors = {f"layers.0.attn.q_proj.w_lora_{x}": normal(0, *s) for x, s in {"a": (5, 4), "b": (4, 7)}.items()}
    path = write_file(tmp_path / "x.safetensors", tensors)
    with pytest.raises(InputError, match="pass --alpha"):
        open_sources([path])
    (source,) = open_jax_tree(path, 2.0)
    assert {module: layer.scale for module, layer in source.layers.items()} == {"layers.0.attn.q_proj": 0.5}


@pytest.mark.parametrize(
    ("a", "b", "axis"),
    [((3, 5, 4), (3, 4, 7), 0), ((5, 3, 4), (4, 3, 7), 1), ((4, 5, 4), (4, 4, 7), 0), ((5, 4, 4), (4, 4, 7), 1),
     ((3, 5, 4), (3, 4, 7, 2), 0), ((5, 3, 4), (4, 3, 7, 2), 1)],
)  # fmt: skip
@pytest.mark.parametrize(("key", "name"), [("decoder/layers/mlp/up", "decoder.layers.{}.mlp.up"), ("x", "x.{}")])
def test_stacked_layers_become_a_pair_each(capsys, tmp_path, a, b, axis, key, name):
    tensors = {f"{key}/lora/a": normal(0, *a), f"{key}/lora/b": normal(1, *b)}
    path = write_file(tmp_path / "x.safetensors", tensors)
    (source,) = open_sources([path])
    adapter = source.adapter()
    assert list(adapter) == [name.format(i) for i in range(a[axis])]
    for i, (module, pair) in enumerate(adapter.items()):
        own_a, own_b = (x.take(i, axis) for x in tensors.values())
        np.testing.assert_array_equal(pair.lora_a, own_a)
        np.testing.assert_array_equal(pair.lora_b, own_b.reshape(4, -1))
        assert source.adapter((module,))[module].shape == (own_a.shape[0], own_b[0].size)
    assert main(["convert", str(path), "-o", str(tmp_path / "out"), "--to", "peft", "--json"]) == 0
    assert {each["tensor"] for each in json.loads(capsys.readouterr().out)["tensors"]} == set(tensors)
    back = open_sources([tmp_path / "out"])[0].adapter()
    for module, pair in adapter.items():
        np.testing.assert_array_equal(back[module].lora_b, pair.lora_b)


def test_heads_of_a_kernel_lie_side_by_side(tmp_path):
    tensors = {"l.0.q.kernel_lora_a": normal(0, 5, 4), "l.0.q.kernel_lora_b": normal(1, 4, 2, 3)}
    (source,) = open_jax_tree(write_file(tmp_path / "x.safetensors", tensors), 4.0)
    (pair,) = source.adapter().values()
    np.testing.assert_array_equal(pair.lora_b, tensors["l.0.q.kernel_lora_b"].reshape(4, 6))


@pytest.mark.parametrize(("axis", "shape_a"), [(None, (2, 3, 4)), (0, (5, 2, 3, 4)), (1, (2, 5, 3, 4))])
def test_the_heads_of_gemmas_output_are_its_inputs(capsys, tmp_path, axis, shape_a):
    """The names are those of a real tree: see tests/third_party/test_gemma_lora.py."""
    a, b = normal(0, *shape_a), normal(1, *((4, 7) if axis is None else np.insert((4, 7), axis, 5)))
    key, mlp = "layer_0/attn/{}/_LoRAEinsum_0/lora/{}", "layer_0/mlp/_LoRAEinsum_{}/lora/{}"
    tensors = {key.format("attn_vec_einsum", "a"): a, key.format("attn_vec_einsum", "b"): b,
               key.format("q_einsum", "a"): normal(2, 7, 4), key.format("q_einsum", "b"): normal(3, 4, 2, 3),
               key.format("kv_einsum", "a"): normal(4, 7, 4), key.format("kv_einsum", "b"): normal(5, 4, 2, 1, 3),
               mlp.format("gating_einsum", "a"): normal(6, 7, 4), mlp.format("gating_einsum", "b"): normal(7, 4, 2, 9),
               mlp.format("linear", "a"): normal(8, 9, 4), mlp.format("linear", "b"): normal(9, 4, 7)}  # fmt: skip
    path = write_file(tmp_path / "x.safetensors", tensors)
    adapter = open_sources([path])[0].adapter()
    outputs = {module: pair for module, pair in adapter.items() if "attn_vec_einsum" in module}
    assert len(outputs) == (1 if axis is None else 5)
    assert len(adapter) == len(outputs) + 4
    assert {"layer_0.attn.q_einsum", "layer_0.mlp.gating_einsum", "layer_0.mlp.linear"} <= set(adapter)
    for i, pair in enumerate(outputs.values()):
        own_a, own_b = (a, b) if axis is None else (a.take(i, axis), b.take(i, axis))
        np.testing.assert_array_equal(pair.lora_a @ pair.lora_b, own_a.reshape(6, 4) @ own_b)
    heads = np.einsum("nhr,rd->nhd", *((a, b) if axis is None else (a.take(0, axis), b.take(0, axis))))
    x = normal(10, 6)
    first = next(iter(outputs.values()))
    np.testing.assert_allclose(x @ first.lora_a @ first.lora_b, np.einsum("nh,nhd->d", x.reshape(2, 3), heads), 1e-5)
    assert main(["convert", str(path), "-o", str(tmp_path / "out"), "--to", "peft", "--json"]) == 0
    assert {each["tensor"] for each in json.loads(capsys.readouterr().out)["tensors"]} == set(tensors)
    save_lora_tree(tmp_path / "tree", tensors)
    for folder in ("out", "tree"):
        back = open_sources([tmp_path / folder])[0].adapter()
        assert set(back) == set(adapter)
        for module, pair in adapter.items():
            np.testing.assert_array_equal(back[module].lora_a, pair.lora_a)
            np.testing.assert_array_equal(back[module].lora_b, pair.lora_b)


def test_the_output_of_linens_attention_is_known_beside_its_query(tmp_path):
    shapes = {"query": ((6, 4), (4, 2, 3)), "key": ((6, 4), (4, 2, 3)), "value": ((6, 4), (4, 2, 3)),
              "out": ((2, 3, 4), (4, 6))}  # fmt: skip
    for parent in ("", "block_0/attention/"):
        tensors = {
            f"{parent}{name}/lora/{'ab'[i]}": normal(i, *both[i]) for name, both in shapes.items() for i in (0, 1)
        }
        (source,) = open_sources([write_file(tmp_path / "x.safetensors", tensors)])
        pair = source.adapter()[f"{parent}out".replace("/", ".")]
        np.testing.assert_array_equal(pair.lora_a, tensors[f"{parent}out/lora/a"].reshape(6, 4))
        del tensors[f"{parent}key/lora/a"], tensors[f"{parent}key/lora/b"]
        with pytest.raises(FormatError, match="nothing tells apart"):
            open_sources([write_file(tmp_path / "x.safetensors", tensors)])


def test_the_pair_of_a_lora_linear_is_its_kernels(tmp_path):
    tensors = {"fc.lora.lora_a": normal(0, 5, 4), "fc.lora.lora_b": normal(1, 4, 7)}
    assert set(open_sources([write_file(tmp_path / "x.safetensors", tensors)])[0].layers) == {"fc"}


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({"x.lora_a": (2, 5, 4), "x.lora_b": (4, 7)}, "an A whose axes nothing tells apart, .*; reshape A to"),
        (
            {"x.lora_a": (4, 4, 4), "x.lora_b": (4, 4, 7)},
            "along either axis, .*; call share_jax.formats.save_lora_tree",
        ),
        ({"x.attn_vec_einsum.lora_a": (1, 2, 2, 4), "x.attn_vec_einsum.lora_b": (4, 7)}, "nothing tells apart"),
        ({"attn_vec_einsum.lora_a": (2, 3, 3, 4), "attn_vec_einsum.lora_b": (4, 2, 7)}, "A .2, 3, 3, 4. and"),
        ({"attn_vec_einsum.lora_a": (4, 4, 3, 4), "attn_vec_einsum.lora_b": (4, 4, 7)}, "along either axis"),
        ({"x.lora_a": (2, 5, 4), "x.lora_b": (3, 4, 7)}, "A .2, 5, 4. and B .3, 4, 7., expected A"),
        ({"x.lora_a": (5,), "x.lora_b": (4, 7)}, "expected A .in, r."),
        ({"x.lora_a": (2, 5, 0), "x.lora_b": (2, 0, 7)}, "expected A .in, r."),
        (
            {
                "layers.q.lora_a": (2, 5, 4),
                "layers.q.lora_b": (2, 4, 7),
                "layers.1.q.lora_a": (5, 4),
                "layers.1.q.lora_b": (4, 7),
            },
            "a second pair for layers.1.q",
        ),
        ({"x.lora_a": (5, 4)}, "expected lora_a and lora_b"),
        ({"x.lora_a": (5, 4), "x.lora_b": (4, 7), "x.kernel": (5, 7)}, "no leaf of a pair"),
        ({"x.lora_a": (5, 4), "x/lora_a": (5, 4), "x.lora_b": (4, 7)}, "a second leaf"),
        ({"x.lora_a": (5, 4), "x.lora_b": (3, 7)}, "A .5, 4. and B .3, 7."),
    ],
)
def test_other_trees_are_refused(tmp_path, tensors, line):
    path = write_file(tmp_path / "x.safetensors", {key: normal(0, *shape) for key, shape in tensors.items()})
    with pytest.raises(FormatError, match=line):
        open_jax_tree(path)
