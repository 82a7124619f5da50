"""The cases of ../shared/cases, each with what its line expects; they lie beside the project, not in it."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from adapter_makers import distance, updates
from safetensors.numpy import load_file

from share_jax.cli.main import main
from share_jax.formats.peft_modules import created

_AROUND = Path(__file__).resolve().parents[3:5]  # a work tree may lie one folder deeper
CASES = next((cases for folder in _AROUND if (cases := folder / "shared" / "cases").is_dir()), Path("none"))
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not there")

READ = {
    "adapter-name-in-keys": 6, "bf16-export-figure": 21, "conv1d-lora": 2, "embedding-lora": 7, "gemma3-projector": 4,
    "infinity-in-a-saved-buffer": 6, "inline-flag-regex": 6, "mlx-lm": 2, "moe-target-parameters": None,
    "multihead-attention": 3, "peft-0.13-rank-pattern": 9,
}  # fmt: skip
"""Case -> layers that are read."""
REFUSED = {
    "fused-enable-lora": (["a"], "enable_lora"),
    "git-lfs-pointer/config": (["."], "git lfs pull"),
    "git-lfs-pointer/weights": (["."], "git lfs pull"),
    "one-base-two-names": (["hub", "local"], "--base-model THUDM/glm-4-9b-chat"),
    "slow-regex": (["a"], "takes more than"),
    "two-bases-one-name": (["first", "second"], "qwen2.5"),
    "zero3-empty": (["a"], "ZeRO-3"),
}
OTHERS = {
    "flax", "git-lfs-pointer", "hf-cache-links", "merge-layers-to-transform", "same-folder-name", "two-prefixes",
}  # fmt: skip


@pytest.fixture
def run(capsys):
    def call(*argv):
        code = main([*map(str, argv), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return call


def test_every_case_has_a_test():
    here = {path.name for path in CASES.iterdir() if path.is_dir()}
    assert here <= OTHERS | set(READ) | set(REFUSED)


@pytest.mark.parametrize("case", READ)
def test_what_is_read_comes_back(run, tmp_path, case):
    code, data, err = run("compress", CASES / case / "a", "-o", tmp_path / "set")
    assert (code, err) == (0, "")
    assert READ[case] is None or data["layers"] == READ[case]
    code, data, _ = run("export", tmp_path / "set", "a", "-o", tmp_path / "a")
    assert (code, data["relative_error"] < 1e-2) == (0, True)


def test_the_error_of_an_export_is_that_of_what_was_written(run, tmp_path):
    folder = CASES / "bf16-export-figure" / "a"
    assert run("compress", folder, "-o", tmp_path / "set")[0] == 0
    said = run("export", tmp_path / "set", "a", "-o", tmp_path / "out")[1]
    true = distance(updates(folder), updates(tmp_path / "out"))
    assert said["relative_error"] == pytest.approx(true, rel=0.1)
    assert said["set_error"] < 1e-6 < said["rounding_error"]


def test_a_saved_mask_is_copied_as_it_is(run, tmp_path):
    folder = CASES / "infinity-in-a-saved-buffer" / "a"
    assert run("compress", folder, "-o", tmp_path / "set")[0] == 0
    assert run("export", tmp_path / "set", "a", "-o", tmp_path / "out")[0] == 0
    old, new = (load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path / "out"))
    assert np.isneginf(old["base_model.model.head.mask"]).any()
    assert old["base_model.model.head.mask"].tobytes() == new["base_model.model.head.mask"].tobytes()


def test_patterns_are_written_for_the_peft_that_wrote_them(run, tmp_path):
    assert run("compress", CASES / "peft-0.13-rank-pattern" / "a", "-o", tmp_path / "set")[0] == 0
    assert run("export", tmp_path / "set", "a", "-o", tmp_path / "out")[0] == 0
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["rank_pattern"]
    assert not any("^" in rule for rule in config["rank_pattern"])


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named(run, tmp_path, case):
    folders, word = REFUSED[case]
    begin = time.perf_counter()
    code, _, err = run("compress", *(CASES / case / folder for folder in folders), "-o", tmp_path / "set")
    assert (code, err.count("\n")) == (2, 1)
    assert word in err
    assert time.perf_counter() - begin < 5
    assert not (tmp_path / "set").exists()


def test_one_base_under_three_names_is_one_when_it_is_named(run, tmp_path):
    places = [CASES / "one-base-two-names" / name for name in ("hub", "local", "snapshot")]
    assert run("compress", places[0], places[2], "-o", tmp_path / "a")[1]["base_model"] == "THUDM/glm-4-9b-chat"
    code, data, _ = run("compress", *places, "-o", tmp_path / "b", "--base-model", "THUDM/glm-4-9b-chat")
    assert (code, data["tasks"], data["base_model"]) == (0, 3, "THUDM/glm-4-9b-chat")


def test_a_merge_names_all_of_its_modules(run, tmp_path):
    places = [CASES / "merge-layers-to-transform" / name for name in ("t0", "t1")]
    assert run("compress", *places, "-o", tmp_path / "set")[0] == 0
    assert run("merge", tmp_path / "set", "t0", "t1", "-o", tmp_path / "out")[1]["modules"] == 6
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    names = {f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qv"}
    assert created(config, names | {"model.layers.3.self_attn.q_proj"}) == names


def test_folders_of_one_name_are_named_by_their_parents_or_by_hand(run, tmp_path):
    places = [CASES / "same-folder-name" / name / "adapter" for name in ("runA", "runB")]
    data = run("compress", *places, "-o", tmp_path / "a")[1]
    assert set(data["per_task"]) == {"runA-adapter", "runB-adapter"}
    data = run("compress", *places, "-o", tmp_path / "b", "--name", "x", "y")[1]
    assert set(data["per_task"]) == {"x", "y"}


def test_modules_under_two_prefixes_are_warned_of(run, tmp_path):
    places = [CASES / "two-prefixes" / name for name in ("causal", "inner")]
    code, data, err = run("compress", *places, "-o", tmp_path / "set")
    assert (code, data["layers"], len(data["warnings"])) == (0, 12, 1)
    assert "6 modules" in err


def test_a_snapshot_of_a_cache_is_read_through_its_links(run, tmp_path):
    shutil.copytree(CASES / "hf-cache-links", tmp_path / "cache", symlinks=True, copy_function=shutil.copyfile)
    folder = tmp_path / "cache" / "snapshots" / "abc"
    os.chmod(folder, 0o755)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        place = folder / name
        if not place.is_symlink():  # a copy that lost its links has their text
            target = place.read_text().strip()
            place.unlink()
            place.symlink_to(target)
    assert run("compress", folder, "-o", tmp_path / "set")[1]["layers"] > 0
