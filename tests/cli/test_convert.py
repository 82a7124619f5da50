"""`share-jax convert`: every tensor is accounted for, numbers pass unchanged, and what cannot be held is refused."""

import json

import numpy as np
import pytest
from adapter_makers import factors, write_lorashare, write_peft
from foreign_adapters import (
    flux_tensors,
    kohya_tensors,
    normal,
    write_diffusers,
    write_file,
    write_mlx,
)
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from share_jax.cli.main import main
from share_jax.formats.open import open_sources


def updates(path):
    """Module -> dense update in float64."""
    (source,) = open_sources([path])
    return {
        module: each.scale * np.float64(each.lora_a) @ np.float64(each.lora_b)
        for module, each in source.adapter().items()
    }


def same(path, other):
    first, second = updates(path), updates(other)
    assert set(first) == set(second)
    for module, update in first.items():
        assert np.linalg.norm(second[module] - update) <= 1e-6 * np.linalg.norm(update)


@pytest.fixture
def convert(run, tmp_path):
    def call(path, target, to, *more):
        code, data, err = run("convert", path, "-o", tmp_path / target, "--to", to, *more)
        assert (code, err) == (0, [])
        assert data["largest_relative_change"] < 1e-6
        files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
        named = sorted(name for file in files for name in load_file(file))
        assert sorted(each["tensor"].split("/")[-1] for each in data["tensors"]) == named
        assert all(each["becomes"] for each in data["tensors"])
        return tmp_path / target

    return call


def test_diffusers_to_kohya_and_back(convert, tmp_path):
    first = write_diffusers(tmp_path / "sd")
    kohya = convert(first, "kohya.safetensors", "kohya")
    tensors = load_file(kohya)
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
    np.testing.assert_array_equal(tensors[f"{stem}attn1_to_out_0.lora_up.weight"], normal(3, 8, 4))
    assert tensors[f"{stem}attn1_to_q.alpha"] == 4
    assert "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in tensors
    back = convert(kohya, "back", "diffusers")
    same(first, back)
    again = convert(back, "again.safetensors", "kohya")
    assert again.read_bytes() == kohya.read_bytes()
    second = convert(again, "second", "diffusers")
    name = "pytorch_lora_weights.safetensors"
    assert (second / name).read_bytes() == (back / name).read_bytes()


def test_kohya_to_diffusers_and_back_byte_for_byte(convert, tmp_path):
    metadata = {"ss_network_dim": "4", "ss_base_model_version": "sdxl_base_v1-0"}
    first = write_file(tmp_path / "xl.safetensors", kohya_tensors(), metadata)
    there = convert(first, "there", "diffusers")
    assert set(updates(there)) == {
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        "unet.up_blocks.0.attentions.2.transformer_blocks.1.ff.net.0.proj",
        "unet.down_blocks.1.resnets.0.conv1", "text_encoder_2.text_model.encoder.layers.3.mlp.fc1",
    }  # fmt: skip
    with safe_open(there / "pytorch_lora_weights.safetensors", "np") as file:
        configs = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (configs["text_encoder_2.r"], configs["text_encoder_2.lora_alpha"]) == (4, 4.5)
    back = convert(there, "back.safetensors", "kohya")
    assert back.read_bytes() == first.read_bytes()
    through = convert(convert(first, "comfy.safetensors", "comfy"), "last.safetensors", "kohya")
    assert {k: v.tobytes() for k, v in load_file(through).items()} == {
        k: v.tobytes() for k, v in load_file(first).items()
    }


def test_components_have_a_peft_folder_each(convert, tmp_path):
    first = write_file(tmp_path / "xl.safetensors", kohya_tensors(), {})
    peft = convert(first, "peft", "peft")
    assert sorted(path.name for path in peft.iterdir()) == ["text_encoder_2", "unet"]
    back = convert(peft, "back.safetensors", "kohya")
    assert {k: v.tobytes() for k, v in load_file(back).items()} == {k: v.tobytes() for k, v in load_file(first).items()}


