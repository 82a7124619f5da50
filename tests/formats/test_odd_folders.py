"""Folders that people have: odd names of tensors and tasks, wrappers, buffers, and what is no adapter that is read."""

import json

import numpy as np
import pytest
from adapter_makers import CONFIG, MODULES, factors, write_peft
from safetensors.numpy import load_file, save_file

from share_jax.errors import FormatError, InputError, TaskError
from share_jax.formats.open import open_sources
from share_jax.formats.peft import open_adapter
from share_jax.formats.same_modules import two_names

ONES = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("key", "saved"),
    [
        ("mm.mm_soft_emb_norm.weight", ["mm"]),
        ("mm.mm_soft_emb_norm.weight", None),
        ("mm.oft_r.weight", ["mm"]),
        ("head.lora_A.weight", ["head"]),
        ("lora_head.bias", None),
        ("vera_encoder.proj.weight", None),
        ("x.hada_norm", ["x"]),
        (f"{MODULES[0]}.lora_velora_embed", None),
    ],
)
def test_a_tensor_is_known_by_the_config_and_whole_parts_of_its_name(tmp_path, key, saved):
    key = f"base_model.model.{key}"
    source = open_adapter(write_peft(tmp_path / "a", factors(0), extras={key: ONES}, modules_to_save=saved))
    assert source.extra_names == (key,)
    assert set(source.layers) == set(MODULES)


@pytest.mark.parametrize("part", ["oft_r", "vera_lambda_b", "ia3_l", "lokr_w1", "hada_w1_a", "lora_diag", "lora_E"])
def test_parameters_of_other_methods_are_refused_by_name(tmp_path, part):
    folder = write_peft(tmp_path / "a", factors(0), extras={f"base_model.model.{MODULES[0]}.{part}": ONES})
    with pytest.raises(FormatError, match=part):
        open_adapter(folder)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "model._checkpoint_wrapped_module"])
def test_what_wrappers_put_into_names_is_taken_out(tmp_path, wrapper):
    head, _, part = wrapper.rpartition(".")
    names = [f"{part}.{m}" if not head else m.replace("model.", f"model.{part}.", 1) for m in MODULES]
    pairs = dict(zip(names, factors(0).values(), strict=True))
    assert set(open_adapter(write_peft(tmp_path / "a", pairs)).layers) == set(MODULES)


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("head.mask", -np.inf, True),
        ("head.mask", np.inf, True),
        ("head.bias", -np.inf, True),
        ("head.weight", np.inf, False),
        ("head.mask", np.nan, False),
    ],
)
def test_infinities_of_buffers_are_data(tmp_path, key, value, good):
    extras = {f"base_model.model.{key}": np.array([0, value], np.float16)}
    source = open_adapter(write_peft(tmp_path / "a", factors(0), extras=extras))
    if good:
        assert source.extras()[f"base_model.model.{key}"].data == next(iter(extras.values())).tobytes()
    else:
        with pytest.raises(FormatError, match=key):
            source.extras()


def test_folders_of_one_name_are_told_apart_by_parents(tmp_path):
    places = [write_peft(tmp_path / a / b / "adapter", factors(0)) for a, b in (("x", "p"), ("y", "p"), ("y", "q"))]
    names = [source.name for source in open_sources(places)]
    assert names == ["x-p-adapter", "y-p-adapter", "q-adapter"]
    assert [source.name for source in open_sources(places[:1])] == ["adapter"]
    assert [source.label for source in open_sources(places, names=["a", "b", "c"])] == [
        "adapter a", "adapter b", "adapter c",
    ]  # fmt: skip
    with pytest.raises(TaskError, match="a name that exists"):
        open_sources([places[0], places[0]])
    with pytest.raises(TaskError, match="--name"):
        open_sources(places[:1], taken=["adapter"])
    with pytest.raises(InputError, match="one per folder"):
        open_sources(places, names=["a"])
    with pytest.raises(TaskError, match="task name"):
        open_sources(places[:1], names=["a/b"])


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("model.layers.{}.q_proj", "layers.{}.q_proj", True),
        ("language_model.model.layers.{}.q_proj", "model.language_model.layers.{}.q_proj", True),
        ("transformer.h.{}.q_proj", "h.{}.q_proj", True),
        ("model.encoder.layers.{}.q_proj", "model.decoder.layers.{}.q_proj", False),
        ("vision.layers.{}.q_proj", "text.layers.{}.q_proj", False),
    ],
)
def test_one_module_under_two_names_is_warned_of(tmp_path, first, second, alike):
    made = [
        write_peft(tmp_path / name, factors(0, [shape.format(i) for i in range(2)]), target_modules=["q_proj"])
        for name, shape in (("a", first), ("b", second))
    ]
    said = two_names(open_sources(made))
    assert (said is not None and said.startswith("2 modules")) is alike
    assert two_names(open_sources(made[:1])) is None


def _rewritten(folder, config=None, tensors=None):
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    if tensors is not None:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({**CONFIG, "enable_lora": [True, False, True]}, "enable_lora"),
        ({**CONFIG, "init_lora_weights": "loftq"}, "LoftQ"),
        ({"model_class": "M", "hidden_size": 8, "config": {}}, "AdapterHub"),
    ],
)
def test_configurations_are_named_for_what_they_are(tmp_path, config, word):
    with pytest.raises(FormatError, match=word):
        open_sources([_rewritten(write_peft(tmp_path / "a", factors(0)), config)])


def test_empty_tensors_are_those_of_zero3(tmp_path):
    folder = write_peft(tmp_path / "a", factors(0))
    tensors = {key: np.zeros(0, np.float32) for key in load_file(folder / "adapter_model.safetensors")}
    with pytest.raises(FormatError, match="ZeRO-3"):
        open_adapter(_rewritten(folder, tensors=tensors))


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("config.json", '{"type": "act", "input_features": {}}', "LeRobot"),
        ("config.json", '{"model_type": "llama"}', "a whole model"),
        ("head_config.json", "{}", "AdapterHub"),
        ("notes.txt", "", "a folder without adapter_config.json"),
    ],
)
def test_other_folders_are_named(tmp_path, name, text, word):
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=word):
        open_sources([tmp_path])


def test_adapters_in_folders_of_a_folder_are_pointed_at(tmp_path):
    write_peft(tmp_path / "out" / "ranking", factors(0))
    with pytest.raises(FormatError, match=r"of its own \(ranking\)"):
        open_sources([tmp_path / "out"])
