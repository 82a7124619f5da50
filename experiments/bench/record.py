"""What a suite leaves behind: one JSON document, its bars, and the checks that a page makes before it believes one."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share_jax.errors import FormatError, message

SUITES = ("train", "prefix", "serve", "adapters", "tasks", "roofline", "lm", "gpu", "tests")

_SHAPE: dict[str, type | tuple[type, ...]] = {
    "suite": str, "results": list, "ratios": dict, "bars": list, "versions": dict,
}  # fmt: skip
_RESULT: dict[str, type | tuple[type, ...]] = {
    "case": str, "system": str, "median_s": (int, float), "iqr_s": (int, float), "repetitions": int,
}  # fmt: skip
_BAR: dict[str, type | tuple[type, ...]] = {
    "name": str, "value": (int, float), "limit": (int, float), "met": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """A limit that ratios of a suite should stay at or below.

    Attributes:
        pattern: a regular expression; every ratio whose whole name it matches is held to the limit.
        limit: the most that meets the bar.
        needs_peers: whether it cannot be measured without the peers.
    """

    pattern: str
    limit: float
    needs_peers: bool = False


_PREFIX = r"(vit|minilm|tiny).*, float32: "
BARS: dict[str, tuple[Bar, ...]] = {
    "train": (
        Bar(_PREFIX + r"(shared_a later task|separate LoRA) / PEFT LoRA", 0.70, needs_peers=True),
        Bar(_PREFIX + r"shared_a later task / separate LoRA", 0.95),
        Bar(_PREFIX + r"shared_a later task / floor", 1.35),
    ),
    "prefix": (Bar(r"prefix cache, FFN-down(, products kept)?, (6.4|20) passes: with / without, whole task", 0.50),),
    "roofline": (Bar(r".*: shared_a later task / floor", 1.35),),
    "lm": (
        Bar(r"step, .*, float32: shared_a later task / floor", 1.20),
        Bar(r"step, .*, all layers, float32: shared_a later task / PEFT LoRA", 1.00, needs_peers=True),
        Bar(r"task, .*: (6|20) passes, whole task / PEFT", 0.60, needs_peers=True),
        Bar(r"memory, .*: peak memory, ours / PEFT", 1.00, needs_peers=True),
        Bar(r"decode, .*: 32 rows, 32 tasks, 100 stored / one task", 1.15),
        Bar(r"decode, .*: .*: 100 stored / 10 stored", 1.03),
        Bar(r"decode, .*: 32 rows, 16 tasks, ours / PEFT", 1 / 3, needs_peers=True),
    ),
    "serve": (
        Bar(r".*: one task / frozen forward", 1.10),
        Bar(r".*: 32 tasks / frozen forward", 1.20),
        Bar(r".*: 1,000 stored / 10 stored, (one task|4 tasks)", 1.05),
        Bar(r".*: 16 tasks mixed, ours / PEFT", 1 / 3, needs_peers=True),
    ),
    "adapters": (
        Bar(r"50 adapters: compress, whole command, ours / faster peer", 0.70, needs_peers=True),
        Bar(r"50 adapters: compress, in process, ours / faster peer", 0.50, needs_peers=True),
        Bar(r"50 adapters: error, ours / (faster|best) peer", 1.00, needs_peers=True),
        Bar(r"7B.*: compress, whole command, ours / faster peer", 0.70, needs_peers=True),
        Bar(r"7B.*: error, ours / (faster|best) peer", 1.00, needs_peers=True),
        Bar(r"7B.*: compress, peak memory, ours / leaner peer", 0.50, needs_peers=True),
        Bar(r"7B.*: compress, peak memory / 3 GiB", 1.00),
    ),
    "gpu": (
        Bar(r"step, (vit-b|llama-1b).*: shared_a later task / PEFT LoRA, compiled", 0.80, needs_peers=True),
        Bar(r"mixed, .*: 32 tasks, ours / PEFT", 0.20, needs_peers=True),
        Bar(r"mixed, .*: 32 tasks / one task", 1.10),
    ),
    "tests": (),
    "tasks": (
        Bar(r"step with 1,000 slots / 10 slots", 1.05),
        Bar(r"step of task 2 / separate LoRA", 1.00),
        Bar(r"compilations after the first task", 0.0),
    ),
}
"""Each suite's bars; a study has none. All are upper limits of ratios: "at least 3 times slower" is a ratio of 1/3."""


def bars(suite: str, ratios: Mapping[str, float]) -> list[dict[str, Any]]:
    """The suite's bars with what was found.

    >>> bars("tasks", {"step with 1,000 slots / 10 slots": 1.25})
    [{'name': 'step with 1,000 slots / 10 slots', 'value': 1.25, 'limit': 1.05, 'met': False}]
    """
    return [
        {"name": name, "value": value, "limit": bar.limit, "met": value <= bar.limit}
        for bar in BARS.get(suite, ())
        for name, value in ratios.items()
        if re.fullmatch(bar.pattern, name)
    ]


def not_measured(suite: str, ratios: Mapping[str, float]) -> list[str]:
    """The patterns of bars that no ratio answers to, as without peers."""
    return [bar.pattern for bar in BARS.get(suite, ()) if not any(re.fullmatch(bar.pattern, name) for name in ratios)]


def document(
    suite: str,
    results: Sequence[Mapping[str, Any]],
    ratios: Mapping[str, float],
    versions: Mapping[str, Any],
    **further: Any,
) -> dict[str, Any]:
    """The whole record of a suite; `further` entries stand beside those that every suite has."""
    return {
        "suite": suite,
        "results": [dict(row) for row in results],
        "ratios": dict(ratios),
        "bars": bars(suite, ratios),
        "not_measured": not_measured(suite, ratios),
        "versions": dict(versions),
        **further,
    }


def check(found: Any, source: str, suites: Sequence[str] = SUITES) -> dict[str, Any]:
    """The document, if it is one of these suites.

    Raises:
        FormatError: it lacks an entry, or one is of another type, or a bar's verdict is not what its numbers say.
    """

    def refuse(what: str, got: object, expected: str) -> FormatError:
        fix = "write it anew with python -m experiments.bench"
        return FormatError(message(f"{source}, {what}", got=got, expected=expected, fix=fix))

    def typed(what: str, entry: Any, shape: Mapping[str, Any]) -> None:
        if not isinstance(entry, dict):
            raise refuse(what, type(entry).__name__, "an object")
        for name, kind in shape.items():
            if not isinstance(entry.get(name), kind) or isinstance(entry[name], bool) is not (kind is bool):
                raise refuse(f"{what}: {name}", repr(entry.get(name)), str(kind))

    typed("the document", found, _SHAPE)
    if found["suite"] not in suites:
        raise refuse("suite", repr(found["suite"]), f"one of {', '.join(suites)}")
    for number, row in enumerate(found["results"]):
        typed(f"result {number}", row, _RESULT)
    for name, value in found["ratios"].items():
        typed(f"ratio {name!r}", {"value": value}, {"value": (int, float)})
    for number, bar in enumerate(found["bars"]):
        typed(f"bar {number}", bar, _BAR)
        if bar["met"] != (bar["value"] <= bar["limit"]):
            raise refuse(f"bar {bar['name']!r}", f"met {bar['met']}", "the verdict that its numbers give")
    return found


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Writes a document, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read(path: Path, suites: Sequence[str] = SUITES) -> dict[str, Any]:
    """Reads a document and checks it.

    Raises:
        FormatError: it cannot be read or is not a suite's document.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "pass the JSON of a suite"
        raise FormatError(message(str(path), got=error, expected="a JSON document", fix=fix)) from error
    return check(found, str(path), suites)
