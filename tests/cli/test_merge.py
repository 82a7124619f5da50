"""`share-jax merge`: the methods' updates, and whose heads and configuration are written."""

import json

import numpy as np
import pytest
from adapter_makers import MODULES, distance, factors, updates, write_peft
from safetensors.numpy import load_file

from share_jax.formats.export import merged_config
from share_jax.formats.peft import open_adapter
from share_jax.formats.peft_modules import created


def test_linear_merge_is_the_weighted_sum(run, made, adapters, tmp_path):
    code, data, _ = run("merge", made[0], "t0", "t2", "-o", tmp_path / "out", "--weights", 0.25, -2)
    assert (code, data["method"]) == (0, "linear")
    x, y, found = updates(adapters[0]), updates(adapters[2]), updates(tmp_path / "out")
    assert distance({m: 0.25 * x[m] - 2 * y[m] for m in x}, found) < 1e-5


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_other_merges_write_an_adapter(run, made, tmp_path, method):
    code, _, _ = run("merge", made[0], "t0", "t2", "-o", tmp_path / "out", "--method", method, "--rank", 4)
    assert code == 0
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 4
    assert all(np.isfinite(u).all() and np.abs(u).max() > 0 for u in updates(tmp_path / "out").values())


def test_ties_of_a_task_and_its_copy_is_the_task(run, tmp_path):
    folders = [write_peft(tmp_path / name, factors(0)) for name in ("one", "copy")]
    assert run("compress", *folders, "-o", tmp_path / "set")[0] == 0
    argv = ("merge", tmp_path / "set", "one", "copy", "--method", "ties", "--density", 1)
    code, data, _ = run(*argv, "-o", tmp_path / "out")
    assert (code, data["weights"]) == (0, [1, 1])
    assert distance(updates(folders[0]), updates(tmp_path / "out")) < 1e-5
    assert run(*argv, "-o", tmp_path / "half", "--weights", 0.5, 0.5)[0] == 0
    halves = {module: update / 2 for module, update in updates(folders[0]).items()}
    assert distance(halves, updates(tmp_path / "half")) < 1e-5


@pytest.mark.parametrize("method", ["linear", "dare"])
def test_weights_sum_to_one_where_the_method_adds(run, made, adapters, tmp_path, method):
    dropped = ("--drop-rate", 0) if method == "dare" else ()
    code, data, _ = run("merge", made[0], "t0", "t2", "-o", tmp_path / "out", "--method", method, *dropped)
    assert (code, data["weights"]) == (0, [0.5, 0.5])
    x, y = updates(adapters[0]), updates(adapters[2])
    assert distance({m: (x[m] + y[m]) / 2 for m in x}, updates(tmp_path / "out")) < 1e-5


@pytest.mark.parametrize(
    ("method", "flag"),
    [
        ("linear", "--density"),
        ("linear", "--drop-rate"),
        ("linear", "--seed"),
        ("ties", "--drop-rate"),
        ("ties", "--seed"),
        ("dare", "--density"),
    ],
)
def test_a_flag_that_the_method_does_not_use_is_refused(run, made, tmp_path, method, flag):
    value = "0" if flag == "--seed" else "0.2"
    code, _, err = run("merge", made[0], "t0", "t2", "-o", tmp_path / "out", "--method", method, flag, value)
    assert (code, len(err)) == (2, 1)
    assert f"{flag}: got --method {method}, which does not use it" in err[0]
    assert not (tmp_path / "out").exists()


def test_heads_are_not_merged_in_silence(run, tmp_path):
    for i in range(2):
        write_peft(tmp_path / f"t{i}", factors(i), extras={"base_model.model.score.weight": np.full(2, i, np.float32)})
    assert run("compress", tmp_path / "t0", tmp_path / "t1", "-o", tmp_path / "set")[0] == 0
    code, _, err = run("merge", tmp_path / "set", "t0", "t1", "-o", tmp_path / "out")
    assert (code, len(err)) == (2, 1)
    assert "--heads-from" in err[0]
    assert run("merge", tmp_path / "set", "t0", "t1", "-o", tmp_path / "out", "--heads-from", "t1")[0] == 0
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    np.testing.assert_array_equal(found["base_model.model.score.weight"], [1, 1])


