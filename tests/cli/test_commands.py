"""Every command through `main`, on small adapters; results against dense updates computed by numpy."""

import json
from itertools import pairwise

import numpy as np
import pytest
from adapter_makers import (
    CONFIG,
    MODULES,
    distance,
    factors,
    updates,
    write_adapters,
    write_lorashare,
    write_peft,
    write_vlora,
)
from safetensors.numpy import load_file

from share_jax.cli.bench import spread
from share_jax.cli.report import size_change

EXACT = 2e-6
"""Relative distance that float32 bases and coefficients of full rank may cost."""


def test_compress_reports_what_the_issue_asks_for(made, adapters):
    folder, data = made
    assert data["tasks"] == 5
    assert data["bytes_in"] == sum(f.stat().st_size for a in adapters for f in a.iterdir())
    assert data["bytes_out"] == sum(f.stat().st_size for f in folder.iterdir())
    assert data["ratio"] == pytest.approx(data["bytes_in"] / data["bytes_out"])
    assert data["k"] == {"min": 6, "mean": 6.0, "max": 6}
    assert set(data["relative_error"]) == {"mean", "max"}
    assert list(data["per_task"]) == [a.name for a in adapters]
    for task in data["per_task"].values():
        assert 0 <= task["relative_error"] <= task["error_bound"] * 1.001 + 1e-6
    assert data["relative_error"]["max"] < 1e-5
    assert data["seconds"] > 0


def test_info_says_the_same_as_compress(run, made):
    folder, data = made
    code, again, _ = run("info", folder)
    assert code == 0
    for name, task in data["per_task"].items():  # tables are kept in float32
        kept = {key: task[key] for key in again["per_task"][name]}
        assert again["per_task"][name] == pytest.approx(kept, rel=1e-6)
    known = {key: data[key] for key in again}  # compress alone has what errors are compared with
    assert {**again, "seconds": 0, "per_task": 0} == {**known, "seconds": 0, "per_task": 0}


def test_info_and_compress_print_tables(run, made):
    code, text, _ = run("info", made[0], json_out=False)
    assert code == 0
    assert "smaller" in text
    assert "t4" in text


def test_export_gives_the_update_back(run, made, adapters, tmp_path):
    for i, adapter in enumerate(adapters):
        code, data, _ = run("export", made[0], adapter.name, "-o", tmp_path / f"out{i}")
        assert code == 0
        assert distance(updates(adapter), updates(tmp_path / f"out{i}")) < EXACT
        config = json.loads((tmp_path / f"out{i}" / "adapter_config.json").read_text())
        assert config == CONFIG
        assert data["rank"] == 4


@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", EXACT), ("f16", 1e-3), ("bf16", 8e-3)])
def test_export_in_a_dtype(run, made, adapters, tmp_path, dtype, tolerance):
    assert run("export", made[0], "t2", "-o", tmp_path / "out", "--dtype", dtype)[0] == 0
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {str(t.dtype) for t in tensors.values()} == {names[dtype]}
    assert distance(updates(adapters[2]), updates(tmp_path / "out")) < tolerance


def test_a_rank_of_its_own_is_written_with_scale_one(run, tmp_path):
    pairs = factors(0)
    pairs[MODULES[0]] = tuple(np.ascontiguousarray(x) for x in (pairs[MODULES[0]][0][:2], pairs[MODULES[0]][1][:, :2]))
    write_peft(tmp_path / "a", pairs, rank_pattern={MODULES[0]: 2}, alpha_pattern={"v_proj": 5}, use_rslora=True)
    assert run("compress", tmp_path / "a", "-o", tmp_path / "set")[0] == 0
    assert run("export", tmp_path / "set", "a", "-o", tmp_path / "out")[0] == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 4, False)
    assert config["rank_pattern"] == config["alpha_pattern"] == {MODULES[0]: 2}
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for module, (a, b) in pairs.items():
        rank = a.shape[0]
        scale = (5 if module.endswith("v_proj") else 8) / rank**0.5
        new_a, new_b = (found[f"base_model.model.{module}.lora_{s}.weight"] for s in "AB")
        assert new_a.shape == a.shape
        np.testing.assert_allclose(new_b @ new_a, scale * b @ a, atol=1e-4 * np.abs(scale * b @ a).max())


