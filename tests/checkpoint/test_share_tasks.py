"""Banks of one evolving subspace through every door: as adapters, as a set, from a set, and learnt on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from learning import X, batches, share_learner, started

import share_jax
from share_jax.adapter_set.bank_set import export_set, import_set
from share_jax.adapter_set.store import read_set
from share_jax.adapters.factors import Factors
from share_jax.checkpoint.bank_tasks import open_bank
from share_jax.checkpoint.share_tasks import load_share_bank, save_share_task
from share_jax.cli.main import main
from share_jax.errors import FormatError
from share_jax.subspace.error_bounds import relative_distance
from share_jax.subspace.from_bank import bank_heads
from share_jax.subspace.into_bank import with_adapters
from share_jax.subspace.share_bank import ShareBank, with_record
from share_jax.subspace.state import factors_of, report

TASKS = ("one", "two", "three")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A learner with fewer columns than its tasks have together, its bank, and the bank's folder."""
    made, folder = share_learner(num_basis=4, pseudo_rank=2, phi=2), tmp_path_factory.mktemp("bank")
    bank = started(made, 1)
    for index, task in enumerate(TASKS):
        bank = made.learn(bank, task, batches(index, 20))
        save_share_task(folder, made, bank)
    return made, bank, folder


def test_its_folder_is_read_as_adapters_with_heads(learnt) -> None:
    made, bank, folder = learnt
    sources = open_bank(folder)
    assert tuple(source.name for source in sources) == TASKS
    heads = bank_heads(bank, made.model)
    for source in sources:
        served = factors_of(bank.state, source.name)
        for name, factors in source.adapter().items():
            want = served[name.replace(".", "/") + "/kernel"]
            product = np.asarray(factors.lora_a @ factors.lora_b) * factors.scale
            np.testing.assert_allclose(product, np.asarray(want.lora_a @ want.lora_b) * want.scale, atol=1e-6)
        assert len(source.extras()) == len(heads[source.name])


def test_the_command_compresses_its_folder(learnt, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, folder = learnt
    assert main(["compress", str(folder), "-o", str(tmp_path / "set"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tasks"] == len(TASKS)
    assert read_set(tmp_path / "set").state.tasks == TASKS


def test_a_set_of_it_keeps_the_bounds(learnt, tmp_path: Path) -> None:
    made, bank, _ = learnt
    done = export_set(bank, made.model, tmp_path / "set")
    lost = {task: each.error_bound for task, each in bank.report().items()}
    assert lost["one"] > 1e-4
    assert {task: each.error_bound for task, each in report(done.state).items()} == pytest.approx(lost, rel=1e-5)
    entries = done.manifest.tasks
    assert [entries[task].measured for task in TASKS] == [False, False, True]
    assert entries["one"].relative_error == pytest.approx(lost["one"], rel=1e-5)


def test_a_bank_that_was_served_alone_is_learnt_on_and_bounds_count_from_there(learnt, tmp_path: Path) -> None:
    made, bank, _ = learnt
    share_jax.save_bank(tmp_path / "bank", made, bank)
    back = share_jax.load_bank(tmp_path / "bank", made, started(made, 1))
    on, before = made.learn(back, "four", batches(3, 20)), with_record(back, made.model)
    want = made.learn(bank, "four", batches(3, 20))
    assert on.names == want.names
    for task in TASKS:
        np.testing.assert_allclose(made.predict(on, task, X), made.predict(want, task, X), rtol=0, atol=1e-3)
        moved = relative_distance(factors_of(before.state, task), factors_of(on.state, task))
        assert 0 < moved <= on.report()[task].error_bound
        assert on.report()[task].error_bound <= want.report()[task].error_bound


def test_a_bank_out_of_a_set_is_learnt_on_and_its_bounds_are_those_since_it_was_learnt(learnt, tmp_path: Path) -> None:
    made, bank, _ = learnt
    export_set(bank, made.model, tmp_path / "set")
    back, _ = import_set(tmp_path / "set", made.model, started(made, 1))
    on, want = made.learn(back, "four", batches(3, 20)), made.learn(bank, "four", batches(3, 20))
    for task in TASKS:
        np.testing.assert_allclose(made.predict(on, task, X), made.predict(want, task, X), rtol=0, atol=1e-3)
        assert on.report()[task].error_bound == pytest.approx(want.report()[task].error_bound, rel=1e-4)


def test_an_adapter_that_comes_in_leaves_what_is_known_of_losses(learnt, tmp_path: Path) -> None:
    made, bank, _ = learnt
    originals = {task: factors_of(bank.state, task) for task in TASKS}
    draw = np.random.default_rng(0).standard_normal
    other = {
        name: Factors(draw((x.shape[0], 4)), 0.1 * draw((4, x.shape[1]))) for name, x in originals["one"].items()
    }  # of a larger rank than the bank's
    taken, reports = with_adapters(bank, made.model, {"other": other}, {"other": bank_heads(bank, made.model)["one"]})
    assert isinstance(taken, ShareBank)
    assert {task: taken.report()[task] for task in TASKS} == bank.report()
    measured = relative_distance(other, factors_of(taken.state, "other"))
    assert 0.1 < measured <= taken.report()["other"].error_bound == pytest.approx(reports["other"].error_bound)
    on = made.learn(taken, "four", batches(3, 20))
    for task in TASKS:
        since = relative_distance(originals[task], factors_of(on.state, task))
        assert bank.report()[task].error_bound + since / 2 < on.report()[task].error_bound
    assert relative_distance(other, factors_of(on.state, "other")) <= on.report()["other"].error_bound
    entries = export_set(taken, made.model, tmp_path / "set").manifest.tasks
    assert [entries[task].measured for task in (*TASKS, "other")] == [False, False, False, True]
    assert entries["other"].relative_error == pytest.approx(measured, rel=1e-3)


def test_a_folder_that_is_not_there_is_refused_and_not_made(learnt, tmp_path: Path) -> None:
    made, _, _ = learnt
    with pytest.raises(FormatError, match="typo"):
        load_share_bank(tmp_path / "typo", made, started(made, 1))
    assert not (tmp_path / "typo").exists()


def test_each_form_is_told_how_it_is_loaded(learnt, tmp_path: Path) -> None:
    made, bank, folder = learnt
    with pytest.raises(FormatError, match="load_share_bank"):
        share_jax.load_bank(folder, made, started(made, 1))
    share_jax.save_bank(tmp_path / "bank", made, bank)
    with pytest.raises(FormatError, match=r"share_jax\.load_bank"):
        load_share_bank(tmp_path / "bank", made, started(made, 1))
