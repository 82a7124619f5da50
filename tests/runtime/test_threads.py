"""Pieces of work on all processors: their order, their errors, and BLAS's threads."""

import threading

import pytest
import threadpoolctl

from share_jax.runtime import threads


def test_each_keeps_the_order_runs_side_by_side_and_passes_errors_on(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 2)
    both = threading.Barrier(2, timeout=30)  # breaks unless two pieces are at work at once

    def work(x):
        both.wait()
        return -x

    assert threads.parallel_map(work, [3, 1, 2, 4]) == [-3, -1, -2, -4]
    with pytest.raises(ZeroDivisionError):
        threads.parallel_map(lambda x: 1 / x, [1, 0])


def blas_threads():
    return {found["num_threads"] for found in threadpoolctl.threadpool_info() if found["user_api"] == "blas"}


def test_blas_has_one_thread_beside_others_and_gets_its_own_back(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 2)
    threads._controller.cache_clear()  # of another test's, before a library was loaded that has a BLAS of its own
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert threads.parallel_map(lambda _: blas_threads(), [0, 1]) == [{1}, {1}]
        assert blas_threads() == {2}
        with pytest.raises(ZeroDivisionError):
            threads.parallel_map(lambda x: 1 / x, [0, 0])
        assert blas_threads() == {2}


def test_pieces_may_have_pieces_and_callers_come_at_once(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 2)

    def whole(n):
        return sum(threads.parallel_map(lambda x: sum(threads.parallel_map(lambda y: x * y, range(3))), range(n)))

    found = []
    callers = [threading.Thread(target=lambda: found.append(whole(20)), daemon=True) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
    assert found == [3 * sum(range(20))] * 3
