"""Files of image tools as unlucky users have them: alphas of any shape and dtype, mixed names, metadata."""

import json
import warnings

import ml_dtypes
import numpy as np
import pytest
from adapter_makers import write_lorashare, write_vlora
from foreign_adapters import BLOCK, normal, write_diffusers, write_file
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from share_jax.cli.main import main
from share_jax.errors import FormatError
from share_jax.formats.open import open_sources

KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
LAYOUTS = {
    "diffusers": (f"{BLOCK}attn1.to_q", "lora.down.weight", "lora.up.weight"),
    "kohya": (KOHYA, "lora_down.weight", "lora_up.weight"),
    "comfy": ("diffusion_model.double_blocks.0.img_attn.qkv", "lora_A.weight", "lora_B.weight"),
}
BF16 = ml_dtypes.bfloat16


def pair(layout, dtype=np.float32, rank=4):
    stem, down, up = LAYOUTS[layout]
    return {f"{stem}.{down}": normal(0, rank, 8).astype(dtype), f"{stem}.{up}": normal(1, 8, rank).astype(dtype)}


def scale_of(path):
    (layer,) = open_sources([path])[0].layers.values()
    return layer.scale


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "alpha",
    [np.float16(3), np.full(1, 3, np.float32), np.full((1, 1), 3, BF16), np.int64(3), np.int16(3), np.uint8(3),
     np.float64(0.1), np.float32(-3), np.float32(1e25)],
)  # fmt: skip
def test_an_alpha_of_any_dtype_and_shape_passes_exactly(tmp_path, capsys, layout, alpha):
    tensors = {**pair(layout, np.float16), f"{LAYOUTS[layout][0]}.alpha": np.asarray(alpha)}
    path = write_file(tmp_path / "x.safetensors", tensors)
    assert scale_of(path) == float(np.asarray(alpha).reshape(())) / 4
    for to in ("peft", "diffusers", "kohya", "comfy"):
        if (layout, to) == ("comfy", "diffusers"):  # fused layers
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert main(["convert", str(path), "-o", str(tmp_path / to), "--to", to, "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["largest_relative_change"] < 1e-12, said["changed_alphas"]) == (True, [])
        assert scale_of(tmp_path / to) == scale_of(path)


@pytest.mark.parametrize(
    ("alpha", "line"),
    [(np.ones(2), "got F64 .2,."), (np.ones(0, np.float32), "got F32 .0,."), (np.float32(np.nan), "got nan"),
     (np.float32(-np.inf), "got -inf"), (np.float64(1e200), "got 1e.200"), (np.bool_(1), "got BOOL")],
)  # fmt: skip
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_no_alpha_is_named(tmp_path, layout, alpha, line):
    key = f"{LAYOUTS[layout][0]}.alpha"
    path = write_file(tmp_path / "x.safetensors", {**pair(layout), key: np.asarray(alpha)})
    with pytest.raises(FormatError, match=f"{key}: {line}.*, expected one number below"):
        open_sources([path])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_complex_alpha_is_named(tmp_path, layout):
    """Of another dtype of 8 bytes, for not every version of safetensors writes it."""
    key = f"{LAYOUTS[layout][0]}.alpha"
    path = write_file(tmp_path / "x.safetensors", {**pair(layout), key: np.asarray(np.float64(1))})
    path.write_bytes(path.read_bytes().replace(b'"F64"', b'"C64"'))
    with pytest.raises(FormatError, match=f"{key}: got C64.*, expected one number below"):
        open_sources([path])


@pytest.mark.parametrize(("layout", "scale"), [("diffusers", 0), ("comfy", 0), ("kohya", 1)])
def test_an_alpha_of_0_is_what_its_tool_takes_it_for(tmp_path, layout, scale):
    tensors = {**pair(layout), f"{LAYOUTS[layout][0]}.alpha": np.zeros((), np.float32)}
    assert scale_of(write_file(tmp_path / "x.safetensors", tensors)) == scale


@pytest.mark.parametrize("dtype", [np.float16, BF16, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_factors_of_any_float_dtype_pass_unchanged(tmp_path, layout, dtype):
    path = write_file(tmp_path / "x.safetensors", pair(layout, dtype))
    (found,) = open_sources([path])[0].adapter().values()
    first, second = pair(layout, dtype).values()
    np.testing.assert_array_equal(found.lora_a, first.T)
    np.testing.assert_array_equal(found.lora_b, second.T)


def test_both_ways_to_name_a_factor_may_be_in_one_pair(tmp_path):
    stem = f"{BLOCK}attn1.to_q"
    tensors = {f"{stem}.lora_A.weight": normal(0, 4, 8), f"{stem}.lora.up.weight": normal(1, 8, 4)}
    assert set(open_sources([write_diffusers(tmp_path / "a", tensors)])[0].layers) == {stem}


@pytest.mark.parametrize(
    ("name", "ends", "module"),
    [
        (f"{BLOCK}attn1.processor.to_out", ("_lora.down.weight", "_lora.up.weight"), f"{BLOCK}attn1.to_out.0"),
        ("transformer.blocks.0.to_out", (".lora_A.weight", ".lora_B.weight"), "transformer.blocks.0.to_out"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_out", ("_lora.down.weight", "_lora.up.weight"),
         "text_encoder.text_model.encoder.layers.0.self_attn.out_proj"),
        ("transformer.x.to_q_lora", (".lora_A.weight", ".lora_B.weight"), "transformer.x.to_q_lora"),
    ],
)  # fmt: skip
def test_only_the_oldest_names_are_put_right(tmp_path, name, ends, module):
    tensors = {name + ends[0]: normal(0, 4, 8), name + ends[1]: normal(1, 8, 4)}
    assert set(open_sources([write_diffusers(tmp_path / "a", tensors)])[0].layers) == {module}


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (pair("diffusers") | {f"{BLOCK}attn1.to_q.lora_A.weight": normal(0, 4, 8)}, "got the same as"),
        ({f"{BLOCK}attn1.processor.to_q_lora.{x}.weight": v for x, v in
          zip(("down", "up"), pair("diffusers").values(), strict=True)}, "a second name of"),
        ({f"{BLOCK}attn1.to_k.lora.up.weight": normal(1, 8, 4)}, "alone, expected both factors"),
        ({f"{BLOCK}attn1.to_k.alpha": np.ones(1, np.float32)}, "alone, expected both factors"),
        ({"junk": normal(0, 2)}, "tensor junk: got a kind that is not known"),
    ],
)  # fmt: skip
def test_what_is_there_twice_or_half_is_named(tmp_path, more, line):
    with pytest.raises(FormatError, match=line):
        open_sources([write_diffusers(tmp_path / "a", pair("diffusers") | more)])


@pytest.mark.parametrize(
    ("configs", "found"),
    [
        ({"unet.r": 4, "unet.lora_alpha": 4.5}, 1.125), ({"unet.r": 4, "unet.lora_alpha": 0}, 0),
        ({"unet.r": 4, "unet.lora_alpha": 3, "unet.use_rslora": True}, 1.5), ({"transformer.r": 9}, 1), ({}, 1),
        ({"unet.r": 8, "unet.rank_pattern": {"to_q": 4}, "unet.alpha_pattern": {"attn1.to_q": -2}}, -0.5),
        ({"unet.r": 8, "unet.lora_alpha": 4}, "got 4 in the file, expected 8 as lora_adapter_metadata says"),
        ({"unet": 1}, "expected 8 as lora_adapter_metadata says"), ([1], "got list, expected a JSON object"),
        ({"unet.r": 4, "unet.use_dora": True}, "use_dora True in lora_adapter_metadata, but nothing for it"),
        ({"unet.r": 4, "unet.lora_bias": True}, "lora_bias True in lora_adapter_metadata, but nothing for it"),
        ({"unet.peft_type": "LOHA"}, "LoHa, which is no low-rank pair"),
    ],
)  # fmt: skip
def test_metadata_of_diffusers(tmp_path, configs, found):
    folder = write_diffusers(tmp_path / "a", pair("diffusers"), configs)
    if isinstance(found, str):
        with pytest.raises(FormatError, match=found):
            open_sources([folder])
    else:
        assert scale_of(folder) == found


def test_metadata_that_is_no_text_or_no_json_is_one_line(tmp_path):
    raw = save(pair("diffusers"), {"lora_adapter_metadata": "{"})
    path = tmp_path / "x.safetensors"
    for given, line in ((raw, "lora_adapter_metadata: got Expecting property name"),
                        (raw.replace(b'"{"', b' 31'), "metadata that is not text")):  # fmt: skip
        path.write_bytes(given)
        with pytest.raises(FormatError, match=line):
            open_sources([path])


PEFT = {f"{BLOCK}attn1.to_{x}.lora_{end}.weight": normal(0, *shape) for x in "qk"
        for end, shape in (("A", (4, 8)), ("B", (8, 4)))}  # fmt: skip
OLD = {f"{BLOCK}attn1.to_v.lora.{end}.weight": normal(0, *shape) for end, shape in (("down", (4, 8)), ("up", (8, 4)))}


@pytest.mark.parametrize(
    ("tensors", "configs", "copied"),
    [
        (PEFT, None, True), (OLD, None, True), (PEFT | OLD, None, False),
        (PEFT | {f"{BLOCK}attn1.to_q.alpha": np.ones((), np.float32)}, None, False),
        (PEFT, {"unet.r": 4, "unet.lora_alpha": 6, "unet.target_modules": ["to_q", "to_k"]}, True),
        (PEFT, {"unet.r": 4, "unet.lora_alpha": 6}, False), (PEFT, {"text_encoder.r": 4}, False), (PEFT, {}, False),
    ],
)  # fmt: skip
def test_a_file_that_diffusers_loads_in_part_is_written_anew(tmp_path, tensors, configs, copied):
    folder = write_diffusers(tmp_path / "a", tensors, configs)
    name = "pytorch_lora_weights.safetensors"
    assert main(["convert", str(folder), "-o", str(tmp_path / "out"), "--to", "diffusers"]) == 0
    written = load_file(tmp_path / "out" / name)
    assert ((tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()) is copied
    if not copied:
        assert all(".lora_A." in key or ".lora_B." in key for key in written)
    first, second = (open_sources([x])[0].adapter() for x in (folder, tmp_path / "out"))
    assert {key: pair.scale for key, pair in first.items()} == {key: pair.scale for key, pair in second.items()}


def test_metadata_name_a_text_encoders_modules_as_any_transformers_has_them(tmp_path):
    """With `text_model.` before them, and without: both end with what the metadata name."""
    names = [f"lora_te1_text_model_encoder_layers_{i}_self_attn_q_proj" for i in range(2)]
    tensors = {f"{name}.lora_down.weight": normal(i, 4, 8) for i, name in enumerate(names)}
    tensors |= {f"{name}.lora_up.weight": normal(i, 8, 4) for i, name in enumerate(names)}
    tensors |= {f"{name}.alpha": np.full((), 3.0 + i, np.float32) for i, name in enumerate(names)}
    path = write_file(tmp_path / "x.safetensors", tensors)
    assert main(["convert", str(path), "-o", str(tmp_path / "out"), "--to", "diffusers"]) == 0
    with safe_open(tmp_path / "out" / "pytorch_lora_weights.safetensors", "np") as file:
        configs = json.loads(file.metadata()["lora_adapter_metadata"])
    assert configs["text_encoder.target_modules"] == [f"encoder.layers.{i}.self_attn.q_proj" for i in range(2)]
    assert list(configs["text_encoder.alpha_pattern"]) == ["encoder.layers.1.self_attn.q_proj"]
    layers = open_sources([tmp_path / "out"])[0].layers
    assert [layer.scale for layer in layers.values()] == [0.75, 1.0]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("lora_unet_blocks_3_self_attn_q", "diffusion_model.blocks.3.self_attn.q"),
        ("lora_unet_blocks_0_cross_attn_k_img", "diffusion_model.blocks.0.cross_attn.k_img"),
        ("lora_unet_blocks_0_ffn_2", "diffusion_model.blocks.0.ffn.2"),
        ("lora_unet_layers_7_attention_to_out_0", "diffusion_model.layers.7.attention.to_out.0"),
        ("lora_unet_noise_refiner_1_feed_forward_w1", "diffusion_model.noise_refiner.1.feed_forward.w1"),
        ("lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_0",
         "text_encoder_3.encoder.block.0.layer.1.DenseReluDense.wi_0"),
        ("lora_unet_up_blocks_1_resnets_0_time_emb_proj", "unet.up_blocks.1.resnets.0.time_emb_proj"),
        ("lora_unet_output_blocks_2_2_conv", "unet.up_blocks.0.upsamplers.0.conv"),
        ("lora_unet_single_transformer_blocks_0_norm_linear", "transformer.single_transformer_blocks.0.norm.linear"),
    ],
)  # fmt: skip
def test_underscores_of_known_models_are_undone(tmp_path, name, module):
    tensors = {f"{name}.lora_down.weight": normal(0, 4, 8), f"{name}.lora_up.weight": normal(1, 8, 4)}
    assert set(open_sources([write_file(tmp_path / "x.safetensors", tensors)])[0].layers) == {module}


@pytest.mark.parametrize("kind", ["lorashare", "vlora", "a core of kohya's"])
def test_products_past_float32_are_refused_as_infinities(tmp_path, kind):
    if kind == "lorashare":
        file = write_lorashare(tmp_path / "a") / "shared_components.safetensors"
    elif kind == "vlora":
        file = write_vlora(tmp_path / "a", tasks=("cola",)) / "subspace.safetensors"
    else:
        shapes = {"lora_down": (3, 5, 1, 1), "lora_mid": (3, 3, 3, 3), "lora_up": (7, 3, 1, 1)}
        tensors = {f"lora_unet_conv_in.{end}.weight": normal(0, *shape) for end, shape in shapes.items()}
        file = write_file(tmp_path / "a" / "x.safetensors", tensors)
    save_file({key: np.full_like(value, 3e38) for key, value in load_file(file).items()}, file)
    with pytest.raises(FormatError, match="NaN or infinity"):
        open_sources([tmp_path / "a"])[0].adapter()