def test_property_11_what_is_not_compressed_comes_back_byte_for_byte(run, tmp_path):
    heads = [{"base_model.model.classifier.weight": np.full((3, 2), i, np.float16)} for i in range(3)]
    for i, extras in enumerate(heads):
        write_peft(tmp_path / f"t{i}", factors(i), extras=extras, modules_to_save=["classifier"], bias="lora_only")
    assert run("compress", tmp_path / "t0", tmp_path / "t1", "-o", tmp_path / "set")[0] == 0
    assert run("add", tmp_path / "set", tmp_path / "t2")[0] == 0
    for i, extras in enumerate(heads):
        assert run("export", tmp_path / "set", f"t{i}", "-o", tmp_path / f"out{i}")[0] == 0
        found = load_file(tmp_path / f"out{i}" / "adapter_model.safetensors")
        for key, value in extras.items():
            assert found[key].dtype == value.dtype
            assert found[key].tobytes() == value.tobytes()
        config = json.loads((tmp_path / f"out{i}" / "adapter_config.json").read_text())
        assert (config["modules_to_save"], config["bias"]) == (["classifier"], "lora_only")


def test_add_within_the_span_changes_nothing(run, made, adapters, tmp_path):
    folder, before = made
    write_peft(tmp_path / "new", factors(9))
    code, data, _ = run("add", folder, tmp_path / "new")
    assert (code, data["added"], data["tasks"]) == (0, ["new"], 6)
    assert data["per_task"]["t0"]["last_change"] < 1e-5
    assert not data["per_task"]["t0"]["measured"]
    assert data["per_task"]["new"]["measured"]
    for task, source in [("t0", adapters[0]), ("new", tmp_path / "new")]:
        assert run("export", folder, task, "-o", tmp_path / f"out-{task}")[0] == 0
        assert distance(updates(source), updates(tmp_path / f"out-{task}")) < 1e-5
    assert before["tasks"] == 5


def test_adding_one_at_a_time_ends_near_the_batch(run, tmp_path):
    folders = write_adapters(tmp_path / "in", 8, noise=0.3)
    assert run("compress", *folders, "-o", tmp_path / "batch", "--k", 8)[0] == 0
    assert run("compress", folders[0], "-o", tmp_path / "grown", "--k", 8)[0] == 0
    for folder in folders[1:]:
        assert run("add", tmp_path / "grown", folder)[0] == 0
    errors = {}
    for name in ("batch", "grown"):
        code, data, _ = run("validate", tmp_path / name, "--against", *folders)
        assert (code, data["failed"]) == (0, [])
        errors[name] = np.mean([m["relative_error"] for m in data["measured"].values()])
    assert errors["batch"] > 0.01
    assert errors["grown"] < 1.25 * errors["batch"]


def test_max_error_holds_for_every_task(run, tmp_path):
    folders = write_adapters(tmp_path / "in", 6, noise=0.3)
    code, data, _ = run("compress", *folders[:4], "-o", tmp_path / "set", "--max-error", 0.2)
    assert (code, data["relative_error"]["max"] <= 0.2, data["relative_error"]["max"] > 0.01) == (0, True, True)
    code, data, _ = run("add", tmp_path / "set", *folders[4:])
    assert code == 0
    assert max(task["error_bound"] for task in data["per_task"].values()) <= 0.2
    code, data, _ = run("validate", tmp_path / "set", "--against", *folders)
    assert code == 0
    assert max(m["relative_error"] for m in data["measured"].values()) <= 0.2


@pytest.mark.parametrize("geometry", ["flat", "auto"])
def test_other_geometries_come_back(run, adapters, tmp_path, geometry):
    code, data, _ = run("compress", *adapters, "-o", tmp_path / "set", "--geometry", geometry)
    assert (code, data["relative_error"]["max"] < 1e-4) == (0, True)
    assert run("export", tmp_path / "set", "t1", "-o", tmp_path / "out")[0] == 0
    assert distance(updates(adapters[1]), updates(tmp_path / "out")) < 1e-4
    write_peft(tmp_path / "new", factors(9))
    assert run("add", tmp_path / "set", tmp_path / "new")[0] == 0
    assert run("export", tmp_path / "set", "t1", "-o", tmp_path / "out", "--overwrite")[0] == 0
    assert distance(updates(adapters[1]), updates(tmp_path / "out")) < 0.05
    code, data, _ = run("similarity", tmp_path / "set")
    assert code == 0


