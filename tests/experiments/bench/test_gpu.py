"""The suite `gpu` on a CPU: what it refuses, how its ratios are read, and how the page names it. No model runs."""

import re

import pytest

from experiments.bench import gpu
from experiments.bench.decoders import decoder, decoder_files
from experiments.bench.page import page
from experiments.bench.record import BARS, document
from experiments.bench.suite import Options
from share_jax.errors import ShareError


def test_without_a_gpu_it_says_so_in_one_line(tmp_path):
    with pytest.raises(ShareError, match=r"device: got cpu, expected a GPU.*--tiny") as error:
        gpu.run(Options(1, tmp_path), None)
    assert "\n" not in str(error.value)
    assert gpu.device_of(Options(1, tmp_path, tiny=True)) == "cpu"


def test_ratios_of_mixed_batches_answer_the_bars():
    prefix, ours, peft = "mixed, smollm2-135m, bfloat16: ", "share_jax", "PEFT"
    times = {
        (f"{prefix}one task, 10 stored", ours): {0: 1.0},
        (f"{prefix}one task, 1,000 stored", ours): {0: 1.1},
        (f"{prefix}32 tasks, 1,000 stored", ours): {0: 1.21},
        (f"{prefix}one task", peft): {0: 2.2},
        (f"{prefix}32 tasks", peft): {0: 12.1},
    }
    found = gpu.mixed_ratios(times, prefix, 32, (10, 1000))
    assert {name.removeprefix(prefix): value for name, value in found.items()} == {
        "32 tasks / one task": pytest.approx(1.1),
        "one task, 1,000 stored / 10 stored": pytest.approx(1.1),
        "one task, ours / PEFT": pytest.approx(0.5),
        "32 tasks, ours / PEFT": pytest.approx(0.1),
    }
    for bar in BARS["gpu"][1:]:
        assert any(re.fullmatch(bar.pattern, name) for name in found), bar.pattern


def test_a_peer_that_draws_its_weights_is_given_none(tmp_path):
    files = decoder_files(decoder("tiny", 2, 8), tmp_path, drawn=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs.safetensors"]
    assert "weights" not in files


def test_a_page_says_which_suites_were_not_run():
    row = {"case": "step", "system": "share_jax", "median_s": 0.5, "iqr_s": 0.1, "repetitions": 3}
    text = page([document("tasks", [row], {}, {}, rounds=1)])
    assert "## `gpu`: steps, mixed batches and decoding on a GPU\n\nNot run: `python -m experiments.bench gpu`" in text
    assert "Not run: `python -m experiments.bench tasks`" not in text
