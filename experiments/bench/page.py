"""`experiments/BENCH.md`, written from the JSON documents of all suites."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench.plot import groups_of
from experiments.bench.record import BARS, SUITES
from experiments.report.blocks import table

TITLES = {
    "train": "`train`: one train step",
    "prefix": "`prefix`: a whole task with the frozen prefix kept",
    "serve": "`serve`: a batch of different tasks",
    "adapters": "`adapters`: a folder of LoRAs into one set, and back",
    "tasks": "`tasks`: what T tasks cost",
    "roofline": "`roofline`: against the floor and the machine",
    "lm": "`lm`: a decoder's train step, memory and decoding",
    "gpu": "`gpu`: steps, mixed batches and decoding on a GPU",
    "tests": "`tests`: the fast tests, file by file, and start-up",
}
_FACTS = {
    "first_call_s": ("first call, s", 1.0, "{:.1f}"),
    "tokens_per_s": ("tokens per second", 1.0, "{:.1f}"),
    "start_s": ("start, s", 1.0, "{:.1f}"),
    "resident_bytes": ("all buffers, MB", 1e-6, "{:.1f}"),
    "temporary_bytes": ("temporaries, MB", 1e-6, "{:.1f}"),
    "device_bytes": ("on the device, MB", 1e-6, "{:.0f}"),
    "adapter_bytes": ("adapters, MB", 1e-6, "{:.1f}"),
    "stack_bytes": ("slots, MB", 1e-6, "{:.1f}"),
    "compilations": ("programs compiled", 1.0, "{:.0f}"),
    "compilations_of_other_mixes": ("for other mixes", 1.0, "{:.0f}"),
    "error": ("error", 1.0, "{:.4f}"),
    "bytes": ("on disk, MB", 1e-6, "{:.1f}"),
    "bytes_per_task": ("per task, MB", 1e-6, "{:.3f}"),
    "cpu_s": ("processor time, s", 1.0, "{:.1f}"),
    "tests": ("tests", 1.0, "{:.0f}"),
    "failed": ("failed", 1.0, "{:.0f}"),
    "peak_bytes": ("peak memory, MB", 1e-6, "{:.0f}"),
}
"""Facts that become columns: heading, factor, format."""


def seconds(value: float) -> str:
    """Milliseconds, or seconds from two on.

    >>> seconds(0.0123), seconds(2.5)
    ('12.3 ms', '2.50 s')
    """
    return f"{value:.2f} s" if value >= 2 else f"{1000 * value:.1f} ms"


def bars_table(documents: Sequence[dict[str, Any]]) -> str:
    """All bars of all suites."""
    rows = []
    for found in documents:
        for bar in found["bars"]:
            verdict = "met" if bar["met"] else "**not met**"
            rows.append((found["suite"], bar["name"], f"{bar['value']:.3f}", f"{bar['limit']:.3g}", verdict))
        with_peers = len({row["system"] for row in found["results"]}) > 1
        needed = any(bar.needs_peers for bar in BARS[found["suite"]]) and not with_peers
        missing = "not measured: no peers" if needed else "not measured"
        others = [each for each in documents if each["suite"] == found["suite"] and each is not found]
        open_ = [pattern for pattern in found.get("not_measured", []) if not _measured_in(pattern, others)]
        rows += [(found["suite"], f"`{pattern}`", "-", "-", missing) for pattern in open_]
    return table(("suite", "bar", "value", "limit", ""), rows, left=(0, 1, 4))


def _measured_in(pattern: str, documents: Sequence[dict[str, Any]]) -> bool:
    """Whether any of them has a ratio that a bar holds."""
    return any(re.fullmatch(pattern, name) for found in documents for name in found["ratios"])


def open_lines(documents: Sequence[dict[str, Any]]) -> list[str]:
    """For every bar that is not met: what is left to gain at most, as far as a ratio of the same rounds tells it."""
    ratios = {name: value for found in documents for name, value in found["ratios"].items()}
    lines = []
    for suite, bar in ((each, bar) for each in documents for bar in each["bars"] if not bar["met"]):
        start, _, what = bar["name"].rpartition(": ")
        text = f"- {bar['name']}: {bar['value']:.3f}, limit {bar['limit']:.3g}."
        if (least := ratios.get(f"{start}: floor / PEFT LoRA")) is not None and what.endswith("/ PEFT LoRA"):
            text += f" The frozen model's forward pass and the backward pass to its activations alone take {least:.2f}."
            if (above := ratios.get(f"{start}: floor / its operations at the product's rate")) is not None:
                text += f" Their matrix products, at the machine's rate, take {least / above:.2f} of PEFT's whole step."
            text += _beside_torch(start, ratios)
        own = suite["ratios"].get(f"{start}: shared_a later task / floor")
        if own is not None and what.endswith("/ separate LoRA"):
            text += _beside_floor(bar["value"], bar["value"] / own)
        mixed = ratios.get(bar["name"].replace("ours / PEFT", "frozen forward / PEFT"))
        if mixed is not None and what.endswith("ours / PEFT"):
            text += f" The frozen model's forward pass alone takes {mixed:.2f}."
        if what.endswith("whole task / PEFT"):
            text += _above_the_cut(start, suite["results"])
        lines.append(text)
    return lines


def _beside_floor(later: float, floor: float) -> str:
    """What a separate LoRA's step is made of, from what a later task's and the floor take of it."""
    parts = f"the floor takes {floor:.2f}, what both methods add to it {later - floor:.2f}"
    return f" Of a separate LoRA's step {parts}, the gradient of A, which a later task does without, {1 - later:.2f}."


def _above_the_cut(start: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the step that starts from the cache takes of the peer's by itself, the least for any number of passes."""
    median = {row["case"]: row["median_s"] for row in rows if row["case"].startswith(f"{start}: ")}
    alone = median[f"{start}: step with the cache"] / median[f"{start}: LoRA"]
    return f" The step with the cache takes {alone:.2f} by itself, and no number of passes goes below that."