@pytest.mark.parametrize(("storage", "least", "error"), [("bf16", 1.6, 1e-2), ("int8", 2.2, 4e-2)])
def test_smaller_storage_makes_smaller_files(run, tmp_path, storage, least, error):
    folders = write_adapters(tmp_path / "in", 12, noise=0.1, **{})
    sizes = {}
    for kind in ("f32", storage):
        code, data, _ = run("compress", *folders, "-o", tmp_path / kind, "--k", 20, "--storage", kind)
        assert code == 0
        sizes[kind] = data["bytes"]["basis"] + data["bytes"]["coefficients"]
    assert sizes["f32"] / sizes[storage] > least
    assert data["relative_error"]["max"] < error
    code, found, _ = run("validate", tmp_path / storage, "--against", *folders)
    assert (code, found["failed"]) == (0, [])
    for name, task in data["per_task"].items():
        assert found["measured"][name]["relative_error"] == pytest.approx(task["relative_error"], rel=0.02, abs=1e-5)


def test_the_bound_of_a_cut_holds_where_columns_nearly_cancel(run, tmp_path):
    rng, near = np.random.default_rng(3), 2.0**-20
    whole = [rng.integers(-3, 4, shape).astype(np.float64) for shape in ((64, 1), (64, 1), (1, 48), (64, 1), (1, 48))]
    a, d, b, other_a, other_b = whole
    wide = np.concatenate([a + near * d, a, near / 16 * other_a], 1), np.concatenate([b, -b, other_b])
    folder = write_peft(tmp_path / "near", {MODULES[0]: (wide[0].T, wide[1].T)}, r=3)
    words = ("--pseudo-rank", 1, "--explained-variance", 1.0)
    assert run("compress", folder, "-o", tmp_path / "set", *words)[0] == 0
    code, found, _ = run("validate", tmp_path / "set", "--against", folder)
    assert (code, found["failed"]) == (0, [])


def test_pseudo_rank_cuts_the_adapters(run, adapters, tmp_path):
    code, data, _ = run("compress", *adapters, "-o", tmp_path / "set", "--k", 6, "--pseudo-rank", 2)
    assert code == 0
    assert data["coefficients"]["numbers_per_task"] == len(MODULES) * 2 * 6 * 2
    assert data["coefficients"]["ratio"] == pytest.approx(4 * (24 + 20) / (2 * 6 * 2))
    assert data["relative_error"]["mean"] > 0.01  # the cut counts
    code, found, _ = run("validate", tmp_path / "set", "--against", *adapters)
    assert (code, found["failed"]) == (0, [])
    for name, task in data["per_task"].items():
        assert found["measured"][name]["relative_error"] == pytest.approx(task["relative_error"], rel=1e-3)
    assert run("export", tmp_path / "set", "t0", "-o", tmp_path / "out")[0] == 0
    for module, update in updates(adapters[0]).items():
        u, s, vt = np.linalg.svd(update)
        best = (u[:, :2] * s[:2]) @ vt[:2]
        np.testing.assert_allclose(updates(tmp_path / "out")[module], best, atol=1e-5 * s[0])


def test_remove_leaves_the_others_as_they_are(run, made, adapters, tmp_path):
    code, data, _ = run("remove", made[0], "t1", "t3")
    assert (code, data["removed"], list(data["per_task"])) == (0, ["t1", "t3"], ["t0", "t2", "t4"])
    assert run("export", made[0], "t4", "-o", tmp_path / "out")[0] == 0
    assert distance(updates(adapters[4]), updates(tmp_path / "out")) < EXACT
    assert run("validate", made[0])[0] == 0


@pytest.mark.parametrize("how", [("--k", "3"), ("--explained-variance", "0.7"), ("--max-error", "0.6")])
def test_recompress_makes_a_set_smaller_by_what_it_says_and_bounds(run, made, adapters, tmp_path, how):
    code, data, _ = run("recompress", made[0], *how)
    assert code == 0
    assert data["bytes_out"] < data["bytes_before"] == made[1]["bytes_out"]
    assert data["k"]["mean"] < made[1]["k"]["mean"]
    assert run("validate", made[0])[0] == 0
    for i, adapter in enumerate(adapters):
        assert run("export", made[0], adapter.name, "-o", tmp_path / f"out{i}")[0] == 0
        lost = distance(updates(adapter), updates(tmp_path / f"out{i}"))
        told = data["per_task"][adapter.name]
        assert 1e-3 < lost <= told["error_bound"] * 1.001 + 1e-6
        assert told["relative_error"] == pytest.approx(lost, rel=0.02)
        assert not told["measured"]
        if how[0] == "--max-error":
            assert told["error_bound"] <= 0.6
    kept = json.loads((made[0] / "manifest.json").read_text())
    assert list(kept["choice"].values()) == [float(how[1])]