def test_mlx_to_peft_and_back_byte_for_byte(convert, tmp_path):
    for dora in (False, True):
        first = write_mlx(tmp_path / f"mlx{dora}", dora=dora)
        peft = convert(first, f"peft{dora}", "peft")
        config = json.loads((peft / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"], config["use_dora"]) == (4, 80, dora)
        key = "base_model.model.model.layers.2.mlp.down_proj.lora_A.weight"
        np.testing.assert_array_equal(load_file(peft / "adapter_model.safetensors")[key], normal(2, 16, 4).T)
        back = convert(peft, f"back{dora}", "mlx")
        assert (back / "adapters.safetensors").read_bytes() == (first / "adapters.safetensors").read_bytes()
        old, new = (json.loads((x / "adapter_config.json").read_text()) for x in (first, back))
        keys = ["mlp.down_proj", "self_attn.q_proj"]
        assert new == {**old, "lora_parameters": {**old["lora_parameters"], "keys": keys}}


def test_layers_in_the_midst_of_a_model_stay_where_they_are(convert, tmp_path):
    """MLX-LM counts its layers from the model's last, which PEFT's folder does not tell: pairs are built on all."""
    middle = tuple(f"model.layers.{i}.self_attn.q_proj" for i in (3, 4))
    mlx = convert(write_peft(tmp_path / "a", factors(0, modules=middle)), "mlx", "mlx")
    assert json.loads((mlx / "adapter_config.json").read_text())["num_layers"] == -1
    assert set(updates(mlx)) == set(middle)


def test_peft_to_mlx_and_back(convert, tmp_path):
    folder = write_peft(tmp_path / "a", factors(0), lora_alpha=5)
    mlx = convert(folder, "mlx", "mlx")
    config = json.loads((mlx / "adapter_config.json").read_text())
    assert (config["lora_parameters"]["scale"], config["num_layers"]) == (1.25, -1)
    back = convert(mlx, "back", "peft")
    assert (back / "adapter_model.safetensors").read_bytes() == (folder / "adapter_model.safetensors").read_bytes()
    assert json.loads((back / "adapter_config.json").read_text())["lora_alpha"] == 5


@pytest.mark.parametrize("to", ["diffusers", "kohya", "comfy", "mlx", "peft"])
def test_a_format_becomes_itself_byte_for_byte(convert, tmp_path, to):
    make = {
        "diffusers": lambda: write_diffusers(tmp_path / "in"), "mlx": lambda: write_mlx(tmp_path / "in"),
        "kohya": lambda: write_file(tmp_path / "in" / "x.safetensors", kohya_tensors(), {"ss_x": "1"}),
        "comfy": lambda: write_file(tmp_path / "in" / "x.safetensors", flux_tensors()),
        "peft": lambda: write_peft(tmp_path / "in", factors(0)),
    }  # fmt: skip
    make[to]()
    out = convert(tmp_path / "in", "out", to)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()
    }


def test_flux_by_its_original_names(convert, run, tmp_path):
    first = write_file(tmp_path / "flux.safetensors", flux_tensors())
    kohya = convert(first, "kohya.safetensors", "kohya")
    assert "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight" in load_file(kohya)
    back = convert(kohya, "back.safetensors", "comfy")
    assert {k: v.tobytes() for k, v in load_file(back).items()} == {k: v.tobytes() for k, v in load_file(first).items()}
    code, _, err = run("convert", first, "-o", tmp_path / "no", "--to", "diffusers")
    assert code == 2
    assert "by the model's original names" in err[0]
    assert not (tmp_path / "no").exists()


def test_a_core_between_the_factors_is_multiplied_in(convert, tmp_path):
    name = "lora_unet_mid_block_resnets_0_conv1"
    tensors = {f"{name}.lora_down.weight": normal(0, 3, 5, 1, 1), f"{name}.lora_mid.weight": normal(1, 3, 3, 3, 3),
               f"{name}.lora_up.weight": normal(2, 7, 3, 1, 1), f"{name}.alpha": np.asarray(6, np.float32)}  # fmt: skip
    path = write_file(tmp_path / "x.safetensors", tensors)
    out = convert(path, "out", "diffusers")
    (update,) = updates(out).values()
    down, mid, up = (np.float64(tensors[f"{name}.lora_{part}.weight"]) for part in ("down", "mid", "up"))
    dense = 2 * np.einsum("or,rskl,si->oikl", up[:, :, 0, 0], mid, down[:, :, 0, 0])
    np.testing.assert_allclose(update, dense.reshape(7, -1).T, rtol=1e-5, atol=1e-6)


def test_the_dtype_is_what_was_asked_for(convert, run, tmp_path):
    first = write_diffusers(tmp_path / "sd")
    code, data, _ = run("convert", first, "-o", tmp_path / "half", "--to", "diffusers", "--dtype", "bf16")
    assert code == 0
    assert 1e-4 < data["largest_relative_change"] < 1e-2
    with safe_open(tmp_path / "half" / "pytorch_lora_weights.safetensors", "np") as file:
        names = list(file.keys())
        assert {file.get_slice(name).get_dtype() for name in names} == {"BF16"}


def test_names_are_undone_by_the_models_list(convert, run, tmp_path):
    tensors = {"lora_unet_blocks_0_my_own_layer.lora_down.weight": normal(0, 4, 5),
               "lora_unet_blocks_0_my_own_layer.lora_up.weight": normal(1, 6, 4)}  # fmt: skip
    path = write_file(tmp_path / "x.safetensors", tensors)
    code, _, err = run("convert", path, "-o", tmp_path / "no", "--to", "peft")
    assert code == 2
    assert "--modules FILE" in err[0]
    index = {"weight_map": {"blocks.0.my_own.layer.weight": "1"}}
    names = {"txt": "blocks.0.my_own.layer\n", "json": json.dumps(index)}
    for ending, text in names.items():
        (tmp_path / f"list.{ending}").write_text(text)
        out = convert(path, ending, "peft", "--modules", tmp_path / f"list.{ending}")
        assert set(updates(out)) == {"blocks.0.my_own.layer"}
    both = {f"blocks.0.{x}.weight": normal(0, 2) for x in ("my_own.layer", "my.own_layer")}
    model = write_file(tmp_path / "model.safetensors", both)
    code, _, err = run("convert", path, "-o", tmp_path / "no", "--to", "peft", "--modules", model)
    assert code == 2
    assert "blocks.0.my.own_layer or blocks.0.my_own.layer" in err[0]


@pytest.mark.parametrize(
    ("make", "to", "line"),
    [
        (lambda p: write_peft(p, factors(0), rank_pattern={"model.layers.0.self_attn.q_proj": 4}, r=4,
                              alpha_pattern={"model.layers.0.self_attn.q_proj": 2}), "mlx", "several scales"),
        (lambda p: write_peft(p, factors(0, modules=("model.layers.0.q_proj", "model.layers.1.v_proj"))), "mlx",
         "the same modules in each of the last layers"),
        (lambda p: write_peft(p, factors(0), extras={"base_model.model.score.weight": normal(0, 3)}), "mlx", "score"),
        (lambda p: write_peft(p, factors(0)), "kohya", "of no known part of an image model"),
        (lambda p: write_peft(p, factors(0)), "diffusers", "with their component"),
        (lambda p: write_lorashare(p), "peft", "pass --task, of cola, mrpc"),
        (lambda p: write_mlx(p, config={"fine_tune_type": "full"}), "peft", "weights tuned whole are no adapter"),
    ],
)  # fmt: skip
def test_what_a_target_cannot_hold_is_refused(run, tmp_path, make, to, line):
    code, _, err = run("convert", make(tmp_path / "in"), "-o", tmp_path / "out", "--to", to)
    assert (code, len(err)) == (2, 1)
    assert line in err[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("lora_unet_x.hada_w1_a", "LoHa of LyCORIS, which is no low-rank pair"),
        ("lora_unet_x.lokr_w1", "LoKr of LyCORIS, which is no low-rank pair"),
        ("lora_unet_x.diff", "a whole difference of weights"),
        ("lora_unet_mid_block_attentions_0_proj_in.something", "a kind that is not known"),
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "alone, expected both factors"),
    ],
)
def test_other_kinds_are_refused_by_name(run, tmp_path, key, line):
    path = write_file(tmp_path / "x.safetensors", {**kohya_tensors(), key: normal(0, 2, 2)})
    for command in (["convert", path, "--to", "peft"], ["compress", path]):
        code, _, err = run(*command, "-o", tmp_path / "out")
        assert (code, len(err)) == (2, 1)
        assert line in err[0]