def _beside_torch(start: str, ratios: Mapping[str, float]) -> str:
    """What a model's products take of torch's time for the same ones, where that was measured."""
    own = [(match, value) for name, value in ratios.items() if (match := _PRODUCT.fullmatch(name))]
    own = [(match, value) for match, value in own if start.startswith(f"{match['model']}, ")]
    large, many = ([value for match, value in own if bool(match["many"]) is several] for several in (False, True))
    if not large or not many:
        return ""
    ends = f"{min(many):.2f}" if len(many) == 1 else f"{min(many):.2f} and {max(many):.2f}"
    return f" Of torch's time, XLA takes {max(large):.2f} for the largest product and {ends} for attention's."


_PRODUCT = re.compile(r"products, (?P<model>.+): (?P<many>\d+ of )?[\dx ]+, ours / torch")


def results_table(group: Sequence[dict[str, Any]]) -> str:
    """One group's rows, with a column for each fact that any of them has."""
    facts = [name for name in _FACTS if any(name in row for row in group)]
    titles = ["case", "system", "median", "interquartile", "runs", *(_FACTS[name][0] for name in facts)]
    rows = []
    for row in group:
        late = row.get("not_ended_s")
        times = (seconds(row["median_s"]), seconds(row["iqr_s"])) if late is None else (f"not ended in {late:g} s", "")
        cells = [row["case"].rpartition(": ")[2], row["system"], *times]
        cells.append(str(row["repetitions"]))
        for name in facts:
            _, factor, shape = _FACTS[name]
            cells.append(shape.format(factor * row[name]) if name in row else "")
        rows.append(cells)
    return table(titles, rows, left=(0, 1))


def machines(documents: Sequence[dict[str, Any]]) -> list[str]:
    """What the suites were measured on, each once."""
    found = [each["machine"] for each in documents if "machine" in each]
    return list(dict.fromkeys(f"{machine['processor']}, {machine['threads']} threads" for machine in found))


