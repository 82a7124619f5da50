"""Counts against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

from share_jax.bank.accounting import ParameterCounts, bytes_on_disk, count, nbytes, separate_lora_count
from share_jax.errors import InputError

# Two kernels, 10 x 20 and 20 x 5, rank 2, ten tasks, a 20 -> 3 head with bias; A is shared.
COUNTS = ParameterCounts(
    base=10 * 20 + 20 * 5,
    shared=10 * 2 + 20 * 2,
    per_task=2 * 20 + 2 * 5,
    heads_per_task=20 * 3 + 3,
    tasks=10,
    separate_per_task=2 * (10 + 20) + 2 * (20 + 5),
    head_sets=10,
)


def test_totals_and_ratios_by_hand():
    assert COUNTS.total_tasks == 60 + 10 * 50
    assert COUNTS.separate_lora_total == 1100
    assert COUNTS.ratio_to_separate == 560 / 1100
    assert COUNTS.ratio_to_separate_with_heads == (560 + 630) / (1100 + 630)
    assert COUNTS.ratio_to_base == (560 + 630) / 300


def test_an_adapter_and_a_head_that_serve_all_tasks_are_counted_once():
    one = COUNTS.held_once(one_head=True)
    assert one.total_tasks == 60 + 50
    assert one.ratio_to_separate == 110 / 1100
    assert one.ratio_to_separate_with_heads == (110 + 63) / (1100 + 630)
    assert one.ratio_to_base == (110 + 63) / 300
    assert COUNTS.held_once().ratio_to_base == (110 + 630) / 300


def test_as_dict_has_the_names_of_results_json():
    got = COUNTS.as_dict()
    names = {"base", "shared", "per_task", "heads_per_task", "total_tasks", "separate_lora_total", "ratio_to_separate"}
    assert names <= set(got)
    assert (got["total_tasks"], got["separate_lora_total"]) == (560, 1100)


def test_without_adapters_there_is_no_ratio():
    heads_only = ParameterCounts(
        base=0, shared=0, per_task=0, heads_per_task=63, tasks=10, separate_per_task=0, head_sets=10
    )
    got = heads_only.as_dict()
    assert got["ratio_to_separate"] is None
    assert got["ratio_to_separate_with_heads"] is None
    assert got["ratio_to_base"] is None


def test_separate_lora_count_by_hand():
    assert separate_lora_count([(10, 20), (20, 5)], 2) == 110
    assert separate_lora_count([], 4) == 0


def test_count_and_bytes_of_arrays_and_of_shapes():
    tree = {"a": jnp.zeros((3, 4)), "b": {"c": jnp.zeros((5,), jnp.bfloat16)}}
    assert (count(tree), nbytes(tree)) == (17, 58)
    shapes = jax.eval_shape(lambda: tree)
    assert (count(shapes), nbytes(shapes)) == (17, 58)


def test_bytes_on_disk_of_a_file_and_of_a_folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"12345")
    (tmp_path / "deep" / "er" / "two").write_bytes(b"123")
    assert bytes_on_disk(tmp_path / "one") == 5
    assert bytes_on_disk(tmp_path) == 8


def test_bytes_of_a_path_that_does_not_exist_are_not_zero(tmp_path):
    with pytest.raises(InputError, match="missing"):
        bytes_on_disk(tmp_path / "missing")