def test_recompress_after_a_removal_drops_what_only_the_removed_needed(run, made, adapters, tmp_path):
    assert run("remove", made[0], "t1", "t2", "t3", "t4")[0] == 0
    code, data, _ = run("recompress", made[0])
    assert (code, data["k"]["max"]) == (0, 4)  # the one that is left has rank 4
    assert run("export", made[0], "t0", "-o", tmp_path / "out")[0] == 0
    assert distance(updates(adapters[0]), updates(tmp_path / "out")) < EXACT
    code, text, _ = run("recompress", made[0], json_out=False)
    assert code == 0
    assert "before, " in text
    assert "limit" not in text


def test_recompress_says_when_the_sets_own_limit_is_held(run, made, adapters):
    assert run("recompress", made[0], "--max-error", "0.3")[0] == 0
    code, text, _ = run("recompress", made[0], "--k", "1", json_out=False)
    assert code == 0
    assert "the set's limit of 0.3 is held" in text
    assert run("info", made[0])[1]["k"]["max"] > 1


def test_diff_agrees_with_dense_updates(run, made, adapters):
    code, data, _ = run("diff", made[0], "t0", "t1")
    x, y = (updates(a) for a in adapters[:2])
    assert code == 0
    assert data["relative_distance"] == pytest.approx(distance(x, y), rel=1e-4)
    dot = sum(np.sum(x[m] * y[m]) for m in x)
    norms = [np.sqrt(sum(np.sum(u[m] ** 2) for m in u)) for u in (x, y)]
    assert data["cosine"] == pytest.approx(dot / np.prod(norms), abs=1e-4)
    assert data["norms"] == pytest.approx(norms, rel=1e-4)
    assert set(data["per_layer"]) == set(MODULES)


def test_similarity_of_a_set_and_of_folders_agree_with_dense_updates(run, made, adapters, tmp_path, monkeypatch):
    dense = [np.concatenate([u.ravel() for u in updates(a).values()]) for a in adapters]
    expected = np.corrcoef(dense) * 0
    for i, x in enumerate(dense):
        for j, y in enumerate(dense):
            expected[i, j] = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    svg = tmp_path / "map.svg"
    code, data, _ = run("similarity", made[0], "--heatmap", svg)
    assert (code, data["tasks"]) == (0, [a.name for a in adapters])
    np.testing.assert_allclose(data["matrix"], expected, atol=1e-4)
    assert sorted(task for group in data["clusters"] for task in group) == data["tasks"]
    assert "<svg" in svg.read_text()
    code, whole, _ = run("similarity", *adapters)
    np.testing.assert_allclose(whole["matrix"], expected, atol=1e-4)
    from share_jax.cli import similarity

    monkeypatch.setattr(similarity, "_BLOCK_BYTES", 1)
    code, blocks, _ = run("similarity", *adapters)
    np.testing.assert_allclose(blocks["matrix"], expected, atol=1e-4)


def test_bench_measures_and_counts(run, made):
    code, data, _ = run("bench", made[0], "--repeat", 1)
    assert code == 0
    assert data["ratio"] == made[1]["ratio"]
    assert all(data["seconds"][key] > 0 for key in ("load", "reconstruct_per_task", "export_per_task"))
    assert data["ratio_without_basis"] > data["ratio"]


def test_unlike_targets_live_in_one_set(run, tmp_path):
    write_peft(tmp_path / "a", factors(0, modules=MODULES[:3]))
    write_peft(tmp_path / "b", factors(1, modules=MODULES[1:]))
    assert run("compress", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "set")[0] == 0
    for name in "ab":
        assert run("export", tmp_path / "set", name, "-o", tmp_path / f"out-{name}")[0] == 0
        assert distance(updates(tmp_path / name), updates(tmp_path / f"out-{name}")) < EXACT


