"""What PEFT does with settings that are odd: the same update, or one line; the figures are PEFT 0.21's."""

import json
import math
import re

import numpy as np
import pytest
from adapter_makers import CONFIG, factors, write_peft
from foreign_adapters import normal
from safetensors.numpy import load_file

from share_jax.errors import FormatError
from share_jax.formats.other_kinds import METHODS
from share_jax.formats.peft import open_adapter

PAIRS = factors(0, modules=("m.q", "m.v"), d_in=6, d_out=5)


def updates(folder):
    return {m: x.scale * np.float64(x.lora_a) @ np.float64(x.lora_b) for m, x in open_adapter(folder).adapter().items()}


def products(scales):
    return {m: scales[m] * np.float64(a).T @ np.float64(b).T for m, (a, b) in PAIRS.items()}


@pytest.mark.parametrize(
    ("said", "q", "v"),
    [
        ({"lora_alpha": 0}, 0, 0),
        ({"lora_alpha": -6}, -1.5, -1.5),
        ({"lora_alpha": 0.1}, 0.025, 0.025),
        ({"alpha_pattern": {"q": 0}}, 0, 2),
        ({"alpha_pattern": {"m.q": -3, "v": 2.5}}, -0.75, 0.625),
        ({"use_rslora": True, "r": 9, "rank_pattern": {"q": 4, "v": 4}, "alpha_pattern": {"v": -7}}, 4, -3.5),
        ({"r": 64, "rank_pattern": {"(q|v)": 4}}, 2, 2),
        ({"r": 0, "rank_pattern": {"q": 4, "v": 4}}, 2, 2),
        ({"fan_in_fan_out": True}, 2, 2),
        ({"fan_in_fan_out": None, "use_rslora": None, "alpha_pattern": None}, 2, 2),
    ],
)  # fmt: skip
def test_scales_are_those_of_peft(run, tmp_path, said, q, v):
    folder = write_peft(tmp_path / "a", PAIRS, target_modules=["q", "v"], **said)
    expected = products({"m.q": q, "m.v": v})
    code, _, err = run("compress", folder, "-o", tmp_path / "set", "--explained-variance", 1)
    assert (code, err) == (0, [])
    assert run("export", tmp_path / "set", "a", "-o", tmp_path / "back")[0] == 0
    assert run("convert", folder, "-o", tmp_path / "copy", "--to", "peft")[0] == 0
    config = json.loads((tmp_path / "copy" / "adapter_config.json").read_text())
    assert None not in (config["rank_pattern"], config["alpha_pattern"])  # of which PEFT asks the keys
    for place in (folder, tmp_path / "back", tmp_path / "copy"):
        for module, update in updates(place).items():
            np.testing.assert_allclose(update, expected[module], rtol=1e-5, atol=1e-5)


def test_a_rank_and_an_alpha_that_are_not_said_are_8(run, tmp_path):
    pairs = factors(0, modules=("m.q",), rank=8)
    config = {key: value for key, value in CONFIG.items() if key not in ("r", "lora_alpha")}
    folder = write_peft(tmp_path / "a", pairs, config, target_modules=["q"])
    (layer,) = open_adapter(folder).layers.values()
    assert (layer.rank, layer.scale) == (8, 1.0)
    assert run("compress", folder, "-o", tmp_path / "set")[0] == 0
    code, data, _ = run("export", tmp_path / "set", "a", "-o", tmp_path / "back")
    assert (code, data["rank"], data["alpha"]) == (0, 8, 8)
    assert run("convert", folder, "-o", tmp_path / "copy", "--to", "peft")[0] == 0
    text = (folder / "adapter_config.json").read_text()
    assert (tmp_path / "copy" / "adapter_config.json").read_text() == text


@pytest.mark.parametrize(
    ("said", "line"),
    [({"r": 0}, " r: got 0"), ({"r": 0, "rank_pattern": {"q": 4}}, "m.v rank: got 4 in the file, expected 0"),
     ({"r": 4.0}, " r: got 4.0"),
     ({"lora_alpha": None}, "lora_alpha: got None"),
     ({"lora_alpha": "8"}, "lora_alpha: got '8'"), ({"lora_alpha": math.nan}, "the number NaN"),
     ({"use_rslora": "false"}, "use_rslora"), ({"rank_pattern": {"q": 0}}, "rank_pattern q: got 0"),
     ({"alpha_pattern": {"q": None}}, "alpha_pattern q: got None")],
)  # fmt: skip
def test_a_setting_of_another_kind_is_named(tmp_path, said, line):
    folder = write_peft(tmp_path / "a", PAIRS, target_modules=["q", "v"], **said)
    with pytest.raises(FormatError, match=line):
        open_adapter(folder)


TOKENS = "base_model.model.m.embed.token_adapter.trainable_tokens_delta"


