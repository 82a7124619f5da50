"""What no pair can say, or a target cannot hold: one line with what, got, expected and a way out that is true."""

import numpy as np
import pytest
from adapter_makers import CONFIG, write_peft
from foreign_adapters import BLOCK, flux_tensors, normal, write_file, write_mlx
from safetensors.numpy import load_file, save_file

KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_2"
GROUPED = {"lora_A.weight": (4, 2, 3, 3), "lora_B.weight": (6, 2, 1, 1)}
SWITCH = "model.layers.2.mlp.switch_mlp.up_proj"


def pairs(stem, ends, shapes):
    return {f"{stem}.{end}": normal(i, *shape) for i, (end, shape) in enumerate(zip(ends, shapes, strict=True))}


def file(folder, tensors):
    return write_file(folder / "x.safetensors", tensors)


def whole(folder, tensors):
    return write_peft(folder, {}, extras=tensors)


def peft(folder, tensors, **said):
    """A PEFT folder of the component `unet`, of the module conv_in."""
    extras = {f"base_model.model.conv_in.{end}": normal(0, *shape) for end, shape in tensors.items()}
    return write_peft(folder, {}, {**CONFIG, "target_modules": ["conv_in"]}, extras=extras, **said)


def mlx_with(folder, shapes):
    write_mlx(folder)
    tensors = load_file(folder / "adapters.safetensors") | {key: normal(0, *shape) for key, shape in shapes.items()}
    save_file(tensors, folder / "adapters.safetensors")
    return folder