def test_files_of_several_tools_become_sets(run, tmp_path):
    files = [write_file(tmp_path / f"{i}.safetensors", kohya_tensors(alpha=i + 1.0), {}) for i in range(2)]
    code, data, err = run("compress", *files, "-o", tmp_path / "set", "--explained-variance", 1)
    assert (code, err, sorted(data["per_task"])) == (0, [], ["0", "1"])
    assert run("export", tmp_path / "set", "1", "-o", tmp_path / "peft")[0] == 0
    code, data, err = run("convert", tmp_path / "peft", "-o", tmp_path / "back.safetensors", "--to", "kohya")
    assert (code, err) == (0, [])
    first, back = updates(files[1]), updates(tmp_path / "back.safetensors")
    for module, update in first.items():
        assert np.linalg.norm(back[module] - update) < 2e-3 * np.linalg.norm(update)  # stored in half precision
    assert set(load_file(tmp_path / "back.safetensors")) == set(kohya_tensors())
    assert run("compress", write_mlx(tmp_path / "mlx"), "-o", tmp_path / "other")[0] == 0


def test_a_file_may_be_replaced_when_asked(run, tmp_path):
    path = write_diffusers(tmp_path / "sd")
    out = tmp_path / "x.safetensors"
    for more, code in (((), 0), ((), 2), (("--overwrite",), 0)):
        assert run("convert", path, "-o", out, "--to", "kohya", *more)[0] == code
    before = out.read_bytes()
    assert run("convert", out, "-o", out, "--to", "comfy", "--overwrite")[0] == 2
    assert out.read_bytes() == before
    code, _, err = run("convert", path, "-o", tmp_path / "y.safetensors", "--to", "peft")
    assert (code, "expected a folder for peft" in err[0]) == (2, True)


