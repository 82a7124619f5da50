"""Manifests of other schemas: an older one migrates and loads bitwise, a newer one is refused."""

import json
import zipfile
from pathlib import Path

import pytest
from stored import IDENTITY, assert_same, files_below, leaves, like

from share_jax.checkpoint import checkpoint as ckpt
from share_jax.checkpoint import repair
from share_jax.checkpoint.manifest import KIND
from share_jax.errors import FormatError

STORED = {schema: Path(__file__).parents[1] / "data" / f"checkpoint_schema{schema}.zip" for schema in (1, 2, 3)}
"""Each written by the code of its schema: tasks 'a' and 'b', a shared tree, and task 'c' in flight at step 7."""


@pytest.fixture(params=STORED)
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    with zipfile.ZipFile(STORED[request.param]) as file:
        file.extractall(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["schema"] == request.param
    return tmp_path / "run"


def test_a_look_at_an_old_checkpoint_writes_nothing(old: Path) -> None:
    before = {path: path.read_bytes() for path in files_below(old)}
    store = ckpt.open_checkpoint(old)
    assert store.names == ("a", "b")
    assert_same(ckpt.load_task(store, "b", like(leaves(2))), leaves(2))
    assert {path: path.read_bytes() for path in files_below(old)} == before


def test_an_old_checkpoint_migrates_loads_bitwise_and_goes_on(old: Path) -> None:
    arrays = {path: path.read_bytes() for path in files_below(old) if path.parent != old}
    store = ckpt.open_checkpoint(old, IDENTITY)
    assert json.loads((old / "manifest.json").read_text())["schema"] == KIND.schema
    assert {path: path.read_bytes() for path in files_below(old) if path.parent != old} == arrays
    again = ckpt.open_checkpoint(old, IDENTITY)
    assert again.manifest == store.manifest
    assert repair.find_damage(again) == ()
    assert_same(ckpt.load_shared(again, like(leaves(0))), leaves(0))
    assert_same(ckpt.load_task(again, "a", like(leaves(1))), leaves(1))
    assert_same(ckpt.load_task(again, "b", like(leaves(2))), leaves(2))
    assert_same(ckpt.load_inflight(again, like(leaves(3))), leaves(3))
    assert again.info("a") == {"row": [0.5, None]}
    again = ckpt.save_inflight(again, leaves(4), {"task": "c", "step": 8})
    assert again.manifest.states[:-1] == (store.manifest.inflight,)
    assert ckpt.save_task(again, "c", leaves(5), {}).names == ("a", "b", "c")


def test_a_newer_schema_is_refused_and_left_as_it_is(old: Path) -> None:
    for path in old.glob("manifest*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema": KIND.schema + 1}))
    before = {path: path.read_bytes() for path in files_below(old)}
    with pytest.raises(
        FormatError, match=f"schema: got {KIND.schema + 1}, expected at most {KIND.schema}; update share_jax"
    ):
        ckpt.open_checkpoint(old, IDENTITY)
    with pytest.raises(FormatError, match="update share_jax"):
        repair.check_manifest(old)
    assert {path: path.read_bytes() for path in files_below(old)} == before
