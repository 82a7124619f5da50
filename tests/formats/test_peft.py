"""PEFT folders: scales, patterns, what is kept, what is refused."""

import json
import math

import ml_dtypes
import numpy as np
import pytest
from adapter_makers import CONFIG, MODULES, factors, write_peft
from safetensors.numpy import load_file, save_file

from share_jax.errors import FormatError, InputError, ShareError
from share_jax.formats.peft import open_adapter, write_adapter
from share_jax.formats.peft_config import parse_config


def test_reads_factors_transposed_with_their_scale(tmp_path):
    pairs = factors(0)
    source = open_adapter(write_peft(tmp_path / "cola", pairs))
    assert (source.name, source.base_model, source.extra_names) == ("cola", "acme/tiny", ())
    for module, factor in source.adapter().items():
        a, b = pairs[module]
        np.testing.assert_array_equal(factor.lora_a, a.T)
        np.testing.assert_array_equal(factor.lora_b, b.T)
        assert factor.scale == 2.0
    assert list(source.adapter((MODULES[1],))) == [MODULES[1]]


@pytest.mark.parametrize(
    ("changes", "module", "rank", "scale"),
    [
        ({"use_rslora": True}, "model.a.q", 4, 8 / 2),
        ({"rank_pattern": {"q": 2}}, "model.a.q", 2, 4),
        ({"rank_pattern": {"q": 2}}, "model.a.xq", 4, 2),
        ({"rank_pattern": {r"a\.\w+": 2}}, "model.a.q", 2, 4),
        ({"rank_pattern": {"^a.q": 2}}, "model.a.q", 4, 2),
        ({"rank_pattern": {"^model.a.q": 2}}, "model.a.q", 2, 4),
        ({"rank_pattern": {"q": 2, "model.a.q": 16}}, "model.a.q", 2, 4),
        ({"rank_pattern": {"q": 2}, "alpha_pattern": {"a.q": 6}, "use_rslora": True}, "model.a.q", 2, 6 / math.sqrt(2)),
        ({"alpha_pattern": {"a|b": 3}}, "model.a", 4, 0.75),
    ],
)
def test_rank_and_scale_follow_the_patterns(changes, module, rank, scale):
    settings = parse_config({**CONFIG, **changes}, "x")
    assert settings.rank_of(module) == rank
    assert settings.scale_of(module) == pytest.approx(scale)