KOHYA_ENDS, PEFT_ENDS, LINEAR = (
    ("lora_down.weight", "lora_up.weight"),
    ("lora_A.weight", "lora_B.weight"),
    ((4, 8), (8, 4)),
)
CASES = {
    "fused Flux": (lambda p: file(p, flux_tensors()), "diffusers",
                   ("double_blocks.0.img_attn.qkv, by the model's original names", "diffusers' names", "--to peft")),
    "MLX switch layers": (lambda p: mlx_with(p, {f"{SWITCH}.lora_a": (3, 4, 8), f"{SWITCH}.lora_b": (3, 9, 4)}), "peft",
                          (f"{SWITCH}.lora_a: got the stacked pairs of a layer of experts", "mlx_lm.fuse")),
    "grouped convolution of PEFT": (lambda p: peft(p, GROUPED), "peft", ("conv_in: got a convolution with 2 groups",
                                                                        "expected one without groups")),
    "grouped convolution of kohya": (
        lambda p: file(p, pairs("lora_unet_conv_in", KOHYA_ENDS, GROUPED.values())), "comfy",
        ("unet.conv_in: got a convolution with 2 groups", "expected one without groups")),
    "DoRA of a convolution": (
        lambda p: peft(p, {"lora_A.weight": (4, 5, 3, 3), "lora_B.weight": (7, 4, 1, 1),
                           "lora_magnitude_vector": (1, 7, 1, 1)}, use_dora=True), "mlx",
        ("conv:5,3,3 at conv_in", "expected linear layers and embeddings", "--to peft")),
    "DoRA by inputs": (
        lambda p: file(p, {**pairs(KOHYA, KOHYA_ENDS, ((4, 6), (8, 4))),
                           f"{KOHYA}.dora_scale": normal(3, 1, 6)}), "peft",
        ("magnitude: got shape (1, 6), expected 8 numbers, one for each output", "merge it into the base model")),
    "DoRA by inputs of a square layer": (
        lambda p: file(p, {**pairs(KOHYA, KOHYA_ENDS, ((4, 8), (8, 4))),
                           f"{KOHYA}.dora_scale": normal(3, 1, 8)}), "peft",
        ("magnitude: got shape (1, 8), expected 8 numbers, one for each output", "merge it into the base model")),
    "DoRA by inputs of a convolution": (
        lambda p: file(p, {**pairs("lora_unet_conv_in", KOHYA_ENDS, ((4, 8, 3, 3), (8, 4, 1, 1))),
                           "lora_unet_conv_in.dora_scale": normal(3, 1, 8, 1, 1)}), "peft",
        ("magnitude: got shape (1, 8, 1, 1), expected 8 numbers, one for each output",)),
    "DoRA of one module of two": (
        lambda p: file(p, {**pairs(KOHYA, KOHYA_ENDS, LINEAR),
                           f"{KOHYA}.dora_scale": normal(3, 8, 1),
                           **pairs("lora_unet_conv_in", KOHYA_ENDS, LINEAR)}), "peft",
        ("and none for unet.conv_in, expected one for every module or for none",)),
    "DoRA of an embedding": (
        lambda p: mlx_with(p, {"model.embed_tokens.lora_a": (9, 4), "model.embed_tokens.lora_b": (4, 8),
                               "model.embed_tokens.m": (9,)}), "peft",
        ("model.embed_tokens: got DoRA of an embedding, expected LoRA", "mlx_lm.fuse")),
    "alpha 0": (lambda p: peft(p, {"lora_A.weight": (4, 8), "lora_B.weight": (8, 4)}, lora_alpha=0), "kohya",
                ("got alpha 0 at unet.conv_in, which sd-scripts takes for the rank",)),
}  # fmt: skip
QUERY = "text_model.encoder.layers.0.self_attn.q_proj"
CASES |= {
    "two text encoders": (
        lambda p: file(p, {**pairs(f"text_encoder.{QUERY}", PEFT_ENDS, LINEAR),
                           **pairs(f"text_encoder_2.{QUERY}", PEFT_ENDS, LINEAR)}), "mlx",
        (f"text_encoder.{QUERY}, which is in no layer of a language model", "modules of layers")),
    "layers of two models": (
        lambda p: whole(p, {**pairs("base_model.model.model.layers.0.q_proj", PEFT_ENDS, LINEAR),
                           **pairs("base_model.model.visual.layers.0.q_proj", PEFT_ENDS, LINEAR)}), "mlx",
        ("got layers of model and of visual, expected those of one model",)),
    "one name for two": (
        lambda p: file(p, {
            **pairs("transformer.transformer_blocks.0.to_q", PEFT_ENDS, LINEAR),
            **pairs("unet.transformer_blocks.0.to_q", PEFT_ENDS, LINEAR)}), "kohya",
        ("got two modules that would both be lora_unet_transformer_blocks_0_to_q",)),
    "rank 0": (lambda p: file(p, pairs("lora_unet_conv_in", KOHYA_ENDS, ((0, 8), (8, 0)))), "peft",
               ("unet.conv_in rank: got 0, expected 1 or more",)),
    "a convolution with a flat lora_up": (
        lambda p: file(p, pairs("lora_unet_conv_in", KOHYA_ENDS, ((4, 8, 3, 3), (8, 4)))), "peft",
        ("got (4, 8, 3, 3), (8, 4), expected two axes each, or those of a convolution in both",)),
}  # fmt: skip
for _to in ("kohya", "comfy"):
    CASES[f"second transformer to {_to}"] = (
        lambda p: file(p, pairs("transformer_2.transformer_blocks.0.to_q", PEFT_ENDS, LINEAR)), _to,
        ("transformer_2.transformer_blocks.0.to_q",))  # fmt: skip
BIAS = {"lora_A.weight": (4, 8), "lora_B.weight": (8, 4), "lora_B.bias": (8,)}
for _to in ("kohya", "comfy", "mlx"):
    CASES[f"lora_bias to {_to}"] = (
        lambda p: peft(p, BIAS, lora_bias=True),
        _to,
        ("conv_in.lora_B.bias, expected pairs and",),
    )


@pytest.mark.parametrize("case", CASES)
def test_one_line_says_what_and_how_to_go_on(run, tmp_path, case):
    make, to, parts = CASES[case]
    code, _, err = run("convert", make(tmp_path / "in"), "-o", tmp_path / "out", "--to", to)
    assert (code, len(err), (tmp_path / "out").exists()) == (2, 1, False)
    for part in (*parts, ": got ", ", expected ", "; "):
        assert part in err[0]


