"""What is not answered again has the bits that answering again would give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from method_jobs import TASKS, begun

from experiments.algorithms.logits_cache import LogitsCache, fingerprint
from experiments.algorithms.plan import AdapterLifetime, Plan
from share_jax.parameterizations.separate import SeparateLoRA
from share_jax.parameterizations.shared_a import SharedA


def test_any_changed_bit_is_answered_again() -> None:
    asked, base, inputs = [], {"params": np.zeros(2)}, {"x": np.zeros(3)}
    leaves: dict[str, Any] = {"shared": {"a": np.zeros((2, 2), np.float32)}, "slot": {"b": np.zeros(3, np.float32)}}
    state = {"base": base, **leaves}

    def logits(index: int, given: Any) -> np.ndarray:
        asked.append(index)
        return np.array([len(asked)])

    answer = LogitsCache().unless_changed(logits, lambda index: (state["base"], state["shared"], state["slot"]))

    def again(count: int, given: Any = inputs, index: int = 0) -> None:
        answer(index, given)
        assert len(asked) == count

    again(1)
    again(1)
    state["slot"] = {"b": np.array([0.0, 0.0, -0.0], np.float32)}  # equal by value, not by bits
    again(2)
    state["shared"] = {"a": np.full((2, 2), 1e-45, np.float32)}
    again(3)
    state["base"] = {"params": np.zeros(2)}
    again(4)
    again(5, {"x": np.zeros(3)})  # other inputs are answered, and not kept
    again(5)
    again(6, index=1)
    again(6)


def test_a_fingerprint_tells_names_types_and_shapes_apart() -> None:
    x = np.zeros(4, np.float32)
    trees = [{"a": x}, {"b": x}, {"a": x.reshape(2, 2)}, {"a": x.view(np.int32)}, {"a": {"b": x}}, {}]
    assert len({fingerprint(tree) for tree in trees}) == len(trees)
    assert fingerprint({"a": x}, {}) != fingerprint({}, {"a": x})
    assert fingerprint({"a": x, "b": x}) == fingerprint({"b": x, "a": x})


@pytest.mark.parametrize(("carry", "anew"), [("nothing", False), pytest.param("adapter", True, marks=pytest.mark.slow)])
def test_rows_are_those_of_answering_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carry: AdapterLifetime, anew: bool
) -> None:
    """Bitwise; a method that touches no old task answers each once, and all of them after the last."""
    courses, counts = [], []
    for kept in (True, False):
        with monkeypatch.context() as patch:
            if not kept:
                patch.setattr(LogitsCache, "unless_changed", lambda self, logits, read: logits)
            method = SharedA(4, 8.0) if carry == "nothing" else SeparateLoRA(4, 8.0)
            sequence, course = begun(tmp_path / str(kept), Plan(method, carry), learning_rate=0.01)
            calls, inner = [], sequence.predictor

            def counted(*args: Any, calls: list = calls, inner: Any = inner) -> Any:
                calls.append(1)
                return inner(*args)

            sequence.predictor = counted
            for _ in range(TASKS):
                course = sequence.learn_next(course)
        courses.append(course)
        counts.append(len(calls))
    assert courses[0].rows == courses[1].rows
    assert courses[0].digests == courses[1].digests
    assert counts[1] == 2 + 3 + 3
    # after task 1 it and the next, after task 2 the same, and after the last task all
    assert counts[0] == (counts[1] if anew else 2 + 2 + 3)
