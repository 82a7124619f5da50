"""Interleaved timing: every case once per round, in another order each round, and what is read off the rounds.

A figure is the median over the rounds with its interquartile range. A ratio is the median of the rounds' own ratios:
both of its sides were measured within the same seconds, so that a machine that slows down for a while slows down both.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PAUSE = 0.02
"""Seconds between two measurements: threads of the other runtime stop waiting busily and go to sleep."""

Rounds = Mapping[int, float]
"""Seconds by round."""

Key = tuple[str, str]
"""A case's name and the system that ran it."""


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        case: what is done.
        system: who does it.
        run: does it once and returns the seconds that it took, in whichever process.
        facts: figures that are no times of the race, such as bytes; they are put beside the result.
        every: it takes part in every so many rounds, and in the first.
        warm: whether it is run once before the first round; whole commands are as cold as they always are.
    """

    case: str
    system: str
    run: Callable[[], float]
    facts: Mapping[str, Any] = field(default_factory=dict)
    every: int = 1
    warm: bool = True

    @property
    def key(self) -> Key:
        """What the case's times are kept under."""
        return self.case, self.system


def timed(call: Callable[[], Any], times: int = 1) -> Callable[[], float]:
    """The call, or so many in a row, as a case's `run`: the wall time, with all arrays that each returns awaited."""
    import jax

    def run() -> float:
        began = time.perf_counter()
        for _ in range(times):
            jax.block_until_ready(call())
        return time.perf_counter() - began

    return run


def race(
    cases: Sequence[Case],
    rounds: int,
    *,
    pause: float = PAUSE,
    notify: Callable[[str], None] = lambda text: None,
) -> dict[Key, dict[int, float]]:
    """Warms the cases up, then runs them in turn, round after round.

    Returns:
        The seconds of every case by round.
    """
    times: dict[Key, dict[int, float]] = {case.key: {} for case in cases}
    if len(times) != len(cases):
        raise ValueError("two cases have one name and system")
    for number in range(-1, rounds):
        order = [case for case in cases if (case.warm if number < 0 else number % case.every == 0)]
        random.Random(number).shuffle(order)
        began = time.perf_counter()
        for case in order:
            time.sleep(pause)
            seconds = case.run()
            if number >= 0:
                times[case.key][number] = seconds
        notify(f"round {number + 1} of {rounds}, {time.perf_counter() - began:.1f} s")
    return times


def summary(case: Case, rounds: Rounds) -> dict[str, Any]:
    """A case's row of the results: median and interquartile range in seconds, and the case's facts.

    >>> summary(Case("step", "ours", lambda: 0.0), {0: 1.0, 1: 2.0, 2: 4.0})["median_s"]
    2.0
    """
    values = list(rounds.values())
    return {
        "case": case.case,
        "system": case.system,
        "median_s": float(np.median(values)),
        "iqr_s": float(np.subtract(*np.percentile(values, [75, 25]))),
        "repetitions": len(values),
        **case.facts,
    }


def ratio(over: Rounds, under: Rounds) -> float:
    """The median over the rounds that both sides took part in of each round's ratio.

    >>> ratio({0: 2.0, 1: 9.0, 2: 5.0}, {0: 1.0, 1: 3.0, 2: 2.0})
    2.5
    """
    return float(np.median([over[number] / under[number] for number in over if number in under]))


def total(*parts: tuple[float, Rounds]) -> dict[int, float]:
    """Each round's weighted sum of several cases.

    >>> total((1, {0: 2.0}), (10, {0: 0.5, 1: 1.0}))
    {0: 7.0}
    """
    common = set.intersection(*(set(rounds) for _, rounds in parts))
    return {number: sum(weight * rounds[number] for weight, rounds in parts) for number in sorted(common)}


def fastest(several: Sequence[Rounds]) -> dict[int, float]:
    """Each round's smallest time.

    >>> fastest([{0: 2.0, 1: 1.0}, {0: 1.0, 1: 3.0}])
    {0: 1.0, 1: 1.0}
    """
    common = set.intersection(*(set(rounds) for rounds in several))
    return {number: min(rounds[number] for rounds in several) for number in sorted(common)}