def test_the_file_of_a_folder_that_is_read_is_not_replaced_and_none_is_put_beside_it(run, tmp_path):
    path = write_file(tmp_path / "style" / "x.safetensors", kohya_tensors())
    before = path.read_bytes()
    for name in ("x.safetensors", "y.safetensors"):
        code, _, err = run("convert", path.parent, "-o", path.with_name(name), "--to", "comfy", "--overwrite")
        assert (code, "which is read" in err[0]) == (2, True)
    assert (path.read_bytes(), len(list(path.parent.iterdir()))) == (before, 1)


def test_names_as_long_as_a_file_may_have_are_taken(run, tmp_path):
    path = write_file(tmp_path / "x.safetensors", kohya_tensors())
    for name, to in (("重" * 80, "peft"), ("重" * 81 + ".safetensors", "comfy"), ("a" * 243 + ".safetensors", "comfy")):
        assert run("convert", path, "-o", tmp_path / name, "--to", to)[0] == 0
        assert (tmp_path / name).exists()


@pytest.mark.parametrize("others", [(), ("photo.jpg",), ("notes/x",)])
def test_a_folder_with_more_than_an_adapter_is_not_replaced(run, tmp_path, others):
    path = write_diffusers(tmp_path / "sd")
    file = write_file(tmp_path / "b" / "x.safetensors", kohya_tensors())
    assert run("convert", file, "-o", tmp_path / "c", "--to", "peft")[0] == 0
    for out in (tmp_path / "b", tmp_path / "c"):
        for name in others:
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_text("mine")
        code = run("convert", path, "-o", out, "--to", "kohya", "--overwrite")[0]
        assert code == (2 if others else 0)
        assert all((out / name).exists() for name in others)


@pytest.mark.parametrize(
    "begin",
    ["", "module.base_model.model.", "base_model.model._orig_mod.", "_orig_mod.base_model.model.",
     "base_model.model.base_model.model.", "base_model.model.base_model.model.base_model.model."],
)  # fmt: skip
def test_names_that_peft_does_not_load_are_written_as_those_it_does(tmp_path, begin):
    head = {"base_model.model.m.score.weight": normal(3, 2, 5)}
    folder = write_peft(tmp_path / "a", factors(0, modules=("m.q_proj",)), extras=head)
    tensors = load_file(folder / "adapter_model.safetensors")
    assert set(tensors) > set(head)
    renamed = {key.replace("base_model.model.", begin): value for key, value in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors")
    assert main(["convert", str(folder), "-o", str(tmp_path / "out"), "--to", "peft"]) == 0
    written = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert set(written) == set(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(written[key], value)


@pytest.mark.parametrize(
    ("said", "lacking"),
    [
        ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, 1),
        ({"exclude_modules": ".*v_proj"}, 2),
        ({"layers_to_transform": [1], "layers_pattern": "layers"}, 2),
        ({"layers_to_transform": 0}, 2),
        ({"target_modules": "all-linear", "exclude_modules": ["q_proj"]}, 2),
        ({"exclude_modules": ["lm_head"]}, 0),
    ],
)
def test_a_config_that_leaves_tensors_out_becomes_one_that_does_not(run, tmp_path, said, lacking):
    folder = write_peft(tmp_path / "a", factors(0), **said)
    code, data, err = run("convert", folder, "-o", tmp_path / "out", "--to", "peft")
    assert (code, err, len(data["left_out_before"])) == (0, [], lacking)
    old, new = (json.loads((path / "adapter_config.json").read_text()) for path in (folder, tmp_path / "out"))
    exact = {"target_modules": r"model\.layers\.(?:0|1)\.self_attn\.(?:q_proj|v_proj)", "exclude_modules": None,
             "layers_to_transform": None, "layers_pattern": None}  # fmt: skip
    assert new == ({**old, **{key: exact[key] for key in ("target_modules", *said)}} if lacking else old)
    tensors, written = (load_file(path / "adapter_model.safetensors") for path in (folder, tmp_path / "out"))
    assert {k: v.tobytes() for k, v in written.items()} == {k: v.tobytes() for k, v in tensors.items()}
    _, text, _ = run("convert", folder, "-o", tmp_path / "more", "--to", "peft", json_out=False)
    assert ("the new one names all" in text) == bool(lacking)
