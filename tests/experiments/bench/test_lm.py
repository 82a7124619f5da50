"""The suite `lm`: what a decoder's twin is given, the parts by name, what is read off the times. No decoder runs."""

import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.bench import lm, lm_decode, lm_llama_cpp
from experiments.bench.decoders import ALL_LAYERS, CONFIGS, LAST_TEN, decoder, decoder_files, pattern_of
from experiments.bench.llama_files import llama_files
from experiments.bench.record import BARS
from experiments.bench.subjects import ALPHA, RANK
from share_jax.formats.gguf_lora import open_gguf
from share_jax.models.decoder_weights import decoder_names, parameters
from share_jax.models.gguf_file import load_gguf, read_gguf
from share_jax.trees import flat


@pytest.fixture(scope="module")
def subject():
    return decoder("tiny", 4, 8)


def test_smollm2_has_its_size():
    assert parameters(CONFIGS["smollm2-135m"]) == 134_515_008


def test_a_twin_gets_every_parameter_and_the_learnt_places(subject, tmp_path):
    files = decoder_files(subject, tmp_path)
    stored, inputs = load_file(files["weights"]), load_file(files["inputs"])
    table = decoder_names(CONFIGS["tiny"])
    assert stored.keys() == table.keys()
    leaves = flat(subject.params)
    for name, leaf in table.items():
        np.testing.assert_array_equal(leaf.to_params(stored[name]), leaves[leaf.place])
    np.testing.assert_array_equal(inputs["targets"], subject.labels)
    np.testing.assert_array_equal(subject.inputs["columns"][0], [4, 5, 6, 7])
    assert files["spec"]["num_key_value_heads"] == 2


def test_llama_cpp_gets_the_same_decoder_and_a_lora_on_every_kernel(subject, tmp_path):
    files = llama_files(subject, tmp_path)
    config, params = load_gguf(read_gguf(files["weights"]))
    own = CONFIGS["tiny"]
    assert (config.num_hidden_layers, config.vocab_size, config.rope_theta) == (2, own.vocab_size, own.rope_theta)
    stored = flat(params)
    for path, leaf in flat(subject.params).items():
        np.testing.assert_array_equal(stored[path], leaf)
    (source,) = open_gguf(files["lora"], (own.num_attention_heads, own.num_key_value_heads))
    adapter = source.adapter()
    assert len(adapter) == 2 * 7
    assert {pair.rank for pair in adapter.values()} == {RANK}
    assert {pair.scale for pair in adapter.values()} == {ALPHA / RANK}


def test_the_last_ten_layers_are_those():
    pattern = pattern_of(CONFIGS["smollm2-135m"], LAST_TEN)
    paths = [f"layer_{layer}/mlp/up/kernel" for layer in range(30)]
    assert [path for path in paths if re.fullmatch(pattern, path)] == paths[20:]
    assert re.fullmatch(pattern_of(CONFIGS["tiny"], ALL_LAYERS), "layer_0/attention/query/kernel")


def test_parts_have_names_that_only_finds(subject):
    name = lm.part_name("step", subject, ALL_LAYERS, "float32")
    assert name == "step, 4 x 8, all layers, float32"


def test_a_whole_task_is_one_filling_and_its_steps():
    prefix = "task, 8 x 128, last ten layers, float32: "
    own = {"filling the cache": 2.0, "step with the cache": 1.0, "step without": 2.0}
    times = {(prefix + name, "share_jax"): {0: s, 1: 3 * s} for name, s in own.items()}
    found = lm.task_ratios({**times, (f"{prefix}LoRA", "PEFT"): {0: 4.0, 1: 12.0}}, prefix)
    assert found[f"{prefix}6 passes, whole task / PEFT"] == pytest.approx((2 + 6) / 24)
    assert found[f"{prefix}2 passes, with / without cache"] == pytest.approx(1.0)
    assert not any("PEFT" in name for name in lm.task_ratios(times, prefix))


def test_a_step_is_held_to_its_floor_and_to_peft():
    prefix = "step, 8 x 128, all layers, float32: "
    own = {"shared_a later task": 3.0, "separate LoRA": 4.0, "floor": 2.5, "frozen forward": 1.0}
    times = {(prefix + name, "share_jax"): {0: s} for name, s in own.items()}
    peers = {(f"{prefix}LoRA", "PEFT"): {0: 6.0}, (f"{prefix}frozen forward", "torch"): {0: 2.0}}
    found = {name.removeprefix(prefix): value for name, value in lm.step_ratios({**times, **peers}, prefix).items()}
    assert found == {
        "shared_a later task / floor": pytest.approx(1.2),
        "shared_a later task / separate LoRA": pytest.approx(0.75),
        "separate LoRA / PEFT LoRA": pytest.approx(4 / 6),
        "shared_a later task / PEFT LoRA": pytest.approx(0.5),
        "floor / PEFT LoRA": pytest.approx(2.5 / 6),
        "frozen forward, ours / torch": pytest.approx(0.5),
    }


def test_decoding_is_read_without_the_first_token():
    """The first token takes 1 s of every case; one task 1 s more, 32 tasks 1.1 s, PEFT 6 s."""
    prefix, seconds = "decode, float32: ", {}
    for mix in lm_decode.OUR_MIXES:
        seconds[mix.name, "share_jax"] = 2.0 if mix.tasks == 1 else 2.1
    for mix in lm_decode.PEER_MIXES:
        seconds[mix.name, "PEFT"] = 7.0
    times = {(prefix + name, system): {0: value} for (name, system), value in seconds.items()}
    times |= {(f"{prefix}{lm_decode.FIRST}, {name}", system): {0: 1.0} for name, system in seconds}
    found = {name.removeprefix(prefix): value for name, value in lm_decode.decode_ratios(times, prefix).items()}
    assert found["32 rows, 32 tasks, 100 stored / one task"] == pytest.approx(1.1)
    assert found["32 rows, 8 tasks: 100 stored / 10 stored"] == pytest.approx(1.0)
    assert found["32 rows, 16 tasks, ours / PEFT"] == pytest.approx(1.1 / 6)
    assert found["32 rows, 16 tasks, first token, ours / PEFT"] == pytest.approx(1.0)
    names = [prefix + name for name in found]
    for bar in BARS["lm"][-3:]:
        assert any(re.fullmatch(bar.pattern, name) for name in names), bar.pattern


def test_decoding_is_held_to_llama_cpp_behind_the_first_token():
    seconds = {("8 rows", "share_jax"): 3.0, ("8 rows", "llama.cpp"): 5.0}
    seconds |= {(f"{lm_decode.FIRST}, 8 rows", "share_jax"): 1.0, (f"{lm_decode.FIRST}, 8 rows", "llama.cpp"): 4.0}
    prefix = lm_llama_cpp.PREFIX
    found = lm_llama_cpp.ratios({(prefix + name, system): {0: value} for (name, system), value in seconds.items()})
    assert found == {
        f"{prefix}8 rows, ours / llama.cpp": pytest.approx(2.0),
        f"{prefix}8 rows, first token, ours / llama.cpp": pytest.approx(0.25),
    }
