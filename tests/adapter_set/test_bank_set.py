"""Banks to compressed sets and back: a subspace stays the subspace that it is."""

import numpy as np
import pytest
from random_banks import HEADED, METHODS, MODELS, SHARE, TASKS, adapted_with, empty_bank, logits, random_bank

import share_jax
from share_jax.adapter_set.bank_set import export_set, import_set
from share_jax.adapter_set.store import read_set
from share_jax.errors import InputError, TaskError
from share_jax.trees import flat


@pytest.mark.parametrize("model", [MODELS["scanned"], HEADED], ids=["scanned", "headed"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_bank_becomes_a_set_and_the_set_a_bank(method, model, tmp_path):
    adapted, base = adapted_with(method, model)
    bank = random_bank(adapted, base)
    done = export_set(bank, adapted, tmp_path / "set", base_model="acme/mine")
    assert (done.state.tasks, done.manifest.base_model) == (TASKS, "acme/mine")
    assert max(task.relative_error for task in done.manifest.tasks.values()) < 2e-6
    after, reports = import_set(tmp_path / "set", adapted, empty_bank(adapted, base))
    assert after.names == TASKS
    assert max(report.error_bound for report in reports.values()) < 1e-5
    for task in TASKS:
        np.testing.assert_allclose(logits(adapted, base, after, task), logits(adapted, base, bank, task), atol=1e-5)


def test_bases_and_coefficients_of_share_are_the_sets_to_the_bit(tmp_path):
    adapted, base = adapted_with(SHARE, HEADED)
    bank = random_bank(adapted, base)
    export_set(bank, adapted, tmp_path / "set")
    after, _ = import_set(tmp_path / "set", adapted, empty_bank(adapted, base))
    for mine, theirs in ((bank.shared, after.shared), (bank.tasks, after.tasks)):
        for path, leaf in flat(theirs).items():
            own = np.asarray(flat(mine)[path])
            np.testing.assert_array_equal(np.asarray(leaf), own[: len(leaf)], err_msg=path)


def test_some_tasks_join_a_bank_that_has_others(tmp_path):
    adapted, base = adapted_with(METHODS[1], HEADED)
    export_set(random_bank(adapted, base), adapted, tmp_path / "set")
    bank = random_bank(adapted, base, ("own",), seed=2)
    after, _ = import_set(tmp_path / "set", adapted, bank, tasks=["second"])
    assert after.names == ("own", "second")
    np.testing.assert_array_equal(logits(adapted, base, after, "own"), logits(adapted, base, bank, "own"))
    with pytest.raises(TaskError, match="fourth"):
        import_set(tmp_path / "set", adapted, bank, tasks=["fourth"])


def test_a_set_with_more_columns_than_the_bank_is_projected_and_says_so(tmp_path):
    wide, base = adapted_with(SHARE)
    export_set(random_bank(wide, base), wide, tmp_path / "set")
    narrow, _ = adapted_with(share_jax.Share(num_basis=2, pseudo_rank=2))
    after, reports = import_set(tmp_path / "set", narrow, empty_bank(narrow, base))
    assert after.names == TASKS
    assert all(0.01 < report.relative_change <= report.error_bound for report in reports.values())


def test_nothing_is_replaced_unasked(tmp_path):
    adapted, base = adapted_with(METHODS[0])
    bank = random_bank(adapted, base)
    (tmp_path / "other").mkdir()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="one that exists"):
            export_set(bank, adapted, tmp_path / "other", overwrite=overwrite)
    export_set(bank, adapted, tmp_path / "set")
    with pytest.raises(InputError, match="overwrite=True"):
        export_set(bank, adapted, tmp_path / "set")
    export_set(bank, adapted, tmp_path / "set", overwrite=True, storage="bf16")
    assert read_set(tmp_path / "set").manifest.storage == "bf16"
