"""`results.json`: the schema to the letter, strict JSON, atomic writing, and one-line refusals."""

import copy
import json

import numpy as np
import pytest

from experiments.report import results as module
from experiments.report.results import MethodResult, Results, Run, load_results, to_json, write_results
from share_jax.errors import FormatError, InputError

NAN = float("nan")
PARAMS = {
    "base": 1000,
    "shared": 40,
    "per_task": 8,
    "heads_per_task": 5,
    "total_tasks": 56,
    "separate_lora_total": 96,
    "ratio_to_separate": 56 / 96,
    "ratio_to_separate_with_heads": 66 / 106,
}
VERSIONS = {"python": "3.11.0", "share_jax": None}


def small(**changes):
    runs = (
        Run(0, np.array([[0.75, 0.25], [0.5, 1.0]]), np.array([0.5, 0.125]), {"train": 2.0, "evaluate": 1.0}),
        Run(3, np.array([[0.5, 0.25], [0.5, 0.5]]), np.array([0.5, 0.25]), {"train": 4.0, "evaluate": 1.0}),
    )
    joint = (Run(0, np.array([[NAN, NAN], [0.5, 1.0]]), np.full(2, NAN), {"total": 5.0, "train": 4.0}),)
    fields = {
        "experiment": "digits5",
        "preset": "quick",
        "protocol": "task-incremental",
        "task_names": ("0+1", "2+3"),
        "methods": (
            MethodResult("shared_a", runs, PARAMS, {"shared": 160}),
            MethodResult("joint", joint, PARAMS | {"ratio_to_separate": None}, {}),
        ),
        "command": "python -m experiments.run --preset quick",
    }
    return Results(**(fields | changes))


def one_method(**changes):
    run = {"seed": 0, "accuracy": np.eye(2), "untrained": np.zeros(2), "seconds": {}}
    method = {"name": "m", "runs": (Run(**(run | changes.pop("run", {}))),), "params": PARAMS, "bytes": {}}
    return small(methods=(MethodResult(**(method | changes)),))


def test_content_is_the_schema_to_the_letter():
    content = to_json(small(), VERSIONS)
    assert list(content) == [
        "schema",
        "experiment",
        "preset",
        "protocol",
        "command",
        "tasks",
        "seeds",
        "methods",
        "versions",
    ]
    assert content["schema"] == 1
    assert content["seeds"] == [0, 3]
    assert list(content["methods"]) == ["shared_a", "joint"]
    method = content["methods"]["shared_a"]
    assert list(method) == ["runs", "mean", "std", "params", "bytes"]
    assert method["runs"][0] == {
        "seed": 0,
        "accuracy_matrix": [[0.75, 0.25], [0.5, 1.0]],
        "untrained": [0.5, 0.125],
        "acc": 0.75,
        "learning_accuracy": 0.875,
        "bwt": -0.25,
        "fwt": 0.125,
        "forgetting": 0.25,
        "retention": (0.5 / 0.75 + 1) / 2,
        "average_incremental_accuracy": 0.75,
        "seconds": {"train": 2.0, "evaluate": 1.0},
        "extra": {},
    }
    assert method["params"] == PARAMS


def test_mean_and_sample_deviation_over_runs():
    method = to_json(small(), VERSIONS)["methods"]["shared_a"]
    assert method["mean"]["acc"] == pytest.approx((0.75 + 0.5) / 2)
    assert method["std"]["acc"] == pytest.approx(0.25 / np.sqrt(2))  # n - 1 of {0.75, 0.5}
    assert method["mean"]["seconds"] == {"train": 3.0, "evaluate": 1.0}
    assert method["std"]["seconds"]["train"] == pytest.approx(np.sqrt(2))


def test_one_run_has_no_deviation_and_undefined_measures_are_null():
    joint = to_json(small(), VERSIONS)["methods"]["joint"]
    assert joint["std"]["acc"] is None
    assert joint["mean"]["acc"] == 0.75
    assert joint["mean"]["bwt"] is None
    assert joint["runs"][0]["accuracy_matrix"][0] == [None, None]
    assert joint["params"]["ratio_to_separate"] is None


def test_a_measure_undefined_in_one_run_is_null_over_all():
    whole = Run(0, np.eye(2), np.zeros(2), {"train": 1.0})
    part = Run(1, np.array([[NAN, NAN], [0.5, 0.5]]), np.zeros(2), {})
    method = to_json(small(methods=(MethodResult("m", (whole, part), PARAMS, {}),)), VERSIONS)["methods"]["m"]
    assert method["mean"]["bwt"] is None
    assert method["mean"]["acc"] == 0.5
    assert method["mean"]["seconds"] == {"train": None}


def test_written_file_is_strict_stable_and_loads_as_it_was(tmp_path):
    path = tmp_path / "out" / "results.json"
    written = write_results(small(), path)
    text = path.read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text, parse_constant=pytest.fail) == written == load_results(path)
    write_results(small(), path)
    assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_versions_name_the_stack_and_the_device(tmp_path):
    versions = write_results(small(), tmp_path / "results.json")["versions"]
    named = {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "share_jax"}
    assert named | {"platform", "device_kind"} == set(versions)
    assert versions["numpy"] == np.__version__
    assert versions["device_kind"]


