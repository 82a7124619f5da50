"""Which modules PEFT creates, with which rank: its rules written out, and configurations for exactly some modules."""

import random
import re

import numpy as np
import pytest

from share_jax.adapters.factors import Factors
from share_jax.formats.export import export_adapter
from share_jax.formats.peft import open_adapter
from share_jax.formats.peft_config import parse_config
from share_jax.formats.peft_modules import created, exact_expression, fitting_config, rules_for

NAMES = [
    f"{head}layers.{i}.{tail}"
    for head in ("", "model.", "enc.", "x.model.")
    for i in (0, 1, 10)
    for tail in ("q", "v", "xq", "mlp.experts.1.up")
]
NAMES += ["lin", "a.lin", "b.a.lin", "q", "model.q", "h.1", "h11", "a_b", "a.b", "odd(1)", "a.odd(1)"]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"target_modules": ["q", "up"], "layers_to_transform": [1]}, {"m.layers.1.q", "m.layers.1.experts.0.up"}),
        ({"target_modules": ["q"], "layers_to_transform": 0, "layers_pattern": "layers"}, {"m.layers.0.q"}),
        ({"target_modules": ["q"], "layers_to_transform": [0], "layers_pattern": ["h"]}, {"m.h.0.q"}),
        ({"target_modules": ["q"], "layers_to_transform": [0], "layers_pattern": "la.*s"}, {"m.layers.0.q"}),
        ({"target_modules": ["m.layers.0.q"], "layers_to_transform": [7]}, {"m.layers.0.q"}),
        ({"target_modules": ["q"], "exclude_modules": ["layers.0.q", "h.0.q"]}, {"m.layers.1.q"}),
        ({"target_modules": ["q"], "exclude_modules": r".*\.0\..*"}, {"m.layers.1.q"}),
        ({"target_modules": r"(?i)M\.H\..*"}, {"m.h.0.q"}),
        ({"target_modules": ["q"], "modules_to_save": ["layers"]}, {"m.h.0.q"}),
        (
            {"target_modules": "all-linear", "exclude_modules": ["q"]},
            {"m.layers.1.experts.0.up", "m.layers.0.experts.1.up"},
        ),
    ],
)
def test_what_peft_creates(config, found):
    names = {"m.layers.0.q", "m.layers.1.q", "m.h.0.q", "m.layers.1.experts.0.up", "m.layers.0.experts.1.up"}
    assert created(config, {*names, "head"}) == found


def test_an_exact_expression_matches_its_names_alone():
    rng = random.Random(0)
    for _ in range(100):
        names = set(rng.sample(NAMES, rng.randint(1, 20)))
        assert {name for name in NAMES if re.fullmatch(exact_expression(names), name)} == names
    assert exact_expression(["model.layers.0.q", "model.layers.1.q"]) == r"model\.layers\.(?:0|1)\.q"
    assert re.fullmatch(exact_expression([".".join("a" * 5000)]), ".".join("a" * 5000))


def _before_0_15(rules, name):
    return next((rule for rule in rules if re.match(rf".*\.{rule}$", name)), name)


def _today(rules, name):
    return next((rule for rule in rules if re.match(rf"(.*\.)?({rule})$", name)), name)


@pytest.mark.parametrize("rule_of", [_before_0_15, _today])
def test_rules_mean_the_same_to_every_version_of_peft(rule_of):
    rng = random.Random(1)
    for _ in range(200):
        names = rng.sample([name for name in NAMES if "(" not in name], rng.randint(1, 20))
        values = {name: rng.choice([4, 4, 8, 2]) for name in names}
        rules = rules_for(values, 4)
        assert {name: rules.get(rule_of(rules, name), 4) for name in names} == values
        assert not any(rule.startswith("^") for rule in rules)


def test_names_with_signs_of_expressions_have_rules_of_their_own():
    values = {"odd(1)": 2, "a.odd(1)": 8, "a.b": 4}
    rules = rules_for(values, 4)
    assert {name: rules.get(_today(rules, name), 4) for name in values} == values


def test_the_two_pairs_of_torchs_attention_have_one_rank_in_a_file(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"mha": (24, 72, 3), "mha.base_layer.out_proj": (24, 24, 2), "lin": (24, 8, 4)}
    adapter = {
        name: Factors(rng.normal(size=(d_in, r)).astype("f4"), rng.normal(size=(r, d_out)).astype("f4"), 2.0)
        for name, (d_in, d_out, r) in shapes.items()
    }
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["mha", "lin"]}
    written = export_adapter(tmp_path, adapter, config, {}, {}, "f32")
    assert (written["r"], written["rank_pattern"], written["target_modules"]) == (3, {"lin": 4}, ["mha", "lin"])
    found = open_adapter(tmp_path).adapter()
    for name, factors in adapter.items():
        update = 2 * factors.lora_a @ factors.lora_b
        np.testing.assert_allclose(found[name].scale * found[name].lora_a @ found[name].lora_b, update, atol=1e-5)
    assert parse_config(written, "x").rank_of("mha.base_layer.out_proj") == 3


def test_a_config_under_which_peft_would_lack_a_module_is_mended():
    config = {"target_modules": ["q"], "layers_to_transform": [0], "layers_pattern": None, "r": 4}
    names = {"m.layers.0.q", "m.layers.1.q"}
    mended = fitting_config(config, names)
    assert mended == {"target_modules": r"m\.layers\.(?:0|1)\.q", "layers_to_transform": None, "layers_pattern": None,
                      "r": 4}  # fmt: skip
    assert fitting_config(config, {"m.layers.0.q"}) == config