@pytest.mark.parametrize(
    ("named", "rows", "line"),
    [
        ([1, 3], 2, None), ({"embed": [1, 3]}, 2, None), ({"m.embed": [1], "lm_head": [1]}, 1, None), ({}, None, None),
        (None, None, None), (None, 2, None),
        ([1, 3], None, "no trainable_tokens_delta in the file"), ([], None, "no trainable_tokens_delta"),
        ({"embed": [1]}, None, "set it to null"), ([1, 3], 1, r"shape \(1, 6\) for m.embed, expected 2 rows"),
        ({"embed": [1]}, 2, "expected 1 rows"), ("1", 1, "whole numbers"), ([1.5], 1, "whole numbers"),
    ],
)  # fmt: skip
def test_trained_tokens_are_there_as_the_configuration_says(tmp_path, named, rows, line):
    extras = {} if rows is None else {TOKENS: normal(0, rows, 6)}
    folder = write_peft(tmp_path / "a", PAIRS, extras=extras, target_modules=["q", "v"], trainable_token_indices=named)
    if line is None:
        assert set(open_adapter(folder).extra_names) == set(extras)
    else:
        with pytest.raises(FormatError, match=line):
            open_adapter(folder)


def test_trained_tokens_go_through_a_set(run, tmp_path):
    named = {"extras": {TOKENS: normal(0, 2, 6)}, "target_modules": ["q", "v"], "trainable_token_indices": [1, 3]}
    folder = write_peft(tmp_path / "a", PAIRS, **named)
    assert run("compress", folder, "-o", tmp_path / "set")[0] == 0
    assert run("export", tmp_path / "set", "a", "-o", tmp_path / "back")[0] == 0
    np.testing.assert_array_equal(load_file(tmp_path / "back" / "adapter_model.safetensors")[TOKENS], normal(0, 2, 6))
    assert json.loads((tmp_path / "back" / "adapter_config.json").read_text())["trainable_token_indices"] == [1, 3]


@pytest.mark.parametrize("kind", ["IA3", "VERA", "OFT", "LOHA", "LOKR", "ADALORA", "PROMPT_TUNING", "OF_THE_FUTURE"])
def test_folders_of_other_methods_are_refused_by_name(run, tmp_path, kind):
    tensors = {"IA3": {"m.q.ia3_l": (6, 1)}, "VERA": {"m.q.vera_lambda_b": (5,)}, "OFT": {"m.q.oft_R": (2, 3)},
               "LOHA": {"m.q.hada_w1_a": (5, 2)}, "LOKR": {"m.q.lokr_w1": (2, 2)}}.get(kind, {"x": (2,)})  # fmt: skip
    extras = {f"base_model.model.{key}": normal(0, *shape) for key, shape in tensors.items()}
    folder = write_peft(tmp_path / "a", {}, extras=extras, peft_type=kind, target_modules=["q"])
    for words in (("compress", folder), ("convert", folder, "--to", "kohya"), ("plan", folder)):
        code, _, err = run(*words, *([] if words[0] == "plan" else ["-o", tmp_path / "out"]))
        assert (code, len(err)) == (2, 1)
        assert f"peft_type: got '{kind}'" in err[0]
        assert METHODS.get(kind, "expected 'LORA'") in err[0]
    # the same tensors, in a folder that says it were LoRA
    if kind in ("IA3", "VERA", "OFT", "LOHA", "LOKR"):
        mixed = write_peft(tmp_path / "b", PAIRS, extras=extras, target_modules=["q", "v"])
        with pytest.raises(FormatError, match=f"got {METHODS[kind]}, which is no low-rank pair"):
            open_adapter(mixed)


@pytest.mark.parametrize(
    ("words", "sizes", "line"),
    [
        (("compress",), (1e19, 1e19), "target m.q of a: got norm"), (("compress",), (1e13, 1e20), None),
        (("convert", "--to", "peft", "--dtype", "f16"), (1e9, 1), "a value too large for f16, .* pass --dtype f32"),
        (("convert", "--to", "peft", "--dtype", "f32"), (1e200, 1e-200), "a value too large for f32"),
        (("compress",), (1e200, 1e-200), "takes them past float32"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:overflow")
def test_values_past_a_dtype_are_one_line_and_nothing_is_written(run, tmp_path, words, sizes, line):
    a, b = (np.float64(x) * size for x, size in zip(PAIRS["m.q"], sizes, strict=True))
    dtype = np.float64 if max(sizes) > 1e30 else np.float32
    folder = write_peft(tmp_path / "a", {"m.q": (a, b)}, target_modules=["q"], dtype=dtype)
    code, _, err = run(*words[:1], folder, *words[1:], "-o", tmp_path / "out")
    if line is None:
        assert (code, run("validate", tmp_path / "out")[0]) == (0, 0)
    else:
        assert (code, len(err), (tmp_path / "out").exists()) == (2, 1, False)
        assert re.search(line, err[0])
