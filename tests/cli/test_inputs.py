"""A bank on disk is compressed as a folder of adapters is."""

import json
import subprocess
import sys

import numpy as np
import optax
import pytest
from adapter_makers import factors, write_peft
from random_banks import HEADED, METHODS, MODELS, TASKS, adapted_with, random_bank

import share_jax
from share_jax.adapter_set.store import read_set
from share_jax.errors import FormatError
from share_jax.formats.bank_tasks import bank_sources
from share_jax.formats.peft import open_adapter
from share_jax.parameterizations.built_in import method_of
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.state import factors_of


def saved(folder, method, model):
    adapted, base = adapted_with(method, model)
    bank = random_bank(adapted, base)
    share_jax.save_bank(folder, share_jax.Learner(adapted, {"params": base["params"]}, optax.sgd(0.1)), bank)
    return bank_sources(bank, adapted)


@pytest.mark.parametrize(
    ("method", "model"), [(METHODS[0], HEADED), (METHODS[1], MODELS["scanned"]), (METHODS[2], HEADED)], ids=str
)
def test_a_bank_becomes_a_set_and_its_tasks_leave_as_peft_folders(run, tmp_path, method, model):
    sources = saved(tmp_path / "bank", method, model)
    code, data, err = run(
        "compress", tmp_path / "bank", "-o", tmp_path / "set", "--explained-variance", 1, "--base-model", "acme/mine"
    )
    assert (code, err) == (0, [])
    assert (data["tasks"], data["base_model"]) == (3, "acme/mine")
    assert data["relative_error"]["max"] < 1e-6
    done = read_set(tmp_path / "set")
    assert done.state.tasks == TASKS
    assert data["bytes_in"] > 0
    for source in sources:
        assert relative_distance(source.adapter(), factors_of(done.state, source.name)) < 1e-6
        assert done.extras(source.name) == source.extras()
    assert run("info", tmp_path / "set")[0] == 0
    code, data, err = run("export", tmp_path / "set", "second", "-o", tmp_path / "second")
    assert (code, err) == (0, [])
    back = open_adapter(tmp_path / "second")
    assert relative_distance(sources[1].adapter(), back.adapter()) < 1e-6
    assert back.extras() == sources[1].extras()


def test_modules_are_named_by_a_file_and_adapters_join_a_bank(run, tmp_path):
    saved(tmp_path / "bank", METHODS[0], MODELS["plain"])
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"Dense_0": "fc.out", "Dense_1": "fc.in"}))
    code, data, err = run("compress", tmp_path / "bank", "-o", tmp_path / "set", "--names", names)
    assert (code, err) == (0, [])
    assert set(read_set(tmp_path / "set").state.layers) == {"fc.out", "fc.in"}
    more = write_peft(
        tmp_path / "more", factors(0, ("fc.out",), 7, 6), base_model_name_or_path=None, target_modules=["fc.out"]
    )
    code, data, err = run("add", tmp_path / "set", more)
    assert (code, err, data["tasks"]) == (0, [], 4)
    code, _, err = run("compress", tmp_path / "bank", "-o", tmp_path / "other", "--names", tmp_path / "none")
    assert code == 2
    assert "got no file, expected a JSON file" in err[0]
    names.write_text(json.dumps({"Dense_0": 3}))
    code, _, err = run("compress", tmp_path / "bank", "-o", tmp_path / "other", "--names", names)
    assert code == 2
    assert "expected a name for each module path" in err[0]


def test_a_bank_that_cannot_be_read_alone_is_refused_in_a_line(run, tmp_path):
    saved(tmp_path / "bank", METHODS[0], MODELS["plain"])
    leaf = next(path for path in (tmp_path / "bank" / "tasks").rglob("*") if path.is_file())
    leaf.write_bytes(b"other")
    code, _, err = run("compress", tmp_path / "bank", "-o", tmp_path / "set")
    assert code == 2
    assert len(err) == 1
    assert not (tmp_path / "set").exists()
    with pytest.raises(FormatError, match="export it from there"):
        method_of({"name": "module", "module": "Classifier"}, "bank")


def test_compressing_folders_of_adapters_loads_no_checkpoints(tmp_path):
    folder = write_peft(tmp_path / "cola", factors(0))
    code = (
        "import sys; from share_jax.cli.main import main; "
        f"code = main(['compress', {str(folder)!r}, '-o', {str(tmp_path / 'set')!r}]); "
        "sys.exit(code or 'orbax.checkpoint' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.asarray(read_set(tmp_path / "set").state.tasks).tolist() == ["cola"]
