"""The measures against numbers worked out by hand, and identities that hold for any matrix."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from share_jax import metrics
from share_jax.errors import InputError

NAN = float("nan")
EXACT = 1e-12  # float64 means of a few values

# Worked out by hand; row i: after task i.
FULL = np.array(
    [
        [0.9, 0.5, 0.4],
        [0.95, 0.8, 0.3],
        [0.6, 0.7, 0.85],
    ]
)
UNTRAINED = np.array([0.5, 0.45, 0.35])


def test_hand_computed_matrix():
    found = metrics.summarize(FULL, UNTRAINED)
    assert found == pytest.approx(
        {
            "acc": (0.6 + 0.7 + 0.85) / 3,
            "learning_accuracy": (0.9 + 0.8 + 0.85) / 3,
            "bwt": ((0.6 - 0.9) + (0.7 - 0.8)) / 2,  # -0.2
            "fwt": ((0.5 - 0.45) + (0.3 - 0.35)) / 2,  # 0
            "forgetting": ((0.95 - 0.6) + (0.8 - 0.7)) / 2,  # 0.225: the best of task 1 came after task 2
            "retention": (0.6 / 0.9 + 0.7 / 0.8 + 1.0) / 3,
            "average_incremental_accuracy": (0.9 + (0.95 + 0.8) / 2 + (0.6 + 0.7 + 0.85) / 3) / 3,
        },
        abs=EXACT,
    )
    assert tuple(found) == metrics.NAMES


def test_forgetting_takes_the_best_row_and_leaves_the_last_one_out():
    rising = np.array([[0.5, NAN, NAN], [0.6, 0.7, NAN], [0.9, 0.7, 0.8]])
    # the last row is task 1's best, and must not enter its maximum: (0.6 - 0.9 + 0.7 - 0.7) / 2
    assert metrics.forgetting(rising) == pytest.approx(-0.15, abs=EXACT)
    # forgetting is not minus BWT when the best came later than the task: 0.95 against 0.9
    assert metrics.forgetting(FULL) == pytest.approx(0.225, abs=EXACT)
    assert metrics.bwt(FULL) == pytest.approx(-0.2, abs=EXACT)


def test_forgetting_counts_rows_above_the_diagonal_where_evaluated():
    early = np.array([[0.9, 0.99, NAN], [0.9, 0.8, NAN], [0.9, 0.8, 0.7]])
    assert metrics.forgetting(early) == pytest.approx((0.0 + 0.19) / 2, abs=EXACT)


def test_lower_triangle_alone_leaves_only_fwt_undefined():
    lower = np.where(np.tri(3, dtype=bool), FULL, NAN)
    found = metrics.summarize(lower, UNTRAINED)
    assert [name for name, value in found.items() if value is None] == ["fwt"]
    assert found["forgetting"] == pytest.approx(0.225, abs=EXACT)


def test_last_row_alone_defines_acc_alone():
    joint = np.full((3, 3), NAN)
    joint[-1] = [0.6, 0.7, 0.8]
    found = metrics.summarize(joint, UNTRAINED)
    assert found.pop("acc") == pytest.approx(0.7, abs=EXACT)
    assert set(found.values()) == {None}


def test_single_task():
    found = metrics.summarize([[0.75]], [0.5])
    undefined = {"bwt": None, "fwt": None, "forgetting": None}
    defined = {
        "acc": 0.75,
        "learning_accuracy": 0.75,
        "retention": 1.0,
        "average_incremental_accuracy": 0.75,
    }
    assert found == undefined | defined


def test_fwt_needs_the_untrained_model_only_from_the_second_task():
    assert metrics.fwt(FULL, None) is None
    assert metrics.fwt(FULL, [NAN, 0.45, 0.35]) == pytest.approx(0.0, abs=EXACT)
    assert metrics.fwt(FULL, [0.5, 0.45, NAN]) is None


def test_retention_is_undefined_for_a_task_that_was_never_learnt():
    assert metrics.retention([[0.0, NAN], [0.5, 0.5]]) is None
    assert metrics.retention([[0.5, NAN], [0.0, 0.5]]) == 0.5


def test_seen_accuracy_leaves_a_missing_row_nan():
    seen = metrics.seen_accuracy([[NAN, NAN], [0.5, 0.75]])
    np.testing.assert_array_equal(seen, [NAN, 0.625])


def test_everything_is_json_without_nan():
    joint = np.full((2, 2), NAN)
    json.dumps(metrics.summarize(joint, [NAN, NAN]), allow_nan=False)
    json.dumps(metrics.summarize(FULL.astype(np.float32), UNTRAINED), allow_nan=False)


@pytest.mark.parametrize(
    ("matrix", "untrained", "told"),
    [
        ([0.1, 0.2], None, "shape (2,)"),
        (np.zeros((2, 3)), None, "shape (2, 3)"),
        (np.zeros((0, 0)), None, "shape (0, 0)"),
        (np.zeros((2, 2, 2)), None, "shape (2, 2, 2)"),
        ([[0.1, 0.2], [0.3]], None, "no array of numbers"),
        ([["a"]], None, "no array of numbers"),
        ([[float("inf")]], None, "an infinite value"),
        (np.zeros((2, 2)), [0.1, 0.2, 0.3], "shape (3,)"),
        (np.zeros((2, 2)), np.zeros((2, 1)), "shape (2, 1)"),
        (np.zeros((2, 2)), [0.1, float("-inf")], "an infinite value"),
    ],
)
def test_bad_input_is_one_line(matrix, untrained, told):
    with pytest.raises(InputError) as caught:
        metrics.summarize(matrix, untrained)
    message = str(caught.value)
    assert told in message
    assert "expected" in message
    assert "\n" not in message


ACCURACY = st.floats(0.01, 1.0, allow_nan=False)
MATRICES = st.integers(2, 6).flatmap(lambda n: hnp.arrays(np.float64, (n, n), elements=ACCURACY))


@given(st.lists(ACCURACY, min_size=2, max_size=6))
def test_constant_columns_forget_nothing(column):
    constant = np.tile(column, (len(column), 1))
    found = metrics.summarize(constant, column)
    assert found["forgetting"] == 0.0
    assert found["bwt"] == 0.0
    assert found["fwt"] == 0.0
    assert found["retention"] == 1.0
    assert found["acc"] == found["learning_accuracy"]


@given(MATRICES)
def test_forgetting_is_at_least_what_bwt_lost(matrix):
    # the maximum runs over the diagonal's rows too
    assert metrics.forgetting(matrix) >= -metrics.bwt(matrix) - EXACT


@given(MATRICES)
def test_bwt_is_the_gap_between_acc_and_learning_accuracy(matrix):
    tasks = len(matrix)
    gap = (metrics.acc(matrix) - metrics.learning_accuracy(matrix)) * tasks / (tasks - 1)
    assert metrics.bwt(matrix) == pytest.approx(gap, abs=1e-9)


@given(MATRICES, st.randoms(use_true_random=False))
def test_one_missing_entry_on_or_below_the_diagonal_is_never_guessed(matrix, random):
    row = random.randrange(len(matrix))
    column = random.randrange(row + 1)
    holed = matrix.copy()
    holed[row, column] = NAN
    found = metrics.summarize(holed, matrix[0])
    assert found["average_incremental_accuracy"] is None
    assert found["forgetting"] is None
    if row == len(matrix) - 1:
        assert found["acc"] is None
    if row == column:
        assert found["learning_accuracy"] is None
        assert found["retention"] is None
    assert all(value is None or np.isfinite(value) for value in found.values())


@given(MATRICES)
def test_upper_entries_change_only_fwt_and_forgetting(matrix):
    lower = np.where(np.tri(len(matrix), dtype=bool), matrix, NAN)
    full, half = metrics.summarize(matrix, matrix[0]), metrics.summarize(lower, matrix[0])
    for name in set(metrics.NAMES) - {"fwt", "forgetting"}:
        assert full[name] == half[name]
    assert half["fwt"] is None
    assert half["forgetting"] <= full["forgetting"] + EXACT