def test_peer_folders_can_be_compressed(run, tmp_path):
    write_lorashare(tmp_path / "ls")
    code, data, _ = run("compress", tmp_path / "ls", "-o", tmp_path / "set")
    assert (code, list(data["per_task"])) == (0, ["cola", "mrpc"])
    write_vlora(tmp_path / "vl", ("x", "y"))
    code, _, err = run("add", tmp_path / "set", tmp_path / "vl")
    assert (code, len(err)) == (2, 1)
    assert "--base-model" in err[0]
    assert run("add", tmp_path / "set", tmp_path / "vl", "--base-model", "acme/tiny")[0] == 0


def test_a_set_without_a_base_model_keeps_to_adapters_without_one(run, tmp_path):
    for i, base in enumerate((None, None, "acme/tiny", "acme/other")):
        write_peft(tmp_path / f"t{i}", factors(i), base_model_name_or_path=base)
    assert run("compress", tmp_path / "t0", "-o", tmp_path / "set")[0] == 0
    manifest = (tmp_path / "set" / "manifest.json").read_bytes()
    for argv in (("add", tmp_path / "set"), ("compress", tmp_path / "t0", "-o", tmp_path / "mixed")):
        code, _, err = run(*argv[:2], tmp_path / "t2", *argv[2:])
        assert (code, len(err)) == (2, 1)
        assert "base model: got acme/tiny, expected no name" in err[0]
    assert (tmp_path / "set" / "manifest.json").read_bytes() == manifest
    code, data, _ = run("add", tmp_path / "set", tmp_path / "t1")
    assert (code, data["base_model"]) == (0, None)
    code, _, err = run("add", tmp_path / "set", tmp_path / "t3")
    assert (code, len(err)) == (2, 1)
    code, data, _ = run("add", tmp_path / "set", tmp_path / "t2", "--base-model", "acme/tiny")
    assert (code, data["base_model"], data["tasks"]) == (0, "acme/tiny", 3)


def test_a_set_that_is_larger_than_its_adapters_is_called_larger(run, tmp_path):
    write_peft(tmp_path / "a", factors(0))
    code, text, _ = run("compress", tmp_path / "a", "-o", tmp_path / "set", json_out=False)
    data = run("info", tmp_path / "set")[1]
    assert code == 0
    assert data["ratio"] < 1
    assert f"({1 / data['ratio']:.2f}x larger)" in text
    code, text, _ = run("bench", tmp_path / "set", "--repeat", 1, json_out=False)
    assert f", {1 / data['ratio']:.2f}x larger" in text
    assert [size_change(ratio) for ratio in (4, 1, 0.5, 0)] == [
        "4.00x smaller", "1.00x smaller", "2.00x larger", "infx larger",
    ]  # fmt: skip


def test_bench_takes_tasks_evenly_from_the_first_to_the_last(run, made):
    names = [str(i) for i in range(39)]
    assert spread(names, 20) == names[::2]
    assert spread(names, 3) == ["0", "19", "38"]
    assert (spread(names, 1), spread(names, 39), spread(names, 100)) == (["0"], names, names)
    for count in range(2, 39):
        places = [int(name) for name in spread(names, count)]
        assert (places[0], places[-1], len(places)) == (0, 38, count)
        steps = [y - x for x, y in pairwise(places)]
        assert min(steps) >= max(1, max(steps) - 1)
    assert run("bench", made[0], "--repeat", 1, "--tasks", 3)[1]["measured_tasks"] == 3


def test_a_path_as_base_model_is_kept_whole_and_a_given_name_replaces_it(run, tmp_path):
    path = str(tmp_path / "models" / "tiny" / "2")
    write_peft(tmp_path / "a", factors(0), base_model_name_or_path=path)
    assert run("compress", tmp_path / "a", "-o", tmp_path / "set")[1]["base_model"] == path
    assert run("export", tmp_path / "set", "a", "-o", tmp_path / "out")[1]["base_model"] == path
    assert run("compress", tmp_path / "a", "-o", tmp_path / "named", "--base-model", "acme/tiny")[0] == 0
    for file in (tmp_path / "named").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
    assert run("export", tmp_path / "named", "a", "-o", tmp_path / "b")[1]["base_model"] == "acme/tiny"
