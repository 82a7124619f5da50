"""Expressions of untrusted files: matched as PEFT matches them, and never for long."""

import time

import pytest
from adapter_makers import MODULES, factors, write_peft

from share_jax.errors import FormatError
from share_jax.formats import expressions
from share_jax.formats.expressions import Expression, matching, rule_expression, target_expression
from share_jax.formats.peft import open_adapter

NAMES = tuple(f"model.layers.{i}.self_attn.{p}_proj" for i in range(8) for p in "qkvo")


@pytest.mark.parametrize(
    "text",
    [
        r".*\.q_proj",
        r"(?i).*\.Q_PROJ",
        r"(?i:.*\.Q_PROJ)",
        r"(?x) .* \. q_proj",
        r"(?s)^.*\.layers\.\d+\.self_attn\.q_proj$",
        r"model\.layers\.[0-7]{1}\.self_attn\.q_(?=proj).*",
    ],
)
def test_targets_are_matched_as_a_whole(text):
    assert matching([target_expression(text)], NAMES)[0] == frozenset(n for n in NAMES if n.endswith("q_proj"))


@pytest.mark.parametrize("rule", ["(?i)Q_PROJ", "(?i:Q_PROJ)", "q_proj", r"^.*\.q_proj", "self_attn.q_proj|x"])
def test_rules_are_matched_at_the_end_from_a_dot(rule):
    assert matching([rule_expression(rule)], NAMES)[0] == frozenset(n for n in NAMES if n.endswith("q_proj"))
    assert matching([rule_expression("_proj")], NAMES)[0] == frozenset()


def test_both_ways_of_matching_agree(monkeypatch):
    each = [target_expression(r".*\.[qv]_proj"), rule_expression(r"layers\.1\..*"), Expression("model", False)]
    here = matching(each, NAMES)
    monkeypatch.setattr(expressions, "STEPS", 0)
    assert matching(each, NAMES) == here
    assert [len(found) for found in here] == [16, 4, 32]


SLOW = {
    "nested": {"target_modules": "(([a-z_.0-9])+)+!"},
    "in a rule": {"rank_pattern": {"(.*.*)*!": 4}},
    "of alternatives": {"alpha_pattern": {"(?:[a-z_.0-9]|.)" * 30 + "!": 4}},
    "of optional characters": {"target_modules": ".?" * 60 + "." * 60},
    "of many stars": {"target_modules": ".*" * 12 + "!"},
}


@pytest.mark.parametrize("case", SLOW)
def test_a_slow_expression_is_refused_in_time(tmp_path, monkeypatch, case):
    monkeypatch.setattr(expressions, "SECONDS", 0.5)
    folder = write_peft(tmp_path / "a", factors(0), **SLOW[case])
    begin = time.perf_counter()
    with pytest.raises(FormatError, match=r"to match|not named by target_modules"):
        open_adapter(folder)
    assert time.perf_counter() - begin < 5


def test_a_complicated_expression_that_is_fast_is_read(tmp_path):
    text = r"^(?:.*?(?:language|model).*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.x{1,}\.(?:q|v))$"
    assert set(open_adapter(write_peft(tmp_path / "a", factors(0), target_modules=text)).layers) == set(MODULES)


@pytest.mark.parametrize("text", ["(", "(?P<", "*a", "a{2,1}", "x" * 70000, ".*(?i)q"])
def test_what_is_no_expression_is_named(tmp_path, text):
    with pytest.raises(FormatError, match="regular expression"):
        open_adapter(write_peft(tmp_path / "a", factors(0), target_modules=text))
