"""The guides' blocks of code run as they stand and do what the guides say."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from pages import MARKED, PAGES, block, code_lines
from pretrained_folders import pretrained_folder

import share_jax
from experiments.streams import records

LINEN, SAVING = "docs/guides/linen.md", "docs/guides/saving.md"
ELSEWHERE = {"share", "saving", "doors", "a task later", "inflight"}
"""Blocks that go on from the unmodified model."""
TESTED = {
    *ELSEWHERE,
    *(
        "own module",
        "as it is",
        "unmodified model",
        "nnx model",
        "own nnx model",
        "own stream",
        "router",
        "language bank",
        "compress",
        "mesh",
    ),
    *(f"pretrained {kind}" for kind in ("decoder", "bert", "roberta", "vit")),
}
"""Blocks that some test runs, here or in test_readme.py."""


def run(page: str, name: str, scope: dict[str, Any]) -> dict[str, Any]:
    exec(compile(block(page, name), f"{page}: {name}", "exec"), scope)
    return scope


@pytest.fixture(scope="module")
def learnt() -> dict[str, Any]:
    """What the block of an unmodified model leaves; two tasks are learnt."""
    return run(LINEN, "unmodified model", {})


@pytest.fixture
def scope(learnt: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A copy of it, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return dict(learnt)


def right(scope: dict[str, Any], task: str, column: int) -> float:
    predicted = np.asarray(scope["learner"].predict(scope["bank"], task, scope["x"])).argmax(-1)
    return float(np.mean(predicted == np.asarray(scope["x"][:, column] > 0)))


def logits(scope: dict[str, Any], task: str, bank: Any = None) -> np.ndarray:
    bank = scope["bank"] if bank is None else bank
    return np.array(scope["learner"].predict(bank, task, scope["x"]))


def test_every_named_block_is_run_and_is_the_same_on_every_page() -> None:
    found: dict[str, set[str]] = {}
    for text in PAGES.values():
        for name, _, source in MARKED.findall(text):
            found.setdefault(name, set()).add(source)
    assert set(found) == TESTED
    assert [name for name, sources in found.items() if len(sources) > 1] == []


def test_other_python_blocks_compile() -> None:
    """Those that need what the reader has: their names are checked by eye, their syntax here."""
    for page, text in PAGES.items():
        for source in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            compile(source, page, "exec")


def test_a_model_as_it_is_learns_without_a_wrapper() -> None:
    scope = run(LINEN, "as it is", {})
    assert scope["logits"].shape == (30, 2)
    right = np.asarray(scope["logits"]).argmax(-1) == (scope["x"][:, 0] > 0)
    assert right.mean() > 0.8


def test_layers_that_know_their_task_keep_the_first_ones_bits() -> None:
    scope = run(LINEN, "own module", {})
    assert code_lines(block(LINEN, "own module")) <= 15
    assert min(right(scope, "first", 0), right(scope, "second", 1)) > 0.9
    batches = [{"inputs": scope["x"], "labels": (scope["x"][:, 0] > 0).astype(int)}] * 50
    alone = scope["learner"].learn(scope["learner"].start(scope["variables"]), "first", batches)
    np.testing.assert_array_equal(logits(scope, "first", alone), np.asarray(scope["logits"]))
    assert scope["bank"].names == ("first", "second")


def test_share_learns_three_tasks_within_the_bound_in_12_lines(scope: dict[str, Any]) -> None:
    run(LINEN, "share", scope)
    assert code_lines(block(LINEN, "share")) <= 12
    for task, column in (("first", 0), ("second", 1), ("third", 2)):
        assert right(scope, task, column) > 0.9
        assert scope["bank"].report()[task].error_bound <= 0.05
    assert np.array_equal(scope["logits"], logits(scope, "first"))


def test_a_bank_is_saved_and_loaded_to_the_bit_and_learns_a_task_later(scope: dict[str, Any]) -> None:
    before = scope["bank"]
    run(SAVING, "saving", scope)
    loaded = scope["bank"]
    assert loaded is not before
    run(SAVING, "a task later", scope)
    for name in ("first", "second"):
        for bank in (loaded, scope["bank"]):
            np.testing.assert_array_equal(logits(scope, name, bank), logits(scope, name, before))
    assert right(scope, "third", 2) > 0.9
    fresh = scope["learner"].start(scope["adapted"].init(jax.random.key(2), scope["base"]["params"], num_tasks=1))
    assert share_jax.load_bank("bank", scope["learner"], fresh).names == ("first", "second", "third")


def test_the_training_in_flight_is_kept_and_its_task_saved(scope: dict[str, Any]) -> None:
    run("docs/guides/faults.md", "inflight", scope)
    assert right(scope, "third", 2) > 0.9
    assert scope["bank"].names == ("first", "second", "third")


def test_what_is_learnt_leaves_and_comes_back(scope: dict[str, Any]) -> None:
    run("docs/guides/serving.md", "doors", scope)
    assert code_lines(block("docs/guides/serving.md", "doors")) <= 12
    for name, other, within in (("second", scope["served"], 1e-6), ("first", scope["again"], 1e-5)):
        np.testing.assert_allclose(logits(scope, name), logits(scope, name, other), rtol=0, atol=within)
    assert max(report.error_bound for report in scope["reports"].values()) < 1e-5


def test_the_router_tells_tasks_apart_that_lie_apart() -> None:
    ids = np.asarray(run("docs/guides/router.md", "router", {})["ids"])
    assert np.mean(ids == np.repeat([0, 1], 20)) > 0.9


@pytest.mark.slow
def test_an_nnx_model_learns_both_tasks() -> None:
    scope = run("docs/guides/nnx.md", "own nnx model", {})
    assert min(right(scope, "first", 0), right(scope, "second", 1)) > 0.9
    np.testing.assert_array_equal(logits(scope, "first"), np.asarray(scope["logits"]))


@pytest.mark.slow
def test_a_mesh_gives_a_learner_that_learns(scope: dict[str, Any]) -> None:
    """On the eight devices that the tests have."""
    assert jax.device_count() == 8
    run("docs/guides/devices.md", "mesh", scope)
    scope["x"] = scope["x"][:16]
    batch = {"inputs": scope["x"], "labels": (scope["x"][:, 0] > 0).astype(int)}
    bank = scope["learner"].start(scope["adapted"].init(jax.random.key(2), scope["base"]["params"], num_tasks=1))
    scope["bank"] = scope["learner"].learn(bank, "first", [batch] * 2)
    assert np.isfinite(logits(scope, "first")).all()


@pytest.mark.parametrize("kind", ["decoder", "bert", "roberta", "vit"])
def test_a_folder_becomes_an_adapted_model_in_five_lines(kind: str, tmp_path: Path) -> None:
    page = "docs/guides/images.md" if kind == "vit" else "docs/guides/language.md"
    assert code_lines(block(page, f"pretrained {kind}")) == 5
    folder = pretrained_folder(kind, tmp_path)
    scope = run(page, f"pretrained {kind}", {"share_jax": share_jax, "jax": jax, "FOLDER": folder})
    adapted, params = scope["adapted"], scope["params"]
    trees = adapted.init(jax.random.key(1), params, num_tasks=2)
    inputs = (scope["images"],) if kind == "vit" else (scope["ids"], scope["mask"])
    variables = {"params": params, **trees}
    out = jax.jit(lambda *args: adapted.apply(variables, *args, task_id=jax.numpy.arange(2)))(*inputs)
    assert np.isfinite(np.asarray(out)).all()
    assert out.shape == ((2, inputs[0].shape[1], 64) if kind == "decoder" else (2, 3))


def test_a_stream_of_ones_own_takes_20_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_lines(block("docs/guides/stream.md", "own stream")) <= 20
    rows = [{"image": np.full((4, 4, 3), i, np.uint8), "label": i % 100} for i in range(200)]
    builder = SimpleNamespace(info=SimpleNamespace(name="cifar100", features={"image": None, "label": None}))
    monkeypatch.setattr(records, "tfds_builder", lambda dataset, data_dir: builder)
    monkeypatch.setattr(records, "records", lambda builder, split: rows)
    learner = SimpleNamespace(learn=lambda bank, name, batches: (*bank, (name, *batches)))
    scope = run("docs/guides/stream.md", "own stream", {"bank": (), "learner": learner})
    learnt = {name: batches for name, *batches in scope["bank"]}
    assert len(learnt) == 10
    for index, batches in enumerate(learnt.values()):
        assert len(batches) == 100
        assert all(batch["inputs"]["images"].shape == (32, 4, 4, 3) for batch in batches)
        seen = np.concatenate([batch["inputs"]["images"][batch["weights"] > 0, 0, 0, 0] for batch in batches])
        assert set(np.round(seen * 255).astype(int) % 100) == set(range(10 * index, 10 * index + 10))
