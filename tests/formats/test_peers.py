"""The folders of lorashare and vlora, made here in their documented formats."""

import json

import numpy as np
import pytest
from adapter_makers import MODULES, write_lorashare, write_vlora
from safetensors.numpy import load_file, save_file

from share_jax.cli.main import main
from share_jax.errors import ShareError
from share_jax.formats.lorashare import open_lorashare
from share_jax.formats.open import open_sources
from share_jax.formats.vlora import open_vlora


def test_lorashare_tasks_are_components_times_loadings(tmp_path):
    root = write_lorashare(tmp_path / "set")
    sources = open_sources([root])
    assert [source.name for source in sources] == ["cola", "mrpc"]
    shared = load_file(root / "shared_components.safetensors")
    for source in sources:
        own = load_file(root / "adapters" / source.name / "loadings.safetensors")
        for module, factors in source.adapter().items():
            np.testing.assert_allclose(factors.lora_a, shared[f"{module}:A"] @ own[f"{module}:A"], rtol=1e-6)
            np.testing.assert_allclose(factors.lora_b.T, shared[f"{module}:B"] @ own[f"{module}:B"], rtol=1e-6)
            assert factors.scale == 2.0
        assert (source.base_model, source.extra_names) == ("acme/tiny", ("base_model.model.score.weight",))
        assert list(source.extras()) == list(source.extra_names)


def test_vlora_tasks_are_loadings_times_components_and_the_mean(tmp_path):
    root = write_vlora(tmp_path / "set", ("cola", "mrpc"))
    shared = load_file(root / "subspace.safetensors")
    for source in open_sources([root]):
        own = load_file(root / f"task_{source.name}.safetensors")
        for module, factors in source.adapter().items():
            flat = {s: own[f"{module}.loadings_{s}"] @ shared[f"{module}.components_{s}"] for s in "ab"}
            a = (flat["a"] + shared[f"{module}.mean_a"]).reshape(4, 24)
            b = (flat["b"] + shared[f"{module}.mean_b"]).reshape(20, 4)
            np.testing.assert_allclose(factors.lora_a, a.T, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(factors.lora_b, b.T, rtol=1e-4, atol=1e-5)
            assert factors.scale == 1.0
        assert source.base_model is None
        assert source.config["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "nf4_packed"},
        {"layer_names": ["absent"]},
        {"layer_names": 3},
        {"task_filenames": {"cola": "../cola", "mrpc": "mrpc"}},
        {"shapes_a": {m: [4, 24 + 1] for m in MODULES}},
        {"shapes_a": {m: [24, 4] for m in MODULES}},
        {"shapes_a": dict.fromkeys(MODULES, 5)},
    ],
)
def test_broken_vlora_folders_are_refused(tmp_path, changes):
    with pytest.raises(ShareError) as error:
        open_vlora(write_vlora(tmp_path / "set", ("cola", "mrpc"), **changes))
    assert "\n" not in str(error.value)


def test_a_vlora_task_named_like_a_hubs_adapter_has_a_dash_for_the_slash(tmp_path):
    assert [source.name for source in open_sources([write_vlora(tmp_path / "set")])] == ["cola", "a-b"]
    with pytest.raises(ShareError, match=r"\.\."):
        open_vlora(write_vlora(tmp_path / "up", ("cola", "../b")))


def test_vlora_tasks_that_get_one_name_are_refused(tmp_path, capsys):
    folder = write_vlora(tmp_path / "alike", ("a/b", "a-b"))
    assert main(["compress", str(folder), "-o", str(tmp_path / "set")]) == 2
    assert "a-b: got a name that exists" in capsys.readouterr().err


def test_broken_lorashare_folders_are_refused(tmp_path):
    root = write_lorashare(tmp_path / "one", ("cola",))
    (root / "share_config.json").write_text(json.dumps({"adapter_names": ["../one"]}))
    with pytest.raises(ShareError, match=r"\.\."):
        open_lorashare(root)
    root = write_lorashare(tmp_path / "two", ("cola",))
    path = root / "adapters/cola/loadings.safetensors"
    loads = load_file(path)
    loads.pop(f"{MODULES[0]}:B")
    save_file(loads, path)
    with pytest.raises(ShareError, match="loadings"):
        open_lorashare(root)
    root = write_lorashare(tmp_path / "three", ("cola",))
    path = root / "shared_components.safetensors"
    save_file({**load_file(path), f"{MODULES[0]}:A": np.zeros((24, 7), "f4")}, path)
    with pytest.raises(ShareError, match=":A"):
        open_lorashare(root)