def test_failing_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_results(small(), path)
    before = path.read_bytes()

    def full_disk(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(module.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_results(small(experiment="other"), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("results", "told"),
    [
        (small(methods=()), "methods: got none"),
        (small(protocol="anything"), "protocol: got 'anything'"),
        (small(task_names=("a", "a")), "'a' more than once"),
        (small(task_names=("a", "b", "c")), "shape (2, 2)"),
        (one_method(params={"base": 1}), "no shared, per_task"),
        (one_method(bytes={"shared": NAN}), "bytes.shared: got nan"),
        (one_method(params=PARAMS | {"base": "many"}), "params.base: got 'many'"),
        (one_method(run={"accuracy": np.full((2, 2), 95.0)}), "got 95"),
        (one_method(run={"accuracy": [["x"]]}), "accuracy: got a list"),
        (one_method(run={"untrained": np.zeros(3)}), "untrained: got shape (3,)"),
        (one_method(run={"seconds": {"train": float("inf")}}), "seconds.train: got inf"),
        (one_method(run={"extra": {"found": NAN}}), "extra: got Out of range float values"),
        (one_method(run={"extra": {"found": np.zeros(2)}}), "extra: got Object of type ndarray"),
        (one_method(runs=()), "seeds: got none"),
    ],
)
def test_bad_results_are_one_line(results, told):
    with pytest.raises(InputError) as caught:
        to_json(results, VERSIONS)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numpy_scalars_become_plain_numbers():
    results = one_method(params=PARAMS | {"base": np.int64(7)}, run={"seconds": {"train": np.float32(0.5)}})
    content = to_json(results, VERSIONS)
    assert type(content["methods"]["m"]["params"]["base"]) is int
    json.dumps(content, allow_nan=False)


def change(content, keys, value):
    changed = copy.deepcopy(content)
    parent = changed
    for key in keys[:-1]:
        parent = parent[key]
    if value is KeyError:
        del parent[keys[-1]]
    else:
        parent[keys[-1]] = value
    return changed


METHOD = ("methods", "shared_a")
MEASURES = ("acc", "learning_accuracy", "bwt", "fwt", "forgetting", "retention")
ONE_TASK = {"seed": 0, "accuracy_matrix": [[0.5]], "seconds": {}, **dict.fromkeys(MEASURES)}


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (("schema",), 2, "results.json: schema: got 2, expected 1"),
        (("schema",), True, "schema: got True"),
        (("protocol",), KeyError, "protocol: got nothing"),
        (("methods",), {}, "methods: got none"),
        (("methods",), [], "methods: got [], expected an object"),
        (("seeds",), [0.5], "seeds[0]: got 0.5"),
        (("versions",), {"jax": 1}, "versions.jax: got 1"),
        (("tasks",), ["only one"], "number of tasks"),
        ((*METHOD, "runs"), [], "methods.shared_a.runs: got none"),
        ((*METHOD, "runs", 0, "acc"), "0.9", "methods.shared_a.runs[0].acc: got '0.9', expected a finite number"),
        ((*METHOD, "runs", 1, "accuracy_matrix"), [[0.1, 0.2]], "runs[1].accuracy_matrix: got 1 rows of [2]"),
        ((*METHOD, "runs", 1, "accuracy_matrix"), [[0.1]], "untrained: got 2 values, expected 1"),
        ((*METHOD, "runs", 0, "accuracy_matrix", 0, 1), 1.5, "accuracy_matrix[0][1]: got 1.5"),
        ((*METHOD, "runs", 0, "untrained"), [0.5], "untrained: got 1 values"),
        (("methods", "joint", "runs", 0), ONE_TASK, "number of tasks: got {'shared_a': 2, 'joint': 1, 'tasks': 2}"),
        ((*METHOD, "runs", 0, "extra"), [], "extra: got [], expected an object"),
        ((*METHOD, "mean", "bwt"), KeyError, "mean.bwt: got nothing"),
        ((*METHOD, "params", "shared"), KeyError, "params.shared: got nothing"),
        ((*METHOD, "bytes"), {"shared": False}, "bytes.shared: got False"),
    ],
)
def test_contradictions_to_the_schema_are_named_in_one_line(tmp_path, keys, value, told):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(change(to_json(small(), VERSIONS), keys, value)), encoding="utf-8")
    with pytest.raises(FormatError) as caught:
        load_results(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"schema": 1, "experi', "strict JSON"),
        (b'{"schema": NaN}', "the constant NaN"),
        (b"\xff\xfe\x00", "strict JSON"),
        (b"[]", "expected an object"),
        (b"[" * 100_000, "strict JSON"),
        (b"", "strict JSON"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, text, told):
    path = tmp_path / "results.json"
    path.write_bytes(text)
    with pytest.raises(FormatError) as caught:
        load_results(path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_one_line(tmp_path):
    with pytest.raises(FormatError, match=r"results\.json: got No such file"):
        load_results(tmp_path / "results.json")


def test_unknown_extra_keys_are_kept(tmp_path):
    path = tmp_path / "results.json"
    content = change(to_json(small(), VERSIONS), ("methods", "shared_a", "params", "ratio_to_base"), 0.5)
    content["note"] = {"any": ["thing", 1]}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load_results(path) == content


def test_the_six_required_measures_alone_are_enough(tmp_path):
    content = to_json(small(), VERSIONS)
    del content["tasks"], content["command"]
    for method in content["methods"].values():
        for values in (*method["runs"], method["mean"], method["std"]):
            del values["average_incremental_accuracy"]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert load_results(path) == content
