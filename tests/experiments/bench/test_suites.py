"""Every suite from end to end on tiny models, one round, without peers: what is found, never how long it took."""

import json

import jax
import numpy as np
import pytest

from experiments.bench.__main__ import main
from experiments.bench.compiles import compilations
from experiments.bench.lower_bound import first_block, outputs_of, perturbed
from experiments.bench.record import SUITES, read
from experiments.bench.steps import adapted_of, forms
from experiments.bench.subjects import minilm, vit

EXPECTED = {
    "train": ({"frozen forward", "full fine-tune", "floor", "shared_a later task"}, "/ floor"),
    "prefix": ({"filling it", "steps with", "evaluations without"}, "whole task"),
    "roofline": (
        {"floor", "pass over memory", "3 of 4 x 2 x 4", *(form.name for form in forms())},
        "/ its operations at the product's rate",
    ),
    "serve": ({"shared_a, one task", "shared_a, 4 tasks", "share, 4 tasks", "merged kernels, switch"}, "merged"),
    "tasks": ({"step", "checkpoint, one more task", "start-up, all tasks"}, "compilations after the second task"),
    "adapters": ({"compress, whole command", "add, in process", "export, in process"}, "best possible"),
    "gpu": ({"shared_a later task", "one task, 4 stored", "2 rows, 2 tasks, 4 stored"}, "2 tasks / one task"),
    "tests": ({"import share_jax", "share-jax --help"}, "start-up: import share_jax / import jax"),
    "lm": (
        {"shared_a later task", "step with the cache", "step", "2 rows, 2 tasks, 4 stored", "2 rows, merged"},
        "20 passes, with / without cache",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_runs_from_end_to_end(suite, tmp_path, capsys):
    path = tmp_path / f"{suite}.json"
    words = [suite, "--tiny", "--rounds", "1", "--quiet", "--json", str(path), "--workdir", str(tmp_path / "work")]
    assert main(words) == 0
    found = read(path)
    cases, ratio = EXPECTED[suite]
    assert cases <= {row["case"].rpartition(": ")[2] for row in found["results"]}
    assert any(ratio in name for name in found["ratios"])
    assert all(np.isfinite(value) for value in found["ratios"].values())
    assert {row["repetitions"] for row in found["results"]} == {1}
    assert (found["tiny"], found["rounds"]) == (True, 1)
    assert path.with_suffix(".png").exists()
    assert f"wrote {path}" in capsys.readouterr().out
    if suite == "tasks":
        assert found["ratios"]["compilations after the second task"] == 0
    if suite == "serve":
        assert {row["compilations_of_other_mixes"] for row in found["results"] if "compilations" in row} == {0}
    if suite == "adapters":
        assert found["ratios"]["5 adapters: error, ours / best possible"] < 1.01
        assert 0 < found["ratios"]["7B, tiny, 3 adapters: compress, peak memory / 3 GiB"] < 1
    main(["page", str(path), "--out", str(tmp_path / "BENCH.md")])
    assert f"## `{suite}`" in (tmp_path / "BENCH.md").read_text()


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main(["roofline", "--rounds", "0"]) == 2
    assert main(["page"]) == 2
    (tmp_path / "x.json").write_text(json.dumps({"suite": "roofline"}))
    assert main(["page", str(tmp_path / "x.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(text.startswith("error: ") for text in lines)


def test_the_floor_reaches_back_to_the_first_block_and_no_further():
    """A perturbation of zero changes nothing; the first block is the lowest in number, not in spelling."""
    subject = minilm(8, tiny=True)
    adapted = adapted_of(subject, r"encoder/layer_[12]/attention/(query|value)/kernel", forms()[2].method)
    paths = first_block(adapted)
    assert paths == (("encoder", "layer_1", "attention", "query"), ("encoder", "layer_1", "attention", "value"))
    noise = outputs_of(subject, paths)
    assert {path.rpartition("/")[2]: zero.shape for path, zero in noise.items()} == {
        "query": (4, 8, 2, 4),
        "value": (4, 8, 2, 4),
    }
    plain = subject.model.apply(subject.base, **subject.inputs)
    np.testing.assert_array_equal(perturbed(subject.model, noise, subject.params, subject.inputs), plain)
    moved = perturbed(subject.model, {p: x + 1 for p, x in noise.items()}, subject.params, subject.inputs)
    assert np.abs(np.asarray(moved) - np.asarray(plain)).max() > 1e-4


def test_compilations_are_counted():
    double = jax.jit(lambda x: 2 * x)
    x = vit(tiny=True).inputs["images"]
    assert compilations(lambda: double(x)) == 1
    assert compilations(lambda: double(x)) == 0