def test_reading_and_writing_changes_no_byte(tmp_path):
    extras = {
        "base_model.model.classifier.weight": np.arange(6, dtype=np.float16).reshape(2, 3),
        "base_model.model.x.base_layer.bias": np.array([1.5, 2], ml_dtypes.bfloat16),
        "base_model.model.ids": np.array([3], np.int64),
    }
    folder = write_peft(
        tmp_path / "a", factors(1), extras=extras, dtype=ml_dtypes.bfloat16, modules_to_save=["classifier"], bias="all"
    )
    source = open_adapter(folder)
    assert set(source.extra_names) == set(extras)
    (tmp_path / "b").mkdir()
    pairs = {m: (f.lora_a, f.lora_b) for m, f in source.adapter().items()}
    write_adapter(tmp_path / "b", source.config, pairs, source.extras(), source.metadata, "bf16")
    old, new = (load_file(tmp_path / n / "adapter_model.safetensors") for n in "ab")
    assert set(old) == set(new)
    for key in old:
        assert old[key].dtype == new[key].dtype
        assert old[key].tobytes() == new[key].tobytes()
    configs = [json.loads((tmp_path / n / "adapter_config.json").read_text()) for n in "ab"]
    assert configs[0] == configs[1]
    assert list(configs[0]) == list(configs[1])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": None}, "peft_type"),
        ({"use_dora": True}, "use_dora"),
        ({"use_qalora": True}, "QALoRA"),
        ({"use_some_new_thing": True}, "use_some_new_thing"),
        ({"novel_config": {"x": 1}}, "novel_config"),
        ({"kasa_config": {"beta": 1}}, "KaSA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"layer_replication": [[0, 4]]}, "layer_replication"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"alora_invocation_tokens": [1]}, "alora"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"r": 0}, " r:"),
        ({"r": "4"}, " r:"),
        ({"r": True}, " r:"),
        ({"r": 8}, "8 as the config says"),
        ({"rank_pattern": {"q_proj": 8}}, "8 as the config says"),
        ({"rank_pattern": {"(": 8}}, "regular expression"),
        ({"rank_pattern": {"q_proj": 2.5}}, "whole number"),
        ({"alpha_pattern": {"q": "x"}}, "alpha_pattern"),
        ({"alpha_pattern": 3}, "map"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
        ({"target_modules": ["q_proj"]}, "target_modules"),
        ({"target_modules": r".*\.q_proj"}, "target_modules"),
        ({"target_modules": "("}, "regular expression"),
        ({"target_modules": 5}, "target_modules"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, changes, word):
    folder = write_peft(tmp_path / "a", factors(0), **changes)
    with pytest.raises(FormatError, match=word) as error:
        open_adapter(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": r".*\.[qv]_proj"},
        {"target_modules": "all-linear"},
        {"target_modules": None},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2}},
        {"init_lora_weights": "gaussian"},
        {"lora_alpha": 3.5},
    ],
)
def test_what_is_supported_passes(tmp_path, changes):
    assert len(open_adapter(write_peft(tmp_path / "a", factors(0), **changes)).layers) == len(MODULES)


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.x.lora_magnitude_vector.weight",
        "base_model.model.x.lora_embedding_A",
        "base_model.model.x.lora_B.bias",
        "base_model.model.x.lora_A.other.weight",
        "base_model.model.x.hada_w1_a",
        "base_model.model.x.lora_A.weight",
    ],
)
def test_tensors_of_other_kinds_are_named(tmp_path, key):
    folder = write_peft(tmp_path / "a", factors(0), extras={key: np.zeros((4, 3), np.float32)})
    with pytest.raises(FormatError, match="x"):
        open_adapter(folder)


def _rewrite(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("key", [f"base_model.model.{MODULES[0]}.lora_B.weight", "base_model.model.score.weight"])
def test_nan_and_infinity_are_refused(tmp_path, value, key):
    folder = write_peft(tmp_path / "a", factors(0), extras={"base_model.model.score.weight": np.ones(3, np.float32)})
    _rewrite(folder, lambda tensors: tensors[key].__setitem__(-1, value))
    source = open_adapter(folder)
    with pytest.raises(FormatError, match=r"lora_B|score"):
        source.extras(), source.adapter()


def test_shapes_that_contradict_each_other_are_refused(tmp_path):
    folder = write_peft(tmp_path / "a", factors(0))
    key = f"base_model.model.{MODULES[0]}.lora_B.weight"
    _rewrite(folder, lambda tensors: tensors.__setitem__(key, np.zeros((20, 3), np.float32)))
    with pytest.raises(FormatError, match=r"\(20, 3\)"):
        open_adapter(folder)


def test_integers_as_factors_are_refused(tmp_path):
    with pytest.raises(FormatError, match="I32"):
        open_adapter(write_peft(tmp_path / "a", factors(0), dtype=np.int32))


def test_missing_parts(tmp_path):
    with pytest.raises(InputError, match="nothing there"):
        open_adapter(tmp_path / "none")
    folder = write_peft(tmp_path / "a", factors(0))
    (folder / "adapter_config.json").rename(folder / "other")
    with pytest.raises(FormatError, match=r"adapter_config\.json"):
        open_adapter(folder)
    folder = write_peft(tmp_path / "b", {})
    with pytest.raises(FormatError, match="no lora_A"):
        open_adapter(folder)


def test_another_file_under_the_name_of_a_pickle_is_refused(tmp_path):
    folder = write_peft(tmp_path / "a", factors(0))
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(FormatError, match="a zip archive as"):
        open_adapter(folder)


def test_a_value_too_large_for_the_dtype_is_refused(tmp_path):
    with pytest.raises(ShareError, match="f32"):
        write_adapter(tmp_path, CONFIG, {"q": (np.full((2, 1), 1e6), np.ones((1, 2)))}, {}, {}, "f16")