@pytest.mark.parametrize("way_out", ["peft", "kohya", "comfy"])
def test_the_way_out_of_a_fused_flux_file_is_one(run, tmp_path, way_out):
    path = write_file(tmp_path / "in" / "x.safetensors", flux_tensors())
    code, data, err = run("convert", path, "-o", tmp_path / "out", "--to", way_out)
    assert (code, err, len(data["tensors"])) == (0, [], len(flux_tensors()))


def test_dora_goes_where_it_can_be_held(run, tmp_path):
    folder = peft(tmp_path / "in", {"lora_A.weight": (4, 8), "lora_B.weight": (8, 4), "lora_magnitude_vector": (8,)},
                  use_dora=True)  # fmt: skip
    for to in ("diffusers", "kohya", "comfy", "peft"):
        assert run("convert", folder, "-o", tmp_path / to, "--to", to)[0] == 0
        (file,) = (tmp_path / to).rglob("*.safetensors")
        (magnitude,) = [x for key, x in load_file(file).items() if "magnitude" in key or "dora" in key]
        np.testing.assert_array_equal(magnitude.ravel(), normal(0, 8))


LYCORIS = {"hada_w1_a": "LoHa", "hada_t1": "LoHa", "lokr_w1": "LoKr", "lokr_w2_b": "LoKr", "oft_blocks": "OFT",
           "ia3_l": "IA3", "on_input": "IA3", "a1.weight": "GLoRA", "diff": "a whole difference"}  # fmt: skip
LAYOUTS = {
    "diffusers": (f"{BLOCK}attn1.to_q", PEFT_ENDS, f"{BLOCK}ff.net.2"),
    "kohya": (KOHYA.replace("ff_net_2", "attn1_to_q"), KOHYA_ENDS, KOHYA),
    "comfy": ("diffusion_model.double_blocks.0.img_attn.proj", PEFT_ENDS, "diffusion_model.double_blocks.0.img_mlp.0"),
    "peft": ("base_model.model.m.q", PEFT_ENDS, "base_model.model.m.v"),
}


@pytest.mark.parametrize("beside_a_pair", [True, False])
@pytest.mark.parametrize("end", LYCORIS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kinds_of_lycoris_are_named_in_every_layout(run, tmp_path, layout, end, beside_a_pair):
    stem, ends, other = LAYOUTS[layout]
    tensors = {**(pairs(stem, ends, LINEAR) if beside_a_pair else {}), f"{other}.{end}": normal(0, 2, 2)}
    path = write_file(tmp_path / "x.safetensors", tensors)
    for words in (("convert", path, "--to", "peft"), ("compress", path)):
        code, _, err = run(*words, "-o", tmp_path / "out")
        assert (code, len(err)) == (2, 1)
        if layout == "peft":  # PEFT's names need the configuration beside them
            assert "adapter_config.json" in err[0]
        else:
            assert f"{other}.{end}: got {LYCORIS[end]}" in err[0]
            assert "merge it into the base model" in err[0]


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2", "text_encoder_3", "transformer_2"])
def test_a_component_alone_keeps_its_name_in_peft_folders(run, tmp_path, component):
    path = write_file(tmp_path / "in" / "x.safetensors", pairs(f"{component}.{QUERY}", PEFT_ENDS, LINEAR))
    code, _, err = run("convert", path, "-o", tmp_path / "peft", "--to", "peft")
    assert (code, err, [x.name for x in (tmp_path / "peft").iterdir()]) == (0, [], [component])
    code, data, err = run("convert", tmp_path / "peft", "-o", tmp_path / "back", "--to", "diffusers")
    assert (code, err, data["largest_relative_change"] < 1e-12) == (0, [], True)
    (back,) = (tmp_path / "back").iterdir()
    assert set(load_file(back)) == set(load_file(path))