def test_a_buffer_of_training_does_not_stand_in_the_way_of_a_merge(run, tmp_path):
    for i in range(2):
        extras = {f"base_model.model.{MODULES[0]}.lora_velora_embed": np.ones(1, np.float32)}
        write_peft(tmp_path / f"t{i}", factors(i), extras=extras, velora_config={"num_groups": 2})
    assert run("compress", tmp_path / "t0", tmp_path / "t1", "-o", tmp_path / "set")[0] == 0
    assert run("merge", tmp_path / "set", "t0", "t1", "-o", tmp_path / "out")[0] == 0


SCORE = {"base_model.model.score.weight": np.ones((2, 3), np.float32)}
HEADED = {"modules_to_save": ["score"], "bias": "lora_only", "task_type": "SEQ_CLS"}


@pytest.fixture
def headed(run, tmp_path):
    """A set of two plain tasks and of two with a head."""
    plain = [write_peft(tmp_path / f"plain{i}", factors(i)) for i in range(2)]
    heads = [write_peft(tmp_path / f"head{i}", factors(2 + i), extras=SCORE, **HEADED) for i in range(2)]
    assert run("compress", *plain, *heads, "-o", tmp_path / "set")[0] == 0
    return tmp_path / "set"


def test_heads_bring_the_configuration_that_says_what_they_are(run, headed, tmp_path):
    assert run("merge", headed, "plain0", "head0", "-o", tmp_path / "out", "--heads-from", "head0")[0] == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert {key: config[key] for key in HEADED} == HEADED
    assert set(SCORE) < set(load_file(tmp_path / "out" / "adapter_model.safetensors"))
    assert run("merge", headed, "plain0", "plain1", "-o", tmp_path / "none")[0] == 0
    config = json.loads((tmp_path / "none" / "adapter_config.json").read_text())
    assert (config["modules_to_save"], config["bias"], config["task_type"]) == (None, "none", "CAUSAL_LM")


def test_a_key_that_the_heads_task_does_not_have_is_not_written():
    configs = {
        "a": {"bias": "all", "task_type": "X", "target_modules": ["q"], "r": 2},
        "b": {"task_type": "Y", "target_modules": ["q"], "r": 9},
    }
    assert merged_config(configs, {}, "b") == {"task_type": "Y", "target_modules": ["q"], "r": 2}


LAYERS = tuple(f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qv")
WHICH = {
    "layers_to_transform": ({"layers_to_transform": [0]}, {"layers_to_transform": [1, 2]}),
    "layers_pattern": (
        {"layers_to_transform": 0, "layers_pattern": "layers"},
        {"layers_to_transform": [1, 2], "layers_pattern": ["layers"]},
    ),
    "exclude_modules": ({"exclude_modules": r".*\.[12]\..*"}, {"exclude_modules": r".*\.0\..*"}),
    "an expression": (
        {"target_modules": r"model\.layers\.0\..*"},
        {"target_modules": r"(?i)MODEL\.layers\.[12]\..*"},
    ),
    "all layers and one": ({"layers_to_transform": [0]}, {"layers_to_transform": None}),
}


@pytest.mark.parametrize("case", WHICH)
@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_the_config_of_a_merge_names_exactly_the_modules_that_are_there(run, tmp_path, case, order):
    parts = {"a": LAYERS[:2], "b": LAYERS if case.startswith("all") else LAYERS[2:]}
    for i, (name, said) in enumerate(zip(parts, WHICH[case], strict=True)):
        write_peft(tmp_path / name, factors(i, parts[name]), **said)
    assert run("compress", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "set")[0] == 0
    assert run("merge", tmp_path / "set", *order, "-o", tmp_path / "out")[0] == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    others = {"model.layers.3.self_attn.q_proj", "model.layers.0.self_attn.k_proj", f"x.{LAYERS[0]}"}
    assert created(config, {*LAYERS, *others}) == set(LAYERS)
    assert set(open_adapter(tmp_path / "out").layers) == set(LAYERS)


def test_targets_that_say_the_same_stay_as_they_are(run, tmp_path):
    write_peft(tmp_path / "a", factors(0), layers_to_transform=[])
    write_peft(tmp_path / "b", factors(1), target_modules=["v_proj", "q_proj"])
    assert run("compress", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "set")[0] == 0
    assert run("merge", tmp_path / "set", "a", "b", "-o", tmp_path / "out")[0] == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["target_modules"], config["layers_to_transform"]) == (["q_proj", "v_proj"], [])


