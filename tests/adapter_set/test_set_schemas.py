"""Sets that older versions wrote are read to the bit, and the next change writes today's schema."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from adapter_makers import factors, write_peft

from share_jax.adapter_set.manifest import KIND, read_manifest
from share_jax.adapter_set.store import read_set
from share_jax.cli.main import main
from share_jax.errors import FormatError
from share_jax.storage.atomic_write import sha256_of
from share_jax.subspace.state import factors_of

DATA = Path(__file__).parents[1] / "data"
ERRORS = {"f32": (9.02e-8, 8.48e-8), "int8": (0.00586, 0.00604)}
"""Of tasks 't0' and 't1', as schema 1 was written; 't1' has a head of ones beside its adapter."""


@pytest.fixture(params=ERRORS)
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    with zipfile.ZipFile(DATA / f"set_schema1_{request.param}.zip") as file:
        file.extractall(tmp_path / "set")
    return tmp_path / "set"


def test_a_set_of_schema_1_is_read_whole_and_not_written(old: Path) -> None:
    before = {path.name: sha256_of(path) for path in old.iterdir()}
    done = read_set(old)
    assert main(["validate", str(old)]) == 0
    assert list(done.manifest.tasks) == ["t0", "t1"]
    errors = [done.task(name).relative_error for name in ("t0", "t1")]
    np.testing.assert_allclose(errors, ERRORS[done.manifest.storage], rtol=1e-2)
    assert done.extras("t0") == {}
    np.testing.assert_array_equal(done.extras("t1")["base_model.model.score.weight"].array(), np.ones((2, 3), "f4"))
    for seed, name in enumerate(("t0", "t1")):
        (a, b), got = factors(seed, ("m.q_proj",), 6, 5, 2, 3)["m.q_proj"], factors_of(done.state, name)["m.q_proj"]
        want = 4 * b @ a  # alpha 8, rank 2
        distance = np.linalg.norm((got.lora_a @ got.lora_b).T * got.scale - want) / np.linalg.norm(want)
        assert distance < 2 * errors[seed] + 1e-6
    assert {path.name: sha256_of(path) for path in old.iterdir()} == before


def test_a_change_writes_todays_schema_and_keeps_every_task(old: Path, tmp_path: Path) -> None:
    new = write_peft(tmp_path / "t2", factors(2, ("m.q_proj",), 6, 5, 2, 3), r=2, target_modules=["q_proj"])
    before = read_set(old)
    assert main(["add", str(old), str(new)]) == 0
    assert main(["remove", str(old), "t0"]) == 0
    after = read_set(old)
    assert json.loads((old / "manifest.json").read_text())["schema"] == KIND.schema
    assert list(after.manifest.tasks) == ["t1", "t2"]
    assert after.extras("t1") == before.extras("t1")
    assert main(["validate", str(old)]) == 0


def test_a_set_of_schema_1_that_was_edited_is_refused(old: Path) -> None:
    path = old / "manifest.json"
    path.write_text(path.read_text().replace("acme/tiny", "acme/tinY"))
    with pytest.raises(FormatError, match=r"manifest\.json: got other content"):
        read_manifest(old)