NO_BFLOAT16 = (
    "A processor may have no products in bfloat16. torch then multiplies by a plain loop, many times slower "
    "than in float32: these figures of PEFT say nothing of other processors."
)


def section(found: dict[str, Any], title: str) -> list[str]:
    """One document's results and ratios, under a title if there is one."""
    lines = [f"## {title}", ""] if title else []
    machine = found.get("machine", {})
    if machine:
        busy = machine.get("processors_busy_with_others")
        others = "" if busy is None else f" Other processes kept {busy:.2f} processors busy meanwhile."
        kept = " Freed memory stays with the process, on both sides." if machine.get("memory_kept") else ""
        minutes = machine["seconds"] / 60
        (where,) = machines([found])
        lines += [f"{found['rounds']} rounds, {minutes:.1f} minutes, {where}.{kept}{others}", ""]
    if "matmul_gflop_per_s" in found:
        rates = found["matmul_gflop_per_s"], found["memory_gb_per_s"]
        lines += [
            "The machine: {:.0f} GFLOP/s in float32 matrix products, {:.1f} GB/s in passes over memory.".format(*rates),
            "",
        ]
    if "compilations" in found:
        each = ", ".join(f"{count} in the {name}" for name, count in found["compilations"].items())
        lines += [f"Programs compiled by `Learner.learn`, by task: {each}.", ""]
    if found["suite"] == "lm" and any("bfloat16" in row["case"] for row in found["results"]):
        lines += [NO_BFLOAT16, ""]
    for name, group in groups_of(found["results"]).items():
        lines += [*([f"**{name}**", ""] if name else []), results_table(group), ""]
    ratios = [(name, f"{value:.3f}") for name, value in found["ratios"].items()]
    return [*lines, table(("ratio", "median of the rounds' ratios"), ratios), ""]


def versions_line(documents: Sequence[dict[str, Any]]) -> str:
    """The packages that the documents were made with."""
    versions: dict[str, Any] = {}
    for found in documents:
        versions |= found["versions"]
    return ", ".join(f"{name} {value}" for name, value in versions.items() if value)


def page(documents: Sequence[dict[str, Any]]) -> str:
    """The page: bars first, then every suite, then the versions.

    Args:
        documents: checked; parts of one suite may have one each.
    """
    ordered = sorted(documents, key=lambda found: SUITES.index(found["suite"]))
    lines = [
        "# Speed",
        "",
        "Written by `python -m experiments.bench page experiments/bench/measured/*.json` from what"
        " `python -m experiments.bench SUITE --peers PYTHON --json experiments/bench/measured/SUITE.json`"
        " measured; change neither by hand.",
        "",
        "Every case is run once per round, ours and the peers' in turn, on the same threads, shapes and weights, each"
        " runtime in its own process and idle while the other runs. A figure is a median over the rounds; a ratio is"
        " the median of the rounds' own ratios. Bars are upper limits of ratios. Compiling is part of no time that is"
        " not named for it: the first call has it.",
        "",
    ]
    if where := machines(ordered):
        several = " Not all suites are of the same machine: each names its own." if len(where) > 1 else ""
        lines += [f"{'; '.join(where)}.{several}", ""]
    lines += ["## Bars", "", bars_table(ordered), ""]
    if not_met := open_lines(ordered):
        lines += ["What is left to gain where a bar is not met:", "", *not_met, ""]
    for place, found in enumerate(ordered):
        again = place > 0 and ordered[place - 1]["suite"] == found["suite"]
        lines += section(found, "" if again else TITLES[found["suite"]])
    for suite in (name for name in SUITES if name not in {found["suite"] for found in ordered}):
        lines += [f"## {TITLES[suite]}", "", f"Not run: `python -m experiments.bench {suite}` measures it.", ""]
    lines += ["## Versions", "", versions_line(ordered)]
    return "\n".join(lines) + "\n"