@pytest.mark.parametrize("saved", ["v_proj", "self_attn", "model.layers.1"])
def test_a_module_that_one_task_holds_whole_and_another_adapts_is_refused(run, tmp_path, saved):
    write_peft(
        tmp_path / "whole", factors(0, ["model.layers.0.mlp.up"]), modules_to_save=[saved], target_modules=["up"],
        extras={f"base_model.model.{LAYERS[3]}.weight": np.ones((20, 24), np.float32)},
    )  # fmt: skip
    write_peft(tmp_path / "pair", factors(1, LAYERS[2:]))
    assert run("compress", tmp_path / "whole", tmp_path / "pair", "-o", tmp_path / "set")[0] == 0
    code, _, err = run("merge", tmp_path / "set", "whole", "pair", "-o", tmp_path / "out", "--heads-from", "whole")
    assert (code, len(err)) == (2, 1)
    assert "saved whole by whole" in err[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("tasks", "flag", "words"),
    [
        (("plain0", "head1", "head0"), None, "pass --heads-from TASK, for example head1"),
        (("plain0", "head1"), "plain0", "--heads-from plain0: got a task without heads or biases"),
        (("plain0", "head1"), "plain0", "name another, for example head1"),
        (("plain0", "plain1"), "plain1", "leave the flag out"),
        (("plain0", "plain1"), "nope", "no such task"),
    ],
)
def test_heads_from_names_a_task_that_has_some(run, headed, tmp_path, tasks, flag, words):
    given = () if flag is None else ("--heads-from", flag)
    code, _, err = run("merge", headed, *tasks, "-o", tmp_path / "out", *given)
    assert (code, len(err)) == (2, 1)
    assert words in err[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("moved", [0, 1])
def test_embeddings_that_peft_saved_whole_and_untrained_are_written_once(run, tmp_path, moved):
    name = "base_model.model.model.embed_tokens.base_layer.weight"
    for t in range(2):
        pair = {f"base_model.model.model.embed_tokens.lora_embedding_{side}": np.full(shape, t + 1, np.float32)
                for side, shape in (("A", (4, 9)), ("B", (6, 4)))}  # fmt: skip
        whole = {name: np.full((9, 6), 1 + t * moved, np.float32)}
        write_peft(
            tmp_path / f"t{t}", factors(t), extras=pair | whole, target_modules=["q_proj", "v_proj", "embed_tokens"]
        )
    assert run("compress", tmp_path / "t0", tmp_path / "t1", "-o", tmp_path / "set")[0] == 0
    code, data, err = run("merge", tmp_path / "set", "t0", "t1", "-o", tmp_path / "out")
    if moved:
        assert (code, len(err)) == (2, 1)
        assert name in err[0]
        assert "--heads-from TASK" in err[0]
    else:
        assert (code, err, data["modules"]) == (0, [], len(MODULES) + 1)
        np.testing.assert_array_equal(load_file(tmp_path / "out" / "adapter_model.safetensors")[name], np.ones((9, 6)))
