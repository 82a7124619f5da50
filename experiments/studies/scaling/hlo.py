"""Bytes that a compiled program sends: its collectives, read from the optimised HLO's text.

Each collective counts what a ring sends from one device, with n devices in its group: all-reduce 2 (n-1)/n of its
size, all-gather and reduce-scatter (n-1)/n of the larger side, all-to-all (n-1)/n, collective-permute all of it. What
stands in the body of a loop counts as often as the loop runs.
"""

import math
import re
from collections import defaultdict

SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
SIZES |= {"u64": 8, "f64": 8}

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf"= (.*?) ({_KINDS})(?:-start)?\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLS = re.compile(r"(?:to_apply|calls|body|condition)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


def array_bytes(shape: str) -> int:
    """Bytes of an HLO shape, a tuple's parts added.

    >>> array_bytes("(f32[4,8]{1,0}, bf16[2]{0}, f32[])")
    136
    """
    found = [(kind, dims) for kind, dims in _ARRAY.findall(shape) if kind in SIZES]
    return sum(SIZES[kind] * math.prod(int(d) for d in dims.split(",") if d) for kind, dims in found)


def group_size(text: str, devices: int) -> int:
    """Devices in each group of a collective.

    >>> group_size("replica_groups={{0,1},{2,3}}", 4), group_size("replica_groups=[2,4]<=[8]", 8)
    (2, 4)
    """
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(listed[1].split(","))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", text):
        return int(iota[2])
    return devices


def _sent(kind: str, size: int, n: int) -> float:
    share = (n - 1) / n
    return {
        "all-reduce": 2 * share * size,
        "all-gather": share * size,
        "reduce-scatter": share * size * n,  # the result is one part
        "all-to-all": share * size,
        "collective-permute": float(size),
    }[kind]


def traffic(text: str, devices: int) -> dict[str, float]:
    """Bytes that each device sends while the program runs once, by kind of collective.

    Args:
        text: `compiled.as_text()`.
        devices: how many it is compiled for.
    """
    own: dict[str, dict[str, float]] = {}
    calls: dict[str, list[tuple[str, int]]] = {}
    entry = name = ""
    for line in text.splitlines():
        if not line.startswith(" ") and (start := _COMPUTATION.match(line.strip())):
            name = start[1]
            own[name], calls[name] = defaultdict(float), []
            entry = name if line.startswith("ENTRY") else entry
            continue
        if not name:
            continue
        if found := _COLLECTIVE.search(line):
            size = array_bytes(found[1])
            if f"{found[2]}-start(" in line:  # a tuple of operand and result: count the result
                size = max(array_bytes(part) for part in re.findall(r"\w+\[[\d,]*\]", found[1]))
            own[name][found[2]] += _sent(found[2], size, group_size(line, devices))
        trips = int(match[1]) if (match := _TRIPS.search(line)) else 1
        for one, several in _CALLS.findall(line):
            calls[name] += [(callee.strip().lstrip("%"), trips) for callee in (one or several).split(",")]

    def total(computation: str) -> dict[str, float]:
        whole = defaultdict(float, own[computation])
        for callee, trips in calls[computation]:
            for kind, size in total(callee).items() if callee in own else ():
                whole[kind] += trips * size
        return whole

    return dict(total(entry))
